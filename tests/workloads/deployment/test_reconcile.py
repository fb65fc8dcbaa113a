from __future__ import annotations

import asyncio

import pytest
from tests.workloads.made import template
from tests.workloads.stage import Object, Stage, play

from fleetplane.model.builtin.types import DEPLOYMENTS, PODS, REPLICA_SETS


def web(replicas: int = 3, **spec: object) -> Object:
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": "web"}},
            "template": template(),
            "progressDeadlineSeconds": 600,
            "revisionHistoryLimit": 10,
            **spec,
        },
    }


def is_complete(stage: Stage, replicas: int) -> bool:
    deployment = stage.one(DEPLOYMENTS, "web")
    status = deployment.get("status") or {}
    return (
        status.get("observedGeneration") == deployment["metadata"]["generation"]
        and status.get("availableReplicas", 0)
        == status.get("updatedReplicas", 0)
        == status.get("replicas", 0)
        == replicas
    )


async def set_image(stage: Stage, image: str) -> None:
    await stage.client.patch(DEPLOYMENTS, "web", {"spec": {"template": template(image)}}, "default")


def test_a_deployment_becomes_a_set_pods_on_nodes_and_available():
    async def story(stage: Stage) -> None:
        await stage.create(DEPLOYMENTS, web())
        await stage.until(lambda: is_complete(stage, 3))
        assert sorted(pod["spec"]["nodeName"] for pod in stage.pods()) == ["node-0", "node-1", "node-2"]
        (only,) = stage.all(REPLICA_SETS)
        assert only["status"]["readyReplicas"] == 3
        assert {"ScalingReplicaSet", "SuccessfulCreate", "Scheduled"} <= set(stage.reasons())

    play(story)


def test_a_settled_deployment_writes_nothing():
    async def story(stage: Stage) -> None:
        await stage.create(DEPLOYMENTS, web())
        await stage.until(lambda: is_complete(stage, 3))
        await stage.quiet()
        before = stage.write_count()
        await asyncio.sleep(2 * 3600)
        await stage.crash()
        await stage.start()
        await asyncio.sleep(3600)
        assert stage.write_count() == before

    play(story)


@pytest.mark.parametrize("seed", range(6))
def test_faults_and_crashes_never_break_the_fenceposts_and_all_ends_well(seed):
    async def story(stage: Stage) -> None:
        await stage.create(
            DEPLOYMENTS,
            web(6, strategy={"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 2, "maxUnavailable": 1}}),
        )
        await stage.until(lambda: is_complete(stage, 6))
        watching = asyncio.ensure_future(guard(stage))
        for image in ("web:2", "web:3", "web:1"):
            await set_image(stage, image)
            await asyncio.sleep(stage.environment.random.random() * 10)
            await stage.crash()
            await asyncio.sleep(1)
            await stage.start()
            if stage.environment.random.random() < 0.5:
                await stage.until(lambda: is_complete(stage, 6))
        await stage.until(lambda: is_complete(stage, 6))
        stage.transport.rate = 0
        await stage.quiet()
        assert not watching.done() or watching.result()
        watching.cancel()
        assert len(stage.pods()) == 6
        assert len(stage.all(REPLICA_SETS)) in {2, 3}

    async def guard(stage: Stage) -> None:
        while True:
            found = stage.pods()
            ready = [
                pod
                for pod in found
                if any(
                    c["type"] == "Ready" and c["status"] == "True"
                    for c in (pod.get("status") or {}).get("conditions", [])
                )
            ]
            wanted = sum(one["spec"]["replicas"] for one in stage.all(REPLICA_SETS))
            assert wanted <= 8
            assert len(ready) >= 5
            await asyncio.sleep(0.1)

    play(story, seed=seed, faults=0.2)


def test_a_bare_pod_that_matches_is_adopted_and_one_that_stops_matching_is_let_go():
    async def story(stage: Stage) -> None:
        await stage.create(DEPLOYMENTS, web(2))
        await stage.until(lambda: is_complete(stage, 2))
        lost = stage.pods()[0]["metadata"]["name"]
        await stage.client.patch(PODS, lost, {"metadata": {"labels": {"app": "debug"}}}, "default")
        await stage.until(lambda: len(stage.pods()) == 3)
        assert not stage.one(PODS, lost)["metadata"].get("ownerReferences")

        digest = stage.all(REPLICA_SETS)[0]["metadata"]["labels"]["pod-template-hash"]
        back = {"metadata": {"labels": {"app": "web", "pod-template-hash": digest}}}
        await stage.client.patch(PODS, lost, back, "default")
        await stage.until(lambda: len(stage.pods()) == 2)

    play(story)


def test_an_existing_set_of_the_same_name_but_another_template_changes_the_hash():
    async def story(stage: Stage) -> None:
        await stage.create(DEPLOYMENTS, web(1))
        await stage.until(lambda: is_complete(stage, 1))
        (mine,) = stage.all(REPLICA_SETS)
        await stage.client.delete(DEPLOYMENTS, "web", "default")
        taken = {**mine, "metadata": {"name": mine["metadata"]["name"], "namespace": "default"}}
        taken["spec"] = {**mine["spec"], "replicas": 0, "selector": {"matchLabels": {"app": "other"}}}
        await stage.client.delete(REPLICA_SETS, mine["metadata"]["name"], "default")
        await stage.create(REPLICA_SETS, taken)
        await stage.create(DEPLOYMENTS, web(1))
        await stage.until(lambda: stage.one(DEPLOYMENTS, "web").get("status", {}).get("collisionCount") == 1)
        await stage.until(lambda: len(stage.all(REPLICA_SETS)) == 2)

    play(story)
