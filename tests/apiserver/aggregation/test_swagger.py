"""What another server's OpenAPI v2 may add to ours."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.apiserver.aggregation.documents import BASE, GADGET, GROUP, META, OWN, VERSION, reference, swagger

from fleetplane.apiserver.aggregation import swagger as module
from fleetplane.apiserver.aggregation.swagger import Unusable, cut, cut_bytes
from fleetplane.model.objects import Object
from fleetplane.model.protobuf.openapi_v2 import encode_document

ONE = f"{BASE}/namespaces/{{namespace}}/gadgets/{{name}}"


def with_gadget(schema: Any) -> Object:
    made = swagger()
    made["definitions"][GADGET] = schema
    return made


def gadget_of(document: Any) -> Any:
    return cut(document, GROUP, VERSION)["definitions"][GADGET]


def test_its_own_paths_and_what_they_need_are_kept() -> None:
    made = cut(swagger(), GROUP, VERSION)

    assert list(made["paths"]) == [ONE]
    assert set(made["definitions"]) == {GADGET, META}


def test_a_path_that_only_begins_alike_is_not_its_own() -> None:
    made = cut(swagger(paths={f"{BASE}beta1/gadgets": {"get": {}}}), GROUP, VERSION)

    assert made == {"paths": {}, "definitions": {}}


def test_it_speaks_for_its_own_kinds_only() -> None:
    assert gadget_of(swagger())["x-kubernetes-group-version-kind"] == [OWN]


def test_parameters_shared_under_a_name_are_put_where_they_are_used() -> None:
    made = cut(swagger(), GROUP, VERSION)

    assert made["paths"][ONE]["parameters"] == [
        {"name": "pretty", "in": "query", "required": False, "type": "string", "uniqueItems": False}
    ]


def test_what_clients_would_stumble_over_is_left_out() -> None:
    spoilt = {
        "type": ["object", "null"],
        "properties": {
            "list": {"type": "array"},
            "number": {"type": "int", "maximum": "many", "minLength": -1},
            "required": {"type": "object", "required": "all"},
        },
        "x-hack": 1,
    }

    assert gadget_of(with_gadget(spoilt)) == {
        "properties": {"list": {"type": "array", "items": {}}, "number": {}, "required": {"type": "object"}}
    }


@pytest.mark.parametrize(
    ("document", "problem"),
    [
        ([], "not an OpenAPI v2"),
        ({"openapi": "3.0.0"}, "not an OpenAPI v2"),
        (with_gadget(None), "which is not there"),
        (with_gadget(reference(META)), "only a reference"),
        (with_gadget({"properties": {"a": reference("Missing")}}), "'Missing', which is not there"),
        (with_gadget({"properties": {"a": {"$ref": "http://elsewhere"}}}), "does not name a definition"),
        (with_gadget({"properties": {"a": {"$ref": 7}}}), "does not name a definition"),
        (with_gadget({"description": "x" * (module.MAX_ADDED + 1)}), "larger than"),
    ],
)
def test_what_cannot_be_made_whole_is_refused(document: Any, problem: str) -> None:
    with pytest.raises(Unusable, match=problem):
        cut(document, GROUP, VERSION)


def test_schemas_are_nested_only_so_deep() -> None:
    deep: Object = {}
    for _ in range(100):
        deep = {"properties": {"a": deep}}

    with pytest.raises(Unusable, match="nested deeper"):
        cut(with_gadget(deep), GROUP, VERSION)


def test_a_parameter_used_a_thousand_times_counts_a_thousand_times() -> None:
    document = swagger(parameters={"pretty": {"name": "pretty", "in": "query", "description": "x" * 10_000}})
    item = document["paths"][ONE]
    document["paths"] |= {f"{BASE}/gadgets{number}": item for number in range(1000)}

    with pytest.raises(Unusable, match="larger than"):
        cut(document, GROUP, VERSION)


@pytest.mark.parametrize("body", [b"", b"{", b"[" * 5000, b'"\\ud800"'])
def test_what_is_no_json_is_refused(body: bytes) -> None:
    with pytest.raises(Unusable):
        cut_bytes(body, GROUP, VERSION)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 1 << 62) | st.floats(allow_nan=False) | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["type", "$ref", "items", "properties", "required", "allOf", "a"]), inner)
    ),
    max_leaves=8,
)


@settings(max_examples=150, deadline=None)
@given(
    where=st.lists(st.sampled_from(["paths", "definitions", "parameters", "get"]), min_size=1, max_size=4), value=_JSON
)
def test_whatever_is_kept_can_be_encoded(where: list[str], value: Any) -> None:
    document = swagger()
    inner: Any = document
    for key in where:
        below = inner.get(key) or next((one for one in inner.values() if isinstance(one, dict)), None)
        if not isinstance(below, dict):
            break
        inner = below
    inner[next(iter(inner))] = value

    try:
        made = orjson.loads(cut_bytes(orjson.dumps(document), GROUP, VERSION))
    except Unusable:
        return

    encode_document(made)
    assert all(path.startswith(BASE) for path in made["paths"])
