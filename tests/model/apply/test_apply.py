"""Server-side apply: merging, conflicts, ownership, and letting go."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
from hypothesis import given, settings

from fleetplane.model.apply import FieldFilter, apply, track_update
from fleetplane.model.apply.typed import compare
from fleetplane.model.errors import ApiError
from fleetplane.model.objects import Object

from .kinds import SCHEMA, VERSION, thing
from .test_typed import SPECS

T1, T2, T3 = "2024-01-01T00:00:01Z", "2024-01-01T00:00:02Z", "2024-01-01T00:00:03Z"


def applied(live: Object | None, config: Object, manager: str = "alice", now: str = T1, **options: Any) -> Object:
    return apply(SCHEMA, live, config, manager=manager, now=now, api_version=VERSION, **options)


def updated(old: Object | None, new: Object, manager: str = "bob", now: str = T1, **options: Any) -> Object:
    return track_update(SCHEMA, old, new, manager=manager, now=now, api_version=VERSION, **options)


def owners(obj: Object) -> dict[tuple[str, str], Any]:
    """What each (manager, operation) owns."""
    return {
        (entry["manager"], entry["operation"]): entry["fieldsV1"] for entry in obj["metadata"].get("managedFields", [])
    }


def plain(obj: Object) -> Object:
    obj = deepcopy(obj)
    obj["metadata"].pop("managedFields", None)
    return obj


def test_the_first_apply_creates() -> None:
    config = thing({"replicas": 1, "labels": {"a": "b"}}, labels={"x": "y"})

    obj = applied(None, config)

    assert plain(obj) == config
    assert obj["metadata"]["managedFields"] == [
        {
            "manager": "alice",
            "operation": "Apply",
            "apiVersion": VERSION,
            "time": T1,
            "fieldsType": "FieldsV1",
            "fieldsV1": {
                "f:metadata": {"f:labels": {"f:x": {}}},
                "f:spec": {"f:replicas": {}, "f:labels": {"f:a": {}}},
            },
        }
    ]


def test_applying_twice_changes_nothing() -> None:
    config = thing({"replicas": 1, "ports": [{"port": 80}]})
    once = applied(None, config)

    assert applied(once, config, now=T2) == once


def test_what_is_no_longer_applied_goes() -> None:
    first = thing(
        {
            "replicas": 1,
            "name": "x",
            "labels": {"a": "1", "b": "2"},
            "set": ["a", "b"],
            "ports": [{"port": 1}, {"port": 2, "x": "3"}],
            "inner": {"a": "1"},
        }
    )
    obj = applied(
        applied(None, first), thing({"replicas": 1, "labels": {"b": "2"}, "set": ["b"], "ports": [{"port": 2}]})
    )

    assert obj["spec"] == {"replicas": 1, "labels": {"b": "2"}, "set": ["b"], "ports": [{"port": 2}]}


def test_what_others_own_stays() -> None:
    obj = applied(None, thing({"replicas": 1, "labels": {"a": "1"}}), "alice")
    obj = applied(obj, thing({"labels": {"a": "1", "b": "2"}}), "carol", T2)

    obj = applied(obj, thing(), "alice", T3)

    assert obj["spec"] == {"labels": {"a": "1", "b": "2"}}
    assert owners(obj) == {("carol", "Apply"): {"f:spec": {"f:labels": {"f:a": {}, "f:b": {}}}}}


def test_what_an_update_added_stays() -> None:
    obj = applied(None, thing({"labels": {"a": "1"}, "ports": [{"port": 1}]}))
    changed = deepcopy(obj)
    changed["spec"]["labels"]["b"] = "2"
    changed["spec"]["ports"].append({"port": 2})
    obj = updated(obj, changed, "bob", T2)

    obj = applied(obj, thing({"ports": []}), "alice", T3)

    assert obj["spec"] == {"labels": {"b": "2"}, "ports": [{"port": 2}]}


def test_a_field_of_another_is_a_conflict() -> None:
    obj = updated(None, thing({"replicas": 1}), "kubectl")

    with pytest.raises(ApiError) as caught:
        applied(obj, thing({"replicas": 2}), "alice")

    error = caught.value
    assert error.code == 409
    assert error.reason == "Conflict"
    assert error.message == f'Apply failed with 1 conflict: conflict with "kubectl" using {VERSION}: .spec.replicas'
    assert [(cause.reason, cause.field, cause.detail) for cause in error.causes] == [
        ("FieldManagerConflict", ".spec.replicas", f'conflict with "kubectl" using {VERSION}')
    ]


def test_conflicts_are_grouped_by_manager() -> None:
    obj = updated(None, thing({"replicas": 1, "name": "x"}), "bob")
    obj = applied(obj, thing({"ports": [{"port": 1, "x": "a"}]}), "carol", T2)

    with pytest.raises(ApiError) as caught:
        applied(obj, thing({"replicas": 2, "name": "y", "ports": [{"port": 1, "x": "b"}]}), "alice")

    assert caught.value.message == (
        "Apply failed with 3 conflicts: "
        f'conflicts with "bob" using {VERSION}:\n- .spec.name\n- .spec.replicas\n'
        'conflicts with "carol":\n- .spec.ports[port=1,protocol="TCP"].x'
    )


def test_the_same_value_is_shared_not_a_conflict() -> None:
    obj = updated(None, thing({"replicas": 1}), "bob")

    obj = applied(obj, thing({"replicas": 1}), "alice")

    assert owners(obj)[("alice", "Apply")] == {"f:spec": {"f:replicas": {}}}
    assert "f:replicas" in owners(obj)[("bob", "Update")]["f:spec"]


def test_force_takes_over() -> None:
    obj = updated(None, thing({"replicas": 1, "name": "x"}), "bob")

    obj = applied(obj, thing({"replicas": 2}), "alice", T2, force=True)

    assert obj["spec"] == {"replicas": 2, "name": "x"}
    assert owners(obj) == {
        ("alice", "Apply"): {"f:spec": {"f:replicas": {}}},
        ("bob", "Update"): {"f:spec": {".": {}, "f:name": {}}},
    }


def test_an_object_nobody_tracked_belongs_to_whoever_came_before() -> None:
    live = thing({"replicas": 1, "name": "x"}, uid="u")

    with pytest.raises(ApiError, match=r'conflict with "before-first-apply" using test.io/v1: \.spec\.replicas'):
        applied(live, thing({"replicas": 2}))

    obj = applied(live, thing({"replicas": 1}))
    assert owners(obj)[("before-first-apply", "Update")] == {"f:spec": {".": {}, "f:replicas": {}, "f:name": {}}}


def test_atomic_values_are_owned_as_a_whole() -> None:
    obj = updated(None, thing({"args": ["a"], "selector": {"a": "1"}}), "bob")

    with pytest.raises(ApiError, match=r"2 conflicts.*\n- \.spec\.args\n- \.spec\.selector"):
        applied(obj, thing({"args": ["a", "b"], "selector": {"b": "2"}}))

    obj = applied(obj, thing({"selector": {"b": "2"}}), force=True)
    assert obj["spec"]["selector"] == {"b": "2"}


def test_the_applied_object_carries_no_managed_fields() -> None:
    config = thing({"replicas": 1}, managedFields=[{"manager": "x"}])

    with pytest.raises(ApiError, match=r"metadata\.managedFields must be nil") as caught:
        applied(None, config)

    assert caught.value.code == 400


def test_identity_is_never_owned_and_never_lost() -> None:
    obj = applied(None, thing({"name": "x"}, labels={"a": "b"}, namespace="n", uid="u", generation=1))

    assert owners(obj)[("alice", "Apply")] == {"f:metadata": {"f:labels": {"f:a": {}}}, "f:spec": {"f:name": {}}}

    obj = applied(obj, thing(), now=T2)
    assert plain(obj) == thing(namespace="n", uid="u", generation=1)
    assert owners(obj) == {}


def test_a_subresource_owns_apart_and_only_its_fields() -> None:
    obj = applied(None, thing({"replicas": 1}), fields=FieldFilter.without("status"))
    config = thing({"replicas": 9}) | {"status": {"phase": "up"}}

    obj = applied(obj, config, now=T2, subresource="status", fields=FieldFilter.only("status"))

    entries = obj["metadata"]["managedFields"]
    assert [(one.get("subresource"), one["fieldsV1"]) for one in entries] == [
        (None, {"f:spec": {"f:replicas": {}}}),
        ("status", {"f:status": {"f:phase": {}}}),
    ]


def test_duplicates_in_the_live_object_are_tolerated() -> None:
    live = updated(None, thing({"ports": [{"port": 1, "x": "a"}, {"port": 1, "x": "b"}], "set": ["a", "a"]}), "bob")

    obj = applied(live, thing({"name": "x"}), "alice")

    assert obj["spec"]["ports"] == [{"port": 1, "x": "a"}, {"port": 1, "x": "b"}]
    assert obj["spec"]["set"] == ["a", "a"]


def test_time_changes_when_something_owned_does() -> None:
    obj = applied(None, thing({"replicas": 1}), "alice", T1)
    obj = applied(obj, thing({"name": "x"}), "carol", T2)
    obj = applied(obj, thing({"replicas": 2}), "alice", T3)

    times = {entry["manager"]: entry["time"] for entry in obj["metadata"]["managedFields"]}
    assert times == {"alice": T3, "carol": T2}


def renamed(obj: Object, api_version: str) -> Object | None:
    """Version 2 calls ``spec.name`` ``spec.title``; version 0 is gone."""
    if api_version == "test.io/v0":
        return None
    here, there = ("title", "name") if api_version == VERSION else ("name", "title")
    obj = deepcopy(obj) | {"apiVersion": api_version}
    if here in obj.get("spec", {}):
        obj["spec"][there] = obj["spec"].pop(here)
    return obj


def test_owners_in_other_versions_are_asked_in_their_version() -> None:
    first = deepcopy(thing({"title": "x"})) | {"apiVersion": "test.io/v2"}
    obj = apply(SCHEMA, None, first, manager="bob", now=T1, api_version="test.io/v2")
    live = renamed(obj, VERSION)

    with pytest.raises(ApiError, match=r'conflict with "bob": \.spec\.title'):
        applied(live, thing({"name": "y"}), convert=renamed)

    taken = applied(live, thing({"name": "y"}), convert=renamed, force=True)
    assert owners(taken) == {("alice", "Apply"): {"f:spec": {"f:name": {}}}}


def test_an_applier_may_change_its_version() -> None:
    first = deepcopy(thing({"title": "x", "replicas": 1})) | {"apiVersion": "test.io/v2"}
    live = renamed(apply(SCHEMA, None, first, manager="alice", now=T1, api_version="test.io/v2"), VERSION)

    obj = applied(live, thing({"replicas": 1}), now=T2, convert=renamed)

    assert obj["spec"] == {"replicas": 1}
    (entry,) = obj["metadata"]["managedFields"]
    assert entry["apiVersion"] == VERSION


def test_others_keep_in_their_version_what_an_applier_lets_go() -> None:
    shared = applied(None, thing({"name": "x", "replicas": 1}), "alice")
    there = renamed(shared, "test.io/v2")
    config = deepcopy(thing({"title": "x"})) | {"apiVersion": "test.io/v2"}
    obj = apply(SCHEMA, there, config, manager="bob", now=T2, api_version="test.io/v2", convert=renamed)

    obj = applied(renamed(obj, VERSION), thing(), "alice", T3, convert=renamed)

    assert obj["spec"] == {"name": "x"}


def test_owners_in_versions_that_are_gone_are_forgotten() -> None:
    old = deepcopy(thing({"name": "x"})) | {"apiVersion": "test.io/v0"}
    live = apply(SCHEMA, None, old, manager="bob", now=T1, api_version="test.io/v0") | {"apiVersion": VERSION}

    obj = applied(live, thing({"name": "y"}), convert=renamed)

    assert owners(obj) == {("alice", "Apply"): {"f:spec": {"f:name": {}}}}


def test_depth_is_an_error_not_a_crash() -> None:
    deep: Any = 1
    for _ in range(3000):
        deep = {"a": deep}

    with pytest.raises(ApiError, match="nested deeper"):
        applied(None, thing({"free": deep}))


@given(SPECS, SPECS)
@settings(max_examples=60)
def test_apply_is_idempotent(live: dict[str, Any], spec: dict[str, Any]) -> None:
    before = updated(None, thing(live), "bob")

    once = applied(before, thing(spec), force=True, now=T2)

    assert applied(once, thing(spec), now=T3) == once


@given(SPECS, SPECS)
@settings(max_examples=60)
def test_applying_and_letting_go_adds_and_leaves_nothing(live: dict[str, Any], spec: dict[str, Any]) -> None:
    before = updated(None, thing(live), "bob")
    try:
        between = applied(before, thing(spec), now=T2)
    except ApiError:
        return

    after = applied(between, thing(), now=T3)

    assert compare(SCHEMA, plain(before), plain(after)).is_same
    assert owners(after) == owners(before)


@given(SPECS, SPECS)
@settings(max_examples=60)
def test_every_applier_gets_what_it_applies(live: dict[str, Any], spec: dict[str, Any]) -> None:
    obj = applied(updated(None, thing(live), "bob"), thing(spec), force=True, now=T2)

    missing = compare(SCHEMA, thing(spec), plain(obj))
    assert not missing.modified
    assert not missing.removed
