"""Strategic merge patch: a merge patch that knows which lists are merged, and by which key.

The schema of a built-in kind says so (``x-kubernetes-patch-strategy``, ``x-kubernetes-patch-merge-key``); what it does
not know is merged as plain JSON: maps merge, lists replace. Inside the patch, directives say more:

- ``$patch: replace|delete|merge`` in a map or in an item of a list;
- ``$retainKeys`` names the only keys a map keeps;
- ``$setElementOrder/<list>`` gives the order of a list after merging;
- ``$deleteFromPrimitiveList/<list>`` removes values from a list of scalars.

Semantics are those of apimachinery's ``strategicpatch``; of the order of merged lists too: the patch's items keep the
patch's order, the others theirs, and a new item comes before those it is not known to follow.
"""

from __future__ import annotations

from operator import itemgetter
from typing import Any, Final

from fleetplane.model.errors import bad_request
from fleetplane.model.jsonvalue import MAX_DEPTH, copied
from fleetplane.model.objects import Object
from fleetplane.model.schema.listtypes import hashable
from fleetplane.model.schema.schema import Schema

_PATCH: Final = "$patch"
_RETAIN_KEYS: Final = "$retainKeys"
_SET_ORDER: Final = "$setElementOrder/"
_DELETE_FROM: Final = "$deleteFromPrimitiveList/"


def strategic_merge_patch(schema: Schema | None, obj: Object, patch: Any) -> Object:
    """The object with the patch merged into it. Raises ApiError 400 for a patch that makes no sense."""
    if type(patch) is not dict:
        raise bad_request("a strategic merge patch must be a JSON object")
    try:
        return _merge_map(schema, copied(obj), copied(patch))
    except RecursionError:
        raise bad_request(f"the patch is nested deeper than {MAX_DEPTH} levels") from None


def _merge_map(schema: Schema | None, original: dict[str, Any], patch: dict[str, Any]) -> dict[str, Any]:
    """Consumes both arguments."""
    directive = patch.pop(_PATCH, None)
    if directive == "replace":
        replaced: Object = _without_directives(patch)
        return replaced
    if directive == "delete":
        return {}
    if directive not in (None, "merge"):
        raise bad_request(f'invalid strategic merge patch: unknown $patch directive "{directive}"')
    _retain_keys(original, patch)
    _set_element_orders(schema, original, patch)
    for key, value in patch.items():
        if key.startswith(_DELETE_FROM):
            _delete_from_list(original, key.removeprefix(_DELETE_FROM), value)
        elif value is None:
            original.pop(key, None)
        else:
            child = schema.field(key) if schema is not None else None
            original[key] = _merged(child, original.get(key), value)
    return original


def _merged(schema: Schema | None, original: Any, patch: Any) -> Any:
    strategies = schema.patch_strategies if schema is not None else frozenset()
    if type(patch) is dict and type(original) is dict:
        return _merge_map(schema, original, patch) if "replace" not in strategies else _without_directives(patch)
    if type(patch) is list and type(original) is list and schema is not None and "merge" in strategies:
        return _merge_list(schema, original, patch)
    return _without_directives(patch)


def _without_directives(value: Any) -> Any:
    """A value taken from the patch as it is: no directives, no nulls in maps, no items that say they are deleted."""
    if type(value) is dict:
        return {
            key: _without_directives(one)
            for key, one in value.items()
            if one is not None and key not in (_PATCH, _RETAIN_KEYS) and not key.startswith((_SET_ORDER, _DELETE_FROM))
        }
    if type(value) is list:
        kept = (one for one in value if not (type(one) is dict and one.get(_PATCH) == "delete"))
        return [_without_directives(one) for one in kept if not (type(one) is dict and one.keys() == {_PATCH})]
    return value


def _retain_keys(original: dict[str, Any], patch: dict[str, Any]) -> None:
    retained = patch.pop(_RETAIN_KEYS, None)
    if retained is None:
        return
    if type(retained) is not list or not all(type(one) is str for one in retained):
        raise bad_request("invalid strategic merge patch: $retainKeys must be a list of field names")
    missing = [key for key in patch if not key.startswith("$") and key not in retained]
    if missing:
        raise bad_request(f"invalid strategic merge patch: {missing[0]!r} is patched but not in $retainKeys")
    for key in original.keys() - set(retained):
        del original[key]


def _delete_from_list(original: dict[str, Any], key: str, values: Any) -> None:
    if type(values) is not list or any(type(one) in (dict, list) for one in values):
        raise bad_request(f"invalid strategic merge patch: {_DELETE_FROM}{key} must be a list of scalars")
    found = original.get(key)
    if type(found) is list:
        gone = {hashable(one) for one in values}
        original[key] = [one for one in found if hashable(one) not in gone]


# --- Lists ---------------------------------------------------------------------------------------------------------


def _identity(item: Any, merge_key: str) -> Any:
    """What makes an item itself: the value of its merge key, or all of it."""
    return hashable(item.get(merge_key) if merge_key and type(item) is dict else item)


def _patch_identity(item: Any, merge_key: str) -> Any:
    """As ``_identity``, of an item of the patch, which must have its merge key."""
    if merge_key and (type(item) is not dict or merge_key not in item):
        raise bad_request(f"invalid strategic merge patch: a list item lacks its merge key {merge_key!r}")
    return _identity(item, merge_key)


def _merge_list(schema: Schema, original: list[Any], patch: list[Any]) -> list[Any]:
    if not original and not patch:
        return original
    if any(type(one) is list for one in (*original, *patch)):
        raise bad_request("invalid strategic merge patch: lists of lists cannot be merged")
    if not any(type(one) is dict for one in (*original, *patch)):
        merged = list({hashable(one): one for one in (*original, *patch)}.values())
        return _ordered(merged, patch, original, "")
    key = schema.patch_merge_key
    if not key:
        raise bad_request("invalid strategic merge patch: cannot merge lists of objects without a merge key")
    if not all(type(one) is dict for one in (*original, *patch)):
        raise bad_request("invalid strategic merge patch: objects and scalars cannot be merged in one list")
    original, patch = _apply_item_directives(original, patch, key)
    merged = _merge_items(schema, original, patch, key)
    return _ordered(merged, patch, original, key)


def _apply_item_directives(original: list[Any], patch: list[Any], key: str) -> tuple[list[Any], list[Any]]:
    """Items that say ``$patch`` act on the original and vanish."""
    plain: list[Any] = []
    replace = False
    deleted: set[Any] = set()
    for item in patch:
        directive = item.get(_PATCH)
        if directive is None or directive == "merge":
            plain.append(item)
        elif directive == "replace":
            replace = True
            if item.keys() != {_PATCH}:
                plain.append({name: value for name, value in item.items() if name != _PATCH})
        elif directive == "delete":
            deleted.add(_patch_identity(item, key))
        else:
            raise bad_request(f'invalid strategic merge patch: unknown $patch directive "{directive}"')
    if replace:
        return [], plain
    if deleted:
        original = [one for one in original if _identity(one, key) not in deleted]
    return original, plain


def _merge_items(schema: Schema, original: list[Any], patch: list[Any], key: str) -> list[Any]:
    """Every item of both; those with the same key merged. A key that comes twice in the original is merged once."""
    merged = list(original)
    place = _positions(original, key)
    for item in patch:
        identity = _patch_identity(item, key)
        at = place.get(identity)
        if at is None:
            place[identity] = len(merged)
            merged.append(_without_directives(item))
        else:
            merged[at] = _merge_map(schema.items, merged[at], item)
    return merged


def _ordered(merged: list[Any], patch_order: list[Any], server_order: list[Any], key: str) -> list[Any]:
    """Items of the patch in its order, the others in the server's, interleaved by the server's where both are known."""
    wanted, before = _positions(patch_order, key), _positions(server_order, key)
    last = len(before)
    ours: list[tuple[int, Any]] = []
    others: list[tuple[int, Any]] = []
    for item in merged:
        identity = _identity(item, key)
        if identity in wanted:
            ours.append((wanted[identity], item))
        else:
            others.append((before.get(identity, last), item))
    ours.sort(key=itemgetter(0))
    others.sort(key=itemgetter(0))
    result: list[Any] = []
    at = 0
    for _, item in ours:
        position = before.get(_identity(item, key), -1)
        while at < len(others) and others[at][0] < position:
            result.append(others[at][1])
            at += 1
        result.append(item)
    return result + [item for _, item in others[at:]]


def _positions(items: list[Any], key: str) -> dict[Any, int]:
    positions: dict[Any, int] = {}
    for index, item in enumerate(items):
        positions.setdefault(_identity(item, key), index)
    return positions


def _set_element_orders(schema: Schema | None, original: dict[str, Any], patch: dict[str, Any]) -> None:
    """Merge the lists whose order the patch gives, and take them and the directives out of the patch."""
    for directive in [key for key in patch if key.startswith(_SET_ORDER)]:
        order = patch.pop(directive)
        name = directive.removeprefix(_SET_ORDER)
        child = schema.field(name) if schema is not None else None
        before, change = original.get(name), patch.get(name)
        if type(order) is not list or not isinstance(before, list | None) or not isinstance(change, list | None):
            raise bad_request(f"invalid strategic merge patch: {directive} and {name} must be lists")
        key = child.patch_merge_key if child is not None else ""
        _check_order(change or [], order, key, directive)
        if change is None and (before is None or name in patch):  # nothing to order, or the list is removed
            continue
        patch.pop(name, None)
        merged = before if change is None else _merged(child, before, change)
        original[name] = _ordered(merged or [], order, before or [], key)


def _check_order(change: list[Any], order: list[Any], key: str, directive: str) -> None:
    """What is patched must stand in the order that is given, in that order."""
    for item in order:
        _patch_identity(item, key)
    places = _positions(order, key)
    last = -1
    for item in change:
        if type(item) is dict and item.get(_PATCH) in ("delete", "replace"):
            continue
        place = places.get(_patch_identity(item, key))
        if place is None or place < last:
            raise bad_request(
                f"invalid strategic merge patch: the patched list does not follow the order of {directive}"
            )
        last = place
