"""Sets of fields, as ``managedFields`` writes them.

A set is a trie of path elements, and is kept in the very form of ``fieldsV1``: reading an entry costs nothing, and
neither does writing it. A node is a dict from element to node; an empty node, or one with ``"."``, is a member::

    {"f:spec": {"f:replicas": {}, "f:ports": {'k:{"port":80}': {".": {}, "f:port": {}}}}}

Elements are ``f:<field>``, ``k:<keys as JSON>`` and ``v:<value as JSON>`` (items of lists of type map and set) and
``i:<index>``. The root is no member of anything: an empty root is the empty set.

Tries are shared between sets and objects: they are never changed once built. The functions here take and return tries;
``FieldSet`` is the same with a name.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any, Final

import orjson

from fleetplane.model.jsonvalue import MAX_DEPTH, is_too_deep

Trie = dict[str, Any]

_KINDS: Final = ("f:", "k:", "v:", "i:")


# --- Elements ------------------------------------------------------------------------------------------------------


def value_element(value: Any) -> str:
    """The element of a set's item."""
    return "v:" + orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()


def key_element(keys: dict[str, Any]) -> str:
    """The element of an item of a list of type map, from its key fields."""
    return "k:" + orjson.dumps(keys, option=orjson.OPT_SORT_KEYS).decode()


def shown(path: Iterable[str]) -> str:
    """A path as conflicts print it: ``.spec.containers[name="web"].image``."""
    return "".join(map(_shown_element, path))


def _shown_element(element: str) -> str:
    kind, text = element[:2], element[2:]
    if kind == "f:":
        return f".{text}"
    if kind == "k:":
        keys = orjson.loads(text)
        return "[" + ",".join(f"{name}={_json(value)}" for name, value in keys.items()) + "]"
    return f"[={text}]" if kind == "v:" else f"[{text}]"


def _json(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


# --- Nodes: an empty one is a member --------------------------------------------------------------------------------


def is_member(node: Trie) -> bool:
    return not node or "." in node


def _union(one: Trie, other: Trie) -> Trie:
    if one is other:
        return one
    if not one:
        return other if not other or "." in other else {".": {}, **other}
    if not other:
        return one if "." in one else {".": {}, **one}
    result = dict(one)
    for element, node in other.items():
        mine = result.get(element)
        result[element] = node if mine is None else _union(mine, node)
    return result


def _difference(one: Trie, other: Trie) -> Trie | None:
    result: Trie = {}
    for element, node in one.items():
        if element == ".":
            continue
        theirs = other.get(element)
        kept = node if theirs is None else _difference(node, theirs)
        if kept is not None:
            result[element] = kept
    return _with_membership(result, member=is_member(one) and not is_member(other))


def _intersection(one: Trie, other: Trie) -> Trie | None:
    result: Trie = {}
    for element, node in one.items():
        if element != "." and (theirs := other.get(element)) is not None:
            kept = _intersection(node, theirs)
            if kept is not None:
                result[element] = kept
    return _with_membership(result, member=is_member(one) and is_member(other))


def _without_below(one: Trie, other: Trie) -> Trie | None:
    """What of ``one`` is neither in ``other`` nor below a member of it."""
    if is_member(other):
        return None
    result: Trie = {}
    for element, node in one.items():
        if element != ".":
            theirs = other.get(element)
            kept = node if theirs is None else _without_below(node, theirs)
            if kept is not None:
                result[element] = kept
    return _with_membership(result, member=is_member(one))


def _only_below(one: Trie, other: Trie) -> Trie | None:
    """What of ``one`` is in ``other`` or below a member of it."""
    if is_member(other):
        return one
    result: Trie = {}
    for element, node in one.items():
        if element != "." and (theirs := other.get(element)) is not None:
            kept = _only_below(node, theirs)
            if kept is not None:
                result[element] = kept
    return result or None


def _overlap(one: Trie, other: Trie) -> Trie | None:
    """As ``_intersection``; a leaf of ``other`` also meets what ``one`` has below it, if not the leaf itself."""
    if not other:
        return {} if is_member(one) else one
    result: Trie = {}
    for element, node in one.items():
        if element != "." and (theirs := other.get(element)) is not None:
            kept = _overlap(node, theirs)
            if kept is not None:
                result[element] = kept
    return _with_membership(result, member=is_member(one) and is_member(other))


def _leaves(node: Trie) -> Trie:
    return {element: _leaves(child) for element, child in node.items() if element != "."}


def _with_membership(children: Trie, *, member: bool) -> Trie | None:
    if not children:
        return {} if member else None
    return {".": {}, **children} if member else children


# --- Whole sets ----------------------------------------------------------------------------------------------------


def union(one: Trie, other: Trie) -> Trie:
    """Members of either."""
    if not one or not other:
        return one or other
    return _union(one, other)


def difference(one: Trie, other: Trie) -> Trie:
    """Members of ``one`` that are not members of ``other``."""
    return _root(_difference(one, other)) if one and other else one


def intersection(one: Trie, other: Trie) -> Trie:
    """Members of both."""
    return _root(_intersection(one, other)) if one and other else {}


def without_below(one: Trie, other: Trie) -> Trie:
    """Members of ``one`` that are neither members of ``other`` nor below one."""
    return _root(_without_below(one, other)) if one and other else one


def only_below(one: Trie, other: Trie) -> Trie:
    """Members of ``one`` that are members of ``other`` or below one."""
    return _root(_only_below(one, other)) if one and other else {}


def overlap(one: Trie, other: Trie) -> Trie:
    """Members of ``one`` that a change of ``other`` touches: those in both, and those below a leaf that became one."""
    return _root(_overlap(one, other)) if one and other else {}


def leaves(one: Trie) -> Trie:
    """Members that have no member below them."""
    return _leaves(one)


def _root(node: Trie | None) -> Trie:
    return node or {}


def paths(node: Trie, above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Every member, as a tuple of elements."""
    for element, child in node.items():
        if element == ".":
            continue
        path = (*above, element)
        if is_member(child):
            yield path
        yield from paths(child, path)


def checked(raw: Any) -> Trie:
    """``fieldsV1`` from someone else, with its keys in canonical form. Raises ValueError when it is not one."""
    if is_too_deep(raw):
        raise ValueError(f"fieldsV1 must be nested no deeper than {MAX_DEPTH} levels")
    trie = _checked_node(raw)
    trie.pop(".", None)
    return trie


def _checked_node(raw: Any) -> Trie:
    if type(raw) is not dict:
        raise ValueError("fieldsV1 must hold objects only")
    node = {_checked_element(element): _checked_node(child) for element, child in raw.items() if element != "."}
    return {".": {}, **node} if node and "." in raw else node


def _checked_element(element: str) -> str:
    kind = element[:2]
    if kind == "f:":
        return element
    if kind not in _KINDS:
        raise ValueError(f"fieldsV1 has the unknown path element {element!r}")
    value = orjson.loads(element[2:])
    if kind == "v:":
        return value_element(value)
    if kind == "k:":
        if type(value) is not dict:
            raise ValueError(f"the path element {element!r} must hold an object")
        return key_element(value)
    if type(value) is not int:
        raise ValueError(f"the path element {element!r} must hold an index")
    return f"i:{value}"


class FieldSet:
    """An immutable set of fields."""

    __slots__ = ("trie",)

    trie: Trie

    def __init__(self, trie: Trie | None = None) -> None:
        self.trie = {} if trie is None else trie

    @classmethod
    def of(cls, *paths: Iterable[str]) -> FieldSet:
        """From paths of field names: ``FieldSet.of(("spec", "replicas"), ("status",))``."""
        trie: Trie = {}
        for path in paths:
            node: Trie = {}
            for name in reversed(tuple(path)):
                node = {f"f:{name}": node}
            trie = union(trie, node)
        return cls(trie)

    @classmethod
    def from_fields_v1(cls, raw: Any) -> FieldSet:
        """Raises ValueError."""
        return cls(checked(raw))

    def to_fields_v1(self) -> Trie:
        """The JSON form; shared, not to be changed."""
        return self.trie

    def __or__(self, other: FieldSet) -> FieldSet:
        return FieldSet(union(self.trie, other.trie))

    def __and__(self, other: FieldSet) -> FieldSet:
        return FieldSet(intersection(self.trie, other.trie))

    def __sub__(self, other: FieldSet) -> FieldSet:
        return FieldSet(difference(self.trie, other.trie))

    def without_below(self, other: FieldSet) -> FieldSet:
        return FieldSet(without_below(self.trie, other.trie))

    def only_below(self, other: FieldSet) -> FieldSet:
        return FieldSet(only_below(self.trie, other.trie))

    def leaves(self) -> FieldSet:
        return FieldSet(leaves(self.trie))

    def __iter__(self) -> Iterator[tuple[str, ...]]:
        return paths(self.trie)

    def __bool__(self) -> bool:
        return bool(self.trie)

    def __eq__(self, other: object) -> bool:
        return self.trie == other.trie if isinstance(other, FieldSet) else NotImplemented

    __hash__ = None  # type: ignore[assignment] # dicts have no hash; sets are values, not keys

    def __repr__(self) -> str:
        return f"FieldSet({' '.join(map(shown, self))})"
