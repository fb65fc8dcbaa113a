"""What a Job sees of its pods: index, outcome, and whether they were counted already."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from fleetplane.model.environment import parse_timestamp
from fleetplane.model.objects import Object, finalizers, is_deleting, labels, metadata, name, uid
from fleetplane.workloads.shared.pods import Pod

FINALIZER: Final = "batch.kubernetes.io/job-tracking"
INDEX: Final = "batch.kubernetes.io/job-completion-index"
FAILURES: Final = "batch.kubernetes.io/job-index-failure-count"
IGNORED_FAILURES: Final = "batch.kubernetes.io/job-index-ignored-failure-count"


@dataclass(frozen=True, slots=True)
class JobPod:
    """``failures`` and ``ignored_failures`` are those of its index before this pod."""

    name: str
    uid: str
    phase: str
    deleting: bool
    has_finalizer: bool
    ready: bool
    index: int | None
    failures: int
    ignored_failures: int
    created: str
    obj: Object

    @property
    def is_active(self) -> bool:
        return not self.deleting and self.phase not in {"Succeeded", "Failed"}

    @property
    def is_terminating(self) -> bool:
        """It is being deleted and has not ended yet."""
        return self.deleting and self.phase not in {"Succeeded", "Failed"}

    def finished_at(self) -> datetime | None:
        """When its last container ended, or else when it stopped being ready."""
        status = self.obj.get("status") or {}
        ends = [
            parse_timestamp(ended["finishedAt"])
            for one in status.get("containerStatuses") or ()
            if (ended := (one.get("state") or {}).get("terminated")) and ended.get("finishedAt")
        ]
        if ends:
            return max(ends)
        ready = next((one for one in status.get("conditions") or () if one.get("type") == "Ready"), None) or {}
        moment = ready.get("lastTransitionTime") or metadata(self.obj).get("creationTimestamp")
        return parse_timestamp(moment) if moment else None

    def restarts(self) -> int:
        status = self.obj.get("status") or {}
        both = (*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ()))
        return sum(int(one.get("restartCount") or 0) for one in both)


def job_pod(obj: Object, view: Pod | None = None) -> JobPod:
    """``view`` may know more than the object: that it was deleted by us."""
    status: Mapping[str, Any] = obj.get("status") or {}
    conditions: Sequence[Mapping[str, Any]] = status.get("conditions") or ()
    notes: Mapping[str, str] = metadata(obj).get("annotations") or {}
    return JobPod(
        name=name(obj),
        uid=uid(obj),
        phase=str(status.get("phase") or "Pending"),
        deleting=is_deleting(obj) or (view is not None and view.deleting),
        has_finalizer=FINALIZER in finalizers(obj),
        ready=any(one.get("type") == "Ready" and one.get("status") == "True" for one in conditions),
        index=_number(notes.get(INDEX, labels(obj).get(INDEX))),
        failures=_number(notes.get(FAILURES)) or 0,
        ignored_failures=_number(notes.get(IGNORED_FAILURES)) or 0,
        created=str(metadata(obj).get("creationTimestamp") or ""),
        obj=obj,
    )


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and text.isdigit() else None
