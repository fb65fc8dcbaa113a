"""Regular expressions of schemas: Go's syntax, matched in linear time.

A CRD's author writes patterns for Go's RE2. They are untrusted, and Python's ``re`` can be made to hang, so it is never
used on them: jsonschema-rs runs them on Rust's ``regex`` engine, which is linear and nearly the same language.
``translated`` bridges what differs. Matching is unanchored, as everywhere in OpenAPI.
"""

from __future__ import annotations

import re
from typing import Final

import jsonschema_rs

OPTIONS: Final = jsonschema_rs.RegexOptions()
"""The linear engine, with its default bound of 10 MiB on a compiled pattern."""

_MAX_LENGTH: Final = 16_384
_GO_SPACE: Final = r"\t\n\f\r "
_CLASS_SET_OPERATORS: Final = ("&&", "--", "~~")
_REPETITION: Final = re.compile(r"\{[0-9]+(?:,[0-9]*)?\}")
_CLASS_OPENING: Final = re.compile(r"\[\^?\]?")
_POSIX_CLASS: Final = re.compile(r"\[:(\^?[a-z]+):\]")
_BRACED_ESCAPE: Final = re.compile(r"\\(?:[pPx]\{[^}]*\}|.)", re.DOTALL)


_POSIX: Final = {
    "alnum": "0-9A-Za-z",
    "alpha": "A-Za-z",
    "ascii": r"\x00-\x7f",
    "blank": r"\t ",
    "cntrl": r"\x00-\x1f\x7f",
    "digit": "0-9",
    "graph": "!-~",
    "lower": "a-z",
    "print": " -~",
    "punct": r"!-/:-@\[-`{-~",
    "space": r"\t\n\x0b\f\r ",
    "upper": "A-Z",
    "word": "0-9A-Za-z_",
    "xdigit": "0-9A-Fa-f",
}


class PatternError(ValueError):
    """The pattern is not in Go's syntax, or needs too much memory."""


def translated(pattern: str) -> str:
    """The pattern in the syntax of Rust's engine. Raises PatternError for what Go has and Rust has not."""
    if len(pattern) > _MAX_LENGTH:
        raise PatternError(f"pattern is longer than {_MAX_LENGTH} characters")
    out: list[str] = []
    at, in_class = 0, False
    while at < len(pattern):
        letter = pattern[at]
        if letter == "\\":
            text, at = _escape(pattern, at, in_class=in_class)
            out.append(text)
            continue
        if in_class:
            text, at, in_class = _class_member(pattern, at)
            out.append(text)
            continue
        if letter == "[":
            in_class = True
            opening = _CLASS_OPENING.match(pattern, at)
            text = opening.group() if opening else letter
            out.append(text[:-1] + r"\]" if text.endswith("]") else text)
            at += len(text)
            continue
        if letter == "{" and not _REPETITION.match(pattern, at):
            out.append(r"\{")
        else:
            out.append(letter)
        at += 1
    return "".join(out)


def _escape(pattern: str, at: int, *, in_class: bool) -> tuple[str, int]:
    """What an escape at ``at`` becomes, and where it ends."""
    match = _BRACED_ESCAPE.match(pattern, at)
    if match is None:
        raise PatternError("trailing backslash at end of expression")
    text = match.group()
    if text == r"\C":
        raise PatternError(r"invalid escape sequence: `\C`")
    if text == r"\Q":
        end = pattern.find(r"\E", at)
        quoted = pattern[at + 2 :] if end < 0 else pattern[at + 2 : end]
        return re.escape(quoted), len(pattern) if end < 0 else end + 2
    if text == r"\s":
        return _GO_SPACE if in_class else f"[{_GO_SPACE}]", match.end()
    if text == r"\S" and not in_class:
        return f"[^{_GO_SPACE}]", match.end()
    return text, match.end()


def _class_member(pattern: str, at: int) -> tuple[str, int, bool]:
    """(text, where it ends, whether the class goes on) for one part of a bracketed class."""
    letter = pattern[at]
    if letter == "]":
        return letter, at + 1, False
    if letter == "[":
        posix = _POSIX_CLASS.match(pattern, at)
        if posix is None:
            return r"\[", at + 1, True
        if posix[1] not in _POSIX:
            raise PatternError(f"invalid character class range: `{posix.group()}`")
        return _POSIX[posix[1]], posix.end(), True
    if pattern.startswith(_CLASS_SET_OPERATORS, at) and not pattern.startswith(letter + letter + "]", at):
        return f"\\{letter}\\{letter}", at + 2, True
    return letter, at + 1, True


class Pattern:
    """One compiled pattern. Raises PatternError when it cannot be."""

    __slots__ = ("_is_valid", "text")

    text: str

    def __init__(self, text: str) -> None:
        self.text = text
        try:
            validator = jsonschema_rs.Draft202012Validator({"pattern": translated(text)}, pattern_options=OPTIONS)
        except (ValueError, jsonschema_rs.ValidationError):
            raise PatternError("error parsing regexp, or it is too large") from None
        self._is_valid = validator.is_valid

    def search(self, text: str) -> bool:
        """Whether the pattern matches anywhere in ``text``."""
        return self._is_valid(text)
