from __future__ import annotations

import base64
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fleetplane.model.builtin import catalog, definitions
from fleetplane.model.protobuf import EncodeError, decode, encode
from fleetplane.model.protobuf.facts import META, json_names

NEWEST = [one for one in catalog() if "beta" not in one.type.version]

REF = "#/components/schemas/"
SCHEMA = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1."

texts = st.sampled_from(["a", "web", "é", "10.0.0.1", "x" * 130])
times = st.sampled_from(["2026-11-20T10:11:12Z", "1969-12-31T23:59:59Z", "2000-02-29T00:00:00Z"])
micro_times = st.sampled_from(["2026-11-20T10:11:12.000001Z", "1999-12-31T23:59:59.999999Z"])
quantities = st.sampled_from(["1", "500m", "10Gi"])
json_values = st.sampled_from([{"a": [1, None, "b"]}, {"kind": "Car", "apiVersion": "x/v1"}])


def objects(name: str, depth: int = 0) -> st.SearchStrategy[Any]:
    special = _SPECIAL.get(name.rpartition(".")[2])
    if special is not None:
        return special
    if name.startswith(SCHEMA + "JSONSchemaPropsOr"):
        return objects(SCHEMA + "JSONSchemaProps", depth)
    known = json_names(name)
    properties = {k: v for k, v in definitions()[name].get("properties", {}).items() if k in known}
    if depth > 5:
        properties = {k: v for k, v in properties.items() if "$ref" not in str(v)}
    fields = {key: _later(of, depth + 1) for key, of in properties.items()}
    if not fields:
        return st.just({})
    keys = st.lists(st.sampled_from(sorted(fields)), unique=True, max_size=4 if depth else 6)
    return keys.flatmap(lambda chosen: st.fixed_dictionaries({key: fields[key] for key in chosen}))


def _later(schema: dict[str, Any], depth: int) -> st.SearchStrategy[Any]:
    return st.deferred(lambda: _value(schema, depth))


def _value(schema: dict[str, Any], depth: int) -> st.SearchStrategy[Any]:
    if "$ref" in schema:
        return objects(schema["$ref"].removeprefix(REF), depth)
    match schema.get("type"):
        case "array":
            return st.lists(_value(schema["items"], depth), min_size=1, max_size=2)
        case "object" if isinstance(schema.get("additionalProperties"), dict):
            return st.dictionaries(texts, _value(schema["additionalProperties"], depth), min_size=1, max_size=2)
        case "boolean":
            return st.just(True)
        case "integer" if schema.get("format") == "int64":
            return st.sampled_from([1, -1, 1 << 40, -(1 << 63)])
        case "integer":
            return st.sampled_from([1, 127, 128, -1, (1 << 31) - 1, -(1 << 31)])
        case "number":
            return st.sampled_from([1, 0.5, -2.25])
        case "string" if schema.get("format") == "byte":
            return st.binary(min_size=1, max_size=9).map(lambda raw: base64.b64encode(raw).decode())
        case "string":
            return texts
        case other:
            raise AssertionError(f"no strategy for {other}: {schema}")


_SPECIAL = {
    "Time": times,
    "MicroTime": micro_times,
    "Quantity": quantities,
    "IntOrString": st.sampled_from([80, -1, "web", "50%"]),
    "RawExtension": json_values,
    "FieldsV1": json_values,
    "JSON": st.sampled_from([1, "a", [], {"a": None}, False]),
}


def roundtrip(obj: dict[str, Any]) -> dict[str, Any]:
    return decode(encode(obj))


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_what_is_encoded_is_decoded_again(data: st.DataObject) -> None:
    resource = data.draw(st.sampled_from(NEWEST), "resource")
    content = data.draw(objects(resource.definition), "content")
    obj = {"apiVersion": resource.type.api_version, "kind": resource.type.kind} | content

    assert roundtrip(obj) == obj


@pytest.mark.parametrize("kind", ["DeleteOptions", "ListOptions", "Status", "APIGroupList", "CreateOptions"])
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_meta_kinds_survive(kind: str, data: st.DataObject) -> None:
    if kind in ("ListOptions", "CreateOptions"):
        content: dict[str, Any] = {"fieldManager": "me"} if kind == "CreateOptions" else {"labelSelector": "a=b"}
    else:
        content = data.draw(objects(META + kind))
    obj = {"apiVersion": "v1", "kind": kind} | content

    assert roundtrip(obj) == obj


def test_a_pointer_tells_zero_and_a_plain_field_does_not() -> None:
    obj = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "spec": {"replicas": 0, "paused": False, "minReadySeconds": 0},
    }

    assert roundtrip(obj)["spec"] == {"replicas": 0}


def test_required_numbers_are_told_even_when_zero() -> None:
    status = {"disruptionsAllowed": 0, "currentHealthy": 0, "desiredHealthy": 0, "expectedPods": 0}
    obj = {"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "status": status}

    assert roundtrip(obj) == obj


def test_lists_carry_their_items_without_kinds() -> None:
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}}
    listed = {"apiVersion": "v1", "kind": "PodList", "metadata": {"resourceVersion": "5"}, "items": [pod]}

    assert roundtrip(listed) == listed | {"items": [{"metadata": {"name": "a"}}]}


def test_fields_of_inlined_structures_stand_in_their_parent() -> None:
    volume = {"name": "v", "configMap": {"name": "c", "optional": True}}
    obj = {"apiVersion": "v1", "kind": "Pod", "spec": {"containers": [], "volumes": [volume]}}

    assert roundtrip(obj)["spec"]["volumes"] == [volume]


def test_either_a_schema_or_something_else() -> None:
    schema = {
        "items": {"type": "string"},
        "additionalProperties": False,
        "dependencies": {"a": ["b"]},
        "default": {"x": 0},
        "x-kubernetes-validations": [{"rule": "self > 1"}],
    }
    version = {"name": "v1", "served": True, "storage": False, "schema": {"openAPIV3Schema": schema}}
    obj = {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "spec": {"versions": [version], "names": {"plural": "cars", "kind": "Car"}},
    }

    assert roundtrip(obj)["spec"]["versions"] == [version]


def test_times_are_told_in_utc() -> None:
    obj = {"apiVersion": "v1", "kind": "Pod", "metadata": {"creationTimestamp": "2026-01-01T02:00:00+02:00"}}

    assert roundtrip(obj)["metadata"] == {"creationTimestamp": "2026-01-01T00:00:00Z"}


def test_fields_the_kind_does_not_have_are_left_out() -> None:
    obj = {"apiVersion": "v1", "kind": "ConfigMap", "colour": "red", "data": {"a": "b"}}

    assert roundtrip(obj) == {"apiVersion": "v1", "kind": "ConfigMap", "data": {"a": "b"}}


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"replicas": "3"}, "replicas: a whole number of 32 bits is needed"),
        ({"replicas": 1 << 40}, "replicas: a whole number of 32 bits is needed"),
        ({"paused": 1}, "paused: true or false is needed, not int"),
        ({"selector": []}, "selector: an object is needed for LabelSelector, not list"),
        ({"template": {"spec": {"containers": {}}}}, "template: spec: containers: a list is needed, not dict"),
    ],
)
def test_a_value_of_the_wrong_type_is_refused_with_its_path(spec: dict[str, Any], message: str) -> None:
    with pytest.raises(EncodeError, match=message):
        encode({"apiVersion": "apps/v1", "kind": "Deployment", "spec": spec})


def test_a_custom_resource_is_refused() -> None:
    with pytest.raises(EncodeError, match="has no protobuf form"):
        encode({"apiVersion": "example.com/v1", "kind": "Car"})
