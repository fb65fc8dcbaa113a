"""cel-go's set library: lists seen as sets. ``sets.contains``, ``sets.equivalent``, ``sets.intersects``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from fleetplane.model.cel.cost import ONE, Estimate, Price, fixed
from fleetplane.model.cel.library.declarations import Functions, Overload
from fleetplane.model.cel.types import BOOL, list_of, parameter
from fleetplane.model.cel.values import equals, hash_key


class _Members:
    """Membership in constant time where elements have a hash, by comparison where not."""

    def __init__(self, items: Sequence[Any]) -> None:
        keys = [(hash_key(item), item) for item in items]
        self._known = {key for key, _ in keys if key is not None}
        self._odd = [item for key, item in keys if key is None]

    def __contains__(self, item: object) -> bool:
        key = hash_key(item)
        if key is not None:
            return key in self._known
        return any(equals(item, other) for other in self._odd)


def contains(items: Sequence[Any], others: Sequence[Any]) -> bool:
    members = _Members(items)
    return all(other in members for other in others)


def equivalent(items: Sequence[Any], others: Sequence[Any]) -> bool:
    return contains(items, others) and contains(others, items)


def intersects(items: Sequence[Any], others: Sequence[Any]) -> bool:
    members = _Members(items)
    return any(other in members for other in others)


def _product(factor: int) -> Price:
    """Every element with every other, as cel-go does it; once more for the call."""
    return Price(
        lambda arguments, _result: 1 + factor * len(arguments[0]) * len(arguments[1]),
        lambda operands: Estimate(operands[0].size.times(operands[1].size).times(fixed(factor)).plus(ONE)),
    )


def _work(arguments: Sequence[Any]) -> int:
    odd = [sum(1 for item in items if hash_key(item) is None) for items in arguments]
    return odd[0] * odd[1] + (len(arguments[0]) + len(arguments[1])) // 10


_A: Final = parameter("A")
_LIST: Final = list_of(_A)

FUNCTIONS: Final[Functions] = {
    "sets.contains": (
        Overload("list_sets_contains_list", (_LIST, _LIST), BOOL, contains, price=_product(1), work=_work),
    ),
    "sets.equivalent": (
        Overload("list_sets_equivalent_list", (_LIST, _LIST), BOOL, equivalent, price=_product(2), work=_work),
    ),
    "sets.intersects": (
        Overload("list_sets_intersects_list", (_LIST, _LIST), BOOL, intersects, price=_product(1), work=_work),
    ),
}
