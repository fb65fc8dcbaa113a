from __future__ import annotations

import asyncio
from typing import Any

from tests.workloads.made import NOW, Object, later, template
from tests.workloads.stage import Stage, play

from fleetplane.model.builtin.types import CRON_JOBS, JOBS
from fleetplane.model.environment import timestamp
from fleetplane.workloads.cronjob.plan import Plan, plan
from fleetplane.workloads.cronjob.schedule import parse


def cron(schedule: str = "*/5 * * * *", **spec: Any) -> Object:
    return {
        "apiVersion": "batch/v1",
        "kind": "CronJob",
        "metadata": {"name": "tick", "namespace": "default", "uid": "cron", "creationTimestamp": timestamp(NOW)},
        "spec": {
            "schedule": schedule,
            "jobTemplate": {"metadata": {"labels": {"a": "b"}}, "spec": {"template": template()}},
            **spec,
        },
    }


def job(name: str, ended: str = "") -> Object:
    conditions = [{"type": ended, "status": "True"}] if ended else []
    status = {"conditions": conditions, "startTime": "2026-03-01T12:00:00Z"}
    if ended == "Complete":
        status["completionTime"] = "2026-03-01T12:01:00Z"
    return {"metadata": {"name": name, "namespace": "default", "uid": name}, "status": status}


def decide(one: Object, *jobs: Object, seconds: float) -> Plan:
    return plan(one, jobs, parse(one["spec"]["schedule"]), later(seconds))


def test_nothing_is_due_before_the_first_time():
    made = decide(cron(), seconds=60)
    assert made.create is None
    assert made.recheck_after == 240.1


def test_a_due_time_makes_a_job_named_after_it():
    made = decide(cron(), seconds=301)
    assert made.create is not None
    assert made.create["metadata"]["name"] == f"tick-{int(later(300).timestamp()) // 60}"
    assert made.create["metadata"]["labels"] == {"a": "b"}
    assert made.create["metadata"]["annotations"]["batch.kubernetes.io/cronjob-scheduled-timestamp"] == timestamp(
        later(300)
    )
    assert made.status["lastScheduleTime"] == timestamp(later(300))


def test_of_many_missed_times_only_the_last_is_made_up_for():
    made = decide(cron(), seconds=3600 * 24 + 7)
    assert made.create is not None
    assert made.status["lastScheduleTime"] == timestamp(later(3600 * 24))
    assert ("Warning", "TooManyMissedTimes") in [event[:2] for event in made.events]


def test_a_missed_time_beyond_its_deadline_is_let_go():
    assert decide(cron(startingDeadlineSeconds=30), seconds=340).create is None
    assert decide(cron(startingDeadlineSeconds=60), seconds=340).create is not None


def test_forbid_waits_and_replace_replaces():
    running = job("tick-old")
    assert decide(cron(concurrencyPolicy="Forbid"), running, seconds=301).create is None
    made = decide(cron(concurrencyPolicy="Replace"), running, seconds=301)
    assert made.create is not None
    assert made.delete == [running]


def test_a_suspended_cron_job_starts_nothing():
    assert decide(cron(suspend=True), seconds=301).create is None


def test_history_is_kept_short():
    old = [job(f"ok-{n}", "Complete") for n in range(5)] + [job(f"bad-{n}", "Failed") for n in range(3)]
    made = decide(cron(), *old, seconds=10)
    assert [one["metadata"]["name"] for one in made.delete] == ["ok-0", "ok-1", "bad-0", "bad-1"]
    assert made.status["lastSuccessfulTime"] == "2026-03-01T12:01:00Z"


def test_jobs_follow_the_clock_through_restarts_and_faults():
    async def story(stage: Stage) -> None:
        stage.exit_code = lambda _: 0
        one = cron()
        del one["metadata"]["uid"], one["metadata"]["creationTimestamp"]
        spec = one["spec"]["jobTemplate"]["spec"]
        spec |= {"completions": 1, "parallelism": 1, "selector": {"matchLabels": {"app": "web"}}}
        one["spec"]["successfulJobsHistoryLimit"] = 100
        await stage.create(CRON_JOBS, one)
        for _ in range(3):
            await asyncio.sleep(20 * 60)
            await stage.crash()
            await asyncio.sleep(1)
            await stage.start()
        await stage.quiet(30)
        names = [each["metadata"]["name"] for each in stage.all(JOBS)]
        assert len(names) == len(set(names)) == 12
        assert stage.one(CRON_JOBS, "tick")["status"].get("active") is None

    play(story, faults=0.05)
