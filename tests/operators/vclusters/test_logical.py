"""Virtual clusters of mode logical: from a Vk8s to a kubeconfig that works, and back to nothing."""

from __future__ import annotations

import orjson
from tests.operators.vclusters.stage import Stage, staged

from fleetplane.model.builtin.types import SECRETS
from fleetplane.model.objects import annotations as annotations_of
from fleetplane.operators.vclusters.kinds import LOGICAL_CLUSTERS, ROTATE, STOPPED, Vk8s


@staged()
async def test_a_cluster_without_nodes_is_logical_and_runs(stage: Stage) -> None:
    await stage.make("one")

    status = await stage.phase("one", "Running")

    assert (status["mode"], status["message"], status["cluster"]) == ("logical", "Running", "one")
    assert {one["type"]: one["status"] for one in status["conditions"]}["Ready"] == "True"


@staged()
async def test_the_kubeconfig_in_the_secret_opens_the_cluster(stage: Stage) -> None:
    await stage.make("one")
    config = await stage.kubeconfig("one")

    made = await stage.with_kubeconfig(
        config, "POST", "/api/v1/namespaces/default/configmaps", b'{"metadata":{"name":"a"}}'
    )

    assert made.status == 201, made.body
    answer = await stage.with_kubeconfig(config, "GET", "/api/v1/namespaces")
    assert "default" in [one["metadata"]["name"] for one in orjson.loads(answer.body)["items"]]


@staged()
async def test_the_kubeconfig_opens_nothing_else(stage: Stage) -> None:
    await stage.make("one")
    await stage.make("two")
    config = await stage.kubeconfig("one")
    await stage.phase("two", "Running")

    for server in ("https://h", "https://h/clusters/root", "https://h/clusters/two", "https://h/clusters/*"):
        elsewhere = {**config, "clusters": [{"cluster": {"server": server + ("" if "clusters" in server else "/")}}]}
        answer = await stage.with_kubeconfig(elsewhere, "GET", "/api/v1/namespaces")
        assert answer.status == 401, server


@staged()
async def test_the_secret_is_written_when_the_default_namespace_exists(stage: Stage) -> None:
    await stage.make("one")

    config = await stage.kubeconfig("one")  # the first moment it is there

    answer = await stage.with_kubeconfig(config, "GET", "/api/v1/namespaces/default")
    assert answer.status == 200


@staged()
async def test_deleting_leaves_nothing(stage: Stage) -> None:
    before = await everything(stage)
    await stage.make("one")
    await stage.phase("one", "Running")

    await stage.client.delete(Vk8s, "one", "default")
    await stage.gone(Vk8s, "one")

    assert not await stage.find(SECRETS, "one-kubeconfig")
    assert await everything(stage) == before


async def everything(stage: Stage) -> int:
    """How many objects there are, save Events and what lives with the plane anyway."""
    count = 0
    for path in ("/api/v1/secrets", "/api/v1/configmaps", "/api/v1/namespaces", "/api/v1/serviceaccounts"):
        _, found = await stage.server.call("GET", f"/clusters/*{path}")
        count += len(found["items"])
    return count + len((await stage.client.list(LOGICAL_CLUSTERS)).items)


@staged()
async def test_a_name_that_somebody_has_gets_a_suffix(stage: Stage) -> None:
    await stage.client.create(LOGICAL_CLUSTERS, {"metadata": {"name": "one"}})

    made = await stage.make("one")
    status = await stage.phase("one", "Running")

    assert status["cluster"] == f"one-{made['metadata']['uid'].replace('-', '')[:8]}"


@staged()
async def test_old_credentials_die_with_the_cluster_and_its_name_can_be_used_again(stage: Stage) -> None:
    await stage.make("one")
    config = await stage.kubeconfig("one")
    await stage.client.delete(Vk8s, "one", "default")
    await stage.gone(Vk8s, "one")

    await stage.make("one")
    await stage.phase("one", "Running")

    assert (await stage.with_kubeconfig(config, "GET", "/api/v1/namespaces")).status == 401
    fresh = await stage.kubeconfig("one")
    assert (await stage.with_kubeconfig(fresh, "GET", "/api/v1/namespaces")).status == 200


@staged()
async def test_credentials_are_replaced_on_request_and_before_they_end(stage: Stage) -> None:
    await stage.make("one", credentials={"expirationSeconds": 3600})
    await stage.phase("one", "Running")
    first = await stage.find(SECRETS, "one-kubeconfig")

    await stage.client.patch(Vk8s, "one", {"metadata": {"annotations": {ROTATE: "1"}}}, "default")

    async def changed_since(secret: dict) -> dict | None:
        found = await stage.find(SECRETS, "one-kubeconfig")
        return found if found["data"] != secret["data"] else None

    second = await stage.until(lambda: changed_since(first))
    third = await stage.until(lambda: changed_since(second), timeout=3000)
    assert annotations_of(third)[ROTATE] == "1"


@staged()
async def test_a_damaged_secret_is_made_good(stage: Stage) -> None:
    await stage.make("one")
    await stage.phase("one", "Running")

    await stage.client.delete(SECRETS, "one-kubeconfig", "default")

    config = await stage.kubeconfig("one")
    assert (await stage.with_kubeconfig(config, "GET", "/api/v1/namespaces")).status == 200


@staged()
async def test_a_secret_of_somebody_else_is_never_overwritten(stage: Stage) -> None:
    await stage.client.create(SECRETS, {"metadata": {"name": "one-kubeconfig"}, "stringData": {"a": "b"}}, "default")

    await stage.make("one")

    async def told() -> bool:
        conditions = (await stage.status("one")).get("conditions") or ()
        return any(one["reason"] == "NameTaken" for one in conditions)

    await stage.until(told)
    assert set((await stage.find(SECRETS, "one-kubeconfig"))["data"]) == {"a"}


@staged()
async def test_pausing_and_resuming_are_told_in_the_originals_words(stage: Stage) -> None:
    await stage.make("one", annotations={STOPPED: ""})

    assert (await stage.phase("one", "Paused"))["message"] == "one is paused"

    await stage.client.patch(Vk8s, "one", {"metadata": {"annotations": {STOPPED: None}}}, "default")
    await stage.phase("one", "Running")


@staged()
async def test_an_explicitly_closed_network_is_waited_for(stage: Stage) -> None:
    await stage.make("one", annotations={"cluster-network-connection-status": "false"})

    assert (await stage.phase("one", "Waiting Network Connection"))["message"] == "Connecting Network"
