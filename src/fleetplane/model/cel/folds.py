"""The loops of the macros: all, exists, exists_one, map, filter, transformList, transformMap.

What one turn costs is what cel-go's expansion of the macro costs: reading and testing the accumulator, then the body.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from fleetplane.model.cel.cost import LIST_COST
from fleetplane.model.cel.errors import CelError
from fleetplane.model.cel.frame import COST, SOFT, Frame, Step, charge, over
from fleetplane.model.cel.values import hash_key, no_such_overload

LOOK_ALL = 2
"""``@not_strictly_false(accumulator)``, before each turn of all()."""
LOOK_EXISTS = 3
"""``@not_strictly_false(!accumulator)``, before each turn of exists()."""
ACCUMULATE = 1
"""Reading the accumulator in a turn."""
RESULT = 1
"""Reading the accumulator at the end."""
COUNT = 2
"""``accumulator + 1`` and ``accumulator == 1`` of exists_one."""
COLLECT = 1 + LIST_COST + 1
"""``accumulator + [element]``."""
INSERT = 3
"""``cel.@mapInsert(accumulator, key, value)``, without the value."""
INSERT_ENTRY = 2


def items(value: Any) -> Iterable[Any]:
    if type(value) is list:
        return value
    if isinstance(value, Mapping):
        return list(value)
    raise no_such_overload("comprehension", value)


def pairs(value: Any) -> Iterable[tuple[Any, Any]]:
    if type(value) is list:
        return enumerate(value)
    if isinstance(value, Mapping):
        return list(value.items())
    raise no_such_overload("comprehension", value)


def quantified(over_: Step, slots: Sequence[int], body: Step, cost: int, *, is_all: bool) -> Step:
    """all() and exists(): stop at the element that decides; an error counts only if none does."""
    decides = not is_all
    goes_on = is_all
    look = LOOK_ALL if is_all else LOOK_EXISTS
    turn = look + ACCUMULATE + cost
    single = slots[0] if len(slots) == 1 else None

    def step(frame: Frame) -> bool:
        failure: CelError | None = None
        decided = False
        value = over_(frame)
        for item in items(value) if single is not None else pairs(value):
            if decided:
                charge(frame, look)
                return decides
            total = frame[COST] = frame[COST] + turn
            if total > frame[SOFT]:
                over(frame)
            if single is not None:
                frame[single] = item
            else:
                frame[slots[0]], frame[slots[1]] = item
            try:
                found = body(frame)
            except CelError as error:
                failure = failure or error
                continue
            if found is decides:
                decided = True
            elif found is not goes_on:
                failure = failure or no_such_overload("_&&_" if is_all else "_||_", found)
        if decided:
            return decides
        if failure is not None:
            raise failure
        return goes_on

    return step


def visits(over_: Step, slots: Sequence[int], cost: int) -> Callable[[Frame], Iterable[None]]:
    """One turn per element: charge it and set the variables."""
    if len(slots) == 1:
        (slot,) = slots

        def one(frame: Frame) -> Iterable[None]:
            for item in items(over_(frame)):
                total = frame[COST] = frame[COST] + cost
                if total > frame[SOFT]:
                    over(frame)
                frame[slot] = item
                yield None

        return one
    first, second = slots

    def two(frame: Frame) -> Iterable[None]:
        for key, item in pairs(over_(frame)):
            charge(frame, cost)
            frame[first], frame[second] = key, item
            yield None

    return two


def exists_one(over_: Step, slots: Sequence[int], body: Step, cost: int) -> Step:
    turns = visits(over_, slots, cost)

    def step(frame: Frame) -> bool:
        count = 0
        for _ in turns(frame):
            if truth(body(frame)):
                charge(frame, COUNT)
                count += 1
        return count == 1

    return step


def collect(over_: Step, slots: Sequence[int], body: Step, cost: int) -> Step:
    turns = visits(over_, slots, cost)
    return lambda frame: [body(frame) for _ in turns(frame)]


def collect_some(over_: Step, slots: Sequence[int], condition: tuple[Step, int], body: Step, cost: int) -> Step:
    test, test_cost = condition
    turns = visits(over_, slots, test_cost)

    def step(frame: Frame) -> list[Any]:
        found: list[Any] = []
        for _ in turns(frame):
            if truth(test(frame)):
                charge(frame, cost)
                found.append(body(frame))
        return found

    return step


def collect_map(
    over_: Step, slots: Sequence[int], condition: tuple[Step, int] | None, body: Step, cost: int, *, entries: bool
) -> Step:
    """transformMap: the same keys, other values; transformMapEntry: the entries of the body's maps."""
    test, test_cost = condition or (None, cost)
    turns = visits(over_, slots, test_cost)

    def step(frame: Frame) -> dict[Any, Any]:
        found: dict[Any, Any] = {}
        for _ in turns(frame):
            if test is not None:
                if not truth(test(frame)):
                    continue
                charge(frame, cost)
            if not entries:
                found[frame[slots[0]]] = body(frame)
                continue
            for key, value in body(frame).items():
                if key in found:
                    raise CelError(f"insert failed: key {str(key)[:64]} already exists")
                found[key] = value
        return found

    return step


def truth(value: Any) -> bool:
    if value is True or value is False:
        return bool(value)
    raise no_such_overload("_?_:_", value)


def map_literal(entries: Sequence[tuple[Step, Step, bool]]) -> Step:
    """``{key: value, ?key: optional}``; a key that comes twice is an error."""
    parts = tuple(entries)

    def step(frame: Frame) -> dict[Any, Any]:
        made: dict[Any, Any] = {}
        for key_step, value_step, optional in parts:
            key = key_step(frame)
            if type(key) is float or hash_key(key) is None or key is None:
                raise CelError("unsupported key type")
            value = value_step(frame)
            if optional:
                if not unwrapped(value):
                    continue
                value = value.value
            if key in made:
                raise CelError(f"Failed with repeated key: {str(key)[:64]}")
            made[key] = value
        return made

    return step


def list_literal(elements: Sequence[tuple[Step, bool]]) -> Step:
    if not any(optional for _, optional in elements):
        steps = tuple(step for step, _ in elements)
        return lambda frame: [element(frame) for element in steps]
    parts = tuple(elements)

    def step(frame: Frame) -> list[Any]:
        made: list[Any] = []
        for element, optional in parts:
            value = element(frame)
            if not optional:
                made.append(value)
            elif unwrapped(value):
                made.append(value.value)
        return made

    return step


def unwrapped(value: Any) -> bool:
    """Whether an optional holds a value."""
    present = getattr(value, "present", None)
    if present is None:
        raise no_such_overload("optional", value)
    return bool(present)
