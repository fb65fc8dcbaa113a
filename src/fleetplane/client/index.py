"""Finding cached objects by something other than their key.

An index files every object under any number of string values. The values are computed once, when an object arrives, and
kept with its key, so that removing an object never needs its old content again.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import Any

from fleetplane.client.snapshot import ObjectKey, Snapshot

IndexFunction = Callable[[Snapshot], Iterable[str]]


class Index:
    def __init__(self, function: IndexFunction) -> None:
        self._function = function
        # Most values have one key, which then stands for itself; several are a dict as an ordered set.
        self._keys: dict[str, ObjectKey | dict[ObjectKey, None]] = {}
        self._values: dict[ObjectKey, tuple[str, ...]] = {}

    def put(self, snapshot: Snapshot) -> None:
        key, values = snapshot.key, tuple(self._function(snapshot))
        if values == self._values.get(key):
            return
        self.remove(key)
        if values:
            self._values[key] = values
            for value in values:
                self._file(value, key)

    def remove(self, key: ObjectKey) -> None:
        for value in self._values.pop(key, ()):
            filed = self._keys.get(value)
            if isinstance(filed, dict):
                filed.pop(key, None)
            if filed == key or not filed:
                self._keys.pop(value, None)

    def _file(self, value: str, key: ObjectKey) -> None:
        filed = self._keys.setdefault(value, key)
        if isinstance(filed, dict):
            filed[key] = None
        elif filed != key:
            self._keys[value] = {filed: None, key: None}

    def find(self, value: str) -> Collection[ObjectKey]:
        filed = self._keys.get(value, ())
        return filed if isinstance(filed, dict) else (filed,) if filed else ()

    def values(self) -> Iterable[str]:
        return self._keys.keys()


def by_namespace(snapshot: Snapshot) -> Iterable[str]:
    """``cluster/namespace``"""
    return (f"{snapshot.key.cluster}/{snapshot.key.namespace}",)


def by_owner(snapshot: Snapshot) -> Iterable[str]:
    """The uid of every owner."""
    return [owner.uid for owner in snapshot.owners]


def by_controller(snapshot: Snapshot) -> Iterable[str]:
    """The uid of the one owner that manages the object."""
    return [owner.uid for owner in snapshot.owners if owner.controller]


def by_label(name: str) -> IndexFunction:
    def values(snapshot: Snapshot) -> Iterable[str]:
        value = snapshot.labels.get(name)
        return () if value is None else (value,)

    return values


def by_field(path: str) -> IndexFunction:
    """The text at a dotted path (``spec.nodeName``); objects without it are not filed."""
    parts = path.split(".")

    def values(snapshot: Snapshot) -> Iterable[str]:
        found: Any = snapshot.object
        for part in parts:
            found = found.get(part) if isinstance(found, dict) else None
        return () if found in {None, ""} else (str(found),)

    return values
