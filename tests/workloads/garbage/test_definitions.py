"""What the garbage collector keeps of definitions: enough to follow what they serve, and no schema."""

from __future__ import annotations

import orjson
from hypothesis import given
from hypothesis import strategies as st

from fleetplane.model.objects import Object
from fleetplane.workloads.garbage.definitions import established, without_schemas


def definition(*, is_established: bool, versions: list[Object]) -> bytes:
    status = "True" if is_established else "False"
    return orjson.dumps(
        {
            "apiVersion": "apiextensions.k8s.io/v1",
            "kind": "CustomResourceDefinition",
            "metadata": {"name": "widgets.example.org", "uid": "u", "resourceVersion": "7"},
            "spec": {
                "group": "example.org",
                "scope": "Namespaced",
                "names": {"plural": "widgets", "kind": "Widget", "shortNames": ["w"]},
                "versions": versions,
            },
            "status": {"conditions": [{"type": "Established", "status": status, "reason": "r"}]},
        }
    )


def version(name: str, **more: object) -> Object:
    return {"name": name, "served": True, "schema": {"openAPIV3Schema": {"type": "object"}}, **more}


def test_the_stored_version_is_followed_once_there_is_one() -> None:
    versions = [version("v1beta1"), version("v1", storage=True)]

    found = established(definition(is_established=True, versions=versions))

    assert found is not None
    assert (found.group, found.version, found.kind, found.plural, found.namespaced) == (
        "example.org",
        "v1",
        "Widget",
        "widgets",
        True,
    )
    assert established(definition(is_established=False, versions=versions)) is None


def test_a_served_version_is_followed_where_the_stored_one_is_not_served() -> None:
    versions = [version("v1", storage=True, served=False), version("v2")]

    found = established(definition(is_established=True, versions=versions))

    assert found is not None
    assert found.version == "v2"


@given(st.booleans(), st.lists(st.booleans(), min_size=1, max_size=4))
def test_what_is_kept_says_the_same_and_holds_no_schema(is_established: bool, served: list[bool]) -> None:
    versions = [version(f"v{n}", served=one, storage=n == 0) for n, one in enumerate(served)]
    whole = definition(is_established=is_established, versions=versions)

    kept = without_schemas(whole)

    assert established(kept) == established(whole)
    assert b"openAPIV3Schema" not in kept
    assert orjson.loads(kept)["metadata"] == orjson.loads(whole)["metadata"]
