from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleetplane.workloads.cronjob.schedule import BadSchedule, parse


def at(text: str) -> datetime:
    return datetime.fromisoformat(text + ":00+00:00")


@pytest.mark.parametrize(
    ("schedule", "after", "expected"),
    [
        ("* * * * *", "2026-01-01T00:00", "2026-01-01T00:01"),
        ("*/15 * * * *", "2026-01-01T00:01", "2026-01-01T00:15"),
        ("5 4 * * *", "2026-01-01T04:05", "2026-01-02T04:05"),
        ("0 0 29 2 *", "2026-01-01T00:00", "2028-02-29T00:00"),
        ("0 12 * * mon-fri", "2026-01-02T13:00", "2026-01-05T12:00"),
        ("0 0 13 * fri", "2026-01-01T00:00", "2026-01-02T00:00"),
        ("0 0 1 jan,jul ?", "2026-02-01T00:00", "2026-07-01T00:00"),
        ("0 0 * * 7", "2026-01-01T00:00", "2026-01-04T00:00"),
        ("10-20/5 3 * * *", "2026-01-01T03:10", "2026-01-01T03:15"),
        ("@monthly", "2026-01-15T00:00", "2026-02-01T00:00"),
        ("@every 90m", "2026-01-01T00:10", "2026-01-01T01:40"),
    ],
)
def test_the_next_time(schedule, after, expected):
    assert parse(schedule).next(at(after)) == at(expected)


def test_the_zone_of_the_schedule_counts():
    assert parse("0 9 * * *", "Asia/Seoul").next(at("2026-01-01T01:00")) == at("2026-01-02T00:00")


def test_a_time_the_clock_skips_does_not_happen_and_one_it_repeats_happens_once():
    berlin = parse("30 2 * * *", "Europe/Berlin")
    assert berlin.next(at("2026-03-28T12:00")) == at("2026-03-30T00:30")
    autumn = berlin.next(at("2026-10-24T12:00"))
    assert autumn == at("2026-10-25T00:30")
    assert berlin.next(autumn) == at("2026-10-26T01:30")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "* * * *",
        "60 * * * *",
        "* * 0 * *",
        "a * * * *",
        "*/0 * * * *",
        "5-1 * * * *",
        "@never",
        "@every x",
        "1 2 3 4 5 6",
    ],
)
def test_what_is_no_schedule_is_refused(text):
    with pytest.raises(BadSchedule):
        parse(text)


def test_an_unknown_zone_is_refused():
    with pytest.raises(BadSchedule, match="unknown time zone"):
        parse("* * * * *", "Moon/Base")


@given(st.integers(0, 59), st.integers(0, 23), st.datetimes(datetime(2024, 1, 1), datetime(2030, 1, 1)))
@settings(max_examples=100, deadline=None)
def test_a_daily_time_comes_within_a_day_and_looks_as_asked(minute, hour, after):
    after = after.replace(tzinfo=UTC)
    found = parse(f"{minute} {hour} * * *").next(after)
    assert found is not None
    assert timedelta() < found - after <= timedelta(days=1)
    assert (found.minute, found.hour, found.second) == (minute, hour, 0)
