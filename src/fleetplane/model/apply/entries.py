"""Who manages what: ``metadata.managedFields`` as entries, read and written.

An entry belongs to a manager, an operation and a subresource; updates also to the version they were made in. Applying
has one entry whatever the version. Which fields an entry may never hold (identity and what the server sets) is said
here too.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple

from fleetplane.model.apply.fieldset import FieldSet, Trie, checked, only_below, union, without_below
from fleetplane.model.objects import Object

APPLY: Final = "Apply"
UPDATE: Final = "Update"
MAX_UPDATE_ENTRIES: Final = 10
"""More updates than this are merged, oldest first, so that managedFields stay small."""
ANCIENT: Final = "ancient-changes"
BEFORE_FIRST_APPLY: Final = "before-first-apply"

_NEVER_OWNED: Final = (
    "f:name",
    "f:namespace",
    "f:uid",
    "f:creationTimestamp",
    "f:resourceVersion",
    "f:generation",
    "f:selfLink",
    "f:clusterName",
    "f:managedFields",
    ".",
)
"""What of metadata nobody owns."""


class Id(NamedTuple):
    """What tells entries apart; ``api_version`` is empty for Apply."""

    manager: str
    operation: str
    subresource: str
    api_version: str

    @classmethod
    def of(cls, manager: str, operation: str, subresource: str, api_version: str) -> Id:
        return cls(manager, operation, subresource, "" if operation == APPLY else api_version)


class Entry(NamedTuple):
    """What one manager owns; ``time`` is RFC 3339, when it last changed any of it."""

    api_version: str
    time: str
    fields: Trie


Entries = dict[Id, Entry]


def strip(trie: Trie) -> Trie:
    """Without what nobody owns."""
    metadata = trie.get("f:metadata")
    if metadata is None and "f:kind" not in trie and "f:apiVersion" not in trie:
        return trie
    result = {
        element: node for element, node in trie.items() if element not in ("f:apiVersion", "f:kind", "f:metadata")
    }
    if metadata:
        kept = {element: node for element, node in metadata.items() if element not in _NEVER_OWNED}
        if kept:
            result["f:metadata"] = kept
    return result


class FieldFilter(NamedTuple):
    """Which fields a request can own at all: all but ``paths`` and what is below, or only those.

    The server resets the others (status in a request to the object, all but status in one to ``/status``), so nobody
    becomes their owner there.
    """

    paths: FieldSet
    keeps: bool

    @classmethod
    def without(cls, *names: str) -> FieldFilter:
        """All but these top-level fields."""
        return cls(FieldSet.of(*((name,) for name in names)), keeps=False)

    @classmethod
    def only(cls, *names: str) -> FieldFilter:
        """Only these top-level fields."""
        return cls(FieldSet.of(*((name,) for name in names)), keeps=True)

    def apply(self, trie: Trie) -> Trie:
        return only_below(trie, self.paths.trie) if self.keeps else without_below(trie, self.paths.trie)


def of_object(obj: Mapping[str, Any] | None) -> Any:
    """The raw managedFields; None when there are none."""
    metadata = obj.get("metadata") if obj is not None else None
    return metadata.get("managedFields") if type(metadata) is dict else None


def read(raw: Any, *, trusted: bool = True) -> Entries:
    """Entries of managedFields that we wrote ourselves, or with ``trusted=False`` of someone else's.

    Raises ValueError when someone else's are malformed. A list of one empty entry is how clients clear them.
    """
    entries: Entries = {}
    if type(raw) is not list:
        if raw is None or trusted:
            return entries
        raise ValueError("managedFields must be a list")
    if raw == [{}]:
        return entries
    for one in raw:
        if not trusted:
            _check(one)
        fields = one.get("fieldsV1") or {}
        version = str(one.get("apiVersion") or "")
        operation = one.get("operation") or UPDATE
        key = Id.of(str(one.get("manager") or ""), operation, str(one.get("subresource") or ""), version)
        trie = fields if trusted else checked(fields)
        previous = entries.get(key)
        if previous is not None:
            trie = union(previous.fields, trie)
        entries[key] = Entry(version, str(one.get("time") or ""), trie)
    return entries


def _check(one: Any) -> None:
    if type(one) is not dict:
        raise ValueError("managedFields must hold objects")
    if one.get("operation") not in (APPLY, UPDATE):
        raise ValueError("operation must be `Apply` or `Update`")
    if one.get("fieldsType") not in (None, "", "FieldsV1"):
        raise ValueError("fieldsType must be `FieldsV1`")


def written(entries: Entries) -> list[Object]:
    """The raw form, in apimachinery's order; entries that own nothing are left out."""
    rows = sorted((key.operation, entry.time, key, entry) for key, entry in entries.items() if entry.fields)
    return [_row(key, entry) for _, _, key, entry in rows]


def _row(key: Id, entry: Entry) -> Object:
    row: Object = {"manager": key.manager, "operation": key.operation, "apiVersion": entry.api_version}
    if entry.time:
        row["time"] = entry.time
    row["fieldsType"] = "FieldsV1"
    row["fieldsV1"] = entry.fields
    if key.subresource:
        row["subresource"] = key.subresource
    return row


def with_entries(obj: Object, entries: Entries) -> Object:
    """The object with these managedFields; shares everything else with ``obj``."""
    return with_rows(obj, written(entries))


def with_rows(obj: Object, rows: list[Object]) -> Object:
    metadata = obj.get("metadata")
    metadata = dict(metadata) if type(metadata) is dict else {}
    if rows:
        metadata["managedFields"] = rows
    else:
        metadata.pop("managedFields", None)
    return {**obj, "metadata": metadata}


def cap_updates(entries: Entries) -> None:
    """Merge the oldest updates into one per version while there are too many, in place."""
    updates = sorted((entry.time, key) for key, entry in entries.items() if key.operation == UPDATE)
    surplus = len(updates) - MAX_UPDATE_ENTRIES
    if surplus <= 0:
        return
    # One more than the surplus goes into each bucket, which itself counts.
    for _, key in updates:
        if surplus <= 0:
            return
        if key.manager == ANCIENT:
            continue
        old = entries.pop(key)
        bucket = Id(ANCIENT, UPDATE, key.subresource, old.api_version)
        known = entries.get(bucket)
        if known is None:
            entries[bucket] = Entry(old.api_version, old.time, old.fields)
        else:
            entries[bucket] = Entry(old.api_version, max(known.time, old.time), union(known.fields, old.fields))
            surplus -= 1


def union_of(entries: Iterable[Entry]) -> Trie:
    total: Trie = {}
    for entry in entries:
        total = union(total, entry.fields)
    return total
