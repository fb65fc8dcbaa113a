"""Lists that are sets or maps: no item twice, no key twice.

Only custom resources are held to it (see ``schema``). The fast check is a yes or no on every write; the slow one names
each item that comes a second time, as Kubernetes does.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

import orjson

from fleetplane.model.errors import FieldError

if TYPE_CHECKING:
    from fleetplane.model.schema.schema import Schema


def lists_are_unique(schema: Schema, value: Any) -> bool:
    """Whether no list of type map in ``value`` has a key twice."""
    if not schema.leads_to_map_lists():
        return True
    if type(value) is dict:
        for name, child in schema.containers.items():
            if name in value and not lists_are_unique(child, value[name]):
                return False
        child_of_values = schema.value_container
        if child_of_values is not None:
            known = schema.properties
            return all(name in known or lists_are_unique(child_of_values, one) for name, one in value.items())
    elif type(value) is list:
        if schema.list_type == "map" and len(value) > 1 and len({*map_keys(schema, value)}) != len(value):
            return False
        if schema.item_container is not None:
            return all(lists_are_unique(schema.item_container, one) for one in value)
    return True


def map_keys(schema: Schema, items: list[Any]) -> list[Any]:
    """The key of each item of a list of type map, hashable; key fields with defaults are expected to be filled in."""
    names = schema.list_map_keys
    if len(names) == 1:
        name = names[0]
        return [hashable(one[name]) if type(one) is dict and name in one else ABSENT for one in items]
    return [
        tuple(hashable(one[name]) if type(one) is dict and name in one else ABSENT for name in names) for one in items
    ]


def hashable(value: Any) -> Any:
    """Something equal exactly when the JSON values are; booleans are not numbers here."""
    kind = type(value)
    if kind is str or kind is int or kind is float:
        return value
    if kind is bool or value is None:
        return kind, value
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)


class _Absent:
    __slots__ = ()

    def __repr__(self) -> str:
        return "ABSENT"

    def __bool__(self) -> bool:
        return False


ABSENT: Final = _Absent()
"""Stands for a value that is not there, where None is a value."""


def duplicates(schema: Schema, items: list[Any], path: str) -> Iterator[FieldError]:
    """The errors of one list; a value that comes more than twice is named once."""
    if schema.list_type == "map":
        wrong = next((index for index, one in enumerate(items) if one is not None and type(one) is not dict), None)
        if wrong is not None:
            detail = "must be an object for an array of list-type map"
            yield FieldError.invalid(f"{path}[{wrong}]", items[wrong], detail)
            return
        keys = map_keys(schema, items)
        shown = [{name: one[name] for name in schema.list_map_keys if name in one} if one else {} for one in items]
    elif schema.list_type == "set":
        keys, shown = [hashable(one) for one in items], items
    else:
        return
    times: dict[Any, int] = {}
    for index, key in enumerate(keys):
        times[key] = times.get(key, 0) + 1
        if times[key] == 2:
            yield FieldError.duplicate(f"{path}[{index}]", shown[index])
