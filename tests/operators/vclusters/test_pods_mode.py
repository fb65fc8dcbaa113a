"""Clusters of pods on simulated nodes: the sample as it stands, and what goes wrong on the way."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tests.operators.vclusters.kubeadm import CONFIG
from tests.operators.vclusters.stage import Stage, staged

from fleetplane.model import yaml as kube_yaml
from fleetplane.model.builtin.types import EVENTS, NODES, PODS, SECRETS, SERVICES, STATEFUL_SETS
from fleetplane.model.objects import Object
from fleetplane.node.fleet import FleetSettings
from fleetplane.operators.vclusters.kinds import RESTARTED_AT, STOPPED, Vk8s

SAMPLE = Path(__file__).parents[3] / "examples" / "vclusters" / "pods.yaml"
GPUS = FleetSettings(resources={"nvidia.com/gpu": "4"})
IMAGE = "registry:5000/kink:v1.21-ubuntu"
OPEN = {"cluster-network-connection-status": "true"}


async def gpu_nodes(stage: Stage) -> None:
    for node in (await stage.client.list(NODES)).items:
        patch = {"metadata": {"labels": {"scale/node.gpu.type": "RTX3090"}}}
        await stage.client.patch(NODES, node["metadata"]["name"], patch)


def nodes(workers: int = 1) -> list[Object]:
    named = [("m", "master"), *((f"w{number}", "worker") for number in range(workers))]
    limits = {"limits": {"cpu": "2", "memory": "4Gi"}}
    return [{"name": name, "image": IMAGE, "role": role, "resources": limits} for name, role in named]


@staged(settings=GPUS)
async def test_the_sample_applies_unmodified_and_is_reconciled(stage: Stage) -> None:
    await gpu_nodes(stage)
    sample = kube_yaml.load(SAMPLE.read_bytes())

    await stage.client.create(Vk8s, sample, "default")
    status = await stage.phase("research", "Running", timeout=600)

    assert (status["message"], status["mode"]) == ("Running", "pods")
    setups = status["vnodeKubernetesSetupStatuses"]
    assert {name: one["isKubernetesSetup"] for name, one in setups.items()} == {
        "research-master": "Success",
        "research-worker": "Success",
    }
    assert stage.machines.inits == {"research-master-0": 1}
    assert stage.machines.joined == {"research-worker-0"}
    worker = await stage.find(PODS, "research-worker-0")
    assert worker["spec"]["nodeSelector"] == {"scale/node.gpu.type": "RTX3090"}
    published = await stage.find(SERVICES, "research")
    assert (published["spec"]["type"], len(published["spec"]["ports"])) == ("NodePort", 4)
    access = await stage.find(SERVICES, "research-access-svc")
    assert access["spec"]["ports"][0]["nodePort"] == 30022
    assert (await stage.find(SECRETS, "research-kubeconfig"))["data"]["value"]
    generated = await stage.find(SECRETS, "research-kubeflow")
    assert generated["data"]["password"]
    assert len(stage.machines.password) > 20
    said = str(stage.machines.log) + str(await stage.find(Vk8s, "research"))
    assert stage.machines.password.decode().strip() not in said


@staged()
async def test_without_the_network_it_waits_before_installing(stage: Stage) -> None:
    await stage.make("one", nodes=nodes())

    status = await stage.phase("one", "Waiting Network Connection")

    assert status["message"] == "Connecting Network"
    assert stage.machines.count("init-kubernetes.sh") == 0
    await stage.client.patch(Vk8s, "one", {"metadata": {"annotations": OPEN}}, "default")
    await stage.phase("one", "Running")


@staged()
async def test_losing_the_network_annotation_does_not_demote_a_running_cluster(stage: Stage) -> None:
    await stage.make("one", annotations=OPEN, nodes=nodes())
    await stage.phase("one", "Running")

    closed = {"metadata": {"annotations": {"cluster-network-connection-status": None}}}
    await stage.client.patch(Vk8s, "one", closed, "default")

    async def told() -> bool:
        conditions = {one["type"]: one["status"] for one in (await stage.status("one"))["conditions"]}
        return conditions["NetworkConnected"] == "False"

    await stage.until(told)
    assert (await stage.status("one"))["phase"] == "Running"


@staged()
async def test_pausing_stops_the_nodes_and_resuming_installs_nothing_again(stage: Stage) -> None:
    await stage.make("one", annotations=OPEN, nodes=nodes())
    await stage.phase("one", "Running")

    await stage.client.patch(Vk8s, "one", {"metadata": {"annotations": {STOPPED: "true"}}}, "default")
    assert (await stage.phase("one", "Paused"))["message"] == "one is paused"
    await stage.gone(PODS, "m-0")
    before = stage.machines.count("init.sh")
    await stage.client.patch(Vk8s, "one", {"metadata": {"annotations": {STOPPED: None}}}, "default")

    await stage.phase("one", "Running")
    assert "Restarting" in await told_phases(stage)
    assert stage.machines.inits == {"m-0": 1}
    assert stage.machines.count("init.sh") == before + 2


async def told_phases(stage: Stage) -> list[str]:
    await asyncio.sleep(1)
    return [one["reason"] for one in (await stage.client.list(EVENTS, "default")).items]


@staged()
async def test_a_late_failure_does_not_poison_the_master(stage: Stage) -> None:
    broken = [True]
    stage.machines.fails = lambda pod, command: command == "tee" and broken[0]
    await stage.make("one", annotations=OPEN, nodes=nodes())

    status = await stage.phase("one", "Fail", timeout=900)
    assert status["message"] == "error on allocating resource"
    assert status["vnodeKubernetesSetupStatuses"]["m"]["isKubernetesSetup"] == "Failed"

    broken[0] = False
    await stage.client.patch(Vk8s, "one", {"spec": {"volumePolicy": "retain"}}, "default")
    await stage.phase("one", "Running")
    assert stage.machines.inits == {"m-0": 1}


@staged()
async def test_a_worker_that_does_not_join_delays_nobody_else(stage: Stage) -> None:
    broken = [True]
    stage.machines.fails = lambda pod, command: pod == "w0-0" and command == "kubeadm" and broken[0]
    await stage.make("one", annotations=OPEN, nodes=nodes(workers=2))

    async def other_joined() -> bool:
        return "w1-0" in stage.machines.joined

    await stage.until(other_joined)
    broken[0] = False
    await stage.phase("one", "Running")
    assert stage.machines.joined == {"w0-0", "w1-0"}


@staged()
async def test_a_failed_init_is_not_run_again_until_somebody_changes_something(stage: Stage) -> None:
    stage.machines.fails = lambda pod, command: command == "init-kubernetes.sh"
    await stage.make("one", annotations=OPEN, nodes=nodes())

    status = await stage.phase("one", "Fail")

    assert status["message"] == "error on initializing kubernetes"
    assert stage.machines.count("init-kubernetes.sh") == 1


@staged()
async def test_scaling_out_joins_and_scaling_in_drains(stage: Stage) -> None:
    await stage.make("one", annotations=OPEN, nodes=nodes())
    await stage.phase("one", "Running")

    await stage.client.patch(Vk8s, "one", {"spec": {"nodes": nodes(workers=2)}}, "default")

    async def joined() -> bool:
        return "w1-0" in stage.machines.joined

    await stage.until(joined)
    await stage.phase("one", "Running")
    await stage.client.patch(Vk8s, "one", {"spec": {"nodes": nodes(workers=1)}}, "default")
    await stage.gone(STATEFUL_SETS, "w1")
    assert "w1-0" not in stage.machines.joined
    assert any("drain" in words for _, words in stage.machines.log)
    await stage.phase("one", "Running")


@staged()
async def test_a_restart_replaces_workers_first_and_the_master_last(stage: Stage) -> None:
    await stage.make("one", annotations=OPEN, nodes=nodes())
    await stage.phase("one", "Running")
    old = {name: (await stage.find(PODS, name))["metadata"]["uid"] for name in ("m-0", "w0-0")}

    await stage.client.patch(Vk8s, "one", {"metadata": {"annotations": {RESTARTED_AT: "now"}}}, "default")
    replaced: list[str] = []
    async with asyncio.timeout(120):
        async for event in stage.client.watch(PODS, "default", labels="app=vk8s"):
            name, uid = event.object["metadata"]["name"], event.object["metadata"]["uid"]
            if event.type == "ADDED" and uid != old[name] and name not in replaced:
                replaced.append(name)
            if len(replaced) == 2:
                break
    assert replaced == ["w0-0", "m-0"]
    await stage.phase("one", "Running")
    assert stage.machines.inits == {"m-0": 1}


@staged()
async def test_a_label_edit_changes_nothing_but_the_label(stage: Stage) -> None:
    await stage.make("one", annotations=OPEN, nodes=nodes())
    await stage.phase("one", "Running")
    old = (await stage.find(PODS, "m-0"))["metadata"]["uid"]

    await stage.client.patch(Vk8s, "one", {"metadata": {"labels": {"update": "test"}}}, "default")

    async def labelled() -> bool:
        return (await stage.find(STATEFUL_SETS, "m"))["metadata"]["labels"].get("update") == "test"

    await stage.until(labelled)
    assert (await stage.status("one"))["phase"] == "Running"
    assert (await stage.find(PODS, "m-0"))["metadata"]["uid"] == old


@staged()
async def test_deleting_leaves_no_sets_services_pods_or_volumes(stage: Stage) -> None:
    ports = [{"name": "web", "port": 30011, "targetPort": 30011}]
    await stage.make("one", annotations=OPEN, nodes=nodes(), ports=ports)
    await stage.phase("one", "Running")

    await stage.client.delete(Vk8s, "one", "default")
    await stage.gone(Vk8s, "one")

    for resource, name in ((STATEFUL_SETS, "m"), (STATEFUL_SETS, "w0"), (SERVICES, "one")):
        assert not await stage.find(resource, name)
    await stage.gone(PODS, "m-0")
    await stage.gone(SECRETS, "one-kubeconfig")


def test_the_fake_gives_a_config() -> None:
    assert "Config" in CONFIG


@staged()
async def test_while_a_node_leaves_the_status_speaks_of_before(stage: Stage) -> None:
    await stage.make("one", annotations=OPEN, nodes=nodes(workers=1))
    await stage.phase("one", "Running")
    stage.machines.seconds = 5.0

    changed = await stage.client.patch(Vk8s, "one", {"spec": {"nodes": nodes(workers=0)}}, "default")
    await asyncio.sleep(8)

    assert (await stage.status("one"))["observedGeneration"] < changed["metadata"]["generation"]
    await stage.client.delete(Vk8s, "one", "default")
    before = stage.environment.monotonic()
    await stage.gone(Vk8s, "one")
    assert stage.environment.monotonic() - before < 15, "deleting does not wait for a node that leaves"
