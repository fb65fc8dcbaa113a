"""Simulated nodes on the real server, in virtual time: pods live as they do on Kubernetes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from fleetplane.client.protocol import Client
from fleetplane.model.builtin.types import CONFIG_MAPS, EVENTS, LEASES, NODES, PODS, SECRETS
from fleetplane.model.objects import is_condition_true
from fleetplane.node.fleet import FleetSettings, SimulatedFleet
from fleetplane.testing import Simulation, simulated

Object = dict[str, Any]


def fleet(simulation: Simulation, count: int = 1, **settings: Any) -> Callable[[Client], Awaitable[None]]:
    async def run(client: Client) -> None:
        await SimulatedFleet(client, count, simulation.environment, FleetSettings(events=True, **settings)).run()

    return run


def pod(name: str = "web", *, node: str = "sim-0", annotations: dict[str, str] | None = None, **spec: Any) -> Object:
    containers = [{"name": "main", "image": "app:1"}]
    return {
        "metadata": {"name": name, "annotations": annotations or {}},
        "spec": {"nodeName": node, "containers": containers, "automountServiceAccountToken": False, **spec},
    }


def main(**more: Any) -> list[Object]:
    return [{"name": "main", "image": "app:1", **more}]


async def get(simulation: Simulation, name: str = "web") -> Object:
    return await simulation.client.get(PODS, name, "default")


async def create(simulation: Simulation, made: Object) -> None:
    await simulation.client.create(PODS, made, "default")


async def until_phase(simulation: Simulation, phase: str, name: str = "web") -> Object:
    async def there() -> bool:
        return (await get(simulation, name))["status"].get("phase") == phase

    await simulation.until(there, timeout=600)
    return await get(simulation, name)


@simulated()
async def test_nodes_register_with_leases(simulation: Simulation) -> None:
    simulation.process("fleet", fleet(simulation, 3, resources={"example.org/gpu": "2"}))
    await simulation.run(seconds=2)

    nodes = (await simulation.client.list(NODES)).items
    assert [node["metadata"]["name"] for node in nodes] == ["sim-0", "sim-1", "sim-2"]
    for node in nodes:
        assert is_condition_true(node, "Ready")
        assert node["status"]["allocatable"]["pods"] == "110"
        assert node["status"]["capacity"]["example.org/gpu"] == "2"
        assert node["metadata"]["labels"]["kubernetes.io/hostname"] == node["metadata"]["name"]
    before = (await simulation.client.get(LEASES, "sim-1", "kube-node-lease"))["spec"]["renewTime"]
    await simulation.run(seconds=25)
    assert (await simulation.client.get(LEASES, "sim-1", "kube-node-lease"))["spec"]["renewTime"] > before


@simulated()
async def test_capacity_put_on_a_node_is_kept_and_becomes_allocatable(simulation: Simulation) -> None:
    process = simulation.process("fleet", fleet(simulation))
    await simulation.run(seconds=2)
    patch = {"status": {"capacity": {"example.org/vm": "5"}}}
    await simulation.client.patch(NODES, "sim-0", patch, type="merge", subresource="status")
    await simulation.run(seconds=2)

    async def allocatable() -> Any:
        return (await simulation.client.get(NODES, "sim-0"))["status"]["allocatable"].get("example.org/vm")

    assert await allocatable() == "5"
    process.kill()
    await simulation.run(seconds=5)
    assert await allocatable() == "5"


@simulated()
async def test_a_deleted_node_comes_back(simulation: Simulation) -> None:
    simulation.process("fleet", fleet(simulation))
    await simulation.run(seconds=2)
    await simulation.client.delete(NODES, "sim-0")
    await simulation.run(seconds=5)

    assert is_condition_true(await simulation.client.get(NODES, "sim-0"), "Ready")


@simulated()
async def test_a_pod_runs_with_one_status_write(simulation: Simulation) -> None:
    simulation.process("fleet", fleet(simulation))
    await simulation.run(seconds=2)
    await create(simulation, pod())
    await simulation.run(seconds=2)

    found = await get(simulation)
    assert found["status"]["phase"] == "Running"
    assert is_condition_true(found, "Ready")
    assert found["status"]["podIP"] == "10.0.0.2"
    writes = [step for step in simulation.trace if step.path.endswith("/pods/web/status")]
    assert len(writes) == 1


def _is_lease(path: str) -> bool:
    """Leases are renewed one by one, or many in one commit."""
    return "/leases/" in path or path.endswith("/commits")


@simulated()
async def test_a_steady_fleet_writes_nothing_but_leases(simulation: Simulation) -> None:
    simulation.process("fleet", fleet(simulation, 2))
    await simulation.run(seconds=2)
    await create(simulation, pod())
    await simulation.run(seconds=30)
    before = len([s for s in simulation.trace if s.method != "GET" and not _is_lease(s.path)])
    await simulation.run(minutes=30)

    assert len([s for s in simulation.trace if s.method != "GET" and not _is_lease(s.path)]) == before


@simulated()
async def test_a_container_that_is_not_restarted_exits_after_a_second(simulation: Simulation) -> None:
    simulation.process("fleet", fleet(simulation))
    await simulation.run(seconds=2)
    await create(simulation, pod(restartPolicy="Never"))
    await simulation.run(seconds=0.5)
    assert (await get(simulation))["status"]["phase"] == "Running"
    await simulation.run(seconds=1)

    found = await get(simulation)
    assert found["status"]["phase"] == "Succeeded"
    assert found["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"] == 0


@simulated()
async def test_a_rule_makes_it_fail(simulation: Simulation) -> None:
    simulation.process("fleet", fleet(simulation))
    rules = {"simulated.fleetplane.io/run-for": "20s", "simulated.fleetplane.io/exit-code": "7"}
    await create(simulation, pod(restartPolicy="Never", annotations=rules))
    found = await until_phase(simulation, "Failed")

    ended = found["status"]["containerStatuses"][0]["state"]["terminated"]
    assert (ended["exitCode"], ended["reason"]) == (7, "Error")


@simulated()
async def test_a_crashing_container_backs_off(simulation: Simulation) -> None:
    simulation.process("fleet", fleet(simulation))
    await create(simulation, pod(containers=main(command=["sh", "-c", "sleep 1; exit 3"])))
    await simulation.run(seconds=100)

    status = (await get(simulation))["status"]["containerStatuses"][0]
    # Started at 0, 1, 12, 33 and 74 seconds: one second of life, and back-off of 0, 10, 20 and 40.
    assert status["restartCount"] == 4
    assert status["state"]["waiting"]["reason"] == "CrashLoopBackOff"
    assert status["state"]["waiting"]["message"].startswith("back-off 1m20s restarting failed container=main")
    assert status["lastState"]["terminated"]["exitCode"] == 3
    said = {event["reason"] for event in (await simulation.client.list(EVENTS, "default")).items}
    assert {"Pulled", "Created", "Started", "BackOff"} <= said


@simulated()
async def test_init_containers_come_first_in_order(simulation: Simulation) -> None:
    simulation.process("fleet", fleet(simulation))
    init = [{"name": "one", "image": "a:1"}, {"name": "two", "image": "a:1", "command": ["sleep", "5"]}]
    await create(simulation, pod(initContainers=init))
    await simulation.run(seconds=3)
    waiting = await get(simulation)
    assert waiting["status"]["phase"] == "Pending"
    assert waiting["status"]["containerStatuses"][0]["state"]["waiting"]["reason"] == "PodInitializing"
    await simulation.run(seconds=6)

    found = await get(simulation)
    assert found["status"]["phase"] == "Running"
    ends = [one["state"]["terminated"]["finishedAt"] for one in found["status"]["initContainerStatuses"]]
    assert ends == sorted(ends)


@simulated()
async def test_a_sidecar_lets_a_job_end(simulation: Simulation) -> None:
    simulation.process("fleet", fleet(simulation))
    sidecar = {"name": "side", "image": "a:1", "restartPolicy": "Always"}
    await create(simulation, pod(initContainers=[sidecar], restartPolicy="Never"))
    found = await until_phase(simulation, "Succeeded")
    await simulation.run(seconds=5)

    found = await get(simulation)
    assert "terminated" in found["status"]["initContainerStatuses"][0]["state"]


@simulated()
async def test_an_image_that_is_missing(simulation: Simulation) -> None:
    simulation.process("fleet", fleet(simulation))
    await create(simulation, pod(containers=main(image="app:missing")))
    await simulation.run(seconds=5)

    waiting = (await get(simulation))["status"]["containerStatuses"][0]["state"]["waiting"]
    assert waiting == {"reason": "ImagePullBackOff", "message": 'Back-off pulling image "app:missing"'}


@simulated()
async def test_probes_follow_their_rules(simulation: Simulation) -> None:
    simulation.process("fleet", fleet(simulation))
    probe = {"httpGet": {"port": 80}}
    rules = {"simulated.fleetplane.io/ready": "false"}
    await create(simulation, pod(containers=main(readinessProbe=probe), annotations=rules))
    await simulation.run(seconds=60)
    assert not is_condition_true(await get(simulation), "Ready")
    await simulation.client.patch(
        PODS, "web", {"metadata": {"annotations": {"simulated.fleetplane.io/ready": None}}}, "default"
    )
    await simulation.run(seconds=5)

    assert is_condition_true(await get(simulation), "Ready")


@simulated()
async def test_a_failed_liveness_probe_restarts(simulation: Simulation) -> None:
    simulation.process("fleet", fleet(simulation))
    rules = {"simulated.fleetplane.io/live": "false"}
    probe = {"httpGet": {"port": 80}, "periodSeconds": 10, "failureThreshold": 3}
    await create(simulation, pod(containers=main(livenessProbe=probe), annotations=rules))
    await simulation.run(seconds=35)

    status = (await get(simulation))["status"]["containerStatuses"][0]
    assert status["restartCount"] == 1
    events = (await simulation.client.list(EVENTS, "default")).items
    killing = [event["message"] for event in events if event["reason"] == "Killing"]
    assert killing == ["Container main failed liveness probe, will be restarted"]


@simulated()
async def test_a_deleted_pod_goes_within_its_grace(simulation: Simulation) -> None:
    simulation.process("fleet", fleet(simulation))
    stubborn = {"simulated.fleetplane.io/stop-delay": "infinity"}
    await create(simulation, pod(annotations=stubborn, terminationGracePeriodSeconds=20))
    await until_phase(simulation, "Running")
    await simulation.client.delete(PODS, "web", "default")
    await simulation.run(seconds=15)
    assert (await get(simulation))["metadata"]["deletionTimestamp"]
    await simulation.run(seconds=10)

    assert not (await simulation.client.list(PODS, "default")).items


@simulated()
async def test_a_shorter_grace_wins(simulation: Simulation) -> None:
    simulation.process("fleet", fleet(simulation))
    stubborn = {"simulated.fleetplane.io/stop-delay": "infinity"}
    await create(simulation, pod(annotations=stubborn, terminationGracePeriodSeconds=600))
    await until_phase(simulation, "Running")
    await simulation.client.delete(PODS, "web", "default")
    await simulation.run(seconds=5)
    await simulation.client.delete(PODS, "web", "default", grace_period_seconds=3)
    await simulation.run(seconds=8)

    assert not (await simulation.client.list(PODS, "default")).items


@simulated()
async def test_a_finalizer_keeps_the_pod_with_its_last_status(simulation: Simulation) -> None:
    simulation.process("fleet", fleet(simulation))
    held = pod()
    held["metadata"]["finalizers"] = ["example.org/hold"]
    await create(simulation, held)
    await until_phase(simulation, "Running")
    await simulation.client.delete(PODS, "web", "default")
    await simulation.run(seconds=10)

    found = await get(simulation)
    assert found["status"]["phase"] == "Succeeded"
    assert "terminated" in found["status"]["containerStatuses"][0]["state"]


@simulated()
async def test_a_deadline_fails_the_pod(simulation: Simulation) -> None:
    simulation.process("fleet", fleet(simulation))
    await create(simulation, pod(activeDeadlineSeconds=30))
    await simulation.run(seconds=25)
    assert (await get(simulation))["status"]["phase"] == "Running"
    await simulation.run(seconds=10)

    found = (await get(simulation))["status"]
    assert (found["phase"], found["reason"]) == ("Failed", "DeadlineExceeded")
    assert "terminated" in found["containerStatuses"][0]["state"]


async def waits_with(simulation: Simulation, reason: str) -> str:
    """The message of the pod's first warning of this reason."""

    async def told() -> list[Object]:
        found = (await simulation.client.list(EVENTS, "default")).items
        return [one for one in found if one["reason"] == reason and one["type"] == "Warning"]

    await simulation.until(told, timeout=60)
    return str((await told())[0]["message"])


@simulated()
async def test_a_missing_config_map_holds_a_volume_back(simulation: Simulation) -> None:
    simulation.process("fleet", fleet(simulation))
    volumes = [{"name": "settings", "configMap": {"name": "settings"}}]
    await create(simulation, pod(volumes=volumes))

    message = await waits_with(simulation, "FailedMount")

    assert message == 'MountVolume.SetUp failed for volume "settings" : configmap "settings" not found'
    (state,) = (await get(simulation))["status"]["containerStatuses"]
    assert state["state"]["waiting"]["reason"] == "ContainerCreating"
    await simulation.client.create(CONFIG_MAPS, {"metadata": {"name": "settings"}}, "default")
    await until_phase(simulation, "Running")


@simulated()
async def test_a_missing_key_of_a_secret_holds_a_container_back(simulation: Simulation) -> None:
    simulation.process("fleet", fleet(simulation))
    await simulation.client.create(SECRETS, {"metadata": {"name": "keys"}, "stringData": {"other": "x"}}, "default")
    reference = {"secretKeyRef": {"name": "keys", "key": "mine"}}
    optional = {"configMapKeyRef": {"name": "nowhere", "key": "a", "optional": True}}
    env = [{"name": "A", "valueFrom": reference}, {"name": "B", "valueFrom": optional}]
    await create(simulation, pod(containers=main(env=env)))

    async def waiting() -> dict[str, Any]:
        statuses = (await get(simulation))["status"].get("containerStatuses") or [{"state": {}}]
        found: dict[str, Any] = statuses[0]["state"].get("waiting") or {}
        return found if found.get("reason") == "CreateContainerConfigError" else {}

    await simulation.until(waiting, timeout=60)
    assert (await waiting())["message"] == "couldn't find key mine in Secret default/keys"
    await simulation.client.patch(SECRETS, "keys", {"stringData": {"mine": "y"}}, "default")
    await until_phase(simulation, "Running")


@simulated(seeds=range(3))
async def test_whatever_happens_to_the_fleet_all_pods_end_up_running(simulation: Simulation) -> None:
    process = simulation.process("fleet", fleet(simulation, 3))
    process.crashes(mean_requests=20)
    for number in range(12):
        await create(simulation, pod(f"p{number}", node=f"sim-{number % 3}"))
    await simulation.run(minutes=5)
    simulation.calm()
    await simulation.run(minutes=1)

    phases = [found["status"].get("phase") for found in (await simulation.client.list(PODS, "default")).items]
    assert phases == ["Running"] * 12
    for number in range(12):
        await simulation.client.delete(PODS, f"p{number}", "default")
    await simulation.run(minutes=1)
    assert not (await simulation.client.list(PODS, "default")).items
