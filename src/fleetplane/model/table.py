"""What ``kubectl get`` prints: objects as rows of a ``meta.k8s.io/v1`` Table.

A kind declares its columns as data; a cell is a function of the object and the time, so that ages are the server's and
every client shows the same. Priority 0 columns are always shown, others with ``-o wide``. The words and the roundings
are those of Kubernetes' printers, because people and scripts read them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from fleetplane.model.environment import parse_timestamp
from fleetplane.model.jsonpath import JsonPath, printed
from fleetplane.model.objects import Object, metadata

Cell = str | int | float | bool | None

UNKNOWN: Final = "<unknown>"
INVALID: Final = "<invalid>"

_NAME_DESCRIPTION: Final = "Name of the object, unique among its kind in its namespace."
_AGE_DESCRIPTION: Final = "Time since the server created the object."


@dataclass(frozen=True, slots=True)
class Column:
    """One column. ``type`` and ``format`` are OpenAPI's; ``cell(obj, now)`` is tolerant of absent fields."""

    name: str
    type: str
    format: str
    description: str
    priority: int
    cell: Callable[[Mapping[str, Any], datetime], Cell]

    def definition(self) -> Object:
        return {
            "name": self.name,
            "type": self.type,
            "format": self.format,
            "description": self.description,
            "priority": self.priority,
        }


def human_duration(span: timedelta) -> str:
    """A span as people say it, at most two units: ``45s``, ``3m20s``, ``5h``, ``2d3h``, ``400d``, ``2y5d``."""
    seconds = int(span.total_seconds())
    minutes, hours, days = seconds // 60, seconds // 3600, seconds // 86400
    if seconds < -1:
        return INVALID
    if seconds < 0:
        return "0s"
    if seconds < 120:
        return f"{seconds}s"
    if minutes < 10:
        return _two(minutes, "m", seconds % 60, "s")
    if minutes < 180:
        return f"{minutes}m"
    if hours < 8:
        return _two(hours, "h", minutes % 60, "m")
    if hours < 48:
        return f"{hours}h"
    if hours < 192:
        return _two(days, "d", hours % 24, "h")
    if days < 730:
        return f"{days}d"
    if days < 2920:
        return _two(days // 365, "y", days % 365, "d")
    return f"{days // 365}y"


def _two(large: int, large_unit: str, small: int, small_unit: str) -> str:
    return f"{large}{large_unit}" + (f"{small}{small_unit}" if small else "")


def time_since(text: Any, now: datetime) -> str:
    """How long ago a timestamp was; ``<unknown>`` when there is none."""
    if not isinstance(text, str) or not text:
        return UNKNOWN
    try:
        return human_duration(now - parse_timestamp(text))
    except ValueError:
        return INVALID


def time_until(text: Any, now: datetime) -> str:
    if not isinstance(text, str) or not text:
        return UNKNOWN
    try:
        return human_duration(parse_timestamp(text) - now)
    except ValueError:
        return INVALID


def _name_cell(obj: Mapping[str, Any], now: datetime) -> Cell:
    return str(metadata(obj).get("name") or "")


def _age_cell(obj: Mapping[str, Any], now: datetime) -> Cell:
    return time_since(metadata(obj).get("creationTimestamp"), now)


def _created_cell(obj: Mapping[str, Any], now: datetime) -> Cell:
    return str(metadata(obj).get("creationTimestamp") or "")


NAME: Final = Column("Name", "string", "name", _NAME_DESCRIPTION, 0, _name_cell)
AGE: Final = Column("Age", "string", "", _AGE_DESCRIPTION, 0, _age_cell)
CREATED_AT: Final = Column("Created At", "date", "", _AGE_DESCRIPTION, 0, _created_cell)

DEFAULT_COLUMNS: Final = (NAME, CREATED_AT)
"""Of a built-in kind that declares none."""


def render_table(
    columns: Sequence[Column],
    objects: Iterable[Mapping[str, Any]],
    now: datetime,
    include_object: str = "Metadata",
) -> Object:
    """The Table of the objects. ``include_object`` is ``None``, ``Metadata`` or ``Object``, as in TableOptions."""
    shown = columns or DEFAULT_COLUMNS
    return {
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": {},
        "columnDefinitions": [column.definition() for column in shown],
        "rows": [_row(shown, obj, now, include_object) for obj in objects],
    }


def _row(columns: Sequence[Column], obj: Mapping[str, Any], now: datetime, include_object: str) -> Object:
    row: Object = {"cells": [column.cell(obj, now) for column in columns]}
    if include_object == "Object":
        row["object"] = obj
    elif include_object != "None":
        row["object"] = {
            "kind": "PartialObjectMetadata",
            "apiVersion": "meta.k8s.io/v1",
            "metadata": obj.get("metadata") or {},
        }
    return row


def custom_columns(declared: Sequence[Mapping[str, Any]] | None) -> tuple[Column, ...]:
    """The columns of a custom resource from its ``additionalPrinterColumns``. Raises ValueError for a bad path."""
    if not declared:
        return (NAME, Column("Age", "date", "", _AGE_DESCRIPTION, 0, _age_cell))
    return (NAME, *(_custom_column(one) for one in declared))


def _custom_column(declared: Mapping[str, Any]) -> Column:
    path = JsonPath.parse(str(declared.get("jsonPath") or ""))
    kind = str(declared.get("type") or "")

    def cell(obj: Mapping[str, Any], now: datetime) -> Cell:
        found = path.find(obj)
        return _custom_cell(kind, found[0], now) if found else None

    return Column(
        str(declared.get("name") or ""),
        kind,
        str(declared.get("format") or ""),
        str(declared.get("description") or f"Custom resource definition column (in JSONPath format): {path.text}"),
        int(declared.get("priority") or 0),
        cell,
    )


def _custom_cell(kind: str, value: Any, now: datetime) -> Cell:
    """The value as a cell of the declared type; None where it is of another."""
    if value is None:
        return None
    if kind == "string":
        return printed(value)
    if kind == "date":
        return time_since(value, now) if isinstance(value, str) else None
    if kind == "boolean":
        return value if isinstance(value, bool) else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return int(value) if kind == "integer" else float(value) if kind == "number" else None
