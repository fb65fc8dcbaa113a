"""How simulated containers behave, and how a pod directs them: by annotations, read here and nowhere else."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final


class Rule:
    """Annotations a pod sets to direct its simulated containers; ``<rule>.<container>`` addresses one of them."""

    PREFIX: Final = "simulated.fleetplane.io/"
    START_DELAY: Final = PREFIX + "start-delay"
    """Duration (``200ms``) between the start call and running."""
    RUN_FOR: Final = PREFIX + "run-for"
    """Duration until the container exits by itself; ``infinity`` never."""
    EXIT_CODE: Final = PREFIX + "exit-code"
    STOP_DELAY: Final = PREFIX + "stop-delay"
    """Duration between SIGTERM and the exit; ``infinity`` ignores SIGTERM."""
    START_ERROR: Final = PREFIX + "start-error"
    """The runtime refuses to start it, with this message."""
    OUT_OF_MEMORY: Final = PREFIX + "out-of-memory"
    """``true``: the exit by itself is an OOM kill."""
    IMAGE_MISSING: Final = PREFIX + "image-missing"
    """``true``: its image cannot be pulled. (A tag ``:missing`` does the same.)"""
    LOG: Final = PREFIX + "log"
    """A line it writes when it starts."""
    READY: Final = PREFIX + "ready"
    """``false``: its readiness probe fails."""
    LIVE: Final = PREFIX + "live"
    """``false``: its liveness probe fails."""
    STARTED: Final = PREFIX + "started"
    """``false``: its startup probe fails."""


@dataclass(frozen=True, slots=True)
class Behaviour:
    """How a container behaves where no rule says otherwise; durations in seconds."""

    start_delay: float = 0.0
    stop_delay: float = 0.0
    run_for: float = 1.0
    """Only where the container is not restarted always; those run until they are stopped."""
    understand_commands: bool = True


def rule(annotations: Mapping[str, str], name: str, container: str) -> str | None:
    """The value of a rule for this container: its own, else the pod's."""
    return annotations.get(f"{name}.{container}", annotations.get(name))


def node_networks(index: int) -> tuple[str, ...]:
    """The pod network of the n-th simulated node: a /24 of 10.0.0.0/8, of which there are 65,536."""
    if not 0 <= index < 65_536:
        raise ValueError("at most 65,536 simulated nodes have pod networks of their own")
    return (str(ipaddress.ip_network((0x0A000000 + (index << 8), 24))),)
