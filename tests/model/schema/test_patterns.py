"""Patterns are Go's, and cannot hang."""

from __future__ import annotations

import time

import pytest

from fleetplane.model.schema.patterns import Pattern, PatternError


@pytest.mark.parametrize(
    ("pattern", "text", "found"),
    [
        ("^a+$", "aaa", True),
        ("^a$", "a\n", False),
        ("b", "abc", True),
        (r"^\d+$", "٣", False),
        (r"^\w+$", "é", False),
        (r"^\s$", "\u00a0", False),
        (r"^\s$", "\t", True),
        (r"^[\s]$", " ", True),
        (r"^\S$", "\u00a0", True),
        (r"^\Qa.b\E$", "a.b", True),
        (r"^\Qa.b\E$", "axb", False),
        (r"^[[a]+$", "[a", True),
        (r"^[a&&b]+$", "&", True),
        (r"^[a-c--e]+$", "-", True),
        (r"^[]a]+$", "]", True),
        (r"^[^]a]+$", "b", True),
        (r"^[[:alpha:]]+$", "ab", True),
        (r"^[[:alpha:]]+$", ":", False),
        (r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", "a-b", True),
        (r"^a{2}$", "aa", True),
        (r"^a{,2}$", "a{,2}", True),
        (r"^\pL+$", "é", True),
        (r"^\p{Greek}$", "\u03b2", True),
        (r"^(?i)abc$", "ABC", True),
        (r"^(?P<x>a)$", "a", True),
        (r"^\x{41}$", "A", True),
        (r"a\z", "ba", True),
        (r"^[^/]+/[^/]+$", "a/b", True),
    ],
)
def test_what_a_pattern_finds(pattern: str, text: str, found: bool) -> None:
    assert Pattern(pattern).search(text) is found


@pytest.mark.parametrize(
    "pattern", ["(", "[a", "a**(", r"(?=a)", r"(a)\1", r"\C", "\\", "((a{1,999}){1,999}){1,999}", "a" * 20_000]
)
def test_what_is_no_pattern(pattern: str) -> None:
    with pytest.raises(PatternError):
        Pattern(pattern)


def test_a_hostile_pattern_does_not_hang() -> None:
    start = time.perf_counter()

    assert not Pattern("^(a+)+$").search("a" * 100_000 + "!")
    assert not Pattern("(x+x+)+y").search("x" * 100_000)

    assert time.perf_counter() - start < 1
