"""Whether an object already is what an apply would make it, told from its ``managedFields``.

Server-side apply records which fields each manager set (KEP-555). So without asking the server: an apply by ``manager``
changes nothing if the fields recorded for it are exactly those of the desired object, and each of them has the desired
value. That sees drift (a value was changed), theft (another manager took a field) and removal (a field is no longer
desired), knows associative lists by the keys the record itself names, and needs no schema.

Where the server normalises values (``1000m`` becomes ``1``) the answer is "no" although nothing would change. That
costs a request that writes nothing, and callers remember its outcome.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from fleetplane.model.objects import Object, metadata

_IDENTITY = frozenset({"apiVersion", "kind", "metadata"})
_META_IDENTITY = frozenset({"name", "namespace", "uid", "resourceVersion", "creationTimestamp", "generation"})


def is_applied(observed: Mapping[str, Any], desired: Mapping[str, Any], manager: str) -> bool:
    fields = managed_fields(observed, manager)
    if fields is None:
        return False
    meta = {key: value for key, value in metadata(desired).items() if key not in _META_IDENTITY}
    body = {key: value for key, value in desired.items() if key not in _IDENTITY}
    if not _same(fields.get("f:metadata") or {}, metadata(observed), meta):
        return False
    rest = {key: value for key, value in fields.items() if key != "f:metadata"}
    return _same(rest, observed, body)


def managed_fields(observed: Mapping[str, Any], manager: str) -> Object | None:
    """The field set that ``manager`` applied to the object itself; ``None`` when it never did."""
    for entry in metadata(observed).get("managedFields") or ():
        if entry.get("manager") == manager and entry.get("operation") == "Apply" and not entry.get("subresource"):
            fields = entry.get("fieldsV1")
            return fields if isinstance(fields, dict) else None
    return None


def _same(fields: Mapping[str, Any], observed: Any, desired: Any) -> bool:
    """``fields`` is a node of FieldsV1: ``f:`` names, ``k:`` list-map keys, ``v:`` set values, ``.`` itself."""
    names = [name for name in fields if name != "."]
    if not names:
        return _holds(observed, desired)
    if names[0].startswith("f:"):
        return _same_mapping(fields, names, observed, desired)
    if names[0].startswith("k:"):
        return _same_list_map(fields, names, observed, desired)
    if names[0].startswith("v:"):
        wanted = {name[2:] for name in names}
        return isinstance(desired, list) and wanted == {orjson.dumps(one).decode() for one in desired}
    return False


def _same_mapping(fields: Mapping[str, Any], names: list[str], observed: Any, desired: Any) -> bool:
    if not isinstance(desired, Mapping) or not isinstance(observed, Mapping):
        return False
    wanted = {key: value for key, value in desired.items() if value is not None}
    if {name[2:] for name in names} != wanted.keys():
        return False
    return all(key in observed and _same(fields[f"f:{key}"], observed[key], value) for key, value in wanted.items())


def _same_list_map(fields: Mapping[str, Any], names: list[str], observed: Any, desired: Any) -> bool:
    if not isinstance(desired, list) or not isinstance(observed, list) or len(names) != len(desired):
        return False
    for name in names:
        keys = orjson.loads(name[2:])
        ours, theirs = _item(desired, keys, lenient=True), _item(observed, keys)
        if ours is None or theirs is None:
            return False
        # A key that the server filled in (a port's protocol) is recorded, though nobody wrote it.
        inner = {field: value for field, value in fields[name].items() if field[2:] not in keys or field[2:] in ours}
        if not _same(inner, theirs, ours):
            return False
    return True


def _item(items: list[Any], keys: Mapping[str, Any], *, lenient: bool = False) -> Any:
    def fits(one: Any) -> bool:
        if not isinstance(one, Mapping):
            return False
        return all(one.get(key) == value or (lenient and key not in one) for key, value in keys.items())

    return next((one for one in items if fits(one)), None)


def _holds(observed: Any, desired: Any) -> bool:
    """``observed`` says all that ``desired`` says; defaults may have been added to it."""
    if isinstance(desired, Mapping):
        if not isinstance(observed, Mapping):
            return False
        return all(value is None or _holds(observed.get(key), value) for key, value in desired.items())
    if isinstance(desired, list):
        if not isinstance(observed, list) or len(observed) != len(desired):
            return False
        return all(_holds(one, other) for one, other in zip(observed, desired, strict=True))
    return bool(observed == desired) and isinstance(observed, bool) == isinstance(desired, bool)
