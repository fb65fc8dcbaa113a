"""Steps that read: a literal, a variable, a field, with or without ``?`` or ``has()``.

A step is a small function of the frame. It trusts the static types it was made for; where a value turns out not to have
its declared type, Python's own error surfaces and the program reports it as a CelError.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fleetplane.model.cel.adapt import Adapter
from fleetplane.model.cel.frame import Frame, Step
from fleetplane.model.cel.library.operators import no_such_key
from fleetplane.model.cel.values import NONE, Optional, no_such_overload, some


def literal(value: Any) -> Step:
    return lambda _frame: value


def variable(slot: int) -> Step:
    return lambda frame: frame[slot]


def field_of_variable(slot: int, key: str, convert: Adapter | None) -> Step:
    """``variable.field`` of an object; a null property is an absent one."""

    def step(frame: Frame) -> Any:
        try:
            value = frame[slot][key]
        except (KeyError, TypeError):
            raise no_such_key(key) from None
        if value is None:
            raise no_such_key(key)
        return value if convert is None else convert(value)

    return step


def field_of_object(operand: Step, key: str, convert: Adapter | None) -> Step:
    def step(frame: Frame) -> Any:
        container = operand(frame)
        try:
            value = container[key]
        except (KeyError, TypeError):
            raise no_such_key(key) from None
        if value is None:
            raise no_such_key(key)
        return value if convert is None else convert(value)

    return step


def field_of_map(operand: Step, key: str) -> Step:
    def step(frame: Frame) -> Any:
        container = operand(frame)
        try:
            return container[key]
        except (KeyError, TypeError):
            return field_of_anything(container, key)

    return step


def field_of_anything(container: Any, key: str) -> Any:
    """A field where only the value can tell: of a map, or within an optional."""
    if isinstance(container, Mapping):
        if key in container:
            return container[key]
        raise no_such_key(key)
    if type(container) is Optional:
        return optional_field(container, key, None, null_is_absent=False)
    raise no_such_overload()


def has_field(operand: Step, key: str, *, null_is_absent: bool) -> Step:
    def step(frame: Frame) -> bool:
        container = operand(frame)
        if type(container) is Optional:
            if not container.present:
                return False
            container = container.value
        if not isinstance(container, Mapping):
            raise no_such_overload()
        if null_is_absent:
            return container.get(key) is not None
        return key in container

    return step


def select_optional(operand: Step, key: str, convert: Adapter | None, *, null_is_absent: bool) -> Step:
    return lambda frame: optional_field(operand(frame), key, convert, null_is_absent=null_is_absent)


def optional_field(container: Any, key: str, convert: Adapter | None, *, null_is_absent: bool) -> Optional:
    if type(container) is Optional:
        if not container.present:
            return NONE
        container = container.value
    if not isinstance(container, Mapping):
        raise no_such_overload()
    if key not in container:
        return NONE
    value = container[key]
    if value is None and null_is_absent:
        return NONE
    if type(value) is Optional:
        return value
    return some(value if convert is None else convert(value))
