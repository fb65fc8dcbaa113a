"""A kind is declared once: reading, schema, manifest, versions and reference all follow."""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any, Literal

import pytest

from fleetplane.model.builtin.types import PODS
from fleetplane.model.kind import (
    Builtin,
    Column,
    Conversion,
    IntOrString,
    Kind,
    Metadata,
    Rule,
    Scale,
    StatusCondition,
    Versions,
    View,
    crd_manifest,
    docs_of,
    field,
    schema_of,
)
from fleetplane.model.kind.fields import FieldInfo
from fleetplane.model.objects import Object
from fleetplane.model.quantity import Quantity
from fleetplane.model.resources import ResourceRef, resource_of
from fleetplane.model.schema import check_structural


class Tone(StrEnum):
    KIND = "Kind"
    LOUD = "Loud"


class Target(View):
    """Who is greeted."""

    name: str = field(doc="A name.", min_length=1)
    port: IntOrString = 80


class GreetingSpec(View, rules=[Rule("self.times < 10 || self.tone != 'Loud'", message="too loud")]):
    text: str = field(doc="What to say.", max_length=100, index=True, column="Text")
    times: int = field(default=1, doc="How often.", minimum=1, maximum=10, column="Times")
    tone: Tone = Tone.KIND
    mood: Literal["good", "bad"] | None = None
    cpu: Quantity | None = None
    targets: list[Target] = field(default_factory=list, list_map_keys=["name"])
    hosts: list[Annotated[str, field(max_length=253)]] = field(default_factory=list, list_type="set")
    labels: dict[str, str] = field(default_factory=dict)
    template: Annotated[Object, Builtin("io.k8s.api.core.v1.PodTemplateSpec")] = field(default_factory=dict)
    site: str | None = field(default=None, immutable=True)
    from_: str | None = None
    anything: Any = None


class GreetingStatus(View):
    said: int = 0
    last_said: datetime | None = None
    conditions: list[StatusCondition] = field(default_factory=list, list_map_keys=["type"])


class Greeting(
    Kind,
    group="example.org",
    version="v1",
    short_names=("gr",),
    categories=("all",),
    columns=[Column("Said", ".status.said", "integer", priority=1)],
    scale=Scale(".spec.times", ".status.said"),
    home="edge",
):
    """Says something,
    several times."""

    spec: GreetingSpec
    status: GreetingStatus = field(default_factory=lambda: GreetingStatus.view({}))


DATA: Object = {
    "apiVersion": "example.org/v1",
    "kind": "Greeting",
    "metadata": {"name": "hello", "namespace": "n", "uid": "1", "generation": 3, "labels": {"a": "b"}},
    "spec": {
        "text": "hi",
        "tone": "Loud",
        "cpu": "500m",
        "targets": [{"name": "eve", "port": "http", "unknown": 1}],
        "from": "adam",
        "unknown": {"kept": True},
    },
    "status": {
        "lastSaid": "2026-01-01T00:00:00Z",
        "conditions": [
            {"type": "Ready", "status": "True", "reason": "Ok", "lastTransitionTime": "2026-01-01T00:00:00Z"}
        ],
    },
}


# -- reading


def test_reading_converts_and_fills_in_what_is_absent() -> None:
    greeting = Greeting.view(DATA)
    spec = greeting.spec

    assert (greeting.name, greeting.namespace, greeting.uid, greeting.generation) == ("hello", "n", "1", 3)
    assert (spec.text, spec.times, spec.tone, spec.mood) == ("hi", 1, Tone.LOUD, None)
    assert spec.cpu == Quantity.parse("0.5")
    assert (spec.targets[0].name, spec.targets[0].port) == ("eve", "http")
    assert (spec.hosts, spec.labels, spec.from_) == ([], {}, "adam")
    assert greeting.status.last_said == datetime(2026, 1, 1, tzinfo=UTC)
    assert greeting.status.conditions[0].type == "Ready"
    assert not greeting.is_deleting


def test_a_view_copies_nothing_and_loses_nothing() -> None:
    greeting = Greeting.view(DATA)

    assert greeting.object is DATA
    assert greeting.spec.object is DATA["spec"]
    assert greeting.spec.object["unknown"] == {"kept": True}


def test_a_view_cannot_be_changed() -> None:
    spec = Greeting.view(DATA).spec

    with pytest.raises(AttributeError, match="apply or patch"):
        spec.text = "other"  # type: ignore[misc]
    with pytest.raises(AttributeError, match="apply or patch"):
        spec.other = "x"  # type: ignore[attr-defined]


def test_what_is_required_and_missing_is_named() -> None:
    with pytest.raises(AttributeError, match="GreetingSpec has no text, which is required"):
        _ = Greeting.view({}).spec.text


# -- writing


def test_the_constructor_makes_plain_data() -> None:
    greeting = Greeting(
        metadata=Metadata(name="hello"),
        spec=GreetingSpec(text="hi", tone=Tone.LOUD, cpu=Quantity.parse("1"), targets=[Target(name="eve")], from_="x"),
    )

    assert greeting.object == {
        "apiVersion": "example.org/v1",
        "kind": "Greeting",
        "metadata": {"name": "hello"},
        "spec": {"text": "hi", "tone": "Loud", "cpu": "1", "targets": [{"name": "eve"}], "from": "x"},
    }


def test_the_constructor_knows_its_fields() -> None:
    with pytest.raises(TypeError, match="needs text"):
        GreetingSpec()  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="no field volume"):
        GreetingSpec(text="x", volume=3)  # type: ignore[call-arg]


def test_equal_data_makes_equal_views() -> None:
    assert Target(name="a") == Target.view({"name": "a"})
    assert Target(name="a") != Target(name="b")


def test_a_kind_is_a_resource() -> None:
    refs: list[ResourceRef] = [Greeting, PODS]

    assert [resource_of(ref).path("n", "x") for ref in refs] == [
        "/apis/example.org/v1/namespaces/n/greetings/x",
        "/api/v1/namespaces/n/pods/x",
    ]


# -- schema


def test_the_schema_says_what_the_class_says() -> None:
    schema = schema_of(Greeting)
    spec = schema["properties"]["spec"]
    of = spec["properties"]

    assert schema["description"] == "Says something, several times."
    assert schema["required"] == ["spec"]
    assert schema["properties"]["metadata"] == {"type": "object"}
    assert spec["required"] == ["text"]
    assert spec["x-kubernetes-validations"] == [
        {"rule": "self.times < 10 || self.tone != 'Loud'", "message": "too loud"}
    ]
    assert of["text"] == {"type": "string", "description": "What to say.", "maxLength": 100}
    assert of["times"] == {
        "type": "integer",
        "format": "int64",
        "description": "How often.",
        "minimum": 1,
        "maximum": 10,
        "default": 1,
    }
    assert of["tone"] == {"type": "string", "enum": ["Kind", "Loud"], "default": "Kind"}
    assert of["targets"]["x-kubernetes-list-type"] == "map"
    assert of["targets"]["items"]["properties"]["port"]["x-kubernetes-int-or-string"] is True
    assert of["hosts"] == {
        "type": "array",
        "items": {"type": "string", "maxLength": 253},
        "x-kubernetes-list-type": "set",
    }
    assert of["site"]["x-kubernetes-validations"][0]["rule"] == "self == oldSelf"
    assert of["from"] == {"type": "string"}
    assert of["anything"] == {"x-kubernetes-preserve-unknown-fields": True}


def test_a_limit_of_zero_is_a_limit() -> None:
    class Zero(View):
        n: int = field(minimum=0)

    assert Zero.object_schema(lambda _: {})["properties"]["n"]["minimum"] == 0


def test_an_empty_default_is_only_read() -> None:
    class Empty(View):
        text: str = ""

    assert Empty.object_schema(lambda _: {})["properties"]["text"] == {"type": "string"}
    assert Empty.view({}).text == ""


def test_an_embedded_built_in_type_is_written_out_in_structural_form() -> None:
    template = schema_of(Greeting)["properties"]["spec"]["properties"]["template"]
    container = template["properties"]["spec"]["properties"]["containers"]["items"]

    assert "image" in container["properties"]
    assert container["properties"]["ports"]["items"]["properties"]["protocol"]["default"] == "TCP"
    assert container["properties"]["resources"]["properties"]["limits"]["additionalProperties"][
        "x-kubernetes-int-or-string"
    ]


def test_the_schema_is_structural() -> None:
    assert check_structural(schema_of(Greeting)) == []


# -- manifest


def test_the_manifest_has_names_columns_indexes_and_subresources() -> None:
    crd = crd_manifest(Greeting)
    (version,) = crd["spec"]["versions"]

    assert crd["metadata"]["name"] == "greetings.example.org"
    assert crd["metadata"]["annotations"] == {"fleetplane.io/home": "edge"}
    assert crd["spec"]["names"] == {
        "kind": "Greeting",
        "listKind": "GreetingList",
        "plural": "greetings",
        "singular": "greeting",
        "shortNames": ["gr"],
        "categories": ["all"],
    }
    assert version["subresources"] == {
        "status": {},
        "scale": {"specReplicasPath": ".spec.times", "statusReplicasPath": ".status.said"},
    }
    assert version["selectableFields"] == [{"jsonPath": ".spec.text"}]
    assert [(one["name"], one["jsonPath"], one["type"]) for one in version["additionalPrinterColumns"]] == [
        ("Text", ".spec.text", "string"),
        ("Times", ".spec.times", "integer"),
        ("Said", ".status.said", "integer"),
        ("Age", ".metadata.creationTimestamp", "date"),
    ]


@pytest.mark.parametrize(
    ("kind", "plural"),
    [("Policy", "policies"), ("Gateway", "gateways"), ("Class", "classes"), ("Box", "boxes"), ("Site", "sites")],
)
def test_plurals_are_regular(kind: str, plural: str) -> None:
    made: Any = type(kind, (Kind,), {}, group="example.org", version="v1")

    assert made.resource.plural == plural


# -- versions


class OldSpec(View):
    words: str


class GreetingV1Alpha1(Kind, group="example.org", version="v1alpha1", name="Greeting", deprecated="use v1"):
    spec: OldSpec


def up(obj: Object) -> Object:
    spec = dict(obj["spec"])
    spec["text"] = spec.pop("words")
    return {**obj, "spec": spec}


def down(obj: Object) -> Object:
    spec = dict(obj["spec"])
    spec["words"] = spec.pop("text")
    return {**obj, "spec": spec}


VERSIONS = Versions(Greeting, (Conversion(GreetingV1Alpha1, up, down),))


def test_versions_are_converted_through_the_hub() -> None:
    old = {"apiVersion": "example.org/v1alpha1", "kind": "Greeting", "metadata": {"name": "a"}, "spec": {"words": "hi"}}

    new = VERSIONS.convert(old, "v1")

    assert (new["apiVersion"], new["spec"]) == ("example.org/v1", {"text": "hi"})
    assert VERSIONS.convert(new, "v1alpha1") == old
    assert VERSIONS.convert(old, "v1alpha1") == old
    with pytest.raises(KeyError, match="no version v3"):
        VERSIONS.convert(old, "v3")


def test_the_manifest_of_several_versions_stores_the_hub() -> None:
    versions = crd_manifest(VERSIONS)["spec"]["versions"]

    assert [(one["name"], one["storage"], one.get("deprecationWarning")) for one in versions] == [
        ("v1", True, None),
        ("v1alpha1", False, "use v1"),
    ]


def test_versions_belong_together() -> None:
    class Other(Kind, group="example.org", version="v2"):
        spec: OldSpec

    with pytest.raises(ValueError, match="not another version"):
        Versions(Greeting, (Conversion(Other, up, down),))
    with pytest.raises(ValueError, match="twice"):
        Versions(Greeting, (Conversion(Greeting, up, down),))


# -- reference


def test_the_reference_names_every_field_and_opens_no_built_in() -> None:
    page = {one.path: one for one in docs_of(Greeting)}

    assert page["spec.times"].doc == "How often."
    assert page["spec.times"].default == 1
    assert page["spec.times"].limits == ("at least 1", "at most 10", "int64")
    assert page["spec.targets"].type == "list of object"
    assert page["spec.targets[].name"].required
    assert page["spec.tone"].limits == ("one of Kind, Loud",)
    assert page["spec.template"].type == "PodTemplateSpec"
    assert not any(path.startswith("spec.template.") for path in page)


# -- mistakes


@pytest.mark.parametrize("annotation", [int | str, dict[int, str], set, complex])
def test_a_type_with_no_place_in_an_api_is_refused(annotation: Any) -> None:
    bad: Any = type("Bad", (View,), {"__annotations__": {"x": annotation}})

    with pytest.raises(TypeError):
        bad.object_schema(lambda _: {})


def test_a_default_and_a_factory_exclude_each_other() -> None:
    with pytest.raises(TypeError, match="not both"):
        field(default=1, default_factory=list)


def test_field_and_its_record_agree() -> None:
    import inspect
    from dataclasses import fields

    assert list(inspect.signature(field).parameters) == [one.name for one in fields(FieldInfo)]
