"""Walking typed values: which fields a value has, what changed between two, merging and taking away.

The type of a node decides how its value is owned:

- scalars, atomic lists and atomic maps have one owner: a leaf;
- granular maps are owned field by field;
- lists of type map and set are owned item by item, whatever the order.

Where there is no schema the type is deduced: maps are granular, lists atomic. A value that is not of its type is a
leaf. Sources: KEP-555, and structured-merge-diff for what exactly counts as a member.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from fleetplane.model.apply.fieldset import Trie, is_member, key_element, union, value_element
from fleetplane.model.errors import bad_request
from fleetplane.model.schema.schema import Schema

_ABSENT: Final = object()


def is_granular_map(schema: Schema | None) -> bool:
    return schema is None or (not schema.is_atomic and schema.type in ("object", ""))


def is_granular_list(schema: Schema | None) -> bool:
    return schema is not None and schema.type == "array" and schema.list_type != "atomic"


def element_of(schema: Schema, item: Any) -> str:
    """The path element of an item of a granular list."""
    if schema.list_type == "set" or type(item) is not dict:
        return value_element(item)
    keys: dict[str, Any] = {}
    for name in schema.list_map_keys:
        value = item.get(name)
        if value is None:
            value = key_default(schema, name)
        if value is not None:
            keys[name] = value
    return key_element(keys)


def key_default(schema: Schema, name: str) -> Any:
    """What stands for an absent key field.

    The published schemas of the built-in kinds lack the one default that is part of a key: a port's protocol is TCP.
    """
    field = schema.items.field(name) if schema.items is not None else None
    if field is not None and field.default is not None:
        return field.default
    return "TCP" if name == "protocol" and schema.schemas.is_builtin else None


# --- Sets ------------------------------------------------------------------------------------------------------------


def all_fields(schema: Schema | None, value: Any) -> Trie:
    """The node of a value that is new as a whole: everything in it is a member, containers too."""
    if type(value) is dict:
        if not value or not is_granular_map(schema):
            return {}
        node: Trie = {".": {}}
        if schema is None:
            for name, one in value.items():
                node["f:" + name] = all_fields(None, one) if type(one) is dict else {}
            return node
        properties, additional = schema.properties, schema.additional
        for name, one in value.items():
            kind = type(one)
            if kind is dict or kind is list:
                node["f:" + name] = all_fields(properties.get(name, additional), one)
            else:
                node["f:" + name] = {}
        return node
    if type(value) is list and value and schema is not None and is_granular_list(schema):
        items = schema.items
        node = {".": {}}
        for one in value:
            element = element_of(schema, one)
            node[element] = all_fields(items, one) if element not in node else {}
        return node
    return {}


def applied_fields(schema: Schema | None, value: Any) -> Trie:
    """The node of a value that is applied: leaves, list items, keys of maps and what is empty are members; other
    containers are not.

    Raises ApiError when a list names the same item twice.
    """
    if type(value) is dict:
        if not value or not is_granular_map(schema):
            return {}
        node: Trie = {}
        properties = schema.properties if schema is not None else {}
        for name, one in value.items():
            kind = type(one)
            if kind is dict or kind is list:
                child = applied_fields(schema.field(name) if schema is not None else None, one)
                node["f:" + name] = child if name in properties or not child else {".": {}, **child}
            else:
                node["f:" + name] = {}
        return node
    if type(value) is list and value and schema is not None and is_granular_list(schema):
        node = {}
        for one in value:
            element = element_of(schema, one)
            if element in node:
                raise bad_request(f"a list of the applied object names the item {element[2:]} twice")
            child = applied_fields(schema.items, one)
            node[element] = {".": {}, **child} if child else {}
        return node
    return {}


# --- Differences -------------------------------------------------------------------------------------------------------


class Comparison(NamedTuple):
    """What changed from one value to another, as tries."""

    added: Trie
    modified: Trie
    removed: Trie

    @property
    def changed(self) -> Trie:
        """What has a value now that it did not have before."""
        return union(self.added, self.modified)

    @property
    def is_same(self) -> bool:
        return not self.added and not self.modified and not self.removed


def compare(schema: Schema | None, old: dict[str, Any], new: dict[str, Any]) -> Comparison:
    result = Comparison({}, {}, {})
    _compare_maps(schema, old, new, result)
    return result


def _compare_maps(schema: Schema | None, old: dict[str, Any], new: dict[str, Any], out: Comparison) -> None:
    for name, value in new.items():
        before = old.get(name, _ABSENT)
        if before is value or before == value:
            continue
        child = schema.field(name) if schema is not None else None
        if before is _ABSENT:
            out.added["f:" + name] = all_fields(child, value)
        else:
            _compare_values(child, before, value, "f:" + name, out)
    for name in old.keys() - new.keys():
        child = schema.field(name) if schema is not None else None
        out.removed["f:" + name] = all_fields(child, old[name])


def _compare_values(schema: Schema | None, old: Any, new: Any, element: str, out: Comparison) -> None:
    kind = type(new)
    if kind is type(old):
        below = Comparison({}, {}, {})
        if kind is dict and is_granular_map(schema):
            _compare_maps(schema, old, new, below)
            _put(out, element, below)
            return
        if kind is list and schema is not None and is_granular_list(schema):
            _compare_lists(schema, old, new, below)
            _put(out, element, below)
            return
    out.modified[element] = {}
    # A leaf became a container or the other way round: what was below is gone, what is below is new.
    gone, come = all_fields(schema, old), all_fields(schema, new)
    gone.pop(".", None)
    come.pop(".", None)
    _put(out, element, Comparison(come, {}, gone))


def _put(out: Comparison, element: str, below: Comparison) -> None:
    for into, found in zip(out, below, strict=True):
        if found:
            into[element] = found


def _compare_lists(schema: Schema, old: list[Any], new: list[Any], out: Comparison) -> None:
    before, after = _by_element(schema, old), _by_element(schema, new)
    for element, items in after.items():
        were = before.get(element)
        if were is None:
            out.added[element] = all_fields(schema.items, items[0]) if len(items) == 1 else {}
        elif were != items:
            if len(were) == len(items) == 1:
                _compare_values(schema.items, were[0], items[0], element, out)
            else:  # the same key more than once: such items are one thing
                out.modified[element] = {}
    for element in before.keys() - after.keys():
        were = before[element]
        out.removed[element] = all_fields(schema.items, were[0]) if len(were) == 1 else {}


def _by_element(schema: Schema, items: list[Any]) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    for one in items:
        found.setdefault(element_of(schema, one), []).append(one)
    return found


# --- Merging -----------------------------------------------------------------------------------------------------------


def merge(schema: Schema | None, live: dict[str, Any], applied: dict[str, Any]) -> None:
    """Merge ``applied`` into ``live``, in place; parts of ``applied`` become parts of ``live``."""
    for name, value in applied.items():
        kind = type(value)
        if (kind is dict or kind is list) and name in live:
            live[name] = _merged(schema.field(name) if schema is not None else None, live[name], value)
        else:
            live[name] = value


def _merged(schema: Schema | None, live: Any, applied: Any) -> Any:
    if type(live) is dict and type(applied) is dict and is_granular_map(schema):
        merge(schema, live, applied)
        return live
    if type(live) is list and type(applied) is list and schema is not None and is_granular_list(schema):
        return _merged_list(schema, live, applied)
    return applied


def _merged_list(schema: Schema, live: list[Any], applied: list[Any]) -> list[Any]:
    """Items of both. Applied items stand in the applied order, others where they stood relative to their neighbours.

    An item that is in live more than once and applied is replaced by the applied one.
    """
    ours = [element_of(schema, one) for one in applied]
    theirs = [element_of(schema, one) for one in live]
    in_applied = set(ours)
    before = _by_element(schema, live)
    next_shared = _next_shared(ours, before)
    result: list[Any] = []
    done: set[str] = set()
    at = 0
    for index, element in enumerate(ours):
        while at < len(theirs):
            other = theirs[at]
            if other not in in_applied:
                result.append(live[at])
            elif other not in done and (other == element or other == next_shared[index]):
                break
            at += 1
        items = before.get(element, ())
        result.append(_merged(schema.items, items[0], applied[index]) if len(items) == 1 else applied[index])
        done.add(element)
    result += [live[rest] for rest in range(at, len(theirs)) if theirs[rest] not in in_applied]
    return result


def _next_shared(ours: list[str], before: dict[str, list[Any]]) -> list[str | None]:
    """For each place in the applied list the first element from there on that is also in live."""
    found: list[str | None] = [None] * len(ours)
    following: str | None = None
    for index in range(len(ours) - 1, -1, -1):
        if ours[index] in before:
            following = ours[index]
        found[index] = following
    return found


# --- Taking away ---------------------------------------------------------------------------------------------------------


def remove(schema: Schema | None, value: Any, last: Trie, kept: Trie) -> None:
    """Take out of ``value``, in place, what is in ``last`` and not in ``kept``.

    A field that the schema names counts as a member as soon as anything below it is one; keys of maps and items of
    lists must be members themselves. Containers that become empty go too, unless kept themselves.
    """
    if type(value) is dict and is_granular_map(schema):
        for element, node in last.items():
            name = element[2:]
            if not element.startswith("f:") or name not in value:
                continue
            is_named = schema is not None and name in schema.properties
            if _goes(node, kept.get(element), is_named=is_named):
                del value[name]
            elif node and value[name]:
                stays = kept.get(element) or {".": {}} if element in kept else {}
                remove(schema.field(name) if schema is not None else None, value[name], node, stays)
                if not value[name] and "." not in stays:
                    del value[name]
    elif type(value) is list and schema is not None and is_granular_list(schema):
        rest = []
        for item in value:
            element = element_of(schema, item)
            found = last.get(element)
            if found is None:
                rest.append(item)
            elif not _goes(found, kept.get(element), is_named=False):
                remove(schema.items, item, found, kept.get(element) or {})
                rest.append(item)
        value[:] = rest


def _goes(last: Trie, kept: Trie | None, *, is_named: bool) -> bool:
    was_member = is_named or is_member(last)
    is_kept = kept is not None and (is_named or is_member(kept))
    return was_member and not is_kept
