"""Positions in long lists, against a sorted list."""

from __future__ import annotations

import asyncio
from bisect import bisect_right

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from fleetplane.store.hub import Hub
from fleetplane.store.protocol import Event, Key, Record, Selection, TermMatch
from fleetplane.store.ranks import Ranks

PODS = Selection("", "pods", "root")
WEB = Selection("", "pods", "root", matches=(TermMatch("app", "web"),))


class Shelf:
    """Objects in order, as the database would tell of them; it counts what it had to look at."""

    def __init__(self) -> None:
        self.objects: dict[Key, Record] = {}
        self.revision = 0
        self.looked_at = 0
        self.hub = Hub(0)
        self.ranks = Ranks(self, self.hub, bucket=4)

    def keys(self, selection: Selection) -> list[Key]:
        return sorted(
            key
            for key, record in self.objects.items()
            if all((match.name, match.value) in record.terms for match in selection.matches)
        )

    def key_at(self, selection: Selection, offset: int, after: Key | None = None) -> Key | None:
        keys = self.keys(selection)
        at = offset + (bisect_right(keys, after) if after else 0)
        self.looked_at += offset
        return keys[at] if at < len(keys) else None

    def count_between(self, selection: Selection, after: Key | None, upto: Key | None, enough: int) -> int:
        keys = self.keys(selection)
        start = bisect_right(keys, after) if after else 0
        end = bisect_right(keys, upto) if upto else len(keys)
        found = end - start if enough < 0 else min(end - start, enough)
        self.looked_at += found
        return found

    def write(self, name: str, *, web: bool = False, delete: bool = False) -> None:
        key = Key("root", "", "pods", "x", name)
        previous = self.objects.pop(key, None)
        if delete and previous is None:
            return
        self.revision += 1
        record = Record(key, "u", self.revision, 1, "", b"", (("app", "web"),) if web else ())
        if not delete:
            self.objects[key] = record
        event = Event(delete, previous if delete and previous else record, previous)
        event.record.revision = self.revision
        self.hub.publish([event], self.revision)
        self.ranks.follow([event])


async def check(shelf: Shelf, selection: Selection) -> None:
    keys = shelf.keys(selection)
    await shelf.ranks.prepare(selection)
    assert shelf.ranks.count(selection) == len(keys)
    assert [shelf.ranks.key_at(selection, at) for at in range(len(keys) + 2)] == [*keys, None, None]
    assert [shelf.ranks.remaining(selection, key, shelf.revision) for key in keys] == list(range(len(keys)))[::-1]


steps = st.lists(
    st.tuples(st.integers(0, 60), st.sampled_from(["write", "web", "delete", "look"])), min_size=10, max_size=150
)


@given(steps)
@settings(max_examples=60, deadline=None)
def test_positions_are_those_of_the_sorted_list(changes: list[tuple[int, str]]) -> None:
    async def run() -> None:
        shelf = Shelf()
        for number in range(0, 40, 2):
            shelf.write(f"{number:02}", web=number % 4 == 0)
        for number, what in changes:
            if what == "look":
                await check(shelf, PODS)
                await check(shelf, WEB)
            else:
                shelf.write(f"{number:02}", web=what == "web", delete=what == "delete")
        await check(shelf, PODS)
        await check(shelf, WEB)

    asyncio.run(run())


async def test_changes_while_positions_are_being_found_are_counted_once() -> None:
    shelf = Shelf()
    for number in range(300):
        shelf.write(f"{number:03}")
    building = [asyncio.create_task(shelf.ranks.prepare(PODS)) for _ in range(3)]
    await asyncio.sleep(0)
    for number in range(0, 300, 3):
        shelf.write(f"{number:03}", delete=True)
        shelf.write(f"{number:03}-new")
        shelf.write(f"{number:03}-other")
        await asyncio.sleep(0)
    await asyncio.gather(*building)

    await check(shelf, PODS)


async def test_a_cancelled_search_leaves_nothing_half_done() -> None:
    shelf = Shelf()
    for number in range(300):
        shelf.write(f"{number:03}")
    building = [asyncio.create_task(shelf.ranks.prepare(PODS)) for _ in range(2)]
    await asyncio.sleep(0)
    building[0].cancel()
    await building[1]

    await check(shelf, PODS)


async def test_a_position_costs_a_bucket_however_long_the_list() -> None:
    shelf = Shelf()
    for number in range(1000):
        shelf.write(f"{number:04}")
    await shelf.ranks.prepare(PODS)

    shelf.looked_at = 0
    shelf.ranks.key_at(PODS, 900)
    shelf.ranks.remaining(PODS, Key("root", "", "pods", "x", "0500"), shelf.revision)
    assert shelf.looked_at < 16


async def test_the_past_is_told_as_far_as_memory_reaches() -> None:
    shelf = Shelf()
    for number in range(100):
        shelf.write(f"{number:03}")
    then = shelf.revision
    for number in range(50, 60):
        shelf.write(f"{number:03}", delete=True)
    shelf.write("100")
    await shelf.ranks.prepare(PODS)

    assert shelf.ranks.remaining(PODS, Key("root", "", "pods", "x", "009"), then) == 90
    shelf.hub.window.start = then + 1
    assert shelf.ranks.remaining(PODS, Key("root", "", "pods", "x", "009"), then) is None


@pytest.mark.parametrize("known", [5, 200])
async def test_few_positions_are_remembered(known: int) -> None:
    shelf = Shelf()
    for number in range(30):
        shelf.write(f"{number:03}", web=True)
    for number in range(known):
        await shelf.ranks.prepare(Selection("", "pods", None, None, f"{number}"))
        await shelf.ranks.prepare(Selection("", "pods", f"{number}", matches=(TermMatch("app", "web"),)))

    assert len(shelf.ranks._known) <= 32
