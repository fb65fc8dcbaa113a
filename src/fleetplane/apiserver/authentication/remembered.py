"""A bounded memory of answers that each hold for a while: how a check of the same credential costs microseconds.

Credentials themselves are never kept: entries go by a keyed digest. What an entry depends on can be named, so that the
end of a live object ends the answers that relied on it at once, not when their time is over.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Hashable, Iterable
from typing import Final, Generic, NamedTuple, TypeVar

from fleetplane.model.environment import Environment

T = TypeVar("T")

_FORGOTTEN: Final = 4096
"""How many recently forgotten dependencies are kept in mind."""


class _Entry(NamedTuple, Generic[T]):
    value: T
    until: float
    depends_on: tuple[Hashable, ...]


class Remembered(Generic[T]):
    """``capacity`` entries; the oldest go first. Times are in seconds of the monotonic clock."""

    def __init__(self, environment: Environment, *, capacity: int = 8192) -> None:
        self._environment = environment
        self._secret = environment.random.randbytes(32)
        self._capacity = capacity
        self._entries: OrderedDict[bytes, _Entry[T]] = OrderedDict()
        self._dependents: dict[Hashable, set[bytes]] = {}
        self._moment = 0
        self._forgotten: OrderedDict[Hashable, int] = OrderedDict()

    def digest(self, *parts: str | bytes) -> bytes:
        """The key of a credential and whatever else the answer depends on."""
        made = hashlib.blake2b(key=self._secret, digest_size=20)
        for part in parts:
            data = part if isinstance(part, bytes) else part.encode("utf-8", "surrogateescape")
            made.update(len(data).to_bytes(4, "big") + data)
        return made.digest()

    def get(self, key: bytes) -> T | None:
        entry = self._entries.get(key)
        if entry is None:
            return None
        if self._environment.monotonic() >= entry.until:
            self._drop(key)
            return None
        return entry.value

    def moment(self) -> int:
        """Take it before finding an answer out, and give it to ``put``: what was forgotten in between stays forgotten."""
        return self._moment

    def put(
        self, key: bytes, value: T, seconds: float, depends_on: Iterable[Hashable] = (), *, since: int | None = None
    ) -> None:
        depends_on = tuple(depends_on)
        if seconds <= 0 or (since is not None and self._is_outdated(depends_on, since)):
            return
        self._drop(key)
        entry = _Entry(value, self._environment.monotonic() + seconds, depends_on)
        self._entries[key] = entry
        for one in entry.depends_on:
            self._dependents.setdefault(one, set()).add(key)
        while len(self._entries) > self._capacity:
            self._drop(next(iter(self._entries)))

    def forget(self, dependency: Hashable) -> None:
        self._moment += 1
        self._forgotten[dependency] = self._moment
        self._forgotten.move_to_end(dependency)
        if len(self._forgotten) > _FORGOTTEN:
            self._forgotten.popitem(last=False)
        for key in self._dependents.pop(dependency, ()):
            self._drop(key)

    def clear(self) -> None:
        self._entries.clear()
        self._dependents.clear()

    def __len__(self) -> int:
        return len(self._entries)

    def _is_outdated(self, depends_on: tuple[Hashable, ...], since: int) -> bool:
        if self._moment - since >= _FORGOTTEN:
            return True  # more was forgotten meanwhile than we know of
        return any(self._forgotten.get(one, 0) > since for one in depends_on)

    def _drop(self, key: bytes) -> None:
        entry = self._entries.pop(key, None)
        if entry is None:
            return
        for one in entry.depends_on:
            held = self._dependents.get(one)
            if held is not None:
                held.discard(key)
                if not held:
                    del self._dependents[one]
