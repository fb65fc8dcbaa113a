"""Quantities: every way to write one, the one way they are written back, and exact arithmetic."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetplane.model.quantity import Format, Quantity


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("0", "0"),
        ("0Ki", "0"),
        ("00012", "12"),
        ("1000m", "1"),
        ("0.5", "500m"),
        (".5", "500m"),
        ("1.", "1"),
        ("1.G", "1G"),
        ("+1k", "1k"),
        ("-1.5Gi", "-1536Mi"),
        ("1500", "1500"),
        ("1000", "1k"),
        ("12e6", "12e6"),
        ("12E6", "12e6"),
        ("1e-3", "1e-3"),
        ("100e1", "1e3"),
        ("1024", "1024"),
        ("1024Ki", "1Mi"),
        ("1.5Ki", "1536"),
        ("0.5Ki", "512"),
        ("2.5Gi", "2560Mi"),
        ("0.1Mi", "104857600m"),
        ("0.0001Ki", "102400u"),
        ("1u", "1u"),
        ("1n", "1n"),
        ("0.1n", "1n"),
        ("1.0000000001", "1000000001n"),
        ("-0.1n", "-1n"),
        ("9E", "9E"),
        ("10Ei", "9223372036854775807"),
        ("123456789012345678901234567890", "123456789012345678901234567890"),
        ("100m", "100m"),
        ("1P", "1P"),
        ("1Ti", "1Ti"),
    ],
)
def test_the_canonical_form(text: str, canonical: str) -> None:
    assert str(Quantity.parse(text)) == canonical


@pytest.mark.parametrize(
    "text", ["", "a", "1.2.3", "--1", " 1", "1 ", "1e", "1ki", "1Kii", "1mm", "+", ".", "1e1.5", "٣"]
)
def test_what_is_no_quantity(text: str) -> None:
    with pytest.raises(ValueError, match=r"quantities must match|unable to parse quantity's suffix"):
        Quantity.parse(text)


def test_json_numbers_are_quantities() -> None:
    assert str(Quantity.parse(2)) == "2"
    assert str(Quantity.parse(0.1)) == "100m"
    with pytest.raises(ValueError, match="quantities must match"):
        Quantity.parse(True)
    with pytest.raises(ValueError, match="quantities must match"):
        Quantity.parse(float("inf"))


def test_hostile_text_makes_no_huge_number() -> None:
    for text in ("1e999999999", "9" * 1_000_000, "1e" + "9" * 100):
        with pytest.raises(ValueError, match=r"too large|must match"):
            Quantity.parse(text)
    assert str(Quantity.parse("1e-999999999")) == "1e-9"


def test_whole_numbers_are_rounded_away_from_zero() -> None:
    assert Quantity.parse("1500m").value() == 2
    assert Quantity.parse("-1500m").value() == -2
    assert Quantity.parse("1u").milli_value() == 1
    assert Quantity.parse("2Gi").value() == 2 << 30
    assert Quantity.parse("1").milli_value() == 1000


def test_equal_amounts_are_equal_however_written() -> None:
    assert Quantity.parse("1000m") == Quantity.parse("1") == Quantity.parse("1e0")
    assert len({Quantity.parse("1Ki"), Quantity.parse("1024")}) == 1
    assert Quantity.parse("1Ki") > Quantity.parse("1k") >= Quantity.parse("1000")


def test_the_first_operand_that_is_not_zero_decides_the_format() -> None:
    assert str(Quantity.parse("1Gi") + Quantity.parse("1024")) == "1048577Ki"
    assert str(Quantity.parse("0") + Quantity.parse("1Gi")) == "1Gi"
    assert str(Quantity.parse("1Gi") - Quantity.parse("1m")) == "1073741823999m"


def test_a_sum_beyond_the_suffixes_keeps_its_amount() -> None:
    total = Quantity.parse("999E") + Quantity.parse("1E")

    assert str(total) == "1e21"
    assert Quantity.parse(str(total)) == total


QUANTITIES = st.builds(Quantity, st.integers(-(10**27), 10**27), st.sampled_from(Format))


def fraction(quantity: Quantity) -> Fraction:
    return Fraction(quantity.nanos, 10**9)


@given(QUANTITIES, QUANTITIES, st.integers(-1000, 1000))
def test_arithmetic_is_that_of_fractions(a: Quantity, b: Quantity, n: int) -> None:
    assert fraction(a + b) == fraction(a) + fraction(b)
    assert fraction(a - b) == fraction(a) - fraction(b)
    assert fraction(a * n) == fraction(a) * n
    assert fraction(-a) == -fraction(a)
    assert (a < b, a <= b, a == b) == (
        fraction(a) < fraction(b),
        fraction(a) <= fraction(b),
        fraction(a) == fraction(b),
    )


@given(QUANTITIES)
def test_the_canonical_form_is_read_back(quantity: Quantity) -> None:
    again = Quantity.parse(str(quantity))

    if quantity.format is not Format.BINARY_SI:
        assert again == quantity
        assert str(again) == str(quantity)
    elif abs(quantity.value()) < 1 << 63:  # larger ones are capped when read, and those without a suffix are decimal
        assert again == quantity


@given(
    st.integers(0, 10**12),
    st.integers(0, 10**9),
    st.sampled_from(["n", "u", "m", "", "k", "M", "G", "T", "P", "E"]),
)
def test_parsing_is_exact_down_to_a_nano(whole: int, part: int, suffix: str) -> None:
    scale = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}[suffix]
    exact = Fraction(f"{whole}.{part:09d}") * Fraction(10) ** scale

    nanos = Quantity.parse(f"{whole}.{part:09d}{suffix}").nanos

    assert 0 <= nanos - exact * 10**9 < 1
