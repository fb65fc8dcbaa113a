"""How a function is declared.

``call`` takes CEL values (a method's target first) and answers one; whatever is wrong with them it says with CelError.
``work`` prices, before the call, what ``price`` does not see: how much time or memory the call really takes, in units of
about a microsecond or a hundred bytes. It counts against a private meter with the same limit, so that reported costs
stay those of Kubernetes. ``result_work`` is the same, where only the result tells.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fleetplane.model.cel.cost import NOMINAL, Price
from fleetplane.model.cel.types import Type


@dataclass(frozen=True, slots=True)
class Overload:
    """One signature of a function. ``member``: called as ``first.name(rest)``."""

    id: str
    parameters: tuple[Type, ...]
    result: Type
    call: Callable[..., Any]
    member: bool = False
    price: Price = NOMINAL
    work: Callable[[Sequence[Any]], int] | None = None
    result_work: Callable[[Any], int] | None = None


Functions = Mapping[str, tuple[Overload, ...]]


def merged(*libraries: Functions) -> Functions:
    """All functions of several libraries; where a name occurs twice, its overloads add up."""
    result: dict[str, tuple[Overload, ...]] = {}
    for library in libraries:
        for name, overloads in library.items():
            result[name] = result.get(name, ()) + overloads
    return result
