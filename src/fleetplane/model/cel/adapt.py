"""From JSON to CEL values, as a schema says: a date-time string becomes a timestamp, the number 1 a double.

Objects stay raw: their properties are converted one by one when they are selected. Lists and maps of convertible
values are converted when they are reached. Values that are CEL values already pass.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from fleetplane.model.cel.errors import CelError
from fleetplane.model.cel.library.times import parse_date, parse_lenient_duration, parse_timestamp
from fleetplane.model.cel.types import Kind, Type
from fleetplane.model.cel.values import Optional, Uint, some

Adapter: TypeAlias = Callable[[Any], Any]


def adapter(kind: Type) -> Adapter | None:
    """How to convert values of this type, or None when they are fine as they are."""
    if kind.kind is Kind.LIST:
        inner = adapter(kind.parameters[0])
        return None if inner is None else _list_adapter(inner)
    if kind.kind is Kind.MAP:
        inner = adapter(kind.parameters[1])
        return None if inner is None else _map_adapter(inner)
    if kind.kind is Kind.OPTIONAL:
        inner = adapter(kind.parameters[0])
        return None if inner is None else _optional_adapter(inner)
    return _SCALARS.get(kind.kind)


def _list_adapter(inner: Adapter) -> Adapter:
    return lambda value: [None if item is None else inner(item) for item in value] if type(value) is list else value


def _map_adapter(inner: Adapter) -> Adapter:
    def convert(value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        return {key: None if item is None else inner(item) for key, item in value.items()}

    return convert


def _optional_adapter(inner: Adapter) -> Adapter:
    return lambda value: some(inner(value.value)) if isinstance(value, Optional) and value.present else value


def _double(value: Any) -> Any:
    return float(value) if type(value) is int else value


def _uint(value: Any) -> Any:
    return Uint(value) if type(value) is int and value >= 0 else value


def _bytes(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return base64.b64decode(value.encode(), validate=True)
    except (binascii.Error, ValueError):
        raise CelError("invalid byte formatted string: it is not base64") from None


def _timestamp(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    return parse_date(value) if len(value) == 10 else parse_timestamp(value)


def _duration(value: Any) -> Any:
    return parse_lenient_duration(value) if isinstance(value, str) else value


_SCALARS: Mapping[Kind, Adapter] = {
    Kind.DOUBLE: _double,
    Kind.UINT: _uint,
    Kind.BYTES: _bytes,
    Kind.TIMESTAMP: _timestamp,
    Kind.DURATION: _duration,
}
