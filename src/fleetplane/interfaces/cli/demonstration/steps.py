"""What a step is: words, something to do, and the command that does the same by hand."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fleetplane.interfaces.cli.demonstration.stage import Stage

Say = Callable[[str], None]
"""Shows how far a step is."""


class StepFailed(Exception):
    """A step did not come true; the message says what was seen instead."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """``seconds`` is what was measured, ``said`` what came true; ``simulated`` what was not real, and ``why``."""

    seconds: float
    said: str
    real: str = ""
    simulated: str = ""
    why: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Step:
    """``again`` is the command that repeats it in the demo's folder, with names of ``facts`` in braces."""

    key: str
    title: str
    again: str
    run: Callable[[Stage, Say], Awaitable[Outcome]]


@dataclass(frozen=True, slots=True)
class Done:
    """A step that came true."""

    step: Step
    outcome: Outcome


def duration(seconds: float) -> str:
    """As people say it: 12 ms, 0.84 s, 12.3 s."""
    if seconds < 0.1:
        return f"{seconds * 1000:.0f} ms"
    return f"{seconds:.2f} s" if seconds < 10 else f"{seconds:.1f} s"
