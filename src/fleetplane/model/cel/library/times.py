"""Timestamps and durations: reading, printing, taking apart; nanoseconds throughout, as in Go.

Durations are written as Go writes them (``1h30m``, ``1.5s``), timestamps as RFC 3339. Time zones are IANA names or
fixed offsets (``+01:00``, ``-08:00``, ``01:00``); without one everything is UTC.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from functools import lru_cache
from typing import Any, Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from fleetplane.model.cel.errors import CelError
from fleetplane.model.cel.library.declarations import Functions, Overload
from fleetplane.model.cel.types import DURATION, INT, STRING, TIMESTAMP
from fleetplane.model.cel.values import (
    NANOS,
    Duration,
    Timestamp,
    checked_duration,
    checked_timestamp,
)

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_UNITS: Final = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,
    "μs": 1_000,
    "ms": 1_000_000,
    "s": NANOS,
    "m": 60 * NANOS,
    "h": 3600 * NANOS,
}
_DURATION_PART: Final = re.compile(r"([0-9]*)(?:\.([0-9]*))?(ns|us|µs|μs|ms|s|m|h)")
_LENIENT: Final = re.compile(r"\s*([0-9]+)\s*([a-z]+)\s*")
_LENIENT_UNITS: Final = {
    **dict.fromkeys(("ns", "nano"), 1),
    **dict.fromkeys(("us", "µs", "micro"), 1_000),
    **dict.fromkeys(("ms", "milli"), 1_000_000),
    **dict.fromkeys(("s", "sec", "second", "seconds"), NANOS),
    **dict.fromkeys(("m", "min", "minute", "minutes"), 60 * NANOS),
    **dict.fromkeys(("h", "hr", "hour", "hours"), 3600 * NANOS),
    **dict.fromkeys(("d", "day", "days"), 86400 * NANOS),
    **dict.fromkeys(("w", "week", "weeks"), 7 * 86400 * NANOS),
}
_TIMESTAMP: Final = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})[Tt]([0-9]{2}):([0-9]{2}):([0-9]{2})(?:[.,]([0-9]{1,32}))?"
    r"(?:[Zz]|([+-])([0-9]{2}):([0-9]{2}))"
)


def parse_duration(text: str) -> Duration:
    """Go's syntax. Raises CelError."""
    if len(text) > 256:
        raise CelError("invalid duration: it is too long")
    rest = text[1:] if text[:1] in {"-", "+"} else text
    if rest == "0":
        return Duration(0)
    total, at = 0, 0
    while match := _DURATION_PART.match(rest, at):
        whole, fraction, unit = match.group(1), match.group(2) or "", match.group(3)
        if not whole and not fraction:
            break
        scale = _UNITS[unit]
        total += int(whole or "0") * scale
        if fraction:
            total += int(fraction) * scale // 10 ** len(fraction)
        at = match.end()
    if at == 0 or at != len(rest):
        raise CelError(f'invalid duration "{text[:64]}": write it like 1h30m or 1.5s')
    return checked_duration(-total if text[0] == "-" else total)


def parse_lenient_duration(text: str) -> Duration:
    """What a schema's ``format: duration`` allows beside Go's syntax: ``3 days``, ``2 weeks``."""
    try:
        return parse_duration(text)
    except CelError:
        match = _LENIENT.fullmatch(text.lower()) if len(text) < 64 else None
        if match is None or match.group(2) not in _LENIENT_UNITS:
            raise
        return checked_duration(int(match.group(1)) * _LENIENT_UNITS[match.group(2)])


def show_duration(value: Duration) -> str:
    """Seconds, as short as exact: ``3723.004s``."""
    sign = "-" if value.nanos < 0 else ""
    seconds, nanos = divmod(abs(value.nanos), NANOS)
    fraction = f".{nanos:09d}".rstrip("0") if nanos else ""
    return f"{sign}{seconds}{fraction}s"


def parse_timestamp(text: str) -> Timestamp:
    """RFC 3339. Raises CelError."""
    match = _TIMESTAMP.fullmatch(text) if len(text) < 80 else None
    if match is None:
        raise CelError(f'invalid timestamp "{text[:64]}": write it like 2006-01-02T15:04:05Z')
    year, month, day, hour, minute, second = (int(part) for part in match.groups()[:6])
    try:
        moment = datetime(year, month, day, hour, minute, second, tzinfo=UTC)
    except ValueError as error:
        raise CelError(f'invalid timestamp "{text[:64]}": {error}') from None
    nanos = int((match.group(7) or "0").ljust(9, "0")[:9])
    offset = 0
    if match.group(8):
        hours, minutes = int(match.group(9)), int(match.group(10))
        if hours > 23 or minutes > 59:
            raise CelError(f'invalid timestamp "{text[:64]}": its time zone is out of range')
        offset = (hours * 3600 + minutes * 60) * (1 if match.group(8) == "+" else -1)
    seconds = (moment - _EPOCH) // timedelta(seconds=1) - offset
    return checked_timestamp(seconds * NANOS + nanos, offset)


def parse_date(text: str) -> Timestamp:
    """A full date, at midnight UTC."""
    return parse_timestamp(f"{text}T00:00:00Z")


def show_timestamp(value: Timestamp) -> str:
    """RFC 3339 in the zone it was written in, with only the digits it needs."""
    seconds, nanos = divmod(value.nanos, NANOS)
    try:
        moment = _EPOCH + timedelta(seconds=seconds + value.offset)
    except OverflowError:
        moment = _EPOCH + timedelta(seconds=seconds)
        value = Timestamp(value.nanos)
    fraction = f".{nanos:09d}".rstrip("0") if nanos else ""
    zone = "Z"
    if value.offset:
        hours, minutes = divmod(abs(value.offset) // 60, 60)
        zone = f"{'-' if value.offset < 0 else '+'}{hours:02d}:{minutes:02d}"
    return f"{moment:%m-%dT%H:%M:%S}{fraction}{zone}".join((f"{moment.year:04d}-", ""))


@lru_cache(maxsize=64)
def time_zone(name: str) -> tzinfo:
    """An IANA zone or a fixed offset. Raises CelError."""
    if len(name) > 64:
        raise CelError("unknown time zone: its name is too long")
    if ":" in name:
        return _fixed_zone(name)
    if name in {"", "UTC"}:
        return UTC
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise CelError(f"unknown time zone {name[:64]}") from None


def _fixed_zone(name: str) -> tzinfo:
    match = re.fullmatch(r"([+-]?)([0-9]{1,2}):([0-9]{2})", name)
    if match is None or int(match.group(2)) > 23 or int(match.group(3)) > 59:
        raise CelError(f"unknown time zone {name[:64]}")
    offset = timedelta(hours=int(match.group(2)), minutes=int(match.group(3)))
    return timezone(-offset if match.group(1) == "-" else offset)


def local(value: Timestamp, zone: str = "") -> datetime:
    """The civil time of a moment (to the second)."""
    try:
        return (_EPOCH + timedelta(seconds=value.nanos // NANOS)).astimezone(time_zone(zone))
    except (OverflowError, ValueError):
        raise CelError("timestamp overflow") from None


def _part(read: Callable[[datetime], int]) -> Callable[..., int]:
    return lambda value, zone="": read(local(value, zone))


def _milliseconds(value: Timestamp, zone: str = "") -> int:
    local(value, zone)
    return value.nanos % NANOS // 1_000_000


def _whole(value: Duration, unit: int) -> int:
    return abs(value.nanos) // unit * (1 if value.nanos >= 0 else -1)


def _accessor(name: str, read: Callable[..., int], of_duration: int = 0) -> tuple[Overload, ...]:
    overloads = [
        Overload(f"timestamp_{name}", (TIMESTAMP,), INT, read, member=True),
        Overload(f"timestamp_{name}_with_tz", (TIMESTAMP, STRING), INT, read, member=True),
    ]
    if of_duration:

        def whole(value: Any) -> int:
            return _whole(value, of_duration)

        overloads.append(Overload(f"duration_{name}", (DURATION,), INT, whole, member=True))
    return tuple(overloads)


FUNCTIONS: Final[Functions] = {
    "getFullYear": _accessor("to_year", _part(lambda moment: moment.year)),
    "getMonth": _accessor("to_month", _part(lambda moment: moment.month - 1)),
    "getDayOfYear": _accessor("to_day_of_year", _part(lambda moment: moment.timetuple().tm_yday - 1)),
    "getDayOfMonth": _accessor("to_day_of_month", _part(lambda moment: moment.day - 1)),
    "getDate": _accessor("to_day_of_month_1_based", _part(lambda moment: moment.day)),
    "getDayOfWeek": _accessor("to_day_of_week", _part(lambda moment: moment.isoweekday() % 7)),
    "getHours": _accessor("to_hours", _part(lambda moment: moment.hour), 3600 * NANOS),
    "getMinutes": _accessor("to_minutes", _part(lambda moment: moment.minute), 60 * NANOS),
    "getSeconds": _accessor("to_seconds", _part(lambda moment: moment.second), NANOS),
    "getMilliseconds": _accessor("to_milliseconds", _milliseconds, 1_000_000),
}
