"""String formats that Kubernetes checks, and those of numbers.

``check(format)`` gives the test for a format, or None when Kubernetes ignores that name. The tests follow the strfmt
registry of kube-openapi. Every pattern is linear; what stands in a string is never trusted to be short.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping
from datetime import date
from functools import lru_cache
from typing import Final

from fleetplane.model import names

Check = Callable[[str], bool]

NUMBER_RANGES: Final[Mapping[str, tuple[int, int]]] = {
    "int32": (-(1 << 31), (1 << 31) - 1),
    "int64": (-(1 << 63), (1 << 63) - 1),
    "uint32": (0, (1 << 32) - 1),
    "uint64": (0, (1 << 64) - 1),
}
"""Inclusive bounds of the integer formats."""

_CLOCK: Final = re.compile(r"([0-9]{2}):([0-9]{2}):([0-9]{2})(?:\.[0-9]+)?(?:[zZ]|[+-][0-9]{2}:[0-9]{2})")
_DATE: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_USUAL_TIME: Final = 35
"""Letters of a time with nanoseconds and an offset. Only these are remembered: longer ones could fill the memory."""
_HEX: Final = "[0-9a-fA-F]"
_HOST_LABEL: Final = re.compile(r"[a-zA-Z0-9](?:[-a-zA-Z0-9]{0,61}[a-zA-Z0-9])?")
_URI_SCHEME: Final = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]*:")
_URI: Final = re.compile(r"(?:[^\x00-\x20\x7f%<>\"\\^`{|}]|%[0-9a-fA-F]{2})+")
_EMAIL: Final = re.compile(
    r"(?:[^<>@]*<)?(?:[a-zA-Z0-9!#$%&'*+/=?^_`{|}~-]+(?:\.[a-zA-Z0-9!#$%&'*+/=?^_`{|}~-]+)*|\"[^\"\\\r\n]*\")"
    r"@[a-zA-Z0-9.\-\[\]:]+>?"
)
_DURATION_PART: Final = re.compile(r"\s*[0-9]+(?:\.[0-9]*)?\s*(?:ns|nanos?|us|µs|μs|micros?|millis?|ms|secs?|seconds?|s"
    r"|mins?|minutes?|m|hours?|hrs?|h|days?|d|weeks?|wks?|w)\b")  # fmt: skip
_GO_DURATION: Final = re.compile(r"[-+]?(?:0|(?:(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:ns|us|µs|μs|ms|s|m|h))+)")
_RGB: Final = re.compile(r"rgb\(\s*([0-9]{1,3})\s*,\s*([0-9]{1,3})\s*,\s*([0-9]{1,3})\s*\)")


def is_date(text: str) -> bool:
    if not _DATE.fullmatch(text):
        return False
    try:
        date.fromisoformat(text)
    except ValueError:
        return False
    return True


def is_date_time(text: str) -> bool:
    """RFC 3339, without leap seconds."""
    return _is_usual_date_time(text) if len(text) <= _USUAL_TIME else _is_date_time(text)


def _is_date_time(text: str) -> bool:
    clock = _CLOCK.fullmatch(text, 11)
    if clock is None or text[10] not in "tT" or not is_date(text[:10]):
        return False
    return clock[1] <= "23" and clock[2] <= "59" and clock[3] <= "59"


_is_usual_date_time = lru_cache(1024)(_is_date_time)
"""An object has the same times each time it is written, and many objects have the same."""


def is_ipv4(text: str) -> bool:
    try:
        ipaddress.IPv4Address(text)
    except ValueError:
        return False
    return True


def is_ipv6(text: str) -> bool:
    if len(text) > 64 or "%" in text:
        return False
    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        return False
    return True


def is_ip(text: str) -> bool:
    """An address of either family, without a zone."""
    return is_ipv4(text) or is_ipv6(text)


def is_cidr(text: str) -> bool:
    address, slash, length = text.partition("/")
    if not slash or not length.isascii() or not length.isdigit() or (len(length) > 1 and length[0] == "0"):
        return False
    if is_ipv4(address):
        return len(length) < 3 and int(length) <= 32
    return is_ipv6(address) and len(length) < 4 and int(length) <= 128


def is_hostname(text: str) -> bool:
    host = text.removesuffix(".")
    return 0 < len(host) <= 255 and all(_HOST_LABEL.fullmatch(label) for label in host.split("."))


def is_uri(text: str) -> bool:
    """An absolute URI, or an absolute path."""
    return bool(text.startswith("/") or _URI_SCHEME.match(text)) and _URI.fullmatch(text) is not None


def is_email(text: str) -> bool:
    return len(text) <= 1000 and _EMAIL.fullmatch(text.strip()) is not None


def is_duration(text: str) -> bool:
    """A Go duration (``1h30m``) or words (``2 days``)."""
    if len(text) > 1000:
        return False
    if _GO_DURATION.fullmatch(text):
        return True
    at = 0
    while at < len(text):
        part = _DURATION_PART.match(text, at)
        if part is None:
            return False
        at = part.end()
    return at > 0


def is_mac(text: str) -> bool:
    octets = re.split("[:-]", text) if len(text) < 64 else []
    if len(octets) in (6, 8, 20):
        return len({one for one in text if one in ":-"}) == 1 and all(re.fullmatch(f"{_HEX}{{2}}", o) for o in octets)
    words = text.split(".") if len(text) < 64 else []
    return len(words) in (3, 4, 10) and all(re.fullmatch(f"{_HEX}{{4}}", word) for word in words)


def is_isbn10(text: str) -> bool:
    digits = text.replace("-", "").replace(" ", "")
    if not re.fullmatch(r"[0-9]{9}[0-9X]", digits):
        return False
    return sum(n * (10 if d == "X" else int(d)) for n, d in zip(range(10, 0, -1), digits, strict=True)) % 11 == 0


def is_isbn13(text: str) -> bool:
    digits = text.replace("-", "").replace(" ", "")
    if not re.fullmatch(r"[0-9]{13}", digits):
        return False
    return sum(int(d) * (3 if n % 2 else 1) for n, d in enumerate(digits)) % 10 == 0


def is_credit_card(text: str) -> bool:
    digits = text.replace("-", "").replace(" ", "")
    if not re.fullmatch(r"[0-9]{12,19}", digits):
        return False
    doubled = [int(d) * (1 + n % 2) for n, d in enumerate(reversed(digits))]
    return sum(d - 9 if d > 9 else d for d in doubled) % 10 == 0


def is_rgb_color(text: str) -> bool:
    match = _RGB.fullmatch(text)
    return match is not None and all(int(part) <= 255 for part in match.groups())


def _matches(pattern: str) -> Check:
    match = re.compile(pattern).fullmatch
    return lambda text: match(text) is not None


def _uuid(version: str, variant: str) -> Check:
    return _matches(f"{_HEX}{{8}}-?{_HEX}{{4}}-?{version}{_HEX}{{3}}-?{variant}{_HEX}{{3}}-?{_HEX}{{12}}")


_CHECKS: Final[Mapping[str, Check]] = {
    "bsonobjectid": _matches(f"{_HEX}{{24}}"),
    "byte": _matches(r"(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?"),
    "cidr": is_cidr,
    "creditcard": is_credit_card,
    "date": is_date,
    "datetime": is_date_time,
    "duration": is_duration,
    "email": is_email,
    "hexcolor": _matches(f"#?(?:{_HEX}{{3}}|{_HEX}{{6}})"),
    "hostname": is_hostname,
    "ipv4": is_ipv4,
    "ipv6": is_ipv6,
    "isbn": lambda text: is_isbn10(text) or is_isbn13(text),
    "isbn10": is_isbn10,
    "isbn13": is_isbn13,
    "k8slongname": lambda text: not names.dns1123_subdomain(text),
    "k8sshortname": lambda text: not names.dns1123_label(text),
    "mac": is_mac,
    "rgbcolor": is_rgb_color,
    "ssn": _matches(r"[0-9]{3}[- ]?[0-9]{2}[- ]?[0-9]{4}"),
    "uri": is_uri,
    "uuid": _matches(f"{_HEX}{{8}}-?{_HEX}{{4}}-?{_HEX}{{4}}-?{_HEX}{{4}}-?{_HEX}{{12}}"),
    "uuid3": _uuid("3", _HEX),
    "uuid4": _uuid("4", "[89abAB]"),
    "uuid5": _uuid("5", "[89abAB]"),
}


def check(name: str) -> Check | None:
    """The test for a string format; dashes in the name do not matter, as in ``date-time``."""
    return _CHECKS.get(name.replace("-", ""))
