"""Comparing the outputs of redundant instances: a majority that agrees within a tolerance.

Pure. Numbers agree when they lie within ``tolerance`` of each other, everything else when it is equal. The outcome is
the median of the largest group that agrees; a group must be more than half of all instances, those that are silent
included, or there is no outcome.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import orjson


class Output(NamedTuple):
    round: int
    value: Any


class Verdict(NamedTuple):
    """``value`` is meaningful when ``decided``. ``agreement`` is the share of all instances that agree."""

    decided: bool
    value: Any
    agree: tuple[str, ...]
    dissent: tuple[str, ...]
    silent: tuple[str, ...]
    agreement: float


def read_output(text: str | None) -> Output | None:
    """``{"round": 7, "value": …}`` as instances write it; anything else is silence. At most 4 KiB is looked at."""
    if not text or len(text) > 4096:
        return None
    try:
        found = orjson.loads(text)
    except orjson.JSONDecodeError:
        return None
    if not isinstance(found, dict) or not isinstance(found.get("round"), int) or "value" not in found:
        return None
    return Output(found["round"], found["value"])


def vote(outputs: Mapping[str, Any], voters: Sequence[str], tolerance: float) -> Verdict:
    """``outputs``: what each voter said this round; voters that are not in it are silent."""
    spoken = [one for one in voters if one in outputs]
    best: list[str] = []
    for one in spoken:
        group = _group(outputs, spoken, outputs[one], tolerance)
        if len(group) > len(best):
            best = group
    decided = len(best) * 2 > len(voters)
    agree = tuple(best) if decided else ()
    dissent = tuple(one for one in spoken if one not in agree) if decided else ()
    silent = tuple(one for one in voters if one not in outputs)
    value = _middle([outputs[one] for one in best]) if decided else None
    return Verdict(decided, value, agree, dissent, silent, len(best) / len(voters) if voters else 0.0)


def _group(outputs: Mapping[str, Any], spoken: Sequence[str], low: Any, tolerance: float) -> list[str]:
    """Everyone who agrees with everyone else of the group, whose least value is ``low``."""
    if _is_number(low):
        return [one for one in spoken if _is_number(outputs[one]) and 0 <= outputs[one] - low <= tolerance]
    return [one for one in spoken if type(outputs[one]) is type(low) and outputs[one] == low]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _middle(values: Sequence[Any]) -> Any:
    return sorted(values)[len(values) // 2] if all(map(_is_number, values)) else values[0]
