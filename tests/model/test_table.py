from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from fleetplane.model.table import (
    AGE,
    NAME,
    Column,
    custom_columns,
    human_duration,
    render_table,
    time_since,
    time_until,
)

NOW = datetime(2026, 1, 2, tzinfo=UTC)
YEAR = timedelta(days=365)


@pytest.mark.parametrize(
    ("span", "shown"),
    [
        (timedelta(seconds=-5), "<invalid>"),
        (timedelta(seconds=-1.5), "0s"),
        (timedelta(0), "0s"),
        (timedelta(seconds=119.9), "119s"),
        (timedelta(seconds=120), "2m"),
        (timedelta(minutes=9, seconds=59), "9m59s"),
        (timedelta(minutes=10, seconds=30), "10m"),
        (timedelta(minutes=179), "179m"),
        (timedelta(minutes=180), "3h"),
        (timedelta(hours=7, minutes=59), "7h59m"),
        (timedelta(hours=47, minutes=59), "47h"),
        (timedelta(hours=48), "2d"),
        (timedelta(days=7, hours=23), "7d23h"),
        (timedelta(days=8, hours=5), "8d"),
        (2 * YEAR - timedelta(days=1), "729d"),
        (2 * YEAR, "2y"),
        (2 * YEAR + timedelta(days=5), "2y5d"),
        (8 * YEAR + timedelta(days=5), "8y"),
    ],
)
def test_a_span_is_said_in_at_most_two_units(span: timedelta, shown: str) -> None:
    assert human_duration(span) == shown


def test_times_without_a_value_are_unknown() -> None:
    assert time_since(None, NOW) == "<unknown>"
    assert time_since("yesterday", NOW) == "<invalid>"
    assert time_until("2026-01-03T00:00:00Z", NOW) == "24h"


def car(name: str, **spec: Any) -> dict[str, Any]:
    return {"metadata": {"name": name, "creationTimestamp": "2026-01-01T00:00:00Z"}, "spec": spec}


def test_rows_carry_cells_and_the_metadata_of_the_object() -> None:
    table = render_table((NAME, AGE), [car("a")], NOW)

    assert table["kind"] == "Table"
    assert [one["name"] for one in table["columnDefinitions"]] == ["Name", "Age"]
    (row,) = table["rows"]
    assert row["cells"] == ["a", "24h"]
    assert row["object"] == {
        "kind": "PartialObjectMetadata",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": car("a")["metadata"],
    }


def test_the_object_can_be_whole_or_left_out() -> None:
    assert render_table((NAME,), [car("a")], NOW, "Object")["rows"][0]["object"] == car("a")
    assert "object" not in render_table((NAME,), [car("a")], NOW, "None")["rows"][0]


def test_without_columns_name_and_creation_time_are_shown() -> None:
    table = render_table((), [car("a")], NOW)

    assert table["rows"][0]["cells"] == ["a", "2026-01-01T00:00:00Z"]


def cells(columns: tuple[Column, ...], obj: dict[str, Any]) -> list[Any]:
    return [column.cell(obj, NOW) for column in columns]


def test_a_custom_resource_without_columns_shows_its_age() -> None:
    assert cells(custom_columns([]), car("a")) == ["a", "24h"]


@pytest.mark.parametrize(
    ("kind", "value", "cell"),
    [
        ("string", "red", "red"),
        ("string", 5, "5"),
        ("string", ["a"], '["a"]'),
        ("integer", 5, 5),
        ("integer", 5.7, 5),
        ("integer", "5", None),
        ("integer", True, None),
        ("number", 5, 5.0),
        ("boolean", False, False),
        ("boolean", "false", None),
        ("date", "2026-01-01T12:00:00Z", "12h"),
        ("date", "soon", "<invalid>"),
        ("date", 5, None),
        ("string", None, None),
    ],
)
def test_a_custom_cell_has_the_declared_type(kind: str, value: Any, cell: Any) -> None:
    (_, column) = custom_columns([{"name": "X", "type": kind, "jsonPath": ".spec.x", "priority": 1}])

    assert column.cell(car("a", x=value), NOW) == cell
    assert column.priority == 1


def test_a_missing_field_is_an_empty_cell() -> None:
    assert cells(custom_columns([{"name": "X", "type": "string", "jsonPath": ".spec.x"}]), car("a")) == ["a", None]


def test_a_path_that_cannot_be_read_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\S"):
        custom_columns([{"name": "X", "type": "string", "jsonPath": ".spec["}])
