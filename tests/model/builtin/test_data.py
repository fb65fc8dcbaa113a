from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from fleetplane.model.builtin import definition_name, definitions, kubernetes_version

REF = "#/components/schemas/"


def schemas(schema: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield schema
    for one in schema.get("properties", {}).values():
        yield from schemas(one)
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), dict):
            yield from schemas(schema[key])


def test_definitions_are_a_whole() -> None:
    found = definitions()

    assert len(found) == len(list(found)) > 600
    assert all(name in found for name in found)
    assert "io.k8s.api.core.v1.Nothing" not in found


def test_every_reference_leads_somewhere() -> None:
    found = definitions()
    refs = {one["$ref"] for name in found for one in schemas(found[name]) if "$ref" in one}

    assert {ref for ref in refs if ref.removeprefix(REF) not in found} == set()


def test_types_are_single_and_kinds_are_not_enumerated() -> None:
    found = definitions()
    for name in found:
        for one in schemas(found[name]):
            assert not isinstance(one.get("type"), list)
        assert "enum" not in found[name].get("properties", {}).get("kind", {})


def test_list_types_and_merge_keys_survive() -> None:
    ports = definitions()["io.k8s.api.core.v1.ServiceSpec"]["properties"]["ports"]

    assert ports["x-kubernetes-list-type"] == "map"
    assert ports["x-kubernetes-list-map-keys"] == ["port", "protocol"]
    assert ports["x-kubernetes-patch-merge-key"] == "port"


def test_numbers_that_may_be_text_are_declared_as_both() -> None:
    found = definitions()
    either = found["io.k8s.apimachinery.pkg.util.intstr.IntOrString"]

    assert either["format"] == "int-or-string"
    assert {one["type"] for one in either["oneOf"]} == {"integer", "string"}


@pytest.mark.parametrize(
    "gvk",
    [
        ("", "v1", "Pod"),
        ("", "v1", "PodList"),
        ("", "v1", "Status"),
        ("", "v1", "DeleteOptions"),
        ("autoscaling", "v1", "Scale"),
        ("policy", "v1beta1", "Eviction"),
        ("authentication.k8s.io", "v1", "TokenRequest"),
        ("apiextensions.k8s.io", "v1", "CustomResourceDefinition"),
    ],
)
def test_kinds_find_their_definition(gvk: tuple[str, str, str]) -> None:
    name = definition_name(gvk)

    assert name is not None
    assert definitions()[name]["type"] == "object"


def test_an_unknown_kind_has_no_definition() -> None:
    assert definition_name(("example.com", "v1", "Car")) is None


def test_the_old_ingress_has_its_own_structure() -> None:
    backend = definitions()["io.k8s.api.networking.v1beta1.IngressBackend"]["properties"]

    assert {"serviceName", "servicePort"} <= backend.keys()
    assert "service" not in backend


def test_the_version_is_told() -> None:
    assert kubernetes_version() == "1.37.0"


def test_naming_a_resource_reads_no_data() -> None:
    program = (
        "from fleetplane.model.builtin.types import PODS\n"
        "from fleetplane.model.builtin import data\n"
        "assert data._file.cache_info().currsize == 0, 'the data file was read'\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, env={"PYTHONPATH": ":".join(sys.path)})
