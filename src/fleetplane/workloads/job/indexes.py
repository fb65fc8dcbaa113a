"""Sets of completion indexes, as Jobs write them: ``0,2-5,9``."""

from __future__ import annotations

from collections.abc import Iterable


def parse(text: str | None, limit: int) -> set[int]:
    """The indexes below ``limit``; what cannot be read is left out."""
    found: set[int] = set()
    for part in (text or "").split(","):
        first, _, last = part.partition("-")
        try:
            low, high = int(first), int(last or first)
        except ValueError:
            continue
        found.update(range(max(low, 0), min(high, limit - 1) + 1))
    return found


def render(indexes: Iterable[int]) -> str:
    """Runs of three and more are shortened; a run of two is written out."""
    parts: list[str] = []
    ordered = sorted(indexes)
    at = 0
    while at < len(ordered):
        end = at
        while end + 1 < len(ordered) and ordered[end + 1] == ordered[end] + 1:
            end += 1
        low, high = ordered[at], ordered[end]
        if high == low:
            parts.append(str(low))
        elif high == low + 1:
            parts += [str(low), str(high)]
        else:
            parts.append(f"{low}-{high}")
        at = end + 1
    return ",".join(parts)
