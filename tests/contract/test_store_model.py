"""Random use of a store, compared step by step with a model that is a dictionary per revision."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, TypeVar

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from fleetplane.store.protocol import (
    ABSENT,
    Change,
    Claim,
    ClaimTaken,
    Delete,
    Event,
    Expect,
    Expired,
    Key,
    PreconditionFailed,
    Put,
    Record,
    Selection,
    Store,
    TermMatch,
    Watch,
)

T = TypeVar("T")

CLUSTERS, NAMESPACES, NAMES = ["a", "a-b", "b"], ["", "x", "x-y"], ["1", "1-", "10", "2"]
RESOURCES = [("", "pods"), ("apps", "pods")]
NODES = ["n", "n1", "n12", "m"]

keys = st.builds(
    lambda cluster, kind, namespace, name: Key(cluster, kind[0], kind[1], namespace, name),
    st.sampled_from(CLUSTERS),
    st.sampled_from(RESOURCES),
    st.sampled_from(NAMESPACES),
    st.sampled_from(NAMES),
)
terms = st.lists(st.tuples(st.sampled_from(["node", "app"]), st.sampled_from(NODES)), unique=True, max_size=3).map(
    tuple
)
claims = st.lists(st.builds(Claim, st.just("ip"), st.sampled_from("12")), unique=True, max_size=1).map(tuple)
matches = st.lists(
    st.builds(TermMatch, st.sampled_from(["node", "app"]), st.sampled_from(["", *NODES]), st.booleans()), max_size=2
).map(tuple)
selections = st.builds(
    lambda kind, cluster, namespace, name, wanted: Selection(kind[0], kind[1], cluster, namespace, name, wanted),
    st.sampled_from(RESOURCES),
    st.none() | st.sampled_from(CLUSTERS),
    st.none() | st.sampled_from(NAMESPACES),
    st.none() | st.none() | st.sampled_from(NAMES),
    matches,
)


@dataclass(frozen=True)
class Intent:
    """A change whose precondition is chosen relative to the state it will meet."""

    key: Key
    delete: bool
    wanted: str
    uid: str
    terms: tuple[tuple[str, str], ...]
    claims: tuple[Claim, ...]
    final: bool


intents = st.builds(
    Intent,
    keys,
    st.booleans(),
    st.sampled_from(["any", "any", "absent", "exact", "exact", "stale", "uid"]),
    st.sampled_from(["u1", "u1", "u2"]),
    terms,
    claims,
    st.booleans(),
)


@dataclass
class Model:
    """``states[revision]`` is every object at that revision."""

    states: dict[int, dict[Key, Record]]
    revision: int
    compacted: int
    events: list[Event] = field(default_factory=list)
    claims: dict[tuple[str, Claim], Key] = field(default_factory=dict)

    @property
    def now(self) -> dict[Key, Record]:
        return self.states[self.revision]

    def commit(self, changes: list[Change]) -> list[Record]:
        state, held, revision, events = dict(self.now), dict(self.claims), self.revision, []
        states: dict[int, dict[Key, Record]] = {}
        for change in changes:
            revision += 1
            old = state.get(change.key)
            wanted = change.precondition
            if wanted is ABSENT and old is not None:
                raise PreconditionFailed(change.key, old)
            if isinstance(wanted, Expect) and (
                old is None or wanted.revision not in (None, old.revision) or wanted.uid not in (None, old.uid)
            ):
                raise PreconditionFailed(change.key, old)
            mine = {claim for claim, holder in held.items() if holder == change.key}
            if isinstance(change, Put):
                for claim in change.claims:
                    holder = held.get((change.key.cluster, claim), change.key)
                    if holder != change.key:
                        raise ClaimTaken(claim, holder)
                created = old.created_revision if old and old.uid == change.uid else revision
                new = Record(change.key, change.uid, revision, created, change.encoding, change.value, change.terms)
                state[change.key] = new
                now_mine = {(change.key.cluster, claim) for claim in change.claims}
                events.append(Event(False, new, old))
            else:
                if old is None:
                    raise PreconditionFailed(change.key, None)
                value = old.value if change.final is None else change.final
                del state[change.key]
                now_mine = set()
                last = Record(old.key, old.uid, revision, old.created_revision, old.encoding, value, old.terms)
                events.append(Event(True, last, old))
            for gone in mine - now_mine:
                del held[gone]
            held.update(dict.fromkeys(now_mine, change.key))
            states[revision] = dict(state)
        self.states.update(states)
        self.revision, self.claims = revision, held
        self.events += events
        return [event.record for event in events]

    def select(self, selection: Selection, revision: int) -> list[Record]:
        return [record for key, record in sorted(self.states[revision].items()) if selects(selection, record)]

    def told(self, selection: Selection, after: int) -> list[Event]:
        return [
            event
            for event in self.events
            if event.record.revision > after
            and (selects(selection, event.record) or (event.previous and selects(selection, event.previous)))
        ]


def selects(selection: Selection, record: Record) -> bool:
    for wanted, found in (
        (selection.group, record.key.group),
        (selection.resource, record.key.resource),
        (selection.cluster, record.key.cluster),
        (selection.namespace, record.key.namespace),
        (selection.name, record.key.name),
    ):
        if wanted is not None and wanted != found:
            return False
    return all(
        any(
            name == m.name and (value.startswith(m.value) if m.prefix else value == m.value)
            for name, value in record.terms
        )
        for m in selection.matches
    )


class StoreMachine(RuleBasedStateMachine):
    """Set ``factory`` on a subclass."""

    factory: Any

    @initialize()
    def open(self) -> None:
        self.runner = asyncio.Runner()
        self.here = self.factory.elsewhere()
        self.store: Store = self.run(self.here(watch_window=8))
        revision = self.run(self.store.revision())
        self.model = Model({past: {} for past in range(revision + 1)}, revision, self.store.compacted)
        self.watches: list[tuple[Watch, Selection, int]] = []
        self.count = 0

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(work)

    def change(self, intent: Intent) -> Change:
        current = self.model.now.get(intent.key)
        revision = current.revision if current else self.model.revision
        wanted = {
            "any": None,
            "absent": ABSENT,
            "exact": Expect(revision, current.uid if current else None),
            "stale": Expect(revision - 1),
            "uid": Expect(uid="u1"),
        }[intent.wanted]
        self.count += 1
        value = f"value-{self.count}".encode()
        if intent.delete:
            return Delete(intent.key, wanted, value if intent.final else None)
        return Put(intent.key, intent.uid, value, f"e{self.count % 3}", intent.terms, intent.claims, wanted)

    @rule(several=st.lists(intents, min_size=1, max_size=4), durable=st.booleans())
    def commit(self, several: list[Intent], durable: bool) -> None:
        changes = [self.change(intent) for intent in several]
        expected = outcome(lambda: self.model.commit(changes))
        assert self.outcome(self.store.commit(changes, durable=durable)) == expected

    @rule(several=st.lists(intents, min_size=2, max_size=6))
    def commit_together(self, several: list[Intent]) -> None:
        """Commits begun in one step of the loop are decided in that order."""
        changes = [self.change(intent) for intent in several]
        expected = [outcome(lambda one=one: self.model.commit([one])) for one in changes]  # type: ignore[misc]

        async def together() -> list[Any]:
            return await asyncio.gather(*(self.store.commit([one]) for one in changes), return_exceptions=True)

        assert [plain(one) for one in self.run(together())] == expected

    @rule(key=keys)
    def get(self, key: Key) -> None:
        assert self.run(self.store.get(key)) == self.model.now.get(key)

    @rule(selection=selections, back=st.integers(0, 12), limit=st.integers(1, 4), data=st.data())
    def list_in_pages(self, selection: Selection, back: int, limit: int, data: st.DataObject) -> None:
        at = max(self.model.revision - back, self.model.compacted)
        expected = self.model.select(selection, at)
        found: list[Record] = []
        after = None
        while True:
            page = self.run(self.store.list(selection, limit=limit, after=after, revision=at, count_remaining=True))
            found += page.records
            assert page.revision == at
            assert page.remaining == len(expected) - len(found)
            after = page.next
            if after is None:
                break
        assert found == expected

    @rule(selection=selections)
    def count_and_offset(self, selection: Selection) -> None:
        expected = self.model.select(selection, self.model.revision)
        assert self.run(self.store.count(selection)) == len(expected)
        if not selection.matches or (len(selection.matches) == 1 and not selection.matches[0].prefix):
            page = self.run(self.store.list(selection, offset=len(expected) // 2))
            assert page.records == expected[len(expected) // 2 :]

    @rule(key=keys)
    def history(self, key: Key) -> None:
        expected = [event for event in reversed(self.model.events) if event.record.key == key]
        known = [event for event in expected if event.record.revision > self.model.compacted]
        found = list(self.run(self.store.history(key)))
        assert found[: len(known)] == known
        older = [event.record for event in found[len(known) :]]
        current = self.model.states[self.model.compacted].get(key)
        assert older == ([current] if current else [])

    @rule(selection=selections, back=st.integers(0, 30))
    def watch(self, selection: Selection, back: int) -> None:
        after = max(self.model.revision - back, self.model.compacted)
        self.watches.append((self.run(self.store.watch(selection, after)), selection, after))

    @rule(back=st.integers(1, 30))
    def watch_too_far_back(self, back: int) -> None:
        after = self.model.compacted - back
        if after >= 0:
            with pytest.raises(Expired):
                self.run(self.store.watch(Selection("", "pods"), after))

    @precondition(lambda self: self.watches)
    @rule(data=st.data())
    def drain(self, data: st.DataObject) -> None:
        watch, selection, after = self.watches.pop(data.draw(st.integers(0, len(self.watches) - 1)))
        expected = self.model.told(selection, after)
        found: list[Event] = []
        try:
            while len(found) < len(expected):
                batch = self.run(next_of(watch))
                assert batch.events
                found += batch.events
                assert batch.revision >= found[-1].record.revision
        except Expired:
            assert after < self.model.compacted
            return
        assert found == expected
        if expected:
            assert watch.progress == self.model.revision
            after = self.model.revision
        self.watches.append((watch, selection, after))

    @rule(back=st.integers(0, 20))
    def compact(self, back: int) -> None:
        revision = self.model.revision - back
        self.run(self.store.compact(max(revision, 0)))
        self.model.compacted = max(self.model.compacted, revision)
        assert self.store.compacted == self.model.compacted

    @rule(cluster=st.sampled_from(CLUSTERS))
    def drop_cluster(self, cluster: str) -> None:
        doomed = [key for key in self.model.now if key.cluster == cluster]
        before = self.model.revision
        watches = [(kind, self.run(self.store.watch(Selection(*kind, cluster), before))) for kind in RESOURCES]
        assert self.run(self.store.drop_cluster(cluster)) == len(doomed)
        # Which goes first is the store's business; that each deletion is told is not.
        order: dict[int, Key] = {}
        for kind, watch in watches:
            left = len([key for key in doomed if (key.group, key.resource) == kind])
            while left > 0:
                events = self.run(next_of(watch)).events
                left -= len(events)
                order.update({event.record.revision: event.record.key for event in events})
            watch.close()
        assert sorted(order.values()) == sorted(doomed)
        self.model.commit([Delete(order[revision]) for revision in sorted(order)])

    @rule()
    def reopen(self) -> None:
        if not self.here.persistent:
            return
        self.run(self.store.close())
        self.store = self.run(self.here(watch_window=8))
        self.watches.clear()
        assert self.store.compacted == self.model.compacted

    @invariant()
    def same_revision(self) -> None:
        assert self.run(self.store.revision()) == self.model.revision

    def outcome(self, work: Coroutine[Any, Any, list[Record]]) -> Any:
        return outcome(lambda: self.run(work))

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self.run(self.store.close())
            self.runner.close()


def outcome(action: Callable[[], Any]) -> Any:
    try:
        return action()
    except (PreconditionFailed, ClaimTaken) as error:
        return plain(error)


def plain(result: Any) -> Any:
    if isinstance(result, PreconditionFailed):
        return "precondition", result.key, result.current
    if isinstance(result, ClaimTaken):
        return "claim", result.claim, result.holder
    if isinstance(result, BaseException):
        raise result
    return result


async def next_of(watch: Watch) -> Any:
    return await asyncio.wait_for(watch.next(), 5)


def test_a_store_behaves_as_its_model(store_factory: Any) -> None:
    machine = type("Machine", (StoreMachine,), {"factory": store_factory})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=25, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
