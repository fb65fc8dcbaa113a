"""Who changed what: managedFields after creates, updates and patches."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleetplane.model.apply import FieldFilter, apply, track_update
from fleetplane.model.errors import ApiError
from fleetplane.model.jsonvalue import MAX_DEPTH, is_too_deep
from fleetplane.model.objects import Object

from .kinds import SCHEMA, VERSION, thing
from .test_typed import SPECS

T1, T2, T3 = "2024-01-01T00:00:01Z", "2024-01-01T00:00:02Z", "2024-01-01T00:00:03Z"


def updated(old: Object | None, new: Object, manager: str = "bob", now: str = T1, **options: Any) -> Object:
    return track_update(SCHEMA, old, new, manager=manager, now=now, api_version=VERSION, **options)


def changed(obj: Object, **spec: Any) -> Object:
    obj = deepcopy(obj)
    obj["spec"] = {name: value for name, value in {**obj["spec"], **spec}.items() if value is not None}
    return obj


def rows(obj: Object) -> list[tuple[str, str, Any]]:
    return [(one["manager"], one["time"], one["fieldsV1"]) for one in obj["metadata"].get("managedFields", [])]


def test_who_creates_owns_everything() -> None:
    new = thing({"replicas": 1, "ports": [{"port": 1}], "selector": {"a": "b"}}, labels={"x": "y"}, uid="u")

    obj = updated(None, new)

    assert "managedFields" not in new["metadata"]
    assert obj["metadata"]["managedFields"] == [
        {
            "manager": "bob",
            "operation": "Update",
            "apiVersion": VERSION,
            "time": T1,
            "fieldsType": "FieldsV1",
            "fieldsV1": {
                "f:metadata": {"f:labels": {".": {}, "f:x": {}}},
                "f:spec": {
                    ".": {},
                    "f:replicas": {},
                    "f:ports": {".": {}, 'k:{"port":1,"protocol":"TCP"}': {".": {}, "f:port": {}}},
                    "f:selector": {},
                },
            },
        }
    ]


def test_who_changes_a_field_takes_it() -> None:
    obj = updated(None, thing({"replicas": 1, "name": "x"}), "alice")

    obj = updated(obj, changed(obj, replicas=2), "bob", T2)

    assert rows(obj) == [
        ("alice", T1, {"f:spec": {".": {}, "f:name": {}}}),
        ("bob", T2, {"f:spec": {"f:replicas": {}}}),
    ]


def test_who_owns_nothing_any_more_vanishes() -> None:
    obj = updated(None, thing({"replicas": 1}), "alice")

    obj = updated(obj, thing(), "bob", T2)

    assert rows(obj) == []
    assert "managedFields" not in obj["metadata"]


def test_a_field_that_is_gone_is_nobodys() -> None:
    obj = updated(None, thing({"replicas": 1, "labels": {"a": "1"}}), "alice")

    obj = updated(obj, changed(obj, labels=None), "bob", T2)

    assert rows(obj) == [("alice", T1, {"f:spec": {".": {}, "f:replicas": {}}})]


def test_nothing_changed_nothing_tracked() -> None:
    obj = updated(None, thing({"replicas": 1, "set": ["a", "b"]}), "alice")

    assert updated(obj, changed(obj, set=["b", "a"]), "bob", T2)["metadata"] == obj["metadata"]


def test_one_manager_has_one_entry_per_operation() -> None:
    obj = apply(SCHEMA, None, thing({"name": "x"}), manager="bob", now=T1, api_version=VERSION)
    obj = updated(obj, changed(obj, replicas=1), "bob", T2)
    obj = updated(obj, changed(obj, args=["a"]), "bob", T3)

    assert rows(obj) == [
        ("bob", T1, {"f:spec": {"f:name": {}}}),
        ("bob", T3, {"f:spec": {"f:replicas": {}, "f:args": {}}}),
    ]


def test_an_update_takes_from_appliers_too() -> None:
    obj = apply(SCHEMA, None, thing({"name": "x", "replicas": 1}), manager="alice", now=T1, api_version=VERSION)

    obj = updated(obj, changed(obj, replicas=2), "bob", T2)

    assert rows(obj) == [("alice", T1, {"f:spec": {"f:name": {}}}), ("bob", T2, {"f:spec": {"f:replicas": {}}})]


def test_status_is_owned_through_its_subresource_only() -> None:
    created = updated(None, thing({"replicas": 1}) | {"status": {"phase": "x"}}, fields=FieldFilter.without("status"))
    assert "f:status" not in rows(created)[0][2]

    new = changed(created, replicas=2) | {"status": {"phase": "up"}}
    obj = updated(created, new, "kubelet", T2, subresource="status", fields=FieldFilter.only("status"))

    assert rows(obj)[1] == ("kubelet", T2, {"f:status": {"f:phase": {}}})
    assert obj["metadata"]["managedFields"][1]["subresource"] == "status"
    assert "f:replicas" in rows(obj)[0][2]["f:spec"]


def test_an_object_nobody_tracked_stays_untracked() -> None:
    old = thing({"replicas": 1}, uid="u")

    assert rows(updated(old, changed(old, replicas=2))) == []


def test_clients_may_edit_managed_fields() -> None:
    obj = updated(None, thing({"replicas": 1, "name": "x"}), "alice")
    edited = deepcopy(obj)
    edited["metadata"]["managedFields"][0]["fieldsV1"] = {"f:spec": {"f:name": {}}}

    assert rows(updated(obj, edited, "bob", T2)) == [("alice", T1, {"f:spec": {"f:name": {}}})]

    cleared = deepcopy(obj)
    cleared["metadata"]["managedFields"] = [{}]
    assert rows(updated(obj, cleared, "bob", T2)) == []


@pytest.mark.parametrize(
    "managed",
    [
        None,
        [],
        "x",
        [1],
        [{"manager": "x", "operation": "Steal", "fieldsV1": {}}],
        [{"manager": "x", "operation": "Apply", "fieldsType": "FieldsV2"}],
        [{"manager": "x", "operation": "Apply", "fieldsV1": {"spec": {}}}],
    ],
)
def test_managed_fields_that_make_no_sense_are_ignored(managed: Any) -> None:
    obj = updated(None, thing({"replicas": 1}), "alice")
    edited = deepcopy(obj)
    edited["metadata"]["managedFields"] = managed

    assert rows(updated(obj, edited, "bob", T2)) == rows(obj)
    assert [row[0] for row in rows(updated(None, edited, "carol"))] == ["carol"]


def test_a_subresource_cannot_edit_managed_fields() -> None:
    obj = updated(None, thing({"replicas": 1}), "alice")
    edited = deepcopy(obj)
    edited["metadata"]["managedFields"] = [{}]

    assert rows(updated(obj, edited, "bob", T2, subresource="status")) == rows(obj)


def test_old_updates_are_merged_when_there_are_too_many() -> None:
    obj = updated(None, thing({"labels": {}}), "creator", "2024-01-01T00:00:00Z")
    for n in range(20):
        labels = {**obj["spec"]["labels"], f"l{n}": "x"}
        obj = updated(obj, changed(obj, labels=labels), f"m{n}", f"2024-01-01T00:01:{n:02}Z")

    managers = [row[0] for row in rows(obj)]
    assert len(managers) == 10
    assert managers[0] == "ancient-changes"
    assert managers[-1] == "m19"
    owned = {name for row in rows(obj) for name in row[2]["f:spec"].get("f:labels", {})}
    assert owned - {"."} == {f"f:l{n}" for n in range(20)}


def test_atomic_fields_that_were_granular_are_taken_whole() -> None:
    obj = updated(None, thing({"selector": {"a": "1"}}), "bob")
    obj["metadata"]["managedFields"][0]["fieldsV1"] = {"f:spec": {"f:selector": {"f:a": {}}}}

    obj = updated(obj, changed(obj, selector={"a": "2"}), "carol", T2)

    assert rows(obj) == [("carol", T2, {"f:spec": {"f:selector": {}}})]


def test_depth_is_an_error_not_a_crash() -> None:
    deep: Any = 1
    for _ in range(3000):
        deep = {"a": deep}

    with pytest.raises(ApiError, match="nested deeper"):
        updated(None, thing({"free": deep}))


def test_an_object_as_deep_as_allowed_can_be_tracked_and_written() -> None:
    deep: Any = 1
    for _ in range(MAX_DEPTH - 2):
        deep = {"a": deep}

    obj = updated(None, thing({"free": deep}))

    assert not is_too_deep(obj["spec"], MAX_DEPTH)
    assert orjson.loads(orjson.dumps(obj)) == obj


def owned_paths(obj: Object) -> set[tuple[str, ...]]:
    from fleetplane.model.apply.fieldset import paths

    return {path for row in rows(obj) for path in paths(row[2])}


@given(st.lists(st.tuples(SPECS, st.sampled_from(["a", "b", "c"])), min_size=2, max_size=5))
@settings(max_examples=60)
def test_after_any_history_exactly_what_exists_is_owned(history: list[tuple[dict[str, Any], str]]) -> None:
    obj: Object | None = None
    for n, (spec, manager) in enumerate(history):
        new = thing(spec) if obj is None else thing(spec, managedFields=obj["metadata"].get("managedFields", []))
        obj = updated(obj, new, manager, f"2024-01-01T00:00:0{n}Z")

    assert obj is not None
    fresh = updated(None, thing(history[-1][0]))
    assert owned_paths(obj) == owned_paths(fresh)


@given(SPECS, SPECS)
@settings(max_examples=60)
def test_no_field_has_two_updaters(one: dict[str, Any], other: dict[str, Any]) -> None:
    obj = updated(None, thing(one), "a")
    obj = updated(obj, thing(other, managedFields=obj["metadata"].get("managedFields", [])), "b", T2)

    from fleetplane.model.apply.fieldset import paths

    owned = [path for row in rows(obj) for path in paths(row[2])]
    assert len(owned) == len(set(owned))
