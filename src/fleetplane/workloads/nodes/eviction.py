"""Which pods a node's NoExecute taints drive away, and when. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from fleetplane.model.environment import parse_timestamp
from fleetplane.workloads.scheduler.terms import NO_EXECUTE, Taint, Toleration, tolerations


def leaves_at(pod: Mapping[str, Any], node: Mapping[str, Any], now: datetime) -> datetime | None:
    """When the pod has to go; None when it may stay. A moment in the past means now.

    A taint that nothing tolerates drives it away at once; one that is tolerated for some seconds, that long after the
    taint was added.
    """
    by = tolerations((pod.get("spec") or {}).get("tolerations"))
    moments: list[datetime] = []
    for written in (node.get("spec") or {}).get("taints") or ():
        if written.get("effect") != NO_EXECUTE:
            continue
        taint = Taint(str(written.get("key") or ""), str(written.get("value") or ""), NO_EXECUTE)
        tolerating = [one for one in by if one.tolerates(taint)]
        if not tolerating:
            return now
        added = written.get("timeAdded")
        seconds = _shortest(tolerating)
        if seconds is not None:
            moments.append((parse_timestamp(added) if added else now) + timedelta(seconds=seconds))
    return min(moments) if moments else None


def _shortest(tolerating: Sequence[Toleration]) -> int | None:
    """How long the taint is tolerated; None: forever."""
    limited = [max(one.seconds, 0) for one in tolerating if one.seconds is not None]
    return min(limited) if limited else None
