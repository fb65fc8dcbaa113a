"""Steps that call a function of a library, and charge for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from fleetplane.model.cel.cost import Price
from fleetplane.model.cel.frame import Frame, Step, charge, toil
from fleetplane.model.cel.library.declarations import Overload
from fleetplane.model.cel.types import Kind, accepts
from fleetplane.model.cel.values import no_such_overload


def call(overload: Overload, arguments: Sequence[Step]) -> Step:
    """A call whose overload is certain; a price that depends on nothing was charged already."""
    function = overload.call
    if overload.price.known is not None and overload.work is overload.result_work is None:
        if len(arguments) == 1:
            (first,) = arguments
            return lambda frame: function(first(frame))
        if len(arguments) == 2:
            first, second = arguments
            return lambda frame: function(first(frame), second(frame))
    steps = tuple(arguments)
    priced = overload.price.known is None

    def step(frame: Frame) -> Any:
        values = [argument(frame) for argument in steps]
        return _metered(frame, overload, values, priced=priced)

    return step


def _metered(frame: Frame, overload: Overload, values: Sequence[Any], *, priced: bool) -> Any:
    if overload.work is not None:
        toil(frame, overload.work(values))
    result = overload.call(*values)
    if overload.result_work is not None:
        toil(frame, overload.result_work(result))
    if priced:
        charge(frame, overload.price.actual(values, result))
    return result


def dispatch(name: str, overloads: Sequence[Overload], arguments: Sequence[Step]) -> Step:
    """A call whose overload depends on the values; remembered by their types, of which there are few."""
    steps = tuple(arguments)
    table = tuple(overloads)
    by_name = any(kind.kind is Kind.OPAQUE for overload in table for kind in overload.parameters)
    known: dict[tuple[type, ...], Overload] = {}

    def step(frame: Frame) -> Any:
        values = [argument(frame) for argument in steps]
        types = tuple(map(type, values))
        overload = known.get(types)
        if overload is None:
            overload = next((one for one in table if all(map(accepts, one.parameters, values))), None)
            if overload is None:
                raise no_such_overload(name, *values)
            if not by_name:
                known[types] = overload
        return _metered(frame, overload, values, priced=True)

    return step


def priced(function: Callable[[Any, Any], Any], price: Price, left: Step, right: Step, work: Any) -> Step:
    """A two-sided operator with a price by value."""

    def step(frame: Frame) -> Any:
        values = (left(frame), right(frame))
        if work is not None:
            toil(frame, work(values))
        charge(frame, price.actual(values, None))
        return function(*values)

    return step
