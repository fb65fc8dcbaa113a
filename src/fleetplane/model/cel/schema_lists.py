"""Lists that a schema calls a set or a map: order does not matter for ``==``, and ``+`` merges.

See "List type" in Kubernetes' reference of CEL in custom resources: a set's ``+`` is a union that keeps positions, a
map's ``+`` replaces elements of the same keys and appends the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from fleetplane.model.cel.types import Kind, Type
from fleetplane.model.cel.values import equals, hash_key


def is_merging(kind: Type) -> bool:
    return kind.kind is Kind.LIST and kind.list_type in {"set", "map"}


def has_merging(kind: Type, depth: int = 0) -> bool:
    """Whether a set or map list occurs anywhere in this type."""
    if is_merging(kind):
        return True
    if depth > 40:
        return False
    inner = [*kind.parameters, *(field.type for field in (kind.fields or {}).values())]
    return any(has_merging(one, depth + 1) for one in inner)


def typed_equality(kind: Type) -> Callable[[Any, Any], bool]:
    """``==`` for values of this type."""
    if not has_merging(kind):
        return equals
    if kind.kind is Kind.LIST:
        return _list_equality(kind)
    if kind.kind is Kind.MAP:
        each = typed_equality(kind.parameters[1])
        return lambda left, right: _mapping_equality(left, right, lambda _key: each)
    by_key = {field.key: typed_equality(field.type) for field in (kind.fields or {}).values()}
    return lambda left, right: _mapping_equality(left, right, lambda key: by_key.get(key, equals))


def _mapping_equality(left: Any, right: Any, of: Callable[[Any], Callable[[Any, Any], bool]]) -> bool:
    if not isinstance(left, Mapping) or not isinstance(right, Mapping):
        return equals(left, right)
    return len(left) == len(right) and all(key in right and of(key)(left[key], right[key]) for key in left)


def _list_equality(kind: Type) -> Callable[[Any, Any], bool]:
    each = typed_equality(kind.parameters[0])
    identity = _identity(kind)

    def equal(left: Any, right: Any) -> bool:
        if type(left) is not list or type(right) is not list:
            return equals(left, right)
        if len(left) != len(right):
            return False
        if identity is None:
            return all(map(each, left, right))
        known = {identity(item): item for item in left}
        return all((key := identity(item)) in known and each(known[key], item) for item in right)

    return equal


def merge(kind: Type) -> Callable[[Any, Any], Any]:
    """``+`` for two lists of this (set or map) type."""
    identity = _identity(kind)
    assert identity is not None

    def merged(left: Any, right: Any) -> Any:
        result = list(left)
        places = {identity(item): place for place, item in enumerate(result)}
        for item in right:
            place = places.setdefault(identity(item), len(result))
            if place == len(result):
                result.append(item)
            elif kind.list_type == "map":
                result[place] = item
        return result

    return merged


def _identity(kind: Type) -> Callable[[Any], Any] | None:
    """What makes two elements the same one; None for atomic lists."""
    if kind.list_type == "set":
        return _hashable
    if kind.list_type == "map":
        keys = kind.list_keys
        return lambda item: tuple(_hashable(item.get(key)) for key in keys) if isinstance(item, Mapping) else id(item)
    return None


def _hashable(value: Any) -> Any:
    return hash_key(value) or id(value)
