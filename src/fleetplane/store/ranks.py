"""Positions in long lists: how many objects there are, how many precede a key, and which one stands at an offset.

For each long selection that is asked about, the ordered keys are cut into buckets of about a thousand, of which only
the first key and the number is remembered; changes are followed as they are published. Any of these questions then
costs a sum over the buckets and a look into one of them, however long the list. Short selections are simply counted.

Only what one index knows can be ranked: selections with no match, or a single exact one. The index of positions is
built while the loop goes on: changes behind the place reached are followed, those ahead of it will be met.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from collections.abc import Sequence
from typing import Final, Protocol

from fleetplane.store.hub import Hub
from fleetplane.store.matching import has_terms, in_scope
from fleetplane.store.protocol import Event, Key, Selection

BUCKET: Final = 1_000
_KEPT: Final = 32
_STEPS_PER_TURN: Final = 16


class Source(Protocol):
    """The current keys, as of the revision last published."""

    def key_at(self, selection: Selection, offset: int, after: Key | None = None) -> Key | None: ...

    def count_between(self, selection: Selection, after: Key | None, upto: Key | None, enough: int) -> int: ...


class Buckets:
    """The buckets of one selection: ``last[i]`` is the last key of bucket ``i`` as it was cut; beyond them is the rest.

    While the rest has not been counted, ``rest`` is ``None``.
    """

    def __init__(self, selection: Selection) -> None:
        self.selection = selection
        self.last: list[Key] = []
        self.counts: list[int] = []
        self.rest: int | None = None

    @property
    def total(self) -> int:
        return sum(self.counts) + (self.rest or 0)

    def extend(self, source: Source, bucket: int) -> None:
        """Cut the next bucket off the rest, or find that the rest is no longer than one."""
        after = self.last[-1] if self.last else None
        end = source.key_at(self.selection, bucket - 1, after)
        if end is None:
            self.rest = source.count_between(self.selection, after, None, bucket)
        else:
            self.last.append(end)
            self.counts.append(bucket)

    def apply(self, key: Key, delta: int) -> None:
        """Follow a key that came (1) or went (-1)."""
        at = bisect_left(self.last, key)
        if at < len(self.last):
            self.counts[at] += delta
        elif self.rest is not None:
            self.rest += delta

    def upto(self, source: Source, key: Key) -> int:
        """How many keys there are up to and including one."""
        at = bisect_left(self.last, key)
        after = self.last[at - 1] if at else None
        within = self.counts[at] if at < len(self.counts) else self.rest or 0
        return sum(self.counts[:at]) + source.count_between(self.selection, after, key, within)

    def key_at(self, source: Source, offset: int) -> Key | None:
        for at, count in enumerate(self.counts):
            if offset < count:
                return source.key_at(self.selection, offset, self.last[at - 1] if at else None)
            offset -= count
        return source.key_at(self.selection, offset, self.last[-1] if self.last else None)

    def even_out(self, source: Source, bucket: int) -> None:
        """Cut what has grown to twice the size, join what has shrunk; a little at a time."""
        if self.rest is not None and self.rest >= 2 * bucket:
            rest = self.rest
            self.extend(source, bucket)
            self.rest = rest - bucket
        at = max(range(len(self.counts)), key=self.counts.__getitem__, default=None)
        if at is not None and self.counts[at] >= 2 * bucket:
            middle = source.key_at(self.selection, bucket - 1, self.last[at - 1] if at else None)
            if middle is not None:
                self.last.insert(at, middle)
                self.counts[at : at + 1] = [bucket, self.counts[at] - bucket]
        at = min(range(len(self.counts) - 1), key=self.counts.__getitem__, default=None)
        if at is not None and self.counts[at] + self.counts[at + 1] <= bucket:
            del self.last[at]
            self.counts[at : at + 2] = [self.counts[at] + self.counts[at + 1]]


class Ranks:
    """The positions in the long selections asked about last. ``follow`` must be told of every published change."""

    def __init__(self, source: Source, hub: Hub, bucket: int = BUCKET) -> None:
        self._source = source
        self._hub = hub
        self._bucket = bucket
        self._known: dict[Selection, Buckets] = {}
        self._building: dict[Selection, asyncio.Future[None]] = {}

    def follow(self, events: Sequence[Event]) -> None:
        if not self._known:
            return
        for event in events:
            for buckets in self._known.values():
                if delta := _delta(buckets.selection, event):
                    buckets.apply(event.record.key, delta)

    async def prepare(self, selection: Selection) -> None:
        """Make the questions below cheap for a selection; asked right after this, without waiting, they stay so."""
        while True:
            if (buckets := self._known.pop(selection, None)) and buckets.rest is not None:
                self._known[selection] = buckets  # the one asked last is the last to go
                buckets.even_out(self._source, self._bucket)
                return
            if buckets:
                self._known[selection] = buckets
                await asyncio.shield(self._building[selection])
                continue
            if self._source.count_between(selection, None, None, 4 * self._bucket) < 4 * self._bucket:
                return
            await self._build(selection)

    def count(self, selection: Selection) -> int:
        """How many objects there are."""
        buckets = self._known.get(selection)
        if buckets is None or buckets.rest is None:
            return self._source.count_between(selection, None, None, -1)
        return buckets.total

    def remaining(self, selection: Selection, after: Key, revision: int) -> int | None:
        """How many objects followed a key at a revision, ``None`` if that is too long ago to tell."""
        if revision < self._hub.window.start:
            return None
        buckets = self._known.get(selection)
        if buckets is None or buckets.rest is None:
            now = self._source.count_between(selection, after, None, -1)
        else:
            now = buckets.total - buckets.upto(self._source, after)
        since = self._hub.window.since(selection.group, selection.resource, revision)
        return now - sum(_delta(selection, event) for event in since if event.record.key > after)

    def key_at(self, selection: Selection, offset: int) -> Key | None:
        """The key at a position, ``None`` beyond the end."""
        buckets = self._known.get(selection)
        if buckets is None or buckets.rest is None:
            return self._source.key_at(selection, offset)
        return buckets.key_at(self._source, offset)

    async def _build(self, selection: Selection) -> None:
        """Cut a selection into buckets; others who need it wait for the one who came first."""
        buckets = self._known[selection] = Buckets(selection)
        built = self._building[selection] = asyncio.get_running_loop().create_future()
        try:
            while buckets.rest is None:
                for _ in range(_STEPS_PER_TURN):
                    if buckets.rest is None:
                        buckets.extend(self._source, self._bucket)
                await asyncio.sleep(0)
        except BaseException:
            del self._known[selection]
            raise
        finally:
            del self._building[selection]
            built.set_result(None)
        for oldest in [one for one in self._known if one not in self._building][:-_KEPT]:
            del self._known[oldest]


def _delta(selection: Selection, event: Event) -> int:
    """What a change does to the number of objects selected."""
    if not in_scope(selection, event.record.key):
        return 0
    now = not event.deleted and has_terms(selection.matches, event.record.terms)
    before = event.previous is not None and has_terms(selection.matches, event.previous.terms)
    return now - before
