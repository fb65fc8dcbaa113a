"""Counting a Job's pods that ended, each exactly once. Pure.

``take`` looks at the pods and at what the status says: uids of pods that let go of their finalizer become numbers,
pods that ended since become uids. What was counted by index needs no uids: an index is completed or it is not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from fleetplane.workloads.job import indexes, policy
from fleetplane.workloads.job.pods import JobPod
from fleetplane.workloads.job.timing import is_indexed

MOST_UNCOUNTED: Final = 500
_KINDS: Final = ("succeeded", "failed")


class Counts:
    """``release`` are pods whose finalizer may go once the status is written.

    ``verdict`` is why the failure policy ends the Job, ``ignored`` are uids of failures that do not count, ``has_more``
    tells that some pods are left for the next pass.
    """

    def __init__(self, job: Mapping[str, Any]) -> None:
        self._job, self._spec = job, job["spec"]
        status = job.get("status") or {}
        waiting = status.get("uncountedTerminatedPods") or {}
        self._waiting = {kind: list(waiting.get(kind) or ()) for kind in _KINDS}
        self._settled = {kind: int(status.get(kind) or 0) for kind in _KINDS}
        self._indexed = is_indexed(job)
        self._limit = int(self._spec.get("completions") or 0)
        self.uncounted = {uid for uids in self._waiting.values() for uid in uids}
        self.completed = self._indexes(status.get("completedIndexes"))
        self.failed_indexes = self._indexes(status.get("failedIndexes"))
        self.ignored: set[str] = set()
        self.release: list[JobPod] = []
        self.verdict = ""
        self.has_more = False

    def _indexes(self, text: str | None) -> set[int]:
        return indexes.parse(text, self._limit) if self._indexed else set()

    # what is known

    @property
    def succeeded(self) -> int:
        if self._indexed:
            return len(self.completed)
        return self._settled["succeeded"] + len(self._waiting["succeeded"])

    @property
    def failed(self) -> int:
        return self._settled["failed"] + len(self._waiting["failed"])

    def settled(self, kind: str) -> int:
        """The number as status shows it: without those whose uid still stands there."""
        return len(self.completed) if self._indexed and kind == "succeeded" else self._settled[kind]

    def uncounted_by_kind(self) -> dict[str, list[str]]:
        return {kind: uids for kind, uids in self._waiting.items() if uids}

    # taking in

    def take(self, pods: Sequence[JobPod]) -> None:
        """``pods`` are the Job's, oldest first."""
        self._settle(pods)
        fresh = [pod for pod in pods if pod.has_finalizer and pod.uid not in self.uncounted]
        for pod in fresh:
            if pod.phase == "Failed":
                self._judge(pod)
        for pod in fresh:
            if len(self.uncounted) >= MOST_UNCOUNTED:
                self.has_more = True
                return
            if pod.phase == "Succeeded":
                self._count_success(pod)
            elif self._has_failed(pod):
                self._count_failure(pod)

    def count_as_failed(self, pod: JobPod) -> None:
        """A pod that still runs when the Job has failed."""
        if pod.has_finalizer and pod.uid not in self.uncounted:
            self._wait(pod, "failed")

    def _settle(self, pods: Sequence[JobPod]) -> None:
        held = {pod.uid for pod in pods if pod.has_finalizer}
        for kind, uids in self._waiting.items():
            kept = [uid for uid in uids if uid in held]
            if kind == "failed" or not self._indexed:
                self._settled[kind] += len(uids) - len(kept)
            self._waiting[kind] = kept
        self.uncounted &= held
        self.release += [pod for pod in pods if pod.uid in self.uncounted]

    def _judge(self, pod: JobPod) -> None:
        """What the failure policy says about a pod that failed."""
        verdict = policy.judge(self._job, pod)
        if verdict.action == "FailJob":
            self.verdict = self.verdict or verdict.message
        elif verdict.action == "Ignore":
            self.ignored.add(pod.uid)
        elif verdict.action == "FailIndex" and pod.index is not None:
            self.failed_indexes.add(pod.index)

    def _has_failed(self, pod: JobPod) -> bool:
        if pod.phase == "Failed":
            return True
        return pod.is_terminating and self._spec.get("podReplacementPolicy") != "Failed"

    def _count_success(self, pod: JobPod) -> None:
        if not self._indexed:
            self._wait(pod, "succeeded")
            return
        self.release.append(pod)
        if pod.index is not None and pod.index < self._limit:
            self.completed.add(pod.index)

    def _count_failure(self, pod: JobPod) -> None:
        if pod.uid in self.ignored:
            self.release.append(pod)
            return
        self._wait(pod, "failed")
        limit = self._spec.get("backoffLimitPerIndex")
        if limit is not None and pod.index is not None and pod.failures >= int(limit) and pod.phase == "Failed":
            self.failed_indexes.add(pod.index)

    def _wait(self, pod: JobPod, kind: str) -> None:
        self._waiting[kind].append(pod.uid)
        self.uncounted.add(pod.uid)
        self.release.append(pod)
