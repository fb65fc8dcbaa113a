"""Rules that many kinds share, each a generator of what is wrong.

They run after the schema, so types are right; after ``canonicalise``, so that absent and zero are one. Wordings are
Kubernetes', because clients and tests compare them.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from fleetplane.model import names
from fleetplane.model.errors import FieldError
from fleetplane.model.objects import Object
from fleetplane.model.quantity import Quantity

Errors = Iterator[FieldError]

IMMUTABLE: Final = "field is immutable"
MAX_INT32: Final = (1 << 31) - 1


def collected(rule: Callable[[Object, Object | None], Iterable[FieldError]]) -> Callable[..., list[FieldError]]:
    """A generator of errors as the function a behaviour wants."""

    def check(new: Object, old: Object | None) -> list[FieldError]:
        return list(rule(new, old))

    return check


def named(check: Callable[[str], Sequence[str]], value: str, path: str) -> Errors:
    """What a grammar finds wrong with a name."""
    for problem in check(value):
        yield FieldError.invalid(path, value, problem)


def required_name(check: Callable[[str], Sequence[str]], value: str, path: str) -> Errors:
    if value:
        yield from named(check, value, path)
    else:
        yield FieldError.required(path)


def required(value: Any, path: str, detail: str = "") -> Errors:
    if value in (None, "", [], {}):
        yield FieldError.required(path, detail)


def supported(value: str, allowed: Iterable[str], path: str) -> Errors:
    found = sorted(allowed)
    if value not in found:
        yield FieldError.not_supported(path, value, found)


def required_choice(value: str, allowed: Iterable[str], path: str) -> Errors:
    if value:
        yield from supported(value, allowed, path)
    else:
        yield FieldError.required(path)


def not_negative(value: int | None, path: str) -> Errors:
    if value is not None and value < 0:
        yield FieldError.invalid(path, value, "must be greater than or equal to 0")


def positive(value: int | None, path: str) -> Errors:
    if value is not None and value <= 0:
        yield FieldError.invalid(path, value, "must be greater than 0")


def in_range(value: int | None, low: int, high: int, path: str) -> Errors:
    if value is not None and not low <= value <= high:
        yield FieldError.invalid(path, value, names.range_error(low, high))


def port(value: int, path: str) -> Errors:
    for problem in names.port_number(value):
        yield FieldError.invalid(path, value, problem)


def port_or_name(value: int | str, path: str) -> Errors:
    if isinstance(value, str):
        yield from named(names.port_name, value, path)
    else:
        yield from port(value, path)


def percent_or_count(value: int | str | None, path: str) -> Errors:
    """An int-or-string that is a count or a percentage."""
    if isinstance(value, str):
        if not (value.endswith("%") and value[:-1].isdigit()):
            yield FieldError.invalid(
                path,
                value,
                "a valid percent string must be a numeric string followed by an ending '%' "
                "(e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')",
            )
    elif value is not None:
        yield from not_negative(value, path)


def percent_of(value: int | str | None) -> int | None:
    """The percentage told, None for a plain count."""
    return int(value[:-1]) if isinstance(value, str) and value[:-1].isdigit() and value.endswith("%") else None


def at_most_hundred_percent(value: int | str | None, path: str) -> Errors:
    found = percent_of(value)
    if found is not None and found > 100:
        yield FieldError.invalid(path, value, "must not be greater than 100%")


def unchanged(new: Any, old: Any, path: str, detail: str = IMMUTABLE) -> Errors:
    if new != old:
        yield FieldError.invalid(path, new, detail)


def unique(values: Iterable[tuple[str, Any]]) -> Errors:
    """(path, value) pairs of which no value may occur twice."""
    seen = set()
    for path, value in values:
        if value in seen:
            yield FieldError.duplicate(path, value)
        seen.add(value)


def label_errors(found: Mapping[str, str], path: str) -> Errors:
    for key, value in found.items():
        yield from named(names.label_key, key, path)
        for problem in names.label_value(value):
            yield FieldError.invalid(path, value, problem)


def annotation_errors(found: Mapping[str, str], path: str) -> Errors:
    for key in found:
        for problem in names.label_key(key.lower()):
            yield FieldError.invalid(path, key, problem)
    if sum(len(key) + len(value) for key, value in found.items()) > 256 * 1024:
        yield FieldError.too_long(path, 256 * 1024)


def parsed_quantity(value: Any) -> Quantity | None:
    try:
        return Quantity.parse(value)
    except ValueError:
        return None


def quantity(value: Any, path: str, *, allow_zero: bool = True) -> Errors:
    found = parsed_quantity(value)
    if found is None:
        yield FieldError.invalid(path, value, "must be a quantity such as 500m, 2Gi or 1e3")
    elif found.nanos < 0:
        yield FieldError.invalid(path, value, "must be greater than or equal to 0")
    elif not allow_zero and not found:
        yield FieldError.invalid(path, value, "must be greater than zero")


def ip(value: str, path: str) -> Errors:
    try:
        ipaddress.ip_address(value)
    except ValueError:
        yield FieldError.invalid(path, value, "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)")


def cidr(value: str, path: str) -> Errors:
    try:
        if "/" not in value:
            raise ValueError
        ipaddress.ip_network(value, strict=False)
    except ValueError:
        yield FieldError.invalid(path, value, "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)")


def ip_family(value: str) -> str:
    """``IPv6`` or ``IPv4``; empty for what is no address."""
    try:
        return f"IPv{ipaddress.ip_address(value).version}"
    except ValueError:
        return ""


def spec_of(obj: Mapping[str, Any]) -> Object:
    return obj.get("spec") or {}


def status_of(obj: Mapping[str, Any]) -> Object:
    return obj.get("status") or {}
