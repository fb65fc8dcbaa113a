"""Probes: asking a container how it is, and what to make of the answers.

``advance`` is the pure part: it counts successes and failures against the probe's thresholds. ``Prober`` asks; the
network prober runs commands through the runtime and makes HTTP, TCP and gRPC health requests to the pod's address.
Every question has a timeout, and answers are read only as far as they matter.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, Literal, Protocol

from fleetplane.model.objects import Object
from fleetplane.node.pod import ContainerView, PodView
from fleetplane.node.runtime import ContainerState

ProbeKind = Literal["startup", "liveness", "readiness"]
KINDS: Final[tuple[ProbeKind, ...]] = ("startup", "liveness", "readiness")


@dataclass(frozen=True, slots=True)
class Answer:
    """``healthy`` is None when the question could not be asked at all (counts as a failure)."""

    healthy: bool
    message: str = ""


@dataclass(frozen=True, slots=True)
class Count:
    """How often in a row the same answer came, and the verdict so far (None: none yet)."""

    successes: int = 0
    failures: int = 0
    verdict: bool | None = None


@dataclass(frozen=True, slots=True)
class Timing:
    """A probe's numbers with their defaults; seconds."""

    initial_delay: int
    period: int
    timeout: int
    success_threshold: int
    failure_threshold: int

    @classmethod
    def of(cls, probe: Mapping[str, Any]) -> Timing:
        return cls(
            int(probe.get("initialDelaySeconds") or 0),
            max(1, int(probe.get("periodSeconds") or 10)),
            max(1, int(probe.get("timeoutSeconds") or 1)),
            max(1, int(probe.get("successThreshold") or 1)),
            max(1, int(probe.get("failureThreshold") or 3)),
        )


def advance(count: Count, healthy: bool, timing: Timing) -> Count:
    """The count after one more answer; the verdict changes only when a threshold is reached."""
    if healthy:
        moved = replace(count, successes=count.successes + 1, failures=0)
        return replace(moved, verdict=True) if moved.successes >= timing.success_threshold else moved
    moved = replace(count, failures=count.failures + 1, successes=0)
    return replace(moved, verdict=False) if moved.failures >= timing.failure_threshold else moved


class Prober(Protocol):
    """Asks once. ``steady`` probers answer the same until the pod changes, so they need not be asked again."""

    @property
    def steady(self) -> bool: ...

    async def ask(
        self,
        kind: ProbeKind,
        probe: Object,
        pod: PodView,
        container: ContainerView,
        state: ContainerState,
        addresses: tuple[str, ...],
    ) -> Answer: ...
