"""Characters to tokens (CEL language definition, section "Lexis").

One regular expression finds a token's extent, without nested repetition, so the time is linear; literals are decoded
afterwards by hand because their escapes differ between strings and bytes.
"""

from __future__ import annotations

import re
from typing import Any, Final, NamedTuple

from fleetplane.model.cel.errors import CelCompileError, Issue
from fleetplane.model.cel.values import INT_MAX, INT_MIN, UINT_MAX, Uint

RESERVED: Final = frozenset(
    {"as", "break", "const", "continue", "else", "for", "function", "if", "import", "let"}
    | {"loop", "package", "namespace", "return", "var", "void", "while"}
)

KEYWORDS: Final = frozenset({"true", "false", "null", "in"})


class Token(NamedTuple):
    """``kind``: ``identifier``, ``quoted`` (in backticks), ``literal``, ``end``, or the operator or keyword itself."""

    kind: str
    value: Any
    offset: int


_TOKEN: Final = re.compile(
    r"""
      (?P<space>[ \t\r\n\f]+|//[^\n]*)
    | (?P<float>[0-9]+\.[0-9]+(?:[eE][+-]?[0-9]+)?|[0-9]+[eE][+-]?[0-9]+|\.[0-9]+(?:[eE][+-]?[0-9]+)?)
    | (?P<int>0[xX][0-9a-fA-F]+[uU]?|[0-9]+[uU]?)
    | (?P<string>[bB]?[rR]?(?:'{3}|"{3}|'|"))
    | (?P<name>[A-Za-z_][A-Za-z0-9_]*)
    | `(?P<quoted>[A-Za-z0-9_./ -]+)`
    | (?P<operator>&&|\|\||==|!=|<=|>=|[-+*/%<>!?:.,()\[\]{}])
    """,
    re.VERBOSE,
)
_SIMPLE: Final = {
    "a": "\a",
    "b": "\b",
    "f": "\f",
    "n": "\n",
    "r": "\r",
    "t": "\t",
    "v": "\v",
    "\\": "\\",
    "?": "?",
    '"': '"',
    "'": "'",
    "`": "`",
}
_HEX_DIGITS: Final = {"x": 2, "X": 2, "u": 4, "U": 8}


def tokenize(source: str) -> list[Token]:
    """All tokens, closed by an ``end``. Raises CelCompileError."""
    tokens: list[Token] = []
    at = 0
    while at < len(source):
        match = _TOKEN.match(source, at)
        if match is None:
            raise _error(source, at, f"Syntax error: token recognition error at: {source[at]!r}")
        kind = match.lastgroup
        text = match.group()
        start, at = at, match.end()
        if kind == "space":
            continue
        if kind == "float":
            tokens.append(Token("literal", float(text), start))
        elif kind == "int":
            tokens.append(Token("literal", _integer(source, start, text, negative=False), start))
        elif kind == "string":
            value, at = _string(source, start, text)
            tokens.append(Token("literal", value, start))
        elif kind == "name":
            if text in KEYWORDS:
                tokens.append(Token(text, text, start))
            else:
                tokens.append(Token("identifier", text, start))
        elif kind == "quoted":
            tokens.append(Token("quoted", match.group("quoted"), start))
        else:
            tokens.append(Token(text, text, start))
    tokens.append(Token("end", "<EOF>", len(source)))
    return tokens


def negated(source: str, token: Token) -> Any:
    """The value of a minus sign and this number literal; ``-9223372036854775808`` has no positive counterpart."""
    if isinstance(token.value, float):
        return -token.value
    match = _TOKEN.match(source, token.offset)
    assert match is not None
    return _integer(source, token.offset, match.group(), negative=True)


class _TooLarge(int):
    """An integer literal that is only valid behind a minus sign."""


def is_too_large(value: Any) -> bool:
    return type(value) is _TooLarge


def _integer(source: str, at: int, text: str, *, negative: bool) -> Any:
    unsigned = text[-1] in "uU"
    digits = text[:-1] if unsigned else text
    base = 16 if digits[:2] in {"0x", "0X"} else 10
    if len(digits) > 64:
        raise _error(source, at, "invalid int literal: it has too many digits")
    value = int(digits, base)
    if unsigned:
        if negative or value > UINT_MAX:
            raise _error(source, at, "invalid uint literal: it must be within 0 and 2^64-1")
        return Uint(value)
    if negative:
        value = -value
    if value == INT_MAX + 1:
        return _TooLarge(value)
    if not INT_MIN <= value <= INT_MAX:
        raise _error(source, at, "invalid int literal: it must be within -2^63 and 2^63-1")
    return value


def _string(source: str, start: int, opening: str) -> tuple[str | bytes, int]:
    prefix = opening.rstrip("'\"").lower()
    quote = opening[len(prefix) :]
    at = start + len(opening)
    pieces: list[str] = []
    is_bytes, is_raw = "b" in prefix, "r" in prefix
    octets = bytearray()
    while True:
        if source.startswith(quote, at):
            at += len(quote)
            break
        if at >= len(source) or (len(quote) == 1 and source[at] in "\r\n"):
            raise _error(source, start, "Syntax error: the string literal is not closed")
        character = source[at]
        if character == "\\" and not is_raw:
            code, is_octet, at = _escape(source, at, is_bytes=is_bytes)
            if is_bytes:
                octets += bytes((code,)) if is_octet else chr(code).encode()
            else:
                pieces.append(chr(code))
            continue
        if is_bytes:
            octets += character.encode("utf-8", "replace")
        else:
            pieces.append(character)
        at += 1
    return (bytes(octets) if is_bytes else "".join(pieces)), at


def _escape(source: str, at: int, *, is_bytes: bool) -> tuple[int, bool, int]:
    """Code, whether it is one octet (of a bytes literal), and where the escape ends."""
    mark = source[at + 1 : at + 2]
    if mark in _SIMPLE:
        return ord(_SIMPLE[mark]), False, at + 2
    if mark in _HEX_DIGITS and not (is_bytes and mark in "uU"):
        digits = source[at + 2 : at + 2 + _HEX_DIGITS[mark]]
        if len(digits) == _HEX_DIGITS[mark] and all(digit in "0123456789abcdefABCDEF" for digit in digits):
            code = int(digits, 16)
            if code <= 0x10FFFF and not 0xD800 <= code < 0xE000:
                return code, is_bytes, at + 2 + len(digits)
    if mark and mark in "0123":
        digits = source[at + 1 : at + 4]
        if len(digits) == 3 and all(digit in "01234567" for digit in digits):
            return int(digits, 8), is_bytes, at + 4
    raise _error(source, at, "Syntax error: invalid escape sequence; write \\\\ for a backslash")


def _error(source: str, at: int, message: str) -> CelCompileError:
    return CelCompileError(source, [Issue(at, message)])
