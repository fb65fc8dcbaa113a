from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tests.workloads.made import template
from tests.workloads.stage import Object, Stage, play

from fleetplane.model.builtin.types import JOBS, PODS
from fleetplane.model.objects import is_condition_true


def pi(**spec: Any) -> Object:
    labels = {"batch.kubernetes.io/controller-uid": "pi"}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "pi", "namespace": "default"},
        "spec": {
            "completions": 1,
            "parallelism": 1,
            "backoffLimit": 6,
            "selector": {"matchLabels": labels},
            "template": template("pi", **labels),
            **spec,
        },
    }


def is_complete(stage: Stage) -> bool:
    return is_condition_true(stage.one(JOBS, "pi"), "Complete")


@pytest.mark.parametrize("seed", range(4))
def test_a_job_completes_exactly_in_spite_of_faults_and_crashes(seed):
    async def story(stage: Stage) -> None:
        chance = stage.environment.random
        stage.exit_code = lambda _: int(chance.random() < 0.2)
        mode = "Indexed" if seed % 2 else "NonIndexed"
        await stage.create(JOBS, pi(completions=6, parallelism=3, completionMode=mode))
        while not is_complete(stage):
            assert (
                sum(
                    (one.get("status") or {}).get("phase", "Pending") not in {"Succeeded", "Failed"}
                    for one in stage.pods()
                )
                <= 3
            )
            await asyncio.sleep(chance.random() * 5)
            if chance.random() < 0.1:
                await stage.crash()
                await asyncio.sleep(1)
                await stage.start()
            assert stage.environment.monotonic() < 5000
        await stage.quiet()
        status = stage.one(JOBS, "pi")["status"]
        ended = [(one.get("status") or {}).get("phase") for one in stage.all(PODS)]
        assert status["succeeded"] == 6 == ended.count("Succeeded")
        assert status.get("failed", 0) == ended.count("Failed")
        assert not any(one["metadata"].get("finalizers") for one in stage.all(PODS))

    play(story, seed=seed, faults=0.1)


def test_pods_of_an_indexed_job_know_their_index():
    async def story(stage: Stage) -> None:
        await stage.create(JOBS, pi(completions=2, parallelism=2, completionMode="Indexed"))
        await stage.until(lambda: len(stage.pods()) == 2)
        first = next(one for one in stage.pods() if one["metadata"]["name"].startswith("pi-0-"))
        assert first["metadata"]["labels"]["batch.kubernetes.io/job-completion-index"] == "0"
        assert first["spec"]["hostname"] == "pi-0"
        assert first["spec"]["containers"][0]["env"][0]["name"] == "JOB_COMPLETION_INDEX"

    play(story)


def test_a_finished_job_goes_when_its_time_is_up():
    async def story(stage: Stage) -> None:
        stage.exit_code = lambda _: 0
        await stage.create(JOBS, pi(ttlSecondsAfterFinished=60))
        await stage.until(lambda: is_complete(stage))
        await asyncio.sleep(50)
        assert stage.all(JOBS)
        await stage.until(lambda: not stage.all(JOBS), seconds=30)

    play(story)


def test_pods_of_a_job_that_is_gone_are_set_free():
    async def story(stage: Stage) -> None:
        await stage.create(JOBS, pi())
        await stage.until(lambda: len(stage.pods()) == 1)
        await stage.client.delete(JOBS, "pi", "default")
        await stage.until(lambda: not stage.all(PODS), seconds=60)

    play(story)
