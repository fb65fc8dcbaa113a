"""Amounts of resources, exact: ``500m``, ``1.5Gi``, ``2e3``.

A quantity is a whole number of nano-units and the format it likes to be written in. Kubernetes keeps nothing smaller
than a nano-unit (it rounds away from zero), so Python's integers hold every quantity exactly and sums never drift.
Two quantities are equal when their amounts are, whatever their formats.

Grammar, rounding and the canonical form are those of apimachinery's ``resource.Quantity``. Text is bounded in length
and exponent before any arithmetic, so that no input makes a number of a million digits.
"""

from __future__ import annotations

import re
from enum import Enum
from typing import Final, Self


class Format(Enum):
    """How a quantity is written; the first operand of a sum decides."""

    DECIMAL_SI = "DecimalSI"
    BINARY_SI = "BinarySI"
    DECIMAL_EXPONENT = "DecimalExponent"


_NANO: Final = 10**9
_MILLI: Final = 10**6
_MAX_LENGTH: Final = 128
_MAX_EXPONENT: Final = 120
_MAX_BINARY: Final = ((1 << 63) - 1) * _NANO

_GRAMMAR: Final = re.compile(r"([+-]?)([0-9]*)(?:\.([0-9]*))?([eEinumkKMGTP]*)([-+]?[0-9]*)")
_FORMAT_ERROR: Final = "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"

_DECIMAL: Final = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_BINARY: Final = {"Ki": 10, "Mi": 20, "Gi": 30, "Ti": 40, "Pi": 50, "Ei": 60}
_DECIMAL_SUFFIX: Final = {exponent: suffix for suffix, exponent in _DECIMAL.items()}
_BINARY_SUFFIX: Final = ("", *_BINARY)


class Quantity:
    """An immutable amount; ``nanos`` is its value in billionths."""

    __slots__ = ("format", "nanos")

    nanos: int
    format: Format

    def __init__(self, nanos: int, format: Format = Format.DECIMAL_SI) -> None:
        self.nanos = nanos
        self.format = format

    @classmethod
    def parse(cls, text: str | int | float) -> Self:
        """From the written form, or a JSON number. Raises ValueError."""
        if isinstance(text, bool):
            raise ValueError(_FORMAT_ERROR)  # noqa: TRY004 - one error for all that cannot be read
        if isinstance(text, int):
            return cls(text * _NANO) if abs(text) < 10**_MAX_EXPONENT else cls._too_large(str(text)[:20])
        return cls._parse(text if isinstance(text, str) else repr(text))

    @classmethod
    def of(cls, value: int, format: Format = Format.DECIMAL_SI) -> Self:
        """A whole number of units."""
        return cls(value * _NANO, format)

    @classmethod
    def of_milli(cls, value: int, format: Format = Format.DECIMAL_SI) -> Self:
        """A whole number of thousandths."""
        return cls(value * _MILLI, format)

    @classmethod
    def _too_large(cls, text: str) -> Self:
        raise ValueError(f"the quantity {text!r} is too large")

    @classmethod
    def _parse(cls, text: str) -> Self:
        match = _GRAMMAR.fullmatch(text) if len(text) <= _MAX_LENGTH else None
        if match is None:
            raise ValueError(_FORMAT_ERROR)
        sign, whole, fraction, suffix, digits = match.groups("")
        if not whole and not fraction:
            raise ValueError(_FORMAT_ERROR)
        format, base, exponent = _scale(suffix, digits)
        mantissa = int(whole + fraction)
        # mantissa * base**exponent / 10**len(fraction), in nano-units, rounded up
        if base == 2:
            nanos = _divide_up((mantissa << exponent) * _NANO, 10 ** len(fraction))
            if nanos > _MAX_BINARY:
                nanos = _MAX_BINARY
            elif 0 < nanos < _NANO:
                format = Format.DECIMAL_SI
        else:
            power = exponent - len(fraction) + 9
            if power > _MAX_EXPONENT:
                cls._too_large(text)
            nanos = mantissa * 10**power if power >= 0 else _divide_up(mantissa, 10 ** min(-power, _MAX_LENGTH))
        return cls(-nanos if sign == "-" else nanos, format)

    def value(self) -> int:
        """In whole units, rounded away from zero."""
        return _scaled(self.nanos, _NANO)

    def milli_value(self) -> int:
        """In thousandths, rounded away from zero."""
        return _scaled(self.nanos, _MILLI)

    def __add__(self, other: Quantity) -> Quantity:
        return Quantity(self.nanos + other.nanos, self.format if self.nanos else other.format)

    def __sub__(self, other: Quantity) -> Quantity:
        return Quantity(self.nanos - other.nanos, self.format if self.nanos else other.format)

    def __mul__(self, factor: int) -> Quantity:
        return Quantity(self.nanos * factor, self.format)

    __rmul__ = __mul__

    def __neg__(self) -> Quantity:
        return Quantity(-self.nanos, self.format)

    def __bool__(self) -> bool:
        return self.nanos != 0

    def __eq__(self, other: object) -> bool:
        return self.nanos == other.nanos if isinstance(other, Quantity) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.nanos)

    def __lt__(self, other: Quantity) -> bool:
        return self.nanos < other.nanos

    def __le__(self, other: Quantity) -> bool:
        return self.nanos <= other.nanos

    def __gt__(self, other: Quantity) -> bool:
        return self.nanos > other.nanos

    def __ge__(self, other: Quantity) -> bool:
        return self.nanos >= other.nanos

    def __str__(self) -> str:
        """The canonical form: no fraction, the largest suffix that allows it."""
        if not self.nanos:
            return "0"
        if self.format is Format.BINARY_SI and abs(self.nanos) >= 1024 * _NANO and self.nanos % _NANO == 0:
            return _binary_form(self.nanos // _NANO)
        return _decimal_form(self.nanos, exponent_form=self.format is Format.DECIMAL_EXPONENT)

    def __repr__(self) -> str:
        return f"Quantity.parse({str(self)!r})"


ZERO: Final = Quantity(0)


def _scale(suffix: str, digits: str) -> tuple[Format, int, int]:
    """(format, base, exponent) that a suffix stands for. Raises ValueError."""
    if not digits:
        if suffix in _DECIMAL:
            return Format.DECIMAL_SI, 10, _DECIMAL[suffix]
        if suffix in _BINARY:
            return Format.BINARY_SI, 2, _BINARY[suffix]
    elif suffix in {"e", "E"} and digits[-1].isdigit():
        bound = _MAX_LENGTH + _MAX_EXPONENT
        return Format.DECIMAL_EXPONENT, 10, max(-bound, min(int(digits), bound))
    raise ValueError("unable to parse quantity's suffix")


def _divide_up(dividend: int, divisor: int) -> int:
    return -(-dividend // divisor)


def _scaled(nanos: int, unit: int) -> int:
    return _divide_up(nanos, unit) if nanos >= 0 else nanos // unit


def _decimal_form(nanos: int, *, exponent_form: bool) -> str:
    """``nanos`` is a whole number of 10**-9; the exponent grows in steps of three, as suffixes do."""
    exponent = -9
    while nanos % 1000 == 0:
        nanos //= 1000
        exponent += 3
    if not exponent:
        return str(nanos)
    # There are no suffixes above E: such sums are written with an exponent rather than wrongly.
    suffix = None if exponent_form else _DECIMAL_SUFFIX.get(exponent)
    return f"{nanos}{suffix}" if suffix is not None else f"{nanos}e{exponent}"


def _binary_form(value: int) -> str:
    step = 0
    while value % 1024 == 0 and step < len(_BINARY):
        value //= 1024
        step += 1
    return f"{value}{_BINARY_SUFFIX[step]}"
