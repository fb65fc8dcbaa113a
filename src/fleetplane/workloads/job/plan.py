"""What a Job is to do next, and what it says about itself. Pure.

Every pod that ends is counted exactly once, also when it is deleted right after: it carries a finalizer until its
outcome stands in the Job's status. First its uid is written there as not yet counted, then the finalizer goes, then the
uid turns into a number (KEP-2307). So the caller must: make and delete pods, write ``status``, and only then take
finalizers off ``release``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final, NamedTuple

from fleetplane.model.environment import parse_timestamp, timestamp
from fleetplane.model.objects import Object, condition, is_condition_true, is_deleting
from fleetplane.workloads.job import indexes, policy, timing
from fleetplane.workloads.job.counting import Counts
from fleetplane.workloads.job.pods import JobPod
from fleetplane.workloads.shared import conditions

MOST_CREATED: Final = 500
_UNLIMITED: Final = (1 << 31) - 1


class NewPod(NamedTuple):
    """A pod to make. ``completion`` is its index, or None where the Job is not indexed."""

    completion: int | None = None
    failures: int = 0
    ignored_failures: int = 0


@dataclass(slots=True)
class Plan:
    """``discard`` are pods to delete that must not count; ``delete`` are pods to delete that count as failed.

    ``events`` are (type, reason, message).
    """

    create: list[NewPod] = field(default_factory=list)
    delete: list[JobPod] = field(default_factory=list)
    discard: list[JobPod] = field(default_factory=list)
    release: list[JobPod] = field(default_factory=list)
    status: Object = field(default_factory=dict)
    events: list[tuple[str, str, str]] = field(default_factory=list)
    recheck_after: float | None = None


def plan(job: Object, owned: Sequence[JobPod], now: datetime) -> Plan:
    """``owned`` are the Job's pods, in any phase."""
    if timing.is_finished(job):
        release = [pod for pod in owned if pod.has_finalizer]
        return Plan(status=job.get("status") or {}, release=release)
    return _Pass(job, owned, now).decide()


class _Outcome(NamedTuple):
    """How the Job ends: the interim condition's type, and the final one's."""

    interim: str
    final: str
    reason: str
    message: str


class _Pass:
    """One pass over one Job."""

    def __init__(self, job: Object, owned: Sequence[JobPod], now: datetime) -> None:
        self.job, self.spec, self.now = job, job["spec"], now
        self.owned = sorted(owned, key=lambda pod: (pod.created, pod.name))
        self.old: Object = job.get("status") or {}
        self.made = Plan()
        self.conditions: list[Object] = list(self.old.get("conditions") or ())
        self.indexed = timing.is_indexed(job)
        self.completions = None if self.spec.get("completions") is None else int(self.spec["completions"])
        self.counts = Counts(job)
        self.outcome: _Outcome | None = self._outcome_so_far()

    # the pass

    def decide(self) -> Plan:
        self.active = [pod for pod in self.owned if pod.is_active]
        self.terminating = [pod for pod in self.owned if pod.is_terminating]
        self.start = self._start_time()
        self.counts.take(self.owned)
        if self.counts.has_more:
            self._recheck(0.05)
        if self.outcome is None and self.counts.verdict:
            self.outcome = _Outcome("FailureTarget", "Failed", "PodFailurePolicy", self.counts.verdict)
        self.outcome = self.outcome or self._failure() or self._success()
        if self.outcome is not None:
            self._end_active(self.outcome)
        elif self._is_suspended():
            self._discard(self.active)
        elif not is_deleting(self.job):
            self._manage()
        self._suspension()
        self._finish()
        self._write_status()
        self.made.release += self.counts.release
        return self.made

    def _is_suspended(self) -> bool:
        return bool(self.spec.get("suspend"))

    def _outcome_so_far(self) -> _Outcome | None:
        """A decision that was written down earlier holds."""
        for interim, final in (("SuccessCriteriaMet", "Complete"), ("FailureTarget", "Failed")):
            found = condition(self.job, interim)
            if found is not None and found.get("status") == "True":
                return _Outcome(interim, final, str(found.get("reason") or ""), str(found.get("message") or ""))
        return None

    def _start_time(self) -> str | None:
        if self._is_suspended() and self.outcome is None:
            return None
        found: str | None = self.old.get("startTime")
        return found or timestamp(self.now)

    # how it ends

    def _failure(self) -> _Outcome | None:
        if self._is_suspended():
            return None
        reason = message = ""
        if self._is_past_backoff():
            reason, message = "BackoffLimitExceeded", "Job has reached the specified backoff limit"
        elif self._is_past_deadline():
            reason, message = "DeadlineExceeded", "Job was active longer than specified deadline"
        elif self._has_too_many_failed_indexes():
            reason = "MaxFailedIndexesExceeded"
            message = "Job has exceeded the specified maximal number of failed indexes"
        elif self._has_only_failed_indexes_left():
            reason, message = "FailedIndexes", "Job has failed indexes"
        return _Outcome("FailureTarget", "Failed", reason, message) if reason else None

    def _backoff_limit(self) -> int:
        limit = self.spec.get("backoffLimit")
        if limit is None:
            return _UNLIMITED if self.spec.get("backoffLimitPerIndex") is not None else 6
        return int(limit)

    def _is_past_backoff(self) -> bool:
        limit = self._backoff_limit()
        if self.counts.failed > limit:
            return True
        template_spec = (self.spec.get("template") or {}).get("spec") or {}
        if template_spec.get("restartPolicy") != "OnFailure":
            return False
        restarts = sum(pod.restarts() for pod in self.active)
        return restarts > 0 if limit == 0 else restarts >= limit

    def _is_past_deadline(self) -> bool:
        limit = self.spec.get("activeDeadlineSeconds")
        if limit is None or self.start is None:
            return False
        left = (parse_timestamp(self.start) + timedelta(seconds=int(limit)) - self.now).total_seconds()
        if left > 0:
            self._recheck(left)
        return left <= 0

    def _has_too_many_failed_indexes(self) -> bool:
        limit = self.spec.get("maxFailedIndexes")
        return bool(limit is not None and len(self.counts.failed_indexes) > int(limit))

    def _has_only_failed_indexes_left(self) -> bool:
        if not self.counts.failed_indexes or self.completions is None:
            return False
        return len(self.counts.completed | self.counts.failed_indexes) >= self.completions

    def _success(self) -> _Outcome | None:
        if self.indexed and (why := policy.success(self.job, self.counts.completed)) is not None:
            return _Outcome("SuccessCriteriaMet", "Complete", "SuccessPolicy", why)
        if self.completions is None:
            done = self.counts.succeeded > 0 and not self.active
        else:
            done = self.counts.succeeded >= self.completions and (self.completions > 0 or not self.active)
        if not done or self._is_suspended():
            return None
        message = "Reached expected number of succeeded pods"
        return _Outcome("SuccessCriteriaMet", "Complete", "CompletionsReached", message)

    def _end_active(self, outcome: _Outcome) -> None:
        if outcome.final == "Complete":
            self._discard(self.active)
        else:
            self.made.delete += self.active
            for pod in (*self.active, *self.terminating):
                self.counts.count_as_failed(pod)
        self.active = []

    def _finish(self) -> None:
        """The final condition comes when nothing of it runs any more and everything is counted."""
        if self.outcome is None:
            return
        self._set(self.outcome.interim, "True", self.outcome.reason, self.outcome.message)
        waits = self.terminating or self.made.delete or self.made.discard or self.counts.uncounted
        if waits:
            return
        self._set(self.outcome.final, "True", self.outcome.reason, self.outcome.message)
        if self.outcome.final == "Complete":
            self.made.events.append(("Normal", "Completed", "Job completed"))
        else:
            self.made.events.append(("Warning", self.outcome.reason, self.outcome.message))

    def _suspension(self) -> None:
        if self.outcome is not None:
            return
        says_suspended = is_condition_true(self.job, "Suspended")
        if self._is_suspended() and not says_suspended:
            self._set("Suspended", "True", "JobSuspended", "Job suspended")
            self.made.events.append(("Normal", "Suspended", "Job suspended"))
        elif not self._is_suspended() and says_suspended:
            self._set("Suspended", "False", "JobResumed", "Job resumed")
            self.made.events.append(("Normal", "Resumed", "Job resumed"))
            self.start = timestamp(self.now)

    def _set(self, type: str, status: str, reason: str, message: str) -> None:
        made = conditions.make(type, status, reason, message, timestamp(self.now))
        made["lastProbeTime"] = timestamp(self.now)
        self.conditions = conditions.with_condition(self.conditions, made)

    # pods to make and to remove

    def _discard(self, going: Sequence[JobPod]) -> None:
        """Deletes running pods without counting them."""
        uids = {pod.uid for pod in going}
        self.made.discard += going
        self.active = [pod for pod in self.active if pod.uid not in uids]

    def _manage(self) -> None:
        wanted = self._wanted()
        if len(self.active) > wanted:
            by_worth = sorted(self.active, key=lambda pod: (pod.ready, pod.phase == "Running", pod.created, pod.name))
            self._discard(by_worth[: len(self.active) - wanted])
            return
        if self.indexed:
            self._discard(self._superfluous())
        missing = wanted - len(self.active)
        if self.spec.get("podReplacementPolicy") == "Failed":
            missing -= len(self.terminating)
        if missing <= 0:
            return
        at = timing.retry_at(self.owned)
        if at is not None and at > self.now and self.spec.get("backoffLimitPerIndex") is None:
            self._recheck((at - self.now).total_seconds())
            return
        self.made.create = self._new_pods(min(missing, MOST_CREATED))

    def _wanted(self) -> int:
        parallelism = self.spec.get("parallelism")
        parallelism = 1 if parallelism is None else int(parallelism)
        if self.completions is None:
            return len(self.active) if self.counts.succeeded > 0 else parallelism
        left = self.completions - self.counts.succeeded - len(self.counts.failed_indexes - self.counts.completed)
        return max(0, min(parallelism, left))

    def _superfluous(self) -> list[JobPod]:
        """Pods of indexes that are done, out of range, or run twice."""
        taken: set[int] = set()
        found: list[JobPod] = []
        for pod in self.active:
            index = pod.index
            if (
                index is None
                or index >= (self.completions or 0)
                or index in self.counts.completed | self.counts.failed_indexes | taken
            ):
                found.append(pod)
            else:
                taken.add(index)
        return found

    def _new_pods(self, count: int) -> list[NewPod]:
        if not self.indexed:
            return [NewPod()] * count
        taken = {pod.index for pod in self.active} | self.counts.completed | self.counts.failed_indexes
        if self.spec.get("podReplacementPolicy") == "Failed":
            taken |= {pod.index for pod in self.terminating}
        found: list[NewPod] = []
        for index in range(self.completions or 0):
            if index not in taken:
                new = self._after_failures(index)
                if new is not None:
                    found.append(new)
            if len(found) == count:
                break
        return found

    def _after_failures(self, index: int) -> NewPod | None:
        """The next pod of an index, which remembers how often its forerunners failed; None while it backs off."""
        if self.spec.get("backoffLimitPerIndex") is None:
            return NewPod(index)
        earlier = [pod for pod in self.owned if pod.index == index and pod.phase == "Failed"]
        if not earlier:
            return NewPod(index)
        last = max(earlier, key=lambda pod: (pod.failures + pod.ignored_failures, pod.created))
        at = last.finished_at()
        delay = min(timing.FIRST_BACKOFF * 2 ** min(last.failures, 20), timing.LAST_BACKOFF)
        if at is not None and (left := (at + timedelta(seconds=delay) - self.now).total_seconds()) > 0:
            self._recheck(left)
            return None
        if last.uid in self.counts.ignored or policy.judge(self.job, last).action == "Ignore":
            return NewPod(index, last.failures, last.ignored_failures + 1)
        return NewPod(index, last.failures + 1, last.ignored_failures)

    def _recheck(self, seconds: float) -> None:
        known = self.made.recheck_after
        self.made.recheck_after = seconds if known is None else min(known, seconds)

    # status

    def _write_status(self) -> None:
        active = len(self.active) + len(self.made.create)
        counts = {
            "active": active,
            "succeeded": self.counts.settled("succeeded"),
            "failed": self.counts.settled("failed"),
            "ready": sum(pod.ready for pod in self.active),
            "terminating": len(self.terminating) + len(self.made.delete) + len(self.made.discard),
        }
        status: Object = {key: value for key, value in counts.items() if value or key in {"ready", "terminating"}}
        status["uncountedTerminatedPods"] = self.counts.uncounted_by_kind()
        if self.conditions:
            status["conditions"] = self.conditions
        if self.start is not None:
            status["startTime"] = self.start
        if self.indexed and self.counts.completed:
            status["completedIndexes"] = indexes.render(self.counts.completed)
        if self.spec.get("backoffLimitPerIndex") is not None:
            status["failedIndexes"] = indexes.render(self.counts.failed_indexes)
        if is_condition_true({"status": {"conditions": self.conditions}}, "Complete"):
            status["completionTime"] = timestamp(self.now)
        self.made.status = status
