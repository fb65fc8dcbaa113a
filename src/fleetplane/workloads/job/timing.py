"""When a Job is over, when its time to live is, and when it may try again after failures. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from fleetplane.model.environment import parse_timestamp
from fleetplane.model.objects import condition, is_condition_true, is_deleting
from fleetplane.workloads.job.pods import JobPod

FIRST_BACKOFF: Final = 10.0
LAST_BACKOFF: Final = 600.0


def is_finished(job: Mapping[str, Any]) -> bool:
    return is_condition_true(job, "Complete") or is_condition_true(job, "Failed")


def is_indexed(job: Mapping[str, Any]) -> bool:
    return str(job["spec"].get("completionMode")) == "Indexed"


def expires_after(job: Mapping[str, Any], now: datetime) -> float | None:
    """Seconds until a finished Job is to be deleted (``ttlSecondsAfterFinished``); None: never."""
    ttl = job["spec"].get("ttlSecondsAfterFinished")
    if ttl is None or is_deleting(job) or not is_finished(job):
        return None
    ended = next(one for one in ("Complete", "Failed") if is_condition_true(job, one))
    finished = (job.get("status") or {}).get("completionTime") or (condition(job, ended) or {}).get(
        "lastTransitionTime"
    )
    if not finished:
        return None
    return (parse_timestamp(finished) + timedelta(seconds=int(ttl)) - now).total_seconds()


def retry_at(owned: Sequence[JobPod]) -> datetime | None:
    """When the next pod may be made after failures: ten seconds, doubling to ten minutes, since the last success."""
    ended = [(at, pod) for pod in owned if pod.phase in {"Succeeded", "Failed"} and (at := pod.finished_at())]
    ended.sort(key=lambda one: one[0])
    failures, last = 0, None
    for at, pod in ended:
        failures = failures + 1 if pod.phase == "Failed" else 0
        last = at
    if not failures or last is None:
        return None
    return last + timedelta(seconds=min(FIRST_BACKOFF * 2 ** min(failures - 1, 20), LAST_BACKOFF))
