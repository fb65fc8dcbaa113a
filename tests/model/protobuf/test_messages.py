"""Messages of other people's services, declared as dataclasses."""

# ruff: noqa: RUF009 - a field is declared by a call, as with dataclasses.field

from __future__ import annotations

import contextlib
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetplane.model.protobuf.errors import DecodeError
from fleetplane.model.protobuf.messages import decode, encode, flag, many, one, pairs, raw, text, whole
from fleetplane.model.protobuf.wire import tagged_bytes, tagged_varint


@dataclass
class Inner:
    name: str = text(1)
    size: int = whole(3)


@dataclass
class Outer:
    title: str = text(1)
    number: int = whole(2)
    sure: bool = flag(3)
    data: bytes = raw(4)
    inner: Inner | None = one(5)
    words: list[str] = many(6)
    numbers: list[int] = many(7)
    inners: list[Inner] = many(8)
    labels: dict[str, str] = pairs(9)


integers = st.integers(-(2**63), 2**63 - 1)
inners = st.builds(Inner, st.text(), integers)
outers = st.builds(
    Outer,
    st.text(),
    integers,
    st.booleans(),
    st.binary(),
    st.none() | inners,
    st.lists(st.text()),
    st.lists(integers),
    st.lists(inners),
    st.dictionaries(st.text(), st.text()),
)


@given(outers)
def test_what_is_written_is_read(message: Outer) -> None:
    assert decode(Outer, encode(message)) == message


def test_zeros_are_not_sent() -> None:
    assert encode(Outer()) == b""


def test_the_bytes_are_those_of_the_published_encoding() -> None:
    assert encode(Outer(title="ab", number=150, inner=Inner(size=1))) == b"\x0a\x02ab\x10\x96\x01\x2a\x02\x18\x01"


def test_unknown_fields_are_skipped() -> None:
    assert decode(Inner, tagged_bytes(900, b"later") + tagged_bytes(1, b"x")) == Inner("x")


def test_numbers_may_come_one_by_one() -> None:
    assert decode(Outer, tagged_varint(7, 4) + tagged_varint(7, 5)).numbers == [4, 5]


@pytest.mark.parametrize("data", [b"\x0a\x05ab", b"\x0a", tagged_varint(1, 7), tagged_bytes(1, b"\xff")])
def test_damage_is_refused(data: bytes) -> None:
    with pytest.raises(DecodeError):
        decode(Inner, data)


@given(st.binary(max_size=64))
def test_hostile_bytes_raise_nothing_else(data: bytes) -> None:
    with contextlib.suppress(DecodeError):
        decode(Outer, data)
