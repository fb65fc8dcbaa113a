"""Writers, readers and watchers at once, with slow disks and changed minds; then the record of it all is judged.

What is checked is what etcd's robustness tests check: every watcher is told every change it asked for, in order, once,
and can resume where it was; every read shows the state of its revision, and none older than what had been acknowledged.
"""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, field
from typing import Any

import pytest

from fleetplane.store.protocol import (
    Change,
    Delete,
    Event,
    Key,
    Page,
    PreconditionFailed,
    Put,
    Record,
    Selection,
    Store,
    TermMatch,
)

ALL = Selection("", "pods")
SELECTIONS = [
    ALL,
    Selection("", "pods", "a"),
    Selection("", "pods", "b", "x"),
    Selection("", "pods", None, None, "n1"),
    Selection("", "pods", matches=(TermMatch("node", "1"),)),
    Selection("", "pods", "a", matches=(TermMatch("node", "", prefix=True), TermMatch("odd", "1"))),
]


@dataclass
class Journal:
    """What everyone saw."""

    start: int
    events: dict[int, Event] = field(default_factory=dict)
    lists: list[Page] = field(default_factory=list)
    watched: list[tuple[Selection, int, list[Event]]] = field(default_factory=list)
    acknowledged: int = 0


def random_commit(chance: random.Random, number: int) -> list[Change]:
    changes: list[Change] = []
    for _ in range(chance.choice([1, 1, 1, 2, 5])):
        key = Key(chance.choice("ab"), "", "pods", chance.choice("xy"), f"n{chance.randrange(4)}")
        if chance.random() < 0.25:
            changes.append(Delete(key))
        else:
            terms = tuple((n, str(chance.randrange(2))) for n in ("node", "odd") if chance.random() < 0.7)
            changes.append(Put(key, f"u{chance.randrange(2)}", f"{number}".encode(), terms=terms))
    return changes


async def write(store: Store, journal: Journal, chance: random.Random, commits: int) -> None:
    for number in range(commits):
        changes = random_commit(chance, number)
        try:
            records = await store.commit(changes, durable=chance.random() < 0.8)
        except PreconditionFailed:
            continue
        journal.acknowledged = max(journal.acknowledged, records[-1].revision)
        revisions = [record.revision for record in records]
        assert revisions == list(range(revisions[0], revisions[0] + len(changes)))
        for change, record in zip(changes, records, strict=True):
            journal.events[record.revision] = Event(isinstance(change, Delete), record, None)
        seen = await store.get(changes[-1].key)
        assert seen is None or seen.revision >= records[-1].revision or isinstance(changes[-1], Delete)
        await asyncio.sleep(chance.choice([0, 0, 0.001]))


async def read(store: Store, journal: Journal, chance: random.Random, done: asyncio.Event) -> None:
    while not done.is_set():
        acknowledged = journal.acknowledged
        page = await store.list(ALL)
        assert page.revision >= acknowledged
        assert all(record.revision <= page.revision for record in page.records)
        journal.lists.append(page)
        if chance.random() < 0.3:
            at = chance.randint(journal.start, page.revision)
            journal.lists.append(await store.list(ALL, revision=at))
        await asyncio.sleep(chance.choice([0, 0.002]))


async def watch(store: Store, journal: Journal, chance: random.Random, done: asyncio.Event) -> None:
    """Watch until everything was seen, every now and then giving up and resuming."""
    selection = chance.choice(SELECTIONS)
    start = chance.randint(journal.start, await store.revision())
    seen: list[Event] = []
    journal.watched.append((selection, start, seen))
    at = start
    watcher = await store.watch(selection, at)
    while not (done.is_set() and watcher.progress >= await store.revision()):
        try:
            batch = await asyncio.wait_for(watcher.next(), chance.choice([0.001, 0.01, 0.05]))
        except TimeoutError:
            pass
        else:
            assert batch.revision <= await store.revision()
            assert all(event.record.revision <= batch.revision for event in batch.events)
            seen += batch.events
        assert watcher.progress >= at
        at = watcher.progress
        if chance.random() < 0.1:
            watcher.close()
            watcher = await store.watch(selection, at)
    watcher.close()


def judge(journal: Journal) -> None:
    """Replay the acknowledged changes and compare everything seen with that."""
    states: dict[int, dict[Key, Record]] = {journal.start: {}}
    state: dict[Key, Record] = {}
    told: list[Event] = []
    for revision, event in sorted(journal.events.items()):
        previous = state.pop(event.record.key, None)
        if not event.deleted:
            state[event.record.key] = event.record
        states[revision] = dict(state)
        told.append(Event(event.deleted, event.record, previous))
    for page in journal.lists:
        assert page.records == sorted(states[page.revision].values(), key=lambda record: record.key)
    for selection, start, seen in journal.watched:
        assert seen == [event for event in told if event.record.revision > start and concerns(selection, event)]


def concerns(selection: Selection, event: Event) -> bool:
    key = event.record.key
    scope = ((selection.cluster, key.cluster), (selection.namespace, key.namespace), (selection.name, key.name))
    if any(wanted not in (None, found) for wanted, found in scope):
        return False
    return any(
        record is not None
        and all(any(n == m.name and (m.prefix or v == m.value) for n, v in record.terms) for m in selection.matches)
        for record in (event.record, event.previous)
    )


@pytest.mark.parametrize("seed", range(4))
async def test_everything_at_once(store_factory: Any, seed: int) -> None:
    chance = random.Random(seed)
    stores = await store_factory.servers(watch_window=20)
    for store in stores:
        store_factory.delay_commits(store, lambda: chance.choice([0, 0, 0.001, 0.005]))
    journal = Journal(await stores[0].revision())
    done = asyncio.Event()

    async with asyncio.TaskGroup() as others:
        for _ in range(8):
            others.create_task(watch(chance.choice(stores), journal, chance, done))
        others.create_task(read(chance.choice(stores), journal, chance, done))
        async with asyncio.TaskGroup() as writers:
            for _ in range(8):
                writers.create_task(write(chance.choice(stores), journal, chance, 30))
        for _ in range(4):
            others.create_task(watch(chance.choice(stores), journal, chance, done))
        done.set()

    assert len(journal.events) > 100
    assert sum(len(seen) for _, _, seen in journal.watched) > 100
    judge(journal)
