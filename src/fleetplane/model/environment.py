"""Where time, randomness and ids come from.

Nothing in Fleetplane calls ``datetime.now``, ``time.time``, ``random`` or ``uuid4`` directly: it asks the environment
it was given, so that a simulation replays exactly from its seed.
"""

from __future__ import annotations

import random
import time
import uuid
from datetime import UTC, datetime
from typing import Protocol

SAFE_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"
"""Letters of generated names, as in apimachinery's ``rand``: no vowels, so no words."""


_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
"""Leases run out elsewhere while this machine is suspended, so that time must count here too."""


class Environment(Protocol):
    @property
    def random(self) -> random.Random: ...

    def now(self) -> datetime:
        """Wall-clock time in UTC."""

    def monotonic(self) -> float:
        """Seconds on a clock that never goes back and goes on while the machine sleeps; only differences mean anything."""

    def uuid(self) -> str:
        """A new RFC 4122 version-4 id."""


class SystemEnvironment:
    """The real clock and the operating system's randomness."""

    def __init__(self) -> None:
        self.random: random.Random = random.SystemRandom()

    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return time.clock_gettime(_CLOCK)

    def uuid(self) -> str:
        return str(uuid.uuid4())


def name_suffix(environment: Environment, length: int = 5) -> str:
    """The random part of a generated name."""
    return "".join(environment.random.choices(SAFE_ALPHABET, k=length))


def timestamp(moment: datetime) -> str:
    """``metav1.Time``: RFC 3339 in UTC, whole seconds."""
    return moment.astimezone(UTC).isoformat(timespec="seconds")[:19] + "Z"


def micro_timestamp(moment: datetime) -> str:
    """``metav1.MicroTime``: RFC 3339 in UTC with microseconds."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def parse_timestamp(text: str) -> datetime:
    """Any RFC 3339 time, as UTC. Raises ValueError."""
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"{text!r} has no time zone")
    return moment.astimezone(UTC)
