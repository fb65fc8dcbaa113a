"""Recent changes in memory, and their way to the watchers.

An engine publishes each group of changes once it is durable and visible; everything here then happens in one go on the
event loop, so a watcher can be joined to the live stream without a gap and without a lock. Watchers with equal
selections share one ``Channel``: a change is appended to it once, however many they are, and each keeps only its place.
Channels are found by what they select (scope, then one term), so watchers of other things cost a commit nothing.

Memory is bounded twice: the window by events and bytes, a channel by ``limit`` pending events; who lags behind that is
cut off, never buffered for.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from typing import TypeVar

from fleetplane.store.matching import concerns, in_scope
from fleetplane.store.protocol import (
    Batch,
    Event,
    Expired,
    FutureRevision,
    Selection,
    SlowWatcher,
    StoreUnavailable,
    Term,
)

Replay = Callable[[Selection, int, int], Awaitable[tuple[list[Event], int]]]
"""``(selection, after, upto)`` to the next events of the engine's log and the revision it read up to (at most ``upto``).

Each call does a bounded amount of work. Raises ``Expired``.
"""

_Shape = tuple[bool, bool, bool]
_Scope = tuple[str | None, str | None, str | None]
_At = TypeVar("_At", _Scope, Term)
_TRIM_AT = 256
_KEPT_RENDERED = 512
"""Newest changes whose encodings stay for all watchers to share; a change's encodings take three times its own memory."""


class Window:
    """The newest changes, by resource: what most resuming watchers miss is still here.

    ``start`` is the revision after which every change is present.
    """

    def __init__(self, start: int, max_events: int, max_bytes: int) -> None:
        self.start = start
        self._max_events = max_events
        self._max_bytes = max_bytes
        self._room = max_bytes
        self._order: deque[Event] = deque()
        self._newest: deque[Event] = deque()
        self._by_resource: dict[tuple[str, str], deque[Event]] = {}

    def add(self, event: Event) -> None:
        key = event.record.key
        self._order.append(event)
        self._newest.append(event)
        if len(self._newest) > _KEPT_RENDERED:
            self._newest.popleft().record.rendered = None
        mine = self._by_resource.get((key.group, key.resource))
        if mine is None:
            mine = self._by_resource[key.group, key.resource] = deque()
        mine.append(event)
        self._room -= len(event.record.value)
        while self._room < 0 or len(self._order) > self._max_events:
            self._drop_oldest()

    def since(self, group: str, resource: str, after: int) -> list[Event]:
        """Changes of a resource after a revision not before ``start``, oldest first."""
        found: list[Event] = []
        for event in reversed(self._by_resource.get((group, resource), ())):
            if event.record.revision <= after:
                break
            found.append(event)
        found.reverse()
        return found

    def emptied(self, start: int) -> Window:
        """A window of the same size that begins at ``start``."""
        return Window(start, self._max_events, self._max_bytes)

    def _drop_oldest(self) -> None:
        event = self._order.popleft()
        key = event.record.key
        mine = self._by_resource[key.group, key.resource]
        mine.popleft()
        if not mine:
            del self._by_resource[key.group, key.resource]
        self._room += len(event.record.value)
        self.start = event.record.revision


class Channel:
    """The pending changes of all watchers with one selection. ``base`` is the position of ``events[0]``."""

    __slots__ = ("_trim_at", "base", "events", "limit", "selection", "waiting", "watchers")

    def __init__(self, selection: Selection, limit: int) -> None:
        self.selection = selection
        self.limit = limit
        self.base = 0
        self.events: list[Event] = []
        self.watchers: set[Watcher] = set()
        self.waiting: set[asyncio.Future[None]] = set()
        self._trim_at = _TRIM_AT

    @property
    def end(self) -> int:
        return self.base + len(self.events)

    def trim(self) -> None:
        """Forget what every watcher has taken, and cut off those who lag too far behind. Cheap when nothing is due."""
        if len(self.events) < min(self._trim_at, self.limit + 1):
            return
        oldest_allowed = self.end - self.limit
        for watcher in [one for one in self.watchers if one.position < oldest_allowed]:
            watcher.cut_off(SlowWatcher(f"more than {self.limit} changes are pending; resume from the last one seen"))
        self.forget(min((watcher.position for watcher in self.watchers), default=self.end))
        self._trim_at = max(_TRIM_AT, 2 * len(self.events))

    def forget(self, upto: int) -> None:
        if upto > self.base:
            del self.events[: upto - self.base]
            self.base = upto

    def wake(self) -> None:
        for waiter in self.waiting:
            if not waiter.done():
                waiter.set_result(None)
        self.waiting.clear()


class _ResourceChannels:
    """The channels of one resource, found from an event in a few dictionary look-ups."""

    def __init__(self) -> None:
        self._by_scope: dict[_Scope, list[Channel]] = {}
        self._shapes: dict[_Shape, int] = {}
        self._by_term: dict[Term, list[Channel]] = {}

    def add(self, channel: Channel) -> None:
        if term := _index_term(channel.selection):
            self._by_term.setdefault(term, []).append(channel)
            return
        scope = _scope(channel.selection)
        shape = _shape(scope)
        self._by_scope.setdefault(scope, []).append(channel)
        self._shapes[shape] = self._shapes.get(shape, 0) + 1

    def remove(self, channel: Channel) -> None:
        if term := _index_term(channel.selection):
            _drop(self._by_term, term, channel)
            return
        scope = _scope(channel.selection)
        shape = _shape(scope)
        _drop(self._by_scope, scope, channel)
        self._shapes[shape] -= 1
        if not self._shapes[shape]:
            del self._shapes[shape]

    def __bool__(self) -> bool:
        return bool(self._by_scope or self._by_term)

    def concerned(self, event: Event) -> Iterator[Channel]:
        key = event.record.key
        for by_cluster, by_namespace, by_name in self._shapes:
            scope = (
                key.cluster if by_cluster else None,
                key.namespace if by_namespace else None,
                key.name if by_name else None,
            )
            for channel in self._by_scope.get(scope, ()):
                if not channel.selection.matches or concerns(channel.selection, event):
                    yield channel
        if self._by_term:
            for term in _terms_of(event):
                for channel in self._by_term.get(term, ()):
                    if in_scope(channel.selection, key) and (
                        len(channel.selection.matches) == 1 or concerns(channel.selection, event)
                    ):
                        yield channel


def _terms_of(event: Event) -> Iterable[Term]:
    now = event.record.terms
    before = event.previous.terms if event.previous else ()
    return dict.fromkeys(now) if now == before or not before else dict.fromkeys((*now, *before))


def _index_term(selection: Selection) -> Term | None:
    return next(((match.name, match.value) for match in selection.matches if not match.prefix), None)


def _scope(selection: Selection) -> _Scope:
    return selection.cluster, selection.namespace, selection.name


def _shape(scope: _Scope) -> _Shape:
    cluster, namespace, name = scope
    return cluster is not None, namespace is not None, name is not None


def _drop(index: dict[_At, list[Channel]], at: _At, channel: Channel) -> None:
    index[at].remove(channel)
    if not index[at]:
        del index[at]


class Hub:
    """Where an engine publishes and watchers join. ``revision`` is the newest visible revision."""

    def __init__(
        self, revision: int, *, window_events: int = 20_000, window_bytes: int = 64 << 20, pending_limit: int = 10_000
    ) -> None:
        self.revision = revision
        self.window = Window(revision, window_events, window_bytes)
        self._pending_limit = pending_limit
        self._channels: dict[Selection, Channel] = {}
        self._by_resource: dict[tuple[str, str], _ResourceChannels] = {}
        self._replaying: set[Watcher] = set()
        self._closed: StoreUnavailable | None = None

    def publish(self, events: Sequence[Event], revision: int) -> None:
        """Make changes visible to watchers; ``revision`` is that of the last. Never raises, never waits."""
        self.revision = revision
        touched: dict[Channel, None] = {}
        for event in events:
            self.window.add(event)
            key = event.record.key
            channels = self._by_resource.get((key.group, key.resource))
            if channels is not None:
                for channel in channels.concerned(event):
                    channel.events.append(event)
                    touched[channel] = None
        for channel in touched:
            channel.trim()
            channel.wake()

    def watch(self, selection: Selection, after: int | None, compacted: int, replay: Replay) -> Watcher:
        """A watcher of changes after a revision (``None``: from now).

        Raises ``Expired`` for one below ``compacted``, ``FutureRevision`` for one not reached yet.
        """
        if self._closed:
            raise self._closed
        if after is None:
            after = self.revision
        elif after < compacted:
            raise Expired(after, compacted)
        elif after > self.revision:
            raise FutureRevision(after, self.revision)
        watcher = Watcher(self, selection, after, replay)
        self._replaying.add(watcher)
        self.join(watcher)
        return watcher

    def join(self, watcher: Watcher) -> bool:
        """Put a watcher on its channel with what it missed, if the window still has all of that."""
        if watcher.seen < self.window.start:
            return False
        selection = watcher.selection
        missed: list[Event] = []
        if watcher.seen < self.revision:
            recent = self.window.since(selection.group, selection.resource, watcher.seen)
            missed = [event for event in recent if concerns(selection, event)]
        channel = self._channels.get(selection)
        if channel is None:
            channel = self._channels[selection] = Channel(selection, self._pending_limit)
            at = (selection.group, selection.resource)
            if at not in self._by_resource:
                self._by_resource[at] = _ResourceChannels()
            self._by_resource[at].add(channel)
        self._replaying.discard(watcher)
        channel.watchers.add(watcher)
        watcher.joined(channel, missed)
        return True

    def leave(self, watcher: Watcher, channel: Channel | None) -> None:
        self._replaying.discard(watcher)
        if channel is None:
            return
        channel.watchers.discard(watcher)
        if channel.watchers:
            return
        selection = channel.selection
        del self._channels[selection]
        channels = self._by_resource[selection.group, selection.resource]
        channels.remove(channel)
        if not channels:
            del self._by_resource[selection.group, selection.resource]

    def restart(self, revision: int, compacted: int) -> None:
        """Go on from a revision although changes before it were missed: watchers must list again."""
        for watcher in self._open_watchers():
            watcher.cut_off(Expired(watcher.progress, compacted))
        self.revision = revision
        self.window = self.window.emptied(revision)

    @property
    def watchers(self) -> int:
        """How many watchers are open."""
        return len(self._open_watchers())

    def close(self, reason: StoreUnavailable) -> None:
        """End every watch with ``reason``."""
        self._closed = reason
        for watcher in self._open_watchers():
            watcher.cut_off(reason)

    def _open_watchers(self) -> list[Watcher]:
        return [*self._replaying, *(one for channel in self._channels.values() for one in channel.watchers)]


class Watcher:
    """One watch: first what was missed (from the engine's log, then the window), then its channel. See ``Watch``."""

    def __init__(self, hub: Hub, selection: Selection, after: int, replay: Replay) -> None:
        self.selection = selection
        self.seen = after
        """Every matching change up to here has been returned."""
        self.position = 0
        """The place in the channel of the next change to return."""
        self._hub = hub
        self._replay = replay
        self._missed: list[Event] = []
        self._channel: Channel | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._ended: Exception | None = None

    def joined(self, channel: Channel, missed: list[Event]) -> None:
        self._channel = channel
        self._missed = missed
        self.position = channel.end
        self.seen = self._hub.revision

    def cut_off(self, reason: Exception) -> None:
        if self._ended is not None:
            return
        self._ended = reason
        self._hub.leave(self, self._channel)
        self._channel = None
        self._missed = []
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def close(self) -> None:
        self.cut_off(StoreUnavailable("this watch has been closed"))

    @property
    def progress(self) -> int:
        if self._missed:
            return self._missed[0].record.revision - 1
        channel = self._channel
        if channel is None:
            return self.seen
        if self.position < channel.end:
            return channel.events[self.position - channel.base].record.revision - 1
        return self._hub.revision

    async def next(self) -> Batch:
        while True:
            if self._ended is not None:
                raise self._ended
            channel = self._channel
            if channel is None:
                if batch := await self._replayed():
                    return batch
            elif self._missed:
                missed, self._missed = self._missed, []
                return self._batch(channel, missed)
            elif self.position < channel.end:
                return self._batch(channel, ())
            else:
                await self._wait(channel)

    def _batch(self, channel: Channel, missed: Sequence[Event]) -> Batch:
        """Everything pending at this moment."""
        pending = channel.events[self.position - channel.base :] if self.position < channel.end else ()
        self.position = channel.end
        if len(channel.watchers) == 1:
            channel.forget(self.position)
        self.seen = self._hub.revision
        return Batch([*missed, *pending] if missed else pending, self.seen)

    async def _replayed(self) -> Batch | None:
        if self._hub.join(self):
            return None
        try:
            events, upto = await self._replay(self.selection, self.seen, self._hub.revision)
        except Expired as error:
            self.cut_off(error)
            raise
        if self._ended is not None:
            raise self._ended
        self.seen = upto
        return Batch(events, upto) if events else None

    async def _wait(self, channel: Channel) -> None:
        waiter = self._waiter = asyncio.get_running_loop().create_future()
        channel.waiting.add(waiter)
        try:
            await waiter
        finally:
            channel.waiting.discard(waiter)
            self._waiter = None
