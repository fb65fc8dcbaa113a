"""Lengths of time as people type them: ``90``, ``30s``, ``5m``, ``1h30m``, ``250ms``."""

from __future__ import annotations

import re
from typing import Final

from fleetplane.interfaces.cli.errors import UsageError

_UNITS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_PART: Final = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")


def seconds(text: str, option: str = "--timeout") -> float | None:
    """Seconds; None for 0 and negative ones, which mean for ever. Raises CommandError."""
    bare = text.strip().removeprefix("-")
    if bare.replace(".", "", 1).isdigit():
        found = float(bare)
    elif bare and not _PART.sub("", bare):
        found = sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(bare))
    else:
        raise UsageError(f"{option} {text!r} is not a length of time; write for example 30s, 5m or 1h30m")
    return None if text.startswith("-") or found == 0 else found
