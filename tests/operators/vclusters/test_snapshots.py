"""Snapshots of logical clusters, and clusters that begin with one."""

from __future__ import annotations

import base64
from typing import Any

import orjson
import pytest
from tests.operators.vclusters.stage import Stage, staged
from tests.operators.vclusters.test_pods_mode import OPEN, nodes

from fleetplane.model.builtin.types import (
    CONFIG_MAPS,
    CUSTOM_RESOURCE_DEFINITIONS,
    DEPLOYMENTS,
    JOBS,
    NAMESPACES,
    PODS,
    REPLICA_SETS,
    SECRETS,
)
from fleetplane.model.errors import ApiError
from fleetplane.model.objects import Object
from fleetplane.model.resources import ResourceType
from fleetplane.operators.vclusters import snapshots
from fleetplane.operators.vclusters.kinds import Vk8s, Vk8sSnapshot

TEMPLATE = {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "main", "image": "app"}]}}
WIDGETS = ResourceType("example.org", "v1", "Widget", "widgets", True)
DEFINITION = {
    "metadata": {"name": "widgets.example.org"},
    "spec": {
        "group": "example.org",
        "scope": "Namespaced",
        "names": {"plural": "widgets", "singular": "widget", "kind": "Widget"},
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}},
            }
        ],
    },
}


async def snapshot(stage: Stage, cluster: str, name: str = "before") -> Object:
    await stage.client.create(Vk8sSnapshot, {"metadata": {"name": name}, "spec": {"cluster": cluster}}, "default")

    async def over() -> Object | None:
        found = await stage.find(Vk8sSnapshot, name)
        return found if (found.get("status") or {}).get("phase") in {"Done", "Failed"} else None

    found: Object = await stage.until(over)
    return dict(found["status"])


async def fill(stage: Stage, cluster: str) -> None:
    inside = stage.client.in_cluster(cluster)
    await inside.create(NAMESPACES, {"metadata": {"name": "team"}})
    await inside.patch(NAMESPACES, "default", {"metadata": {"labels": {"kept": "yes"}}})
    await inside.create(CONFIG_MAPS, {"metadata": {"name": "settings"}, "data": {"a": "1"}}, "team")
    spec = {"replicas": 1, "selector": {"matchLabels": {"app": "web"}}, "template": TEMPLATE}
    await inside.create(DEPLOYMENTS, {"metadata": {"name": "web"}, "spec": spec}, "team")
    await inside.create(CUSTOM_RESOURCE_DEFINITIONS, DEFINITION)

    async def widget() -> bool:
        try:
            await inside.create(WIDGETS, {"metadata": {"name": "one"}, "size": 3}, "team")
        except ApiError as error:
            assert error.code == 404
            return False
        return True

    await stage.until(widget)

    async def replicated() -> bool:
        return bool((await inside.list(REPLICA_SETS, "team")).items)

    await stage.until(replicated)


@staged()
async def test_a_new_cluster_begins_with_what_a_snapshot_holds(stage: Stage) -> None:
    await stage.make("one", mode="logical")
    await stage.phase("one", "Running")
    await fill(stage, "one")

    status = await snapshot(stage, "one")
    assert (status["phase"], status["mode"], status["parts"]) == ("Done", "logical", 1)
    await stage.client.delete(Vk8s, "one", "default")
    await stage.gone(Vk8s, "one")

    await stage.make("two", mode="logical", restoreFrom="before")
    await stage.phase("two", "Running")

    assert (await stage.status("two"))["restoredFrom"] == "before"
    assert (await stage.find(CONFIG_MAPS, "settings", "team", "two"))["data"] == {"a": "1"}
    assert (await stage.find(NAMESPACES, "default", None, "two"))["metadata"]["labels"]["kept"] == "yes"
    assert (await stage.find(WIDGETS, "one", "team", "two"))["size"] == 3
    deployment = await stage.find(DEPLOYMENTS, "web", "team", "two")
    sets = (await stage.client.in_cluster("two").list(REPLICA_SETS, "team")).items
    owners = [one["metadata"]["ownerReferences"][0]["uid"] for one in sets]
    assert owners == [deployment["metadata"]["uid"]], "owners are followed, not made twice"

    async def runs() -> bool:
        pods = (await stage.client.in_cluster("two").list(PODS, "team")).items
        return [one["status"].get("phase") for one in pods] == ["Running"]

    await stage.until(runs)


@staged()
async def test_what_has_ended_does_not_run_again(stage: Stage) -> None:
    await stage.make("one", mode="logical")
    await stage.phase("one", "Running")
    inside = stage.client.in_cluster("one")
    await inside.create(JOBS, {"metadata": {"name": "once"}, "spec": {"template": job_template()}}, "default")

    async def complete() -> bool:
        found = await stage.find(JOBS, "once", "default", "one")
        return any(one["type"] == "Complete" for one in (found.get("status") or {}).get("conditions") or ())

    await stage.until(complete)
    await snapshot(stage, "one")
    await stage.make("two", mode="logical", restoreFrom="before")
    await stage.phase("two", "Running")
    assert not await stage.find(JOBS, "once", "default", "two")


def job_template() -> Object:
    return {"spec": {"restartPolicy": "Never", "containers": [{"name": "main", "image": "app"}]}}


@staged()
async def test_a_snapshot_that_was_tampered_with_is_not_restored(stage: Stage) -> None:
    await stage.make("one", mode="logical")
    await stage.phase("one", "Running")
    await snapshot(stage, "one")
    other = base64.b64encode(b"something else").decode()
    await stage.client.patch(SECRETS, "before-part-0", {"data": {"data": other}}, "default")

    await stage.make("two", mode="logical", restoreFrom="before")

    async def told() -> str:
        return why(await stage.status("two"), "Ready")

    assert await stage.until(told) == "snapshot before is not as it was taken"
    assert not await stage.find(SECRETS, "two-kubeconfig"), "nobody gets into half a cluster"


@staged()
async def test_what_cannot_be_taken_says_so(stage: Stage) -> None:
    stage.machines.takes_snapshots = False
    await stage.make("pods", annotations=OPEN, nodes=nodes(0))
    await stage.phase("pods", "Running", timeout=600)
    assert (await snapshot(stage, "pods"))["message"].startswith("the node image has no snapshot.sh")
    assert "no virtual cluster nobody" in (await snapshot(stage, "nobody", "other"))["message"]


STATE = bytes(range(256)) * 7000
"""More than two pieces, and no text."""


def why(status: Object, condition: str) -> str:
    return next((one["message"] for one in status.get("conditions") or () if one["type"] == condition), "")


async def pods_with_state(stage: Stage) -> Object:
    await stage.make("one", annotations=OPEN, nodes=nodes(0))
    await stage.phase("one", "Running", timeout=600)
    stage.machines.state["m-0"] = STATE
    return await snapshot(stage, "one")


@staged()
async def test_a_cluster_of_pods_begins_with_the_state_of_another(stage: Stage) -> None:
    status = await pods_with_state(stage)
    assert (status["phase"], status["mode"], status["bytes"], status["parts"]) == ("Done", "pods", len(STATE), 3)
    assert status["image"] == nodes(0)[0]["image"]
    assert stage.machines.files == {}, "the keys of a cluster do not lie about"
    assert stage.machines.largest == snapshots.PART_BYTES
    await stage.client.delete(Vk8s, "one", "default")
    await stage.gone(Vk8s, "one")
    stage.machines.up.clear()
    stage.machines.begun.clear()
    stage.machines.state.clear()

    await stage.make("two", annotations=OPEN, nodes=nodes(1), restoreFrom="before")
    status = await stage.phase("two", "Running", timeout=600)

    assert stage.machines.state["m-0"] == STATE
    assert status["restoredFrom"] == "before"
    assert stage.machines.files == {}
    assert stage.machines.inits["m-0"] == 2, "once for each cluster"


@staged()
async def test_a_snapshot_is_taken_once_though_it_is_cut_off(stage: Stage) -> None:
    tries = iter([True, False])
    stage.machines.fails = lambda _pod, command: command == "stat" and next(tries, False)

    failed = await pods_with_state(stage)
    assert (failed["phase"], failed["message"]) == ("Failed", "stat ended with exit code 1: it does not work today")
    assert stage.machines.files == {}
    assert (await snapshot(stage, "one", "again"))["phase"] == "Done"


@staged()
async def test_a_state_is_only_for_the_image_it_is_of(stage: Stage) -> None:
    await pods_with_state(stage)
    other = [{**one, "image": "registry:5000/kink:v1.22-ubuntu", "name": f"o-{one['name']}"} for one in nodes(0)]
    await stage.make("two", annotations=OPEN, nodes=other, restoreFrom="before")
    status = await stage.phase("two", "Fail", timeout=600)
    assert "give the master that one" in why(status, "Degraded")
    assert "o-m-0" not in stage.machines.inits

    await stage.make("three", mode="logical", restoreFrom="before")

    async def told() -> str:
        return why(await stage.status("three"), "Ready")

    assert "only such a one can begin with it" in await stage.until(told)


@staged()
async def test_an_image_that_would_begin_empty_is_not_run(stage: Stage) -> None:
    await pods_with_state(stage)
    stage.machines.takes_snapshots = False
    await stage.make("two", annotations=OPEN, nodes=[{**nodes(0)[0], "name": "other"}], restoreFrom="before")
    status = await stage.phase("two", "Fail", timeout=600)
    assert "cannot begin with a snapshot" in why(status, "Degraded")
    assert "other-0" not in stage.machines.inits


@staged()
async def test_only_a_new_cluster_begins_with_a_snapshot(stage: Stage) -> None:
    await stage.make("one", mode="logical")
    with pytest.raises(ApiError, match="only a new cluster"):
        await stage.client.patch(Vk8s, "one", {"spec": {"restoreFrom": "before"}}, "default")


def test_a_large_content_goes_in_several_requests_owners_first() -> None:
    def one(name: str, owner: str = "") -> Any:
        meta: dict[str, Any] = {"name": name, "uid": name}
        if owner:
            meta["ownerReferences"] = [{"uid": owner}]
        return {"metadata": meta, "data": "x" * 400_000}

    made = list(snapshots.groups([one("b", "a"), one("a"), one("c", "b"), one("d")]))
    assert [[item["metadata"]["name"] for item in group] for group in made] == [["a", "d"], ["b", "c"]]
    assert all(len(orjson.dumps(group)) < snapshots.POST_BYTES * 1.1 for group in made)
