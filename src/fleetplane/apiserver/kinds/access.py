"""Tolerant readers for objects that are not checked yet.

Defaults are filled in before the schema is checked, so any value may have any type. These never raise; what they return
for a value of the wrong type is empty and not connected to the object.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fleetplane.model.objects import Object


def section(obj: Mapping[str, Any], *path: str) -> Object:
    """The object at a path of keys, itself (changes reach the whole) where there is one."""
    found: Any = obj
    for key in path:
        found = found.get(key) if isinstance(found, dict) else None
    return found if isinstance(found, dict) else {}


def made(obj: Object, *path: str) -> Object:
    """The object at a path, made where absent; unconnected where something else stands there."""
    for key in path:
        if obj.get(key) is None:
            obj[key] = {}
        found = obj[key]
        if not isinstance(found, dict):
            return {}
        obj = found
    return obj


def entries(obj: Mapping[str, Any], key: str) -> list[Object]:
    """The objects in a list field."""
    found = obj.get(key)
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []


def words(obj: Mapping[str, Any], key: str) -> list[str]:
    """The strings in a list field."""
    found = obj.get(key)
    return [one for one in found if isinstance(one, str)] if isinstance(found, list) else []


def text(obj: Mapping[str, Any], key: str) -> str:
    found = obj.get(key)
    return found if isinstance(found, str) else ""


def number(obj: Mapping[str, Any], key: str, default: int = 0) -> int:
    found = obj.get(key)
    return found if isinstance(found, int) and not isinstance(found, bool) else default


def fill(obj: Object, **values: Any) -> None:
    """Set the fields that are absent."""
    for key, value in values.items():
        if obj.get(key) is None:
            obj[key] = value
