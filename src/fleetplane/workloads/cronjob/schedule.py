"""Cron schedules: when is the next time? Pure, on local wall-clock times.

Five fields (minute, hour, day of month, month, day of week), names of months and days, ranges, steps, lists, ``?`` for
``*``, and the words ``@hourly``, ``@daily``, ``@midnight``, ``@weekly``, ``@monthly``, ``@yearly``, ``@annually`` and
``@every 90m``. When both day fields are restricted, either is enough (as in cron since the beginning).

A time that the clock skips in spring does not happen that day; one that it shows twice in autumn happens once.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

_WORDS: Final = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
_MONTHS: Final = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]
_DAYS: Final = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"]
_EVERY: Final = re.compile(r"(?:(\d{1,9})h)?(?:(\d{1,9})m)?(?:(\d{1,9})s)?")
_HORIZON: Final = timedelta(days=366 * 5)


class BadSchedule(ValueError):
    """The text is no schedule; the message says why."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """Sets of allowed values. ``any_day`` and ``any_weekday`` tell that the field was ``*``."""

    minutes: frozenset[int]
    hours: frozenset[int]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]
    any_day: bool
    any_weekday: bool
    zone: ZoneInfo
    every: timedelta | None = None

    def next(self, after: datetime) -> datetime | None:
        """The first time strictly after ``after`` (both UTC); None when there is none within five years."""
        if self.every is not None:
            return (after + self.every).replace(microsecond=0)
        at = after.astimezone(self.zone).replace(second=0, microsecond=0, tzinfo=None) + timedelta(minutes=1)
        limit = at + _HORIZON
        while at < limit:
            if at.month not in self.months:
                at = _next_month(at)
            elif not self._is_day(at):
                at = at.replace(hour=0, minute=0) + timedelta(days=1)
            elif at.hour not in self.hours:
                at = at.replace(minute=0) + timedelta(hours=1)
            elif at.minute not in self.minutes or (moment := self._moment(at)) is None or moment <= after:
                at += timedelta(minutes=1)
            else:
                return moment
        return None

    def _is_day(self, at: datetime) -> bool:
        day, weekday = at.day in self.days, (at.isoweekday() % 7) in self.weekdays
        return day and weekday if self.any_day or self.any_weekday else day or weekday

    def _moment(self, at: datetime) -> datetime | None:
        """The wall-clock time as a moment; None when the clock skips it."""
        local = at.replace(tzinfo=self.zone)
        moment = local.astimezone(UTC)
        return moment if moment.astimezone(self.zone).replace(tzinfo=None) == at else None


def _next_month(at: datetime) -> datetime:
    year, month = (at.year + 1, 1) if at.month == 12 else (at.year, at.month + 1)
    return datetime(year, month, 1)


def parse(text: str, zone: str = "") -> Schedule:
    """Raises BadSchedule."""
    text = text.strip()
    for prefix in ("TZ=", "CRON_TZ="):
        if text.startswith(prefix):
            named, _, text = text[len(prefix) :].partition(" ")
            zone = zone or named
    found_zone = _zone(zone)
    if text.startswith("@every "):
        return _every(text.removeprefix("@every ").strip(), found_zone)
    fields = _WORDS.get(text.lower(), text).split()
    if len(fields) != 5:
        raise BadSchedule(f"expected exactly 5 fields, found {len(fields)}: {text!r}")
    minute, hour, day, month, weekday = fields
    return Schedule(
        _field(minute, 0, 59),
        _field(hour, 0, 23),
        _field(day, 1, 31),
        _field(month, 1, 12, _MONTHS, 1),
        frozenset(value % 7 for value in _field(weekday, 0, 7, _DAYS, 0)),
        any_day=_is_any(day),
        any_weekday=_is_any(weekday),
        zone=found_zone,
    )


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name or "UTC")
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise BadSchedule(f"unknown time zone {name}") from None


def _every(text: str, zone: ZoneInfo) -> Schedule:
    match = _EVERY.fullmatch(text)
    parts = [int(one or 0) for one in match.groups()] if match is not None else [0]
    period = timedelta(hours=parts[0], minutes=parts[1], seconds=parts[2]) if match is not None else timedelta()
    if period < timedelta(seconds=1):
        raise BadSchedule(f"failed to parse duration {text!r}")
    none: frozenset[int] = frozenset()
    return Schedule(none, none, none, none, none, any_day=True, any_weekday=True, zone=zone, every=period)


def _is_any(field: str) -> bool:
    return field.partition("/")[0] in {"*", "?"}


def _field(text: str, low: int, high: int, names: list[str] | None = None, first: int = 0) -> frozenset[int]:
    found: set[int] = set()
    for part in text.split(","):
        span, slash, step_text = part.partition("/")
        step = _number(step_text, text) if slash else 1
        if step < 1:
            raise BadSchedule(f"step of range should be a positive number: {text}")
        begin_text, dash, end_text = span.partition("-")
        if span in {"*", "?"}:
            begin, end = low, high
        else:
            begin = _value(begin_text, names, first, text)
            end = _value(end_text, names, first, text) if dash else (high if slash else begin)
        if begin < low or end > high or begin > end:
            raise BadSchedule(f"{text} is outside of {low} to {high}")
        found.update(range(begin, end + 1, step))
    return frozenset(found)


def _value(text: str, names: list[str] | None, first: int, whole: str) -> int:
    if names is not None and text.lower() in names:
        return names.index(text.lower()) + first
    return _number(text, whole)


def _number(text: str, whole: str) -> int:
    if not text.isdigit() or len(text) > 4:
        raise BadSchedule(f"failed to parse {text!r} in {whole!r}")
    return int(text)
