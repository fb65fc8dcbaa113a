"""Comparing the outputs of redundant instances: a majority that agrees within a tolerance.

Pure but for ``Rounds``, which knows the time. Numbers agree when they lie within ``tolerance`` of each other, everything
else when it is equal. The outcome is the median of the largest group that agrees; a group must be more than half of all
instances, those that are silent included, or there is no outcome.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import orjson

from fleetplane.model.objects import Object


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


class Rounds:
    """The rounds of many votes, as time passes. Remembers when each open round began, and nothing else."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._begun: dict[str, tuple[int, float]] = {}

    def forget(self, key: str) -> None:
        self._begun.pop(key, None)

    def look(
        self,
        key: str,
        before: Mapping[str, Any],
        said: Mapping[str, Output],
        voters: Sequence[str],
        *,
        tolerance: float,
        timeout: float,
    ) -> Object | None:
        """The latest round, once everybody spoke or its time is up. Strikes count rounds, not looks.

        Args:
            key: Whose vote it is.
            before: What was answered last.
            said: The output of each voter that has one.
        """
        if not said:
            return dict(before) or None
        latest = max(one.round for one in said.values())
        if latest == before.get("round") and not before.get("open"):
            return dict(before)
        outputs = {name: one.value for name, one in said.items() if one.round == latest}
        if len(outputs) < len(voters):
            number, begun = self._begun.get(key, (latest, self._monotonic()))
            if number != latest:
                begun = self._monotonic()
            self._begun[key] = (latest, begun)
            if self._monotonic() - begun < timeout:
                return {**before, "round": latest, "open": True, "strikes": before.get("strikes") or {}}
        self.forget(key)
        verdict = vote(outputs, voters, tolerance)
        strikes = {}
        for name in voters:
            if name in verdict.dissent or (verdict.decided and name in verdict.silent):
                strikes[name] = int((before.get("strikes") or {}).get(name) or 0) + 1
        return {
            "round": latest,
            "decided": verdict.decided,
            "value": verdict.value,
            "agreement": round(verdict.agreement, 3),
            "dissenters": [*verdict.dissent, *verdict.silent],
            "strikes": strikes,
            "open": False,
        }


def is_undecided(votes: Mapping[str, Any] | None) -> bool:
    return bool(votes and not votes.get("open") and votes.get("decided") is False)
