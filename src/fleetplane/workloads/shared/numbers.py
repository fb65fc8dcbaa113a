"""Numbers that may be percentages (``intstr``): ``3``, ``"25%"``."""

from __future__ import annotations

from typing import Any


def scaled(value: Any, total: int, *, round_up: bool) -> int:
    """``value`` of ``total``: a whole number as it is, ``"25%"`` as that share. Raises ValueError."""
    if isinstance(value, str):
        if not value.endswith("%"):
            raise ValueError(f"{value!r} is neither a number nor a percentage")
        share = int(value[:-1]) * total
        return -(-share // 100) if round_up else share // 100
    return int(value)
