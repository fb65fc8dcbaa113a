"""The batch group: Jobs, which run to an end, and CronJobs, which start them by the clock."""

from __future__ import annotations

import zoneinfo
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from fleetplane.apiserver.kinds.access import entries, fill, made, number, section, text
from fleetplane.apiserver.kinds.behaviour import KindBehaviour
from fleetplane.apiserver.kinds.checks import (
    MAX_INT32,
    Errors,
    collected,
    in_range,
    not_negative,
    required_choice,
    spec_of,
    status_of,
    supported,
    unchanged,
)
from fleetplane.apiserver.kinds.columns import (
    NONE,
    at,
    boolean_column,
    container_images,
    container_names,
    integer_column,
    selector_column,
    selector_text,
    template_columns,
    text_column,
    timed_column,
)
from fleetplane.apiserver.kinds.cron import schedule_problem
from fleetplane.apiserver.kinds.pod_defaults import default_template
from fleetplane.apiserver.kinds.pod_rules import pod_template
from fleetplane.model import names
from fleetplane.model.environment import parse_timestamp
from fleetplane.model.errors import FieldError
from fleetplane.model.objects import Object, is_condition_true, is_deleting
from fleetplane.model.selectors import LabelSelector
from fleetplane.model.table import AGE, NAME, Cell, human_duration, time_since

UID_LABEL: Final = "batch.kubernetes.io/controller-uid"
NAME_LABEL: Final = "batch.kubernetes.io/job-name"
_OLD_UID_LABEL: Final = "controller-uid"
_OLD_NAME_LABEL: Final = "job-name"
_MAX_CRON_NAME: Final = 52
_SUSPENDED_MUTABLE: Final = ("nodeSelector", "tolerations", "affinity", "schedulingGates")
_POLICY_ACTIONS: Final = ("Count", "FailIndex", "FailJob", "Ignore")


def _default_job(job: Object) -> None:
    spec = made(job, "spec")
    if spec.get("completions") is None and spec.get("parallelism") is None:
        spec["completions"] = 1
    fill(spec, parallelism=1, completionMode="NonIndexed", suspend=False)
    fill(spec, backoffLimit=MAX_INT32 if spec.get("backoffLimitPerIndex") is not None else 6)
    template = spec.get("template")
    if isinstance(template, dict):
        labels = section(template, "metadata").get("labels")
        metadata = made(job, "metadata")
        if isinstance(labels, dict) and labels and not metadata.get("labels"):
            metadata["labels"] = dict(labels)
        default_template(template)
    policy = spec.get("podFailurePolicy")
    for rule in entries(policy, "rules") if isinstance(policy, dict) else ():
        for condition in entries(rule, "onPodConditions"):
            fill(condition, status="True")
    fill(spec, podReplacementPolicy="TerminatingOrFailed" if policy is None else "Failed")


def _prepare_create(job: Object) -> None:
    """A Job selects its own pods, by its uid, unless told to select others."""
    spec = made(job, "spec")
    if spec.get("manualSelector") is True:
        return
    metadata = section(job, "metadata")
    uid, name = text(metadata, "uid"), text(metadata, "name")
    labels = made(spec, "template", "metadata", "labels")
    follows = not metadata.get("labels") or metadata.get("labels") == labels
    for uid_label, name_label in ((UID_LABEL, NAME_LABEL), (_OLD_UID_LABEL, _OLD_NAME_LABEL)):
        labels.setdefault(uid_label, uid)
        labels.setdefault(name_label, name)
    if follows:
        # labels that were taken from the template stay in step with it
        metadata["labels"] = dict(labels)
    if spec.get("selector") is None:
        spec["selector"] = {}
    if isinstance(spec["selector"], dict):
        made(spec["selector"], "matchLabels")[UID_LABEL] = uid


def _validate_job(job: Object, old: Object | None) -> Errors:
    spec = spec_of(job)
    yield from _job_spec(spec, "spec")
    template = spec.get("template") or {}
    labels = section(template, "metadata", "labels")
    selector = spec.get("selector")
    if selector is None:
        yield FieldError.required("spec.selector")
    elif old is None and spec.get("manualSelector") is not True:
        generated = {UID_LABEL: text(job["metadata"], "uid")}
        if selector != {"matchLabels": generated}:
            yield FieldError.invalid("spec.selector", selector, "`selector` not auto-generated")
    if selector is not None and not _selects(selector, labels):
        detail = "`selector` does not match template `labels`"
        yield FieldError.invalid("spec.template.metadata.labels", labels, detail)
    if old is not None:
        yield from _job_change(spec, spec_of(old), status_of(old))


def _selects(selector: Object, labels: Object) -> bool:
    try:
        return LabelSelector.from_object(selector).matches(labels)
    except ValueError:
        return False


def _job_spec(spec: Object, path: str) -> Errors:
    for key in (
        "parallelism",
        "completions",
        "activeDeadlineSeconds",
        "backoffLimit",
        "ttlSecondsAfterFinished",
        "backoffLimitPerIndex",
        "maxFailedIndexes",
    ):
        yield from not_negative(spec.get(key), f"{path}.{key}")
    mode = spec.get("completionMode")
    if mode is not None:
        yield from supported(mode, ("Indexed", "NonIndexed"), f"{path}.completionMode")
    if mode == "Indexed":
        if spec.get("completions") is None:
            yield FieldError.required(f"{path}.completions", "when completion mode is Indexed")
        parallelism = spec.get("parallelism") or 0
        if parallelism > 100000:
            detail = "must be less than or equal to 100000 when completion mode is Indexed"
            yield FieldError.invalid(f"{path}.parallelism", parallelism, detail)
    elif spec.get("backoffLimitPerIndex") is not None:
        detail = "requires indexed completion mode"
        yield FieldError.invalid(f"{path}.backoffLimitPerIndex", spec["backoffLimitPerIndex"], detail)
    if spec.get("podReplacementPolicy") is not None:
        choices = ("Failed", "TerminatingOrFailed")
        yield from supported(spec["podReplacementPolicy"], choices, f"{path}.podReplacementPolicy")
    if spec.get("managedBy") is not None:
        for problem in names.qualified_name(spec["managedBy"]):
            yield FieldError.invalid(f"{path}.managedBy", spec["managedBy"], problem)
    template = spec.get("template") or {}
    yield from pod_template(template, f"{path}.template")
    restart = section(template, "spec").get("restartPolicy")
    if restart not in ("Never", "OnFailure"):
        yield FieldError.not_supported(f"{path}.template.spec.restartPolicy", restart, ["OnFailure", "Never"])
    if spec.get("podFailurePolicy") is not None:
        if restart != "Never":
            detail = 'only "Never" is supported when podFailurePolicy is specified'
            yield FieldError.invalid(f"{path}.template.spec.restartPolicy", restart, detail)
        yield from _failure_policy(spec["podFailurePolicy"], f"{path}.podFailurePolicy")


def _failure_policy(policy: Object, path: str) -> Errors:
    for index, rule in enumerate(policy.get("rules") or ()):
        here = f"{path}.rules[{index}]"
        yield from required_choice(text(rule, "action"), _POLICY_ACTIONS, f"{here}.action")
        codes, conditions = rule.get("onExitCodes"), rule.get("onPodConditions")
        if codes is not None and conditions:
            detail = "specifying both OnExitCodes and OnPodConditions is not supported"
            yield FieldError.invalid(here, rule, detail)
        elif codes is None and not conditions:
            detail = "specifying one of OnExitCodes and OnPodConditions is required"
            yield FieldError.invalid(here, rule, detail)
        if codes is not None:
            yield from required_choice(text(codes, "operator"), ("In", "NotIn"), f"{here}.onExitCodes.operator")
            values = codes.get("values") or []
            if not values:
                yield FieldError.invalid(f"{here}.onExitCodes.values", values, "at least one value is required")
            for value_index, value in enumerate(values):
                yield from in_range(value, 0, 255, f"{here}.onExitCodes.values[{value_index}]")


def _job_change(spec: Object, before: Object, status: Object) -> Errors:
    new_completions, old_completions = spec.get("completions"), before.get("completions")
    elastic = before.get("completionMode") == "Indexed" and new_completions == spec.get("parallelism")
    if new_completions != old_completions and not elastic:
        yield FieldError.invalid("spec.completions", new_completions, "field is immutable")
    for key in ("selector", "completionMode", "podFailurePolicy", "backoffLimitPerIndex", "managedBy", "successPolicy"):
        yield from unchanged(spec.get(key), before.get(key), f"spec.{key}")
    new, old = spec.get("template") or {}, before.get("template") or {}
    if before.get("suspend") is True and not status.get("startTime"):
        new, old = _without_directives(new), _without_directives(old)
    yield from unchanged(new, old, "spec.template")


def _without_directives(template: Object) -> Object:
    """The template without what may be steered while a Job has not begun."""
    spec = {key: value for key, value in section(template, "spec").items() if key not in _SUSPENDED_MUTABLE}
    for key in ("containers", "initContainers"):
        if spec.get(key):
            spec[key] = [{k: v for k, v in one.items() if k != "resources"} for one in spec[key]]
    return {"spec": spec}


def _validate_job_status(job: Object, old: Object | None) -> Errors:
    status = status_of(job)
    for key in ("active", "succeeded", "failed", "ready", "terminating"):
        yield from not_negative(status.get(key), f"status.{key}")
    done = [kind for kind in ("Complete", "Failed") if is_condition_true(job, kind)]
    if len(done) == 2:
        detail = "Cannot have Complete=True and Failed=True conditions"
        yield FieldError.invalid("status.conditions", done, detail)
    if old is not None and status_of(old).get("completionTime") and not status.get("completionTime"):
        yield FieldError.required("status.completionTime", "completionTime cannot be removed")


def _job_state(job: Mapping[str, Any]) -> str:
    for condition, word in (("Complete", "Complete"), ("Failed", "Failed")):
        if is_condition_true(job, condition):
            return word
    if is_deleting(job):
        return "Terminating"
    for condition in ("Suspended", "FailureTarget", "SuccessCriteriaMet"):
        if is_condition_true(job, condition):
            return condition
    return "Running"


def _completions(job: Mapping[str, Any]) -> str:
    spec, succeeded = section(job, "spec"), number(section(job, "status"), "succeeded")
    if spec.get("completions") is not None:
        return f"{succeeded}/{number(spec, 'completions')}"
    parallelism = number(spec, "parallelism")
    return f"{succeeded}/1 of {parallelism}" if parallelism > 1 else f"{succeeded}/1"


def _duration(job: Mapping[str, Any], now: datetime) -> Cell:
    status = section(job, "status")
    start, end = text(status, "startTime"), text(status, "completionTime")
    if not start:
        return ""
    if not end:
        return time_since(start, now)
    try:
        return human_duration(parse_timestamp(end) - parse_timestamp(start))
    except ValueError:
        return ""


JOBS: Final = KindBehaviour(
    default=_default_job,
    prepare_create=_prepare_create,
    validate=collected(_validate_job),
    validate_status=collected(_validate_job_status),
    columns=(
        NAME,
        text_column("Status", "How the job is doing.", _job_state),
        text_column("Completions", "Pods that succeeded, of those wanted.", _completions),
        timed_column("Duration", "How long it took, or has been running.", _duration),
        AGE,
        *template_columns("spec", "template"),
        selector_column("spec", "selector"),
    ),
    fields={"status.successful": lambda job: str(number(section(job, "status"), "succeeded"))},
)


def _default_cron_job(cron_job: Object) -> None:
    spec = made(cron_job, "spec")
    fill(
        spec,
        concurrencyPolicy="Allow",
        suspend=False,
        successfulJobsHistoryLimit=3,
        failedJobsHistoryLimit=1,
    )
    template = section(spec, "jobTemplate", "spec").get("template")
    if isinstance(template, dict):
        default_template(template)


def _validate_cron_job(cron_job: Object, old: Object | None) -> Errors:
    spec = spec_of(cron_job)
    name = text(cron_job["metadata"], "name")
    if old is None and len(name) > _MAX_CRON_NAME:
        yield FieldError.invalid("metadata.name", name, "must be no more than 52 characters")
    schedule = text(spec, "schedule")
    if not schedule:
        yield FieldError.required("spec.schedule")
    elif "TZ" in schedule:
        detail = "cannot use TZ or CRON_TZ in schedule, use timeZone field instead"
        yield FieldError.invalid("spec.schedule", schedule, detail)
    else:
        problem = schedule_problem(schedule)
        if problem:
            yield FieldError.invalid("spec.schedule", schedule, problem)
    zone = spec.get("timeZone")
    if zone is not None:
        yield from _time_zone(zone)
    yield from not_negative(spec.get("startingDeadlineSeconds"), "spec.startingDeadlineSeconds")
    choices = ("Allow", "Forbid", "Replace")
    yield from required_choice(text(spec, "concurrencyPolicy"), choices, "spec.concurrencyPolicy")
    for key in ("successfulJobsHistoryLimit", "failedJobsHistoryLimit"):
        yield from not_negative(spec.get(key), f"spec.{key}")
    job = section(spec, "jobTemplate", "spec")
    path = "spec.jobTemplate.spec"
    if job.get("manualSelector"):
        yield FieldError.not_supported(f"{path}.manualSelector", True, ["nil", "false"])
    if job.get("selector") is not None:
        yield FieldError.invalid(f"{path}.selector", job["selector"], "`selector` will be auto-generated")
    yield from _job_spec(job, path)


def _time_zone(zone: str) -> Errors:
    path = "spec.timeZone"
    if not zone:
        yield FieldError.invalid(path, zone, "timeZone must be nil or non-empty string")
        return
    if zone.lower() == "local":
        yield FieldError.invalid(
            path, zone, "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones"
        )
        return
    try:
        zoneinfo.ZoneInfo(zone)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        yield FieldError.invalid(path, zone, f"unknown time zone {zone}")


def _last_schedule(cron_job: Mapping[str, Any], now: datetime) -> Cell:
    last = section(cron_job, "status").get("lastScheduleTime")
    return time_since(last, now) if last else NONE


def _job_pod_spec(cron_job: Mapping[str, Any]) -> Object:
    return section(cron_job, "spec", "jobTemplate", "spec", "template", "spec")


CRON_JOBS: Final = KindBehaviour(
    default=_default_cron_job,
    validate=collected(_validate_cron_job),
    columns=(
        NAME,
        text_column("Schedule", "When it runs, as cron writes it.", at("spec", "schedule")),
        text_column("Timezone", "In which time zone.", at("spec", "timeZone", default=NONE)),
        boolean_column("Suspend", "Whether it pauses.", lambda obj: str(section(obj, "spec").get("suspend") is True)),
        integer_column("Active", "Jobs running now.", lambda obj: len(entries(section(obj, "status"), "active"))),
        timed_column("Last Schedule", "When it ran last.", _last_schedule),
        AGE,
        text_column(
            "Containers", "Names of the containers.", lambda obj: container_names(_job_pod_spec(obj)), wide=True
        ),
        text_column("Images", "Images of the containers.", lambda obj: container_images(_job_pod_spec(obj)), wide=True),
        text_column(
            "Selector",
            "Which pods belong to its jobs.",
            lambda obj: selector_text(section(obj, "spec", "jobTemplate", "spec").get("selector")),
            wide=True,
        ),
    ),
)
