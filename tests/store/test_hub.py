"""Fan-out: what is appended where, and what it costs others."""

from __future__ import annotations

from fleetplane.store.hub import Hub, Window
from fleetplane.store.protocol import Event, Key, Record, Selection, TermMatch


def event(revision: int, name: str = "a", resource: str = "pods", size: int = 1, **terms: str) -> Event:
    key = Key("root", "", resource, "x", name)
    return Event(False, Record(key, "u", revision, revision, "", bytes(size), tuple(terms.items())), None)


async def no_replay(_selection: Selection, _after: int, _upto: int) -> tuple[list[Event], int]:
    raise AssertionError("everything is in the window")


class TestWindow:
    def test_keeps_the_newest_by_number(self) -> None:
        window = Window(0, max_events=3, max_bytes=1000)
        for revision in range(1, 6):
            window.add(event(revision))

        assert window.start == 2
        assert [one.record.revision for one in window.since("", "pods", 3)] == [4, 5]

    def test_keeps_the_newest_by_size(self) -> None:
        window = Window(0, max_events=100, max_bytes=250)
        for revision in range(1, 6):
            window.add(event(revision, size=100))

        assert window.start == 3

    def test_knows_each_resource(self) -> None:
        window = Window(0, max_events=3, max_bytes=1000)
        for revision, resource in enumerate(["pods", "leases", "pods", "leases"], 1):
            window.add(event(revision, resource=resource))

        assert [one.record.revision for one in window.since("", "pods", 1)] == [3]
        assert window.since("", "never", 1) == []


class TestHub:
    async def test_equal_selections_share_one_list_of_pending_changes(self) -> None:
        hub = Hub(0)
        watchers = [hub.watch(Selection("", "pods"), None, 0, no_replay) for _ in range(100)]
        hub.publish([event(1), event(2)], 2)

        batches = [await watcher.next() for watcher in watchers]

        assert len(hub._channels) == 1
        assert all([one.record.revision for one in batch.events] == [1, 2] for batch in batches)

    async def test_a_change_is_offered_only_to_watchers_of_its_terms(self) -> None:
        hub = Hub(0)
        watchers = {
            node: hub.watch(Selection("", "pods", matches=(TermMatch("node", node),)), None, 0, no_replay)
            for node in ("n1", "n2", "n3")
        }
        hub.publish([event(1, node="n2")], 1)

        pending = {node: len(watcher._channel.events) for node, watcher in watchers.items() if watcher._channel}
        assert pending == {"n1": 0, "n2": 1, "n3": 0}

    async def test_nothing_is_kept_for_nobody(self) -> None:
        hub = Hub(0)
        watchers = [hub.watch(Selection("", "pods", name=name), None, 0, no_replay) for name in "abc"]
        assert hub.watchers == 3
        for watcher in watchers:
            watcher.close()

        assert hub.watchers == 0
        assert not hub._channels and not hub._by_resource

    async def test_pending_changes_are_forgotten_once_all_have_them(self) -> None:
        hub = Hub(0)
        watchers = [hub.watch(Selection("", "pods"), None, 0, no_replay) for _ in range(2)]
        for revision in range(1, 2001):
            hub.publish([event(revision)], revision)
            for watcher in watchers:
                await watcher.next()

        assert watchers[0]._channel is not None
        assert len(watchers[0]._channel.events) <= 512
