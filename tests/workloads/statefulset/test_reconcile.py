from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tests.workloads.made import template
from tests.workloads.stage import Object, Stage, play

from fleetplane.model.builtin.types import CONTROLLER_REVISIONS, PERSISTENT_VOLUME_CLAIMS, PODS, STATEFUL_SETS

CLAIM = {
    "accessModes": ["ReadWriteOnce"],
    "storageClassName": "local",
    "resources": {"requests": {"storage": "1Gi"}},
}


def db(replicas: int = 3, **spec: Any) -> Object:
    return {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": {"name": "db", "namespace": "default"},
        "spec": {
            "replicas": replicas,
            "serviceName": "db",
            "selector": {"matchLabels": {"app": "db"}},
            "template": template("db:1", app="db"),
            "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": CLAIM}],
            **spec,
        },
    }


def is_rolled_out(stage: Stage, replicas: int) -> bool:
    found = stage.one(STATEFUL_SETS, "db")
    status = found.get("status") or {}
    return (
        status.get("observedGeneration") == found["metadata"]["generation"]
        and status.get("currentRevision") == status.get("updateRevision")
        and status.get("readyReplicas", 0) == status.get("updatedReplicas", 0) == replicas
    )


async def roll(stage: Stage, image: str) -> None:
    await stage.client.patch(STATEFUL_SETS, "db", {"spec": {"template": template(image, app="db")}}, "default")


def names(stage: Stage, resource: Any = PODS) -> list[str]:
    return sorted(one["metadata"]["name"] for one in stage.all(resource))


def test_pods_have_names_hosts_and_claims_of_their_own():
    async def story(stage: Stage) -> None:
        await stage.create(STATEFUL_SETS, db(2))
        await stage.until(lambda: is_rolled_out(stage, 2))
        assert names(stage) == ["db-0", "db-1"]
        assert names(stage, PERSISTENT_VOLUME_CLAIMS) == ["data-db-0", "data-db-1"]
        pod = stage.one(PODS, "db-1")
        assert (pod["spec"]["hostname"], pod["spec"]["subdomain"]) == ("db-1", "db")
        assert pod["spec"]["volumes"] == [{"name": "data", "persistentVolumeClaim": {"claimName": "data-db-1"}}]
        assert pod["metadata"]["labels"]["apps.kubernetes.io/pod-index"] == "1"

    play(story)


def test_rolling_back_uses_the_old_revision_again():
    async def story(stage: Stage) -> None:
        await stage.create(STATEFUL_SETS, db(1))
        await stage.until(lambda: is_rolled_out(stage, 1))
        first = stage.one(STATEFUL_SETS, "db")["status"]["updateRevision"]
        await roll(stage, "db:2")
        await stage.until(lambda: is_rolled_out(stage, 1))
        await roll(stage, "db:1")
        await stage.until(lambda: stage.one(STATEFUL_SETS, "db")["status"]["currentRevision"] == first)
        assert {one["metadata"]["name"]: one["revision"] for one in stage.all(CONTROLLER_REVISIONS)}[first] == 3
        assert len(stage.all(CONTROLLER_REVISIONS)) == 2

    play(story)


@pytest.mark.parametrize("seed", range(3))
def test_faults_and_crashes_change_nothing_in_the_end(seed):
    async def story(stage: Stage) -> None:
        await stage.create(STATEFUL_SETS, db(3))
        for image in ("db:2", "db:3"):
            await asyncio.sleep(stage.environment.random.random() * 15)
            await roll(stage, image)
            await stage.crash()
            await stage.start()
        await stage.until(lambda: is_rolled_out(stage, 3), seconds=2000)
        stage.transport.rate = 0
        await stage.quiet()
        assert names(stage) == ["db-0", "db-1", "db-2"]
        assert {one["spec"]["containers"][0]["image"] for one in stage.pods()} == {"db:3"}

    play(story, seed=seed, faults=0.15)


def test_claims_go_with_what_the_policy_names():
    async def story(stage: Stage) -> None:
        policy = {"whenDeleted": "Delete", "whenScaled": "Delete"}
        await stage.create(STATEFUL_SETS, db(2, persistentVolumeClaimRetentionPolicy=policy))
        await stage.until(lambda: is_rolled_out(stage, 2))
        await stage.client.patch(STATEFUL_SETS, "db", {"spec": {"replicas": 1}}, "default")
        await stage.until(lambda: names(stage, PERSISTENT_VOLUME_CLAIMS) == ["data-db-0"], seconds=60)
        await stage.client.delete(STATEFUL_SETS, "db", "default")
        await stage.until(lambda: not stage.all(PERSISTENT_VOLUME_CLAIMS), seconds=60)

    play(story)


def test_a_settled_set_writes_nothing():
    async def story(stage: Stage) -> None:
        await stage.create(STATEFUL_SETS, db(2))
        await stage.until(lambda: is_rolled_out(stage, 2))
        await stage.quiet()
        before = stage.write_count()
        await stage.crash()
        await stage.start()
        await asyncio.sleep(3600)
        assert stage.write_count() == before

    play(story)
