"""What a CronJob is to do now, and when to look again. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

from fleetplane.client.protocol import CLUSTER_ANNOTATION
from fleetplane.model.builtin.types import CRON_JOBS, JOBS
from fleetplane.model.environment import parse_timestamp, timestamp
from fleetplane.model.objects import Object, condition, is_condition_true, is_deleting, metadata, name, namespace, uid
from fleetplane.workloads.cronjob.schedule import Schedule
from fleetplane.workloads.shared.ownership import owner_reference

SCHEDULED_AT: Final = "batch.kubernetes.io/cronjob-scheduled-timestamp"
TOO_MANY_MISSED: Final = 100


@dataclass(slots=True)
class Plan:
    """``create`` is a whole Job; ``delete`` are Jobs; ``events`` are (type, reason, message)."""

    create: Object | None = None
    delete: list[Object] = field(default_factory=list)
    status: Object = field(default_factory=dict)
    events: list[tuple[str, str, str]] = field(default_factory=list)
    recheck_after: float | None = None


def is_finished(job: Mapping[str, Any]) -> bool:
    return is_condition_true(job, "Complete") or is_condition_true(job, "Failed")


def plan(cron: Object, jobs: Sequence[Object], schedule: Schedule, now: datetime) -> Plan:
    """``jobs`` are the CronJob's own."""
    made = Plan(status=dict(cron.get("status") or {}))
    _observe(cron, jobs, made)
    if is_deleting(cron):
        return made
    _forget_old(cron, jobs, made)
    if cron["spec"].get("suspend"):
        return made
    due = _most_recent(cron, schedule, now, made)
    if due is not None:
        _start(cron, jobs, due, now, made)
    upcoming = schedule.next(now)
    if upcoming is not None:
        made.recheck_after = max((upcoming - now).total_seconds(), 0.0) + 0.1
    return made


def _observe(cron: Object, jobs: Sequence[Object], made: Plan) -> None:
    """Brings ``status.active`` and the last success up to date, and says which Jobs ended."""
    known = {one.get("uid"): one for one in made.status.get("active") or ()}
    active = []
    for job in sorted(jobs, key=lambda one: (metadata(one).get("creationTimestamp") or "", name(one))):
        if not is_finished(job):
            active.append(_reference(job))
            continue
        if uid(job) in known:
            ended = "Complete" if is_condition_true(job, "Complete") else "Failed"
            made.events.append(("Normal", "SawCompletedJob", f"Saw completed job: {name(job)}, condition: {ended}"))
        if is_condition_true(job, "Complete"):
            _note_success(job, made)
    there = {uid(job) for job in jobs}
    for job_uid, one in known.items():
        if job_uid not in there:
            made.events.append(("Normal", "MissingJob", f"Active job went missing: {one.get('name')}"))
    if active:
        made.status["active"] = active
    else:
        made.status.pop("active", None)


def _note_success(job: Object, made: Plan) -> None:
    ended = (job.get("status") or {}).get("completionTime") or (condition(job, "Complete") or {}).get(
        "lastTransitionTime"
    )
    last = made.status.get("lastSuccessfulTime")
    if ended and (last is None or parse_timestamp(ended) > parse_timestamp(last)):
        made.status["lastSuccessfulTime"] = ended


def _reference(job: Object) -> Object:
    return {
        "apiVersion": JOBS.api_version,
        "kind": JOBS.kind,
        "namespace": namespace(job),
        "name": name(job),
        "uid": uid(job),
        "resourceVersion": str(metadata(job).get("resourceVersion") or ""),
    }


def _forget_old(cron: Object, jobs: Sequence[Object], made: Plan) -> None:
    """Finished Jobs beyond the history limits, oldest first."""
    spec = cron["spec"]
    for ended, field_name, default in (
        ("Complete", "successfulJobsHistoryLimit", 3),
        ("Failed", "failedJobsHistoryLimit", 1),
    ):
        limit = spec.get(field_name)
        limit = default if limit is None else int(limit)
        found = [job for job in jobs if is_condition_true(job, ended) and not is_deleting(job)]
        found.sort(key=lambda job: ((job.get("status") or {}).get("startTime") or "", name(job)))
        made.delete += found[: max(0, len(found) - limit)]


def _most_recent(cron: Object, schedule: Schedule, now: datetime, made: Plan) -> datetime | None:
    """The latest scheduled time that is due and was not served; many missed ones are one."""
    status, spec = cron.get("status") or {}, cron["spec"]
    since = parse_timestamp(status.get("lastScheduleTime") or metadata(cron)["creationTimestamp"])
    deadline = spec.get("startingDeadlineSeconds")
    if deadline is not None:
        since = max(since, now - timedelta(seconds=int(deadline)))
    due: datetime | None = None
    missed = 0
    at = schedule.next(since)
    while at is not None and at <= now:
        due, missed = at, missed + 1
        if missed > TOO_MANY_MISSED:
            due = _last_before(schedule, now)
            break
        at = schedule.next(at)
    if missed > TOO_MANY_MISSED:
        text = "too many missed start times. Set or decrease .spec.startingDeadlineSeconds or check clock skew"
        made.events.append(("Warning", "TooManyMissedTimes", text))
    return due


def _last_before(schedule: Schedule, now: datetime) -> datetime | None:
    """The latest scheduled time not after ``now``, found by looking back ever further."""
    back = timedelta(minutes=2)
    while back < timedelta(days=366 * 5):
        at, last = schedule.next(now - back), None
        while at is not None and at <= now:
            last = at
            at = schedule.next(at)
        if last is not None:
            return last
        back *= 4
    return None


def _start(cron: Object, jobs: Sequence[Object], due: datetime, now: datetime, made: Plan) -> None:
    policy = cron["spec"].get("concurrencyPolicy") or "Allow"
    active = [job for job in jobs if not is_finished(job)]
    job_name = f"{name(cron)}-{int(due.timestamp()) // 60}"
    if any(name(job) == job_name for job in jobs):
        made.status["lastScheduleTime"] = timestamp(due)
        return
    if policy == "Forbid" and active:
        text = "Not starting job because prior execution is running and concurrency policy is Forbid"
        made.events.append(("Normal", "JobAlreadyActive", text))
        return
    if policy == "Replace":
        made.delete += [job for job in active if not is_deleting(job)]
        made.status.pop("active", None)
    made.create = new_job(cron, job_name, due)
    made.status["lastScheduleTime"] = timestamp(due)


def new_job(cron: Object, job_name: str, due: datetime) -> Object:
    """The Job of one scheduled time; its name tells the time, so that it is made only once."""
    template = cron["spec"].get("jobTemplate") or {}
    meta = template.get("metadata") or {}
    notes = {key: value for key, value in (meta.get("annotations") or {}).items() if key != CLUSTER_ANNOTATION}
    made: Object = {
        "name": job_name,
        "namespace": namespace(cron),
        "annotations": {**notes, SCHEDULED_AT: timestamp(due)},
        "ownerReferences": [owner_reference(cron, CRON_JOBS)],
    }
    if meta.get("labels"):
        made["labels"] = dict(meta["labels"])
    return {
        "apiVersion": JOBS.api_version,
        "kind": JOBS.kind,
        "metadata": made,
        "spec": dict(template.get("spec") or {}),
    }


def with_created(status: Object, job: Object) -> Object:
    """The status once the Job is there."""
    return {**status, "active": [*(status.get("active") or ()), _reference(job)]}
