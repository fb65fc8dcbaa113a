"""Names of properties as CEL identifiers.

A property of a Kubernetes object may be called ``x-dash`` or ``namespace``, which no CEL identifier may; such names are
escaped: ``x__dash__dash``, ``__namespace__``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from fleetplane.model.cel.lexer import KEYWORDS, RESERVED

_IDENTIFIER: Final = re.compile(r"[A-Za-z_./-][A-Za-z0-9_./-]*")
_ESCAPED: Final = re.compile(r"__|[./-]")
_ESCAPES: Final[Mapping[str, str]] = {
    "__": "__underscores__",
    ".": "__dot__",
    "-": "__dash__",
    "/": "__slash__",
}
_UNESCAPED: Final = re.compile(r"__(underscores|dot|dash|slash)__")
_UNESCAPES: Final[Mapping[str, str]] = {name.strip("_"): plain for plain, name in _ESCAPES.items()}


def escape(name: str) -> str | None:
    """A property's name as a CEL identifier (``a-b`` -> ``a__dash__b``), or None when it has none."""
    if name in RESERVED or name in KEYWORDS:
        return f"__{name}__"
    if _IDENTIFIER.fullmatch(name) is None:
        return None
    return _ESCAPED.sub(lambda match: _ESCAPES[match.group()], name)


def unescape(identifier: str) -> str:
    """The property's name behind a CEL identifier."""
    if identifier[:2] == identifier[-2:] == "__" and identifier[2:-2] in RESERVED | KEYWORDS:
        return identifier[2:-2]
    return _UNESCAPED.sub(lambda match: _UNESCAPES[match.group(1)], identifier)
