"""The one form in which a built-in object is kept: what Kubernetes would answer for it.

Kubernetes reads an object into typed structures and writes it out again, and clients rely on what that does: quantities
and times have one spelling, optional fields with zero values are absent, and required ones are present even when nobody
set them (generated clients refuse a DaemonSet status without its counters). The facts about each field are those of the
protobuf table. Rules and comparisons that come after may so treat an absent field and its zero value as one.

Values of the wrong type are left as they are; the schema refuses them later. Fields no type knows are not touched.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, lru_cache
from typing import Any, Final

from fleetplane.model.environment import micro_timestamp, parse_timestamp, timestamp
from fleetplane.model.objects import Object
from fleetplane.model.protobuf.facts import Field, message_fields, message_name
from fleetplane.model.quantity import Quantity

Canonical = Callable[[Any], Any]
"""From a value to its canonical form; objects and lists are changed in place."""

_MAX_DEPTH: Final = 64
_USUAL_TIME: Final = 35
"""Letters of a time with nanoseconds and an offset. Only these are remembered: longer ones could fill the memory."""


def canonicalise(obj: Object) -> None:
    """Bring a built-in object of any served version into its canonical form, in place."""
    message = message_name(str(obj.get("apiVersion") or ""), str(obj.get("kind") or ""))
    if message is not None:
        _fill(message, obj, 0)


def canonical_part(message: str, part: Object) -> None:
    """The same for a part of an object, named by its definition (a PodSpec)."""
    _fill(message, part, 0)


def _fill(message: str, obj: Object, depth: int) -> None:
    if depth > _MAX_DEPTH:
        return
    for step in _steps(message):
        step(obj, depth)


Step = Callable[[Object, int], None]


@cache
def _steps(message: str) -> tuple[Step, ...]:
    """What is done to an object of a message, field by field."""
    return tuple(step for field in message_fields(message) if (step := _step(field)) is not None)


def _step(field: Field) -> Step | None:
    if field.inline:
        message = field.type

        def inline(obj: Object, depth: int) -> None:
            _fill(message, obj, depth + 1)

        return inline
    if field.shape in ("list", "map"):
        return _collection(field)
    if field.shape in ("items", "mapitems"):
        return _droppable(field)
    if field.type in _SPELLING:
        return _spelled(field)
    if field.type in _ZERO:
        return _scalar(field)
    return _structure(field) if "." in field.type else None


def _scalar(field: Field) -> Step | None:
    name, zero = field.name, _ZERO[field.type]
    if field.pointer:
        return None
    if field.omit_zero:

        def drop(obj: Object, depth: int) -> None:
            if name in obj:
                value = obj[name]
                if value == zero and type(value) is type(zero):
                    del obj[name]

        return drop

    def set_zero(obj: Object, depth: int) -> None:
        if name not in obj:
            obj[name] = zero

    return set_zero


def _spelled(field: Field) -> Step:
    name, spell = field.name, _SPELLING[field.type]
    absent = {"quantity": "0", "intorstring": 0}.get(field.type) if not field.pointer else None

    def step(obj: Object, depth: int) -> None:
        value = obj.get(name)
        if value is not None:
            obj[name] = spell(value)
        elif absent is not None:
            obj[name] = absent

    return step


def _structure(field: Field) -> Step:
    name, message, pointer = field.name, field.type, field.pointer

    def step(obj: Object, depth: int) -> None:
        value = obj.get(name)
        if value is None:
            if pointer:
                return
            value = obj[name] = {}
        if type(value) is dict:
            _fill(message, value, depth + 1)

    return step


def _collection(field: Field) -> Step | None:
    name, drop_empty = field.name, field.omit_zero
    spell = _SPELLING.get(field.type)
    message = field.type if "." in field.type else None
    if spell is None and message is None:
        return _droppable(field)
    is_list = field.shape == "list"

    def step(obj: Object, depth: int) -> None:
        if name not in obj:
            return
        value = obj[name]
        if not value:
            if drop_empty and type(value) in (list, dict):
                del obj[name]
            return
        if type(value) is not (list if is_list else dict):
            return
        places: Any = range(len(value)) if is_list else list(value)
        for place in places:
            one = value[place]
            if spell is not None:
                value[place] = spell(one)
            elif type(one) is dict and message is not None:
                _fill(message, one, depth + 1)

    return step


def _droppable(field: Field) -> Step | None:
    name = field.name
    if not field.omit_zero:
        return None

    def step(obj: Object, depth: int) -> None:
        if name in obj and not obj[name] and type(obj[name]) in (list, dict):
            del obj[name]

    return step


def _quantity(value: Any) -> Any:
    try:
        return str(Quantity.parse(value)) if isinstance(value, str | int | float) else value
    except ValueError:
        return value


def _time(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    return _usual_time(value) if len(value) <= _USUAL_TIME else _spelled_time(value)


def _spelled_time(value: str) -> str:
    try:
        return timestamp(parse_timestamp(value))
    except ValueError:
        return value


_usual_time = lru_cache(1024)(_spelled_time)
"""An object has the same times each time it is written, and many objects have the same."""


def _micro_time(value: Any) -> Any:
    try:
        return micro_timestamp(parse_timestamp(value)) if isinstance(value, str) else value
    except ValueError:
        return value


def _as_is(value: Any) -> Any:
    return value


_SPELLING: Final[dict[str, Canonical]] = {
    "quantity": _quantity,
    "time": _time,
    "microtime": _micro_time,
    "intorstring": _as_is,
}
_ZERO: Final[dict[str, Any]] = {"string": "", "bool": False, "int32": 0, "int64": 0}
