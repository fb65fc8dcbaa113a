from __future__ import annotations

from fleetplane.model.builtin import catalog, definitions
from fleetplane.model.protobuf import supports
from fleetplane.model.protobuf.facts import json_names, message_fields, message_name

REF = "#/components/schemas/"
PLAIN_VALUES = {
    "FieldsV1",
    "IntOrString",
    "JSON",
    "JSONSchemaPropsOrArray",
    "JSONSchemaPropsOrBool",
    "JSONSchemaPropsOrStringArray",
    "MicroTime",
    "Patch",
    "Quantity",
    "RawExtension",
    "Time",
}


def test_every_built_in_kind_and_subresource_kind_has_a_message() -> None:
    kinds = {(one.type.api_version, one.type.kind) for one in catalog()}
    kinds |= {(one.type.api_version, one.type.list_kind) for one in catalog() if "list" in one.verbs}
    for one in catalog():
        kinds |= {("/".join(p for p in (s.group, s.version) if p), s.kind) for s in one.subresources}

    assert {kind for kind in kinds if not supports(*kind)} == set()


def test_the_facts_know_every_field_of_every_schema() -> None:
    differences = {}
    for name in definitions():
        if name.rpartition(".")[2] in PLAIN_VALUES or name.endswith("version.Info"):
            continue
        told = set(definitions()[name].get("properties", {})) - {"apiVersion", "kind"}
        known = json_names(name) - {"apiVersion", "kind"}
        if told - known:
            differences[name] = told - known

    assert differences == {}


def test_numbers_are_unique_within_a_message() -> None:
    for name in definitions():
        numbers = [field.number for field in message_fields(name)]
        assert len(numbers) == len(set(numbers)), name


def test_a_reference_in_a_schema_is_the_same_message_in_the_facts() -> None:
    for name in definitions():
        properties = definitions()[name].get("properties", {})
        for field in message_fields(name):
            ref = properties.get(field.name, {}).get("$ref", "").removeprefix(REF)
            if "." in field.type and ref:
                assert field.type == ref or "networking" in ref or "v1beta" in name or "v2beta" in name, (name, field)


def test_options_are_the_same_message_in_every_group() -> None:
    assert message_name("v1", "DeleteOptions") == message_name("policy/v1", "DeleteOptions")
    assert message_name("meta.k8s.io/v1", "ListOptions") == message_name("v1", "ListOptions")


def test_custom_resources_have_no_message() -> None:
    assert not supports("example.com/v1", "Car")
    assert not supports("", "")
