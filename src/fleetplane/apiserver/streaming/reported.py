"""What a node on a tunnel says it uses: read with care, since a node may say anything."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import msgspec

from fleetplane.model.tunnel import TunnelError


class ReportedContainer(msgspec.Struct, frozen=True):
    """One container's use, in nanocores and bytes."""

    pod_uid: str
    name: str
    cpu_nanocores: int
    memory_bytes: int


@dataclass(frozen=True, slots=True)
class ReportedUsage:
    """A ``NodeUsage``, as the node told it."""

    time: datetime | None
    window_seconds: float
    cpu_nanocores: int
    memory_bytes: int
    containers: Sequence[ReportedContainer]


class _Report(msgspec.Struct):
    time: datetime | None
    window_seconds: float
    cpu_nanocores: int
    memory_bytes: int
    containers: list[ReportedContainer]


_DECODER = msgspec.json.Decoder(_Report)


def parse_usage(payload: bytes) -> ReportedUsage:
    """Raises TunnelError."""
    try:
        found = _DECODER.decode(payload)
    except msgspec.DecodeError as error:
        raise TunnelError(f"the node's report of its usage cannot be read: {error}") from None
    if found.time is not None and found.time.tzinfo is None:
        raise TunnelError("the node's report of its usage has a time without a zone")
    return ReportedUsage(
        found.time, found.window_seconds, found.cpu_nanocores, found.memory_bytes, tuple(found.containers)
    )
