"""Deployments, StatefulSets, DaemonSets, Jobs, CronJobs and autoscalers."""

from __future__ import annotations

import copy
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from fleetplane.apiserver.kinds import BEHAVIOURS
from fleetplane.apiserver.kinds.cron import schedule_problem
from fleetplane.model.table import render_table

Object = dict[str, Any]
Create = Callable[[Object], tuple[Object, list[str]]]
Update = Callable[..., tuple[Object, list[str]]]
Stored = Callable[[Object], Object]

SELECTOR = {"matchLabels": {"app": "a"}}


def template(**spec: Any) -> Object:
    return {"metadata": {"labels": {"app": "a"}}, "spec": {"containers": [{"name": "c", "image": "x:1"}]} | spec}


def workload(kind: str, **spec: Any) -> Object:
    base = {"selector": SELECTOR, "template": template()}
    return {"apiVersion": "apps/v1", "kind": kind, "metadata": {"name": "a"}, "spec": base | spec}


def job(pod: Object | None = None, **spec: Any) -> Object:
    spec = {"template": template(**({"restartPolicy": "Never"} | (pod or {})))} | spec
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "a", "uid": "u-1"}, "spec": spec}


def test_a_deployment_gets_its_defaults(stored: Stored) -> None:
    spec = stored(workload("Deployment"))["spec"]

    assert (spec["replicas"], spec["revisionHistoryLimit"], spec["progressDeadlineSeconds"]) == (1, 10, 600)
    assert spec["strategy"] == {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}}
    assert spec["template"]["spec"]["restartPolicy"] == "Always"
    assert "enableServiceLinks" not in spec["template"]["spec"]


@pytest.mark.parametrize("kind", ["Deployment", "ReplicaSet", "StatefulSet", "DaemonSet"])
def test_a_selector_selects_the_template_and_stays(create: Create, stored: Stored, update: Update, kind: str) -> None:
    other = {"matchLabels": {"app": "b"}}
    _, problems = create(workload(kind, selector=other))
    old = stored(workload(kind))
    _, changed = update(workload(kind, selector=other), old)

    assert any("`selector` does not match template `labels`" in one for one in problems)
    assert any("immutable" in one or "are forbidden" in one for one in changed)


@pytest.mark.parametrize(
    ("kind", "spec", "problem"),
    [
        ("Deployment", {"replicas": -1}, "spec.replicas: Invalid value: -1"),
        ("Deployment", {"selector": {}}, "empty selector is invalid"),
        (
            "Deployment",
            {"template": template(restartPolicy="Never")},
            'Unsupported value: "Never": supported values: "Always"',
        ),
        ("Deployment", {"strategy": {"type": "Recreate", "rollingUpdate": {}}}, "may not be specified when strategy"),
        (
            "Deployment",
            {"strategy": {"rollingUpdate": {"maxSurge": 0, "maxUnavailable": "0%"}}},
            "may not be 0 when `maxSurge` is 0",
        ),
        ("Deployment", {"strategy": {"rollingUpdate": {"maxUnavailable": "200%"}}}, "must not be greater than 100%"),
        ("Deployment", {"minReadySeconds": 600}, "must be greater than minReadySeconds"),
        ("StatefulSet", {"podManagementPolicy": "Wild"}, "must be 'OrderedReady' or 'Parallel'"),
        ("DaemonSet", {"updateStrategy": {"rollingUpdate": {"maxUnavailable": 0}}}, "cannot be 0 when maxSurge is 0"),
        (
            "DaemonSet",
            {"updateStrategy": {"rollingUpdate": {"maxSurge": 1}}},
            "may not be set when maxUnavailable is non-zero",
        ),
    ],
)
def test_a_workload_that_cannot_be_is_refused(create: Create, kind: str, spec: Object, problem: str) -> None:
    _, problems = create(workload(kind, **spec))

    assert any(problem in one for one in problems), problems


def test_status_counters_agree_with_each_other(stored: Stored, update: Update) -> None:
    old = stored(workload("Deployment"))
    new = copy.deepcopy(old)
    new["status"] = {"replicas": 1, "readyReplicas": 2, "availableReplicas": 3}

    _, problems = update(new, old, "status")

    assert any("readyReplicas" in one and "cannot be greater than status.replicas" in one for one in problems)
    assert any("cannot be greater than readyReplicas" in one for one in problems)


def test_most_of_a_stateful_set_stays(stored: Stored, update: Update) -> None:
    old = stored(workload("StatefulSet", serviceName="s"))

    assert update(workload("StatefulSet", serviceName="s", replicas=3), old)[1] == []
    assert any("are forbidden" in one for one in update(workload("StatefulSet", serviceName="t"), old)[1])


def test_claims_of_a_stateful_set_are_told_whole(stored: Stored) -> None:
    claim = {
        "metadata": {"name": "v"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
    }
    made = stored(workload("StatefulSet", volumeClaimTemplates=[claim]))["spec"]["volumeClaimTemplates"][0]

    assert (made["apiVersion"], made["kind"], made["spec"]["volumeMode"]) == (
        "v1",
        "PersistentVolumeClaim",
        "Filesystem",
    )


def test_a_daemon_set_counts_its_templates(stored: Stored, update: Update) -> None:
    key = "deprecated.daemonset.template.generation"
    old = stored(workload("DaemonSet"))
    new, _ = update(workload("DaemonSet", template=template(hostNetwork=True)), old)
    same, _ = update(new, new)

    assert [one["metadata"]["annotations"][key] for one in (old, new, same)] == ["1", "2", "2"]


def test_a_job_selects_its_own_pods(stored: Stored) -> None:
    made = stored(job())

    assert made["spec"]["selector"] == {"matchLabels": {"batch.kubernetes.io/controller-uid": "u-1"}}
    assert made["spec"]["template"]["metadata"]["labels"] == {
        "app": "a",
        "batch.kubernetes.io/controller-uid": "u-1",
        "batch.kubernetes.io/job-name": "a",
        "controller-uid": "u-1",
        "job-name": "a",
    }
    assert (made["spec"]["completions"], made["spec"]["parallelism"], made["spec"]["backoffLimit"]) == (1, 1, 6)


def test_a_job_that_selects_by_hand_is_left_alone(create: Create) -> None:
    made, problems = create(job(manualSelector=True, selector=SELECTOR))

    assert problems == []
    assert made["spec"]["selector"] == SELECTOR


@pytest.mark.parametrize(
    ("obj", "problem"),
    [
        (job({"restartPolicy": "Always"}), 'supported values: "OnFailure", "Never"'),
        (job(selector=SELECTOR), "`selector` not auto-generated"),
        (job(completionMode="Indexed", parallelism=1), "spec.completions: Required value"),
        (job(parallelism=-1), "spec.parallelism: Invalid value: -1"),
    ],
)
def test_a_job_that_cannot_be_is_refused(create: Create, obj: Object, problem: str) -> None:
    _, problems = create(obj)

    assert any(problem in one for one in problems), problems


def test_a_jobs_template_stays_but_its_parallelism_may_change(stored: Stored, update: Update) -> None:
    old = stored(job())
    wider, other = copy.deepcopy(old), copy.deepcopy(old)
    wider["spec"]["parallelism"] = 5
    other["spec"]["template"]["spec"]["containers"][0]["image"] = "y"

    assert update(wider, old)[1] == []
    assert len(update(other, old)[1]) == 1


def test_a_suspended_job_may_be_steered(stored: Stored, update: Update) -> None:
    old = stored(job(suspend=True))
    new = copy.deepcopy(old)
    new["spec"]["template"]["spec"]["nodeSelector"] = {"zone": "a"}

    assert update(new, old)[1] == []


@pytest.mark.parametrize(
    ("schedule", "problem"),
    [
        ("*/5 * * * *", ""),
        ("0 8-18/2 1,15 jan-mar mon-fri", ""),
        ("@daily", ""),
        ("@every 1h30m", ""),
        ("* * *", "expected exactly 5 fields"),
        ("60 * * * *", "above maximum (59)"),
        ("5-1 * * * *", "beyond end of range"),
        ("*/0 * * * *", "the step must be a positive number"),
        ("@sometimes", "unrecognized descriptor"),
        ("x * * * *", "a number or name is needed"),
    ],
)
def test_schedules(schedule: str, problem: str) -> None:
    found = schedule_problem(schedule)

    assert problem in found
    assert bool(found) == bool(problem)


def cron_job(name: str = "a", **spec: Any) -> Object:
    spec = {"schedule": "@daily", "jobTemplate": {"spec": {"template": template(restartPolicy="Never")}}} | spec
    return {"apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": name}, "spec": spec}


def test_a_cron_job_gets_its_defaults(stored: Stored) -> None:
    spec = stored(cron_job(timeZone="Europe/Berlin"))["spec"]

    assert (spec["concurrencyPolicy"], spec["suspend"]) == ("Allow", False)
    assert (spec["successfulJobsHistoryLimit"], spec["failedJobsHistoryLimit"]) == (3, 1)
    assert "completions" not in spec["jobTemplate"]["spec"]


@pytest.mark.parametrize(
    ("obj", "problem"),
    [
        (cron_job("c" * 53), "must be no more than 52 characters"),
        (cron_job(schedule=""), "spec.schedule: Required value"),
        (cron_job(schedule="CRON_TZ=UTC * * * * *"), "use timeZone field instead"),
        (cron_job(timeZone="Mars/Olympus"), "unknown time zone"),
        (cron_job(timeZone="../etc/passwd"), "unknown time zone"),
        (cron_job(concurrencyPolicy="Maybe"), "spec.concurrencyPolicy: Unsupported value"),
    ],
)
def test_a_cron_job_that_cannot_be_is_refused(create: Create, obj: Object, problem: str) -> None:
    _, problems = create(obj)

    assert any(problem in one for one in problems), problems


def autoscaler(**spec: Any) -> Object:
    spec = {"maxReplicas": 3, "scaleTargetRef": {"kind": "Deployment", "name": "d", "apiVersion": "apps/v1"}} | spec
    return {"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "a"}, "spec": spec}


def test_an_autoscaler_watches_the_processor_unless_told(stored: Stored) -> None:
    spec = stored(autoscaler())["spec"]

    assert spec["minReplicas"] == 1
    assert spec["metrics"][0]["resource"]["target"] == {"type": "Utilization", "averageUtilization": 80}


def test_an_autoscaler_must_have_room(create: Create) -> None:
    assert any("greater than or equal to `minReplicas`" in one for one in create(autoscaler(minReplicas=5))[1])


NOW = datetime(2026, 1, 1, 1, tzinfo=UTC)


def printed(obj: Object) -> dict[str, Any]:
    group = obj["apiVersion"].rpartition("/")[0]
    table = render_table(BEHAVIOURS[(group, obj["kind"])].columns, [obj], NOW)
    names = [column["name"] for column in table["columnDefinitions"]]
    return dict(zip(names, table["rows"][0]["cells"], strict=True))


def test_how_a_deployment_is_printed() -> None:
    found = printed(workload("Deployment", replicas=3) | {"status": {"readyReplicas": 2, "updatedReplicas": 1}})

    assert (found["Ready"], found["Up-to-date"], found["Available"]) == ("2/3", 1, 0)
    assert (found["Containers"], found["Images"], found["Selector"]) == ("c", "x:1", "app=a")


def test_how_a_job_is_printed() -> None:
    status = {"succeeded": 2, "startTime": "2026-01-01T00:00:00Z", "completionTime": "2026-01-01T00:05:00Z"}
    done = job(completions=2) | {"status": status | {"conditions": [{"type": "Complete", "status": "True"}]}}

    assert [printed(done)[key] for key in ("Status", "Completions", "Duration")] == ["Complete", "2/2", "5m"]
    assert [printed(job())[key] for key in ("Status", "Completions", "Duration")] == ["Running", "0/1", ""]


def test_how_an_autoscaler_is_printed(stored: Stored) -> None:
    made = stored(autoscaler())

    assert printed(made)["Targets"] == "cpu: <unknown>/80%"
    made["status"]["currentMetrics"] = [
        {"type": "Resource", "resource": {"name": "cpu", "current": {"averageUtilization": 5}}}
    ]
    assert printed(made)["Targets"] == "cpu: 5%/80%"
