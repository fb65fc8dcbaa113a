"""The rules a Job may carry about failures (KEP-3329) and success (KEP-3998). Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from fleetplane.model.objects import Object, condition, namespace
from fleetplane.workloads.job import indexes
from fleetplane.workloads.job.pods import JobPod


class Verdict(NamedTuple):
    """``action``: ``FailJob``, ``FailIndex``, ``Ignore`` or ``Count``."""

    action: str
    message: str


_COUNT = Verdict("Count", "")


def judge(job: Mapping[str, Any], pod: JobPod) -> Verdict:
    """What the first rule that matches says about a failed pod."""
    rules = (job["spec"].get("podFailurePolicy") or {}).get("rules") or ()
    for number, rule in enumerate(rules):
        action = str(rule.get("action") or "Count")
        if action == "FailIndex" and job["spec"].get("backoffLimitPerIndex") is None:
            continue
        if (found := rule.get("onExitCodes")) is not None:
            why = _matching_exit(found, pod)
        else:
            why = _matching_condition(rule.get("onPodConditions") or (), pod)
        if why:
            return Verdict(action, f"{why} matching {action} rule at index {number}")
    return _COUNT


def _matching_exit(rule: Mapping[str, Any], pod: JobPod) -> str:
    values = set(rule.get("values") or ())
    status = pod.obj.get("status") or {}
    both = (*(status.get("containerStatuses") or ()), *(status.get("initContainerStatuses") or ()))
    for one in both:
        wanted = rule.get("containerName")
        ended = (one.get("state") or {}).get("terminated")
        if ended is None or not ended.get("exitCode") or (wanted and wanted != one.get("name")):
            continue
        code = int(ended["exitCode"])
        if (code in values) is (rule.get("operator") == "In"):
            where = f"{namespace(pod.obj)}/{pod.name}"
            return f"Container {one.get('name')} for pod {where} failed with exit code {code}"
    return ""


def _matching_condition(patterns: Any, pod: JobPod) -> str:
    for pattern in patterns:
        found: Object | None = condition(pod.obj, str(pattern.get("type") or ""))
        if found is not None and found.get("status") == (pattern.get("status") or "True"):
            return f"Pod {namespace(pod.obj)}/{pod.name} has condition {pattern.get('type')}"
    return ""


def success(job: Mapping[str, Any], completed: set[int]) -> str | None:
    """Why the Job may end before all indexes are completed, if a rule says so."""
    rules = (job["spec"].get("successPolicy") or {}).get("rules") or ()
    limit = int(job["spec"].get("completions") or 0)
    for number, rule in enumerate(rules):
        listed = rule.get("succeededIndexes")
        wanted = indexes.parse(listed, limit) if listed is not None else None
        matching = completed if wanted is None else completed & wanted
        count = rule.get("succeededCount")
        enough = count is not None and len(matching) >= int(count)
        if enough or (count is None and wanted is not None and wanted <= completed):
            return f"Matched rules at index {number}"
    return None
