"""Conditions, status, finalizers and events: what controllers leave on objects."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleetplane.client.rest import RestClient
from fleetplane.controller.conditions import Condition, with_conditions, without_conditions
from fleetplane.controller.events import EventRecorder
from fleetplane.controller.finalizers import add_finalizer, remove_finalizer
from fleetplane.controller.status import status_difference, update_status
from fleetplane.model.errors import ApiError
from fleetplane.model.objects import Object
from fleetplane.model.resources import ResourceType
from fleetplane.testing.clock import virtually
from fleetplane.testing.environment import EPOCH, SimulatedEnvironment
from fleetplane.testing.memory import MemoryServer

THINGS = ResourceType("example.org", "v1", "Thing", "things")
LATER = EPOCH + timedelta(hours=1)


async def made(client: RestClient, name: str = "a") -> Object:
    return await client.create(
        THINGS, {"apiVersion": "example.org/v1", "kind": "Thing", "metadata": {"name": name}}, "n"
    )


# -- conditions


def test_setting_what_holds_changes_nothing() -> None:
    ready = Condition("Ready", True, "AllGood", "everything runs")
    first = with_conditions([], [ready], now=EPOCH, generation=3)

    assert with_conditions(first, [ready], now=LATER, generation=3) == first


def test_a_new_reason_keeps_the_time_a_new_status_moves_it() -> None:
    first = with_conditions([], [Condition("Ready", True, "A")], now=EPOCH)
    reason = with_conditions(first, [Condition("Ready", True, "B")], now=LATER)
    status = with_conditions(first, [Condition("Ready", "Unknown", "C")], now=LATER)

    assert reason[0]["lastTransitionTime"] == "2026-01-01T00:00:00Z"
    assert status[0]["lastTransitionTime"] == "2026-01-01T01:00:00Z"
    assert status[0]["status"] == "Unknown"


def test_other_conditions_and_the_order_stay() -> None:
    existing: list[Object] = [{"type": "Theirs", "status": "True", "extra": 1}, {"type": "Ready", "status": "False"}]

    result = with_conditions(existing, [Condition("Ready", True, "A"), Condition("New", False, "B")], now=EPOCH)

    assert [one["type"] for one in result] == ["Theirs", "Ready", "New"]
    assert result[0] == existing[0]
    assert [one["type"] for one in without_conditions(result, "Ready")] == ["Theirs", "New"]


# -- status

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(0, 3) | st.text(max_size=2) | st.lists(st.integers(0, 2), max_size=2),
    lambda inner: st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=150)
@given(
    current=st.dictionaries(st.sampled_from("abc"), JSON.filter(lambda v: v is not None), max_size=3),
    wanted=st.dictionaries(st.sampled_from("abc"), JSON, max_size=3),
)
def test_a_difference_makes_what_is_wanted_hold_and_is_then_empty(current: Object, wanted: Object) -> None:
    patched = merge_patched(current, status_difference(current, wanted))

    assert status_difference(patched, wanted) == {}
    assert {key: value for key, value in patched.items() if key not in wanted} == {
        key: value for key, value in current.items() if key not in wanted
    }


def merge_patched(target: Object, patch: Object) -> Object:
    """RFC 7386."""
    result = dict(target)
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        elif isinstance(value, dict):
            known = result.get(key)
            result[key] = merge_patched(known if isinstance(known, dict) else {}, value)
        else:
            result[key] = value
    return result


@virtually
async def test_status_is_written_only_when_it_changes() -> None:
    server = MemoryServer(SimulatedEnvironment())
    client = server.client()
    obj = await made(client)
    obj = await update_status(client, THINGS, obj, {"phase": "Running", "n": 1})
    before = len(server.requests)

    same = await update_status(client, THINGS, obj, {"phase": "Running"})

    assert len(server.requests) == before
    assert same["status"] == {"phase": "Running", "n": 1}


@virtually
async def test_a_conflict_computes_the_difference_anew() -> None:
    client = MemoryServer(SimulatedEnvironment()).client()
    stale = await made(client)
    await client.patch(THINGS, "a", {"status": {"count": 5}}, "n", subresource="status")

    written = await update_status(client, THINGS, stale, lambda now: {"count": int(now.get("count") or 0) + 1})

    assert written["status"] == {"count": 6}


@virtually
async def test_the_status_of_an_object_that_was_made_anew_is_not_ours() -> None:
    client = MemoryServer(SimulatedEnvironment()).client()
    old = await made(client)
    await client.delete(THINGS, "a", "n")
    await made(client)

    with pytest.raises(ApiError) as caught:
        await update_status(client, THINGS, old, {"phase": "Running"})

    assert caught.value.code == 404


# -- finalizers


@virtually
async def test_a_finalizer_keeps_an_object_until_it_is_taken_off() -> None:
    server = MemoryServer(SimulatedEnvironment())
    client = server.client()
    obj = await add_finalizer(client, THINGS, await made(client), "example.org/clean")
    assert (await add_finalizer(client, THINGS, obj, "example.org/clean")) is obj
    await client.delete(THINGS, "a", "n")
    stale = obj

    assert len(server.objects) == 1
    await remove_finalizer(client, THINGS, stale, "example.org/clean")
    assert len(server.objects) == 0
    await remove_finalizer(client, THINGS, stale, "example.org/clean")


@virtually
async def test_others_finalizers_stay_when_ours_is_added_to_a_stale_object() -> None:
    client = MemoryServer(SimulatedEnvironment()).client()
    stale = await made(client)
    await add_finalizer(client, THINGS, stale, "other.org/x")

    obj = await add_finalizer(client, THINGS, stale, "example.org/clean")

    assert obj["metadata"]["finalizers"] == ["other.org/x", "example.org/clean"]


@virtually
async def test_what_is_being_deleted_gets_no_new_finalizer() -> None:
    client = MemoryServer(SimulatedEnvironment()).client()
    await add_finalizer(client, THINGS, await made(client), "other.org/x")
    going = await client.delete(THINGS, "a", "n")

    assert (await add_finalizer(client, THINGS, going, "example.org/clean")) is going


# -- events


def events(server: MemoryServer) -> list[Object]:
    return [obj for key, obj in server.objects.items() if key.resource == "events"]


@virtually
async def test_the_same_event_again_raises_a_count() -> None:
    server, recorder, obj, run = await recording()
    for _ in range(5):
        recorder.warning(obj, "Failed", "no capacity")
        await asyncio.sleep(1)
    recorder.close()
    await run

    (event,) = events(server)
    assert (event["count"], event["reason"], event["type"]) == (5, "Failed", "Warning")
    assert event["involvedObject"]["uid"] == obj["metadata"]["uid"]
    assert event["lastTimestamp"] > event["firstTimestamp"]


@virtually
async def test_many_similar_events_become_one() -> None:
    server, recorder, obj, run = await recording()
    for n in range(20):
        recorder.warning(obj, "Failed", f"attempt {n}")
        await asyncio.sleep(1)
    recorder.close()
    await run

    found = events(server)
    assert len(found) == 10
    combined = next(one for one in found if one["message"].startswith("(combined"))
    assert (combined["message"], combined["count"]) == ("(combined from similar events): attempt 19", 11)


@virtually
async def test_one_object_cannot_fill_the_store() -> None:
    server, recorder, obj, run = await recording()
    for n in range(1000):
        recorder.normal(obj, f"Reason{n}", "x")
    recorder.close()
    await run

    assert len(events(server)) == 25
    assert recorder.dropped == 975


@virtually
async def test_recording_never_fails() -> None:
    server, recorder, obj, run = await recording()
    recorder.normal({"metadata": {"name": "a", "namespace": "no/such"}}, "R", "m")
    recorder.normal(obj, "R", "m")
    recorder.close()
    await run

    assert len(events(server)) == 1


async def recording() -> tuple[MemoryServer, EventRecorder, Object, asyncio.Task[None]]:
    environment = SimulatedEnvironment()
    server = MemoryServer(environment)
    recorder = EventRecorder(server.client(), environment, "tests")
    obj = await made(server.client())
    return server, recorder, obj, asyncio.ensure_future(recorder.run())
