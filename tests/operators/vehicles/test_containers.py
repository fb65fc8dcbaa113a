"""Deployment policies within one pod: who runs, who follows, who is started anew, and what is refused."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.operators.vehicles.stage import Stage, VehContainerConfig, VehPod, config, pod_spec, staged, veh_pod
from tests.operators.vehicles.test_monitoring import Watcher, beating, monitor_status

from fleetplane.model.builtin.types import NODES, PODS
from fleetplane.model.errors import ApiError
from fleetplane.model.objects import Object, annotations
from fleetplane.node.fleet import FleetSettings
from fleetplane.node.simulated import Behaviour
from fleetplane.operators.vehicles.arrangement import arrange, violations
from fleetplane.operators.vehicles.limits import Profile, profile_of
from fleetplane.operators.vehicles.plan import making_of

FOREVER = FleetSettings(behaviour=Behaviour(run_for=float("inf")))
SPACE = "system-application"
_FOUND = profile_of("system", None)
assert _FOUND is not None
SYSTEM: Profile = _FOUND


def some(*names: str, **more: Any) -> list[Object]:
    return [{"name": name, "image": f"{name}:1", **more} for name in names]


def arranged(name: str, policy: str, *names: str, **spec: Any) -> Object:
    return veh_pod(name, deploymentPolicy=policy, podSpec=pod_spec(containers=some(*names)), **spec)


def watched(name: str = "brake", on_loss: str = "Restart", **monitoring: Any) -> Object:
    block = {"primaryContainer": some("p", "q"), "watcherContainer": some("w")[0], **monitoring}
    spec = {"monitoring": block, "watcherLoss": on_loss, "podSpec": pod_spec(containers=[])}
    return veh_pod(name, deploymentPolicy="Monitoring", **spec)


async def status(stage: Stage, name: str = "brake") -> Object:
    return (await stage.client.get(VehPod, name, "default")).get("status") or {}


async def roles(stage: Stage, name: str = "brake") -> dict[str, tuple[str, str]]:
    found = (await status(stage, name)).get("instances") or ()
    return {one["name"]: (one.get("role", ""), one["state"]) for one in found}


async def ids(stage: Stage, name: str = "brake") -> dict[str, str]:
    """Container ids that run, frozen or not, on the node itself."""
    pod = await stage.pod(name)
    found = stage.fleet.runtime._by_pod.get((pod or {})["metadata"]["uid"], {}).values()
    return {one.spec.name: one.id for one in found if one.phase in {"running", "paused"}}


async def executing(stage: Stage, name: str = "brake") -> list[str]:
    pod = await stage.pod(name)
    found = stage.fleet.runtime._by_pod.get((pod or {})["metadata"]["uid"], {}).values()
    return sorted(one.spec.name for one in found if one.phase == "running")


@staged(settings=FOREVER, nodes=1)
async def test_a_standby_container_goes_on_when_the_active_ends_and_the_two_change_places(stage: Stage) -> None:
    await stage.client.create(VehPod, arranged("brake", "PassiveRedundant", "a", "b"), "default")
    await stage.running("brake")
    assert await executing(stage) == ["a"]
    assert await roles(stage) == {"a": ("active", "Running"), "b": ("passive", "Standby")}

    begun = asyncio.get_running_loop().time()
    stage.fleet.runtime.crash((await ids(stage))["a"])

    async def switched() -> bool:
        return await executing(stage) == ["b"]

    await stage.until(switched)
    assert asyncio.get_running_loop().time() - begun < 0.3

    async def told() -> bool:
        return await roles(stage) == {"a": ("passive", "Standby"), "b": ("active", "Running")}

    await stage.until(told)
    found = await status(stage)
    assert (found["phase"], found["switchovers"]) == ("Running", 1)
    assert 0 <= found["lastSwitchMs"] < 300
    stage.fleet.runtime.crash((await ids(stage))["b"])

    async def back() -> bool:
        return await executing(stage) == ["a"] and (await status(stage))["switchovers"] == 2

    await stage.until(back)


@staged(settings=FOREVER, nodes=1)
async def test_two_containers_of_a_pod_are_never_active_whatever_ends(stage: Stage) -> None:
    await stage.client.create(VehPod, arranged("brake", "PassiveRedundant", "a", "b", "c"), "default")
    await stage.running("brake")
    for number in range(12):
        running = await ids(stage)
        for name in ("abc", "a", "b", "c", "ab", "cb")[number % 6]:
            if name in running:
                stage.fleet.runtime.crash(running[name])
        for _ in range(40):
            assert len(await executing(stage)) <= 1
            await asyncio.sleep(0.05)
        await asyncio.sleep(400.0 if number % 3 == 2 else 1.0)
    assert len(await executing(stage)) == 1
    assert (await status(stage))["switchovers"] >= 3


@staged(settings=FOREVER, nodes=1)
async def test_blocks_name_the_containers_and_what_one_gets_both_get(stage: Stage) -> None:
    await stage.client.create(VehContainerConfig, config("env", piccoloEnv=[{"name": "A", "value": "1"}]), "default")
    block = {"activeContainer": some("one")[0], "passiveContainer": some("two")[0]}
    app = veh_pod(
        "brake",
        deploymentPolicy="passiveRedundant",
        passiveRedundant=block,
        vehContainerConfigInfo=["env"],
        podSpec=pod_spec(containers=some("beside")),
    )
    await stage.client.create(VehPod, app, "default")
    await stage.running("brake")

    pod = await stage.pod("brake")
    assert pod is not None
    assert annotations(pod)["node.fleetplane.io/one-active"] == "one,two"
    assert pod["spec"]["nodeSelector"] == {"node.fleetplane.io/freezes": "true"}
    env = {one["name"]: [each["name"] for each in one.get("env") or ()] for one in pod["spec"]["containers"]}
    assert env == {"one": ["A"], "two": ["A"], "beside": []}
    assert await executing(stage) == ["beside", "one"]


@staged(settings=FOREVER, nodes=1)
async def test_active_containers_all_run_and_one_less_is_degraded(stage: Stage) -> None:
    await stage.client.create(
        VehPod, arranged("brake", "ActiveRedundant", "a", "b", reservation={"cpuSet": "0-3"}), "default"
    )
    await stage.running("brake")
    assert await executing(stage) == ["a", "b"]
    pod = await stage.pod("brake")
    assert pod is not None
    kept = orjson.loads(annotations(pod)["node.fleetplane.io/reservation"])
    assert (kept["cpuSet"], kept["apart"]) == ("0-3", ["a", "b"])

    for _ in range(2):  # the second restart has to wait, so that somebody can see it
        stage.fleet.runtime.crash((await ids(stage))["a"])
        await asyncio.sleep(0.5)
    found = await status(stage)
    assert found["phase"] == "Degraded"
    told = await stage.condition("brake", "Redundant")
    assert (told["status"], told["message"]) == ("False", "1 of 2 healthy")
    await stage.running("brake")


@staged(settings=FOREVER, nodes=1)
async def test_a_dissenting_container_is_started_anew_and_no_majority_is_a_safe_state(stage: Stage) -> None:
    rules = {"tolerance": 0.5, "disagreeLimit": 2, "timeoutSeconds": 1}
    await stage.client.create(VehPod, arranged("vote", "NModularRedundant", "a", "b", "c", voting=rules), "default")
    await stage.running("vote")
    before = await ids(stage, "vote")

    async def say(number: int, *values: float) -> None:
        said = {
            f"output.vehicles.fleetplane.io/{name}": orjson.dumps({"round": number, "value": value}).decode()
            for name, value in zip("abc", values, strict=True)
        }
        await stage.client.patch(PODS, "vote", {"metadata": {"annotations": said}}, SPACE)

        async def counted() -> bool:
            votes = (await status(stage, "vote")).get("votes") or {}
            return votes.get("round") == number and not votes.get("open")

        await stage.until(counted)

    await say(1, 10.0, 10.2, 99.0)
    assert (await status(stage, "vote"))["votes"]["dissenters"] == ["c"]
    assert await ids(stage, "vote") == before
    await say(2, 10.0, 10.4, 99.0)

    async def replaced() -> bool:
        now = await ids(stage, "vote")
        return now.get("c") not in {None, before["c"]}

    await stage.until(replaced)
    await stage.running("vote")
    after = await ids(stage, "vote")
    assert (after["a"], after["b"]) == (before["a"], before["b"])
    pod = await stage.pod("vote")
    assert "node.fleetplane.io/held-containers" not in annotations(pod or {})
    await say(3, 1.0, 50.0, 99.0)
    assert await stage.phase("vote") == "SafeState"


@staged(settings=FOREVER, nodes=1)
async def test_a_watcher_starts_first_and_alone_has_the_token(stage: Stage) -> None:
    ready = {"readinessProbe": {"exec": {"command": ["true"]}}}
    await stage.client.create(VehPod, watched(watcherContainer={"name": "w", "image": "w:1", **ready}), "default")
    await stage.running("brake")

    pod = await stage.pod("brake")
    assert pod is not None
    (watcher,) = pod["spec"]["initContainers"]
    assert (watcher["name"], watcher["restartPolicy"]) == ("w", "Always")
    assert watcher["startupProbe"]["exec"] == {"command": ["true"]}
    assert {one["name"]: one.get("value") for one in watcher["env"]} == {
        "VEHICLE_MONITOR": "brake",
        "VEHICLE_NAMESPACE": SPACE,
        "VEHICLE_PRIMARIES": "p,q",
        "VEHICLE_POD": "brake",
    }
    token = "/var/run/secrets/kubernetes.io/serviceaccount"
    assert token in [one["mountPath"] for one in watcher["volumeMounts"]]
    assert not any(one.get("volumeMounts") for one in pod["spec"]["containers"])
    found = stage.fleet.runtime._by_pod[pod["metadata"]["uid"]].values()
    started = {one.spec.name: one.started_at for one in found}
    assert started["w"] <= min(started["p"], started["q"])
    assert await roles(stage) == {
        "w": ("watcher", "Running"),
        "p": ("primary", "Running"),
        "q": ("primary", "Running"),
    }


class Inside(Watcher):
    """The watcher of a pod: its VehMonitor is named as the pod is."""

    path = f"/apis/crd.piccolo.org/v1alpha1/namespaces/{SPACE}/vehmonitors/brake"
    monitor = "brake"


@staged(settings=FOREVER, nodes=1)
async def test_a_watcher_has_containers_of_its_pod_restarted_stopped_and_started(stage: Stage) -> None:
    allowed = ["restart", "stop", "start"]
    await stage.client.create(VehPod, watched(allowedActions=allowed), "default")
    await stage.running("brake")
    watcher, before = await Inside.of(stage, "brake"), await ids(stage)

    assert (await watcher.ask("restart", "p"))["state"] == "Done"
    await stage.running("brake")
    after = await ids(stage)
    assert (after["p"] != before["p"], after["q"], after["w"]) == (True, before["q"], before["w"])

    assert (await watcher.ask("safe-state"))["rule"] == "monitor-action"
    assert (await watcher.ask("restart", "w"))["rule"] == "monitor-primary"

    assert (await watcher.ask("stop", "q"))["state"] == "Done"
    assert sorted(await ids(stage)) == ["p", "w"]

    async def told() -> bool:
        return (await roles(stage))["q"] == ("primary", "Stopped") and await stage.phase("brake") == "Degraded"

    await stage.until(told)
    await watcher.say(verdicts=[{"primary": "p", "verdict": "ok"}])
    assert (await watcher.ask("start", "q"))["state"] == "Done"
    await stage.running("brake")
    (seen,) = [one for one in (await status(stage))["instances"] if one["name"] == "p"]
    assert seen["verdict"] == "ok"


@staged(settings=FOREVER, nodes=1)
async def test_primaries_stop_when_the_watcher_of_their_pod_falls_silent(stage: Stage) -> None:
    await stage.client.create(VehPod, watched(on_loss="SafeState", heartbeatSeconds=1), "default")

    async def interface() -> bool:
        try:
            return (await monitor_status(stage, "brake")).get("watchedBy", "") != ""
        except ApiError:
            return False

    await stage.until(interface)
    assert await executing(stage) == ["w"], "the primaries wait for the first heartbeat"
    first = (await ids(stage))["w"]
    watcher = await Inside.of(stage, "brake")
    async with beating(watcher):
        await stage.running("brake")
        await asyncio.sleep(10.0)
        assert await stage.phase("brake") == "Running"

    async def silent() -> bool:
        now = await ids(stage)
        return "p" not in now and "q" not in now and now.get("w") not in {None, first}

    await stage.until(silent)


@staged(settings=FOREVER, nodes=1)
async def test_a_silent_watcher_is_started_anew_and_its_primaries_go_on(stage: Stage) -> None:
    await stage.client.create(VehPod, watched(heartbeatSeconds=1), "default")

    async def interface() -> bool:
        return bool(await stage.pod("brake")) and "w" in await ids(stage)

    await stage.until(interface)
    assert await executing(stage) == ["w"], "the primaries wait for the first heartbeat"
    watcher = await Inside.of(stage, "brake")
    async with beating(watcher):
        await stage.running("brake")
        before = await ids(stage)

    async def anew() -> bool:
        return (await ids(stage)).get("w") not in {None, before["w"]}

    await stage.until(anew)
    after = await ids(stage)
    assert (after["p"], after["q"]) == (before["p"], before["q"])


@staged(settings=FOREVER, nodes=1)
async def test_where_the_node_holds_nothing_back_the_pod_is_made_anew(stage: Stage) -> None:
    """As a kubelet, which does not know what it is told."""
    await stage.client.create(VehPod, watched(allowedActions=["restart", "safe-state"]), "default")
    await stage.running("brake")
    pod = await stage.pod("brake")
    assert pod is not None
    node = await stage.client.get(NODES, pod["spec"]["nodeName"])
    node["status"]["nodeInfo"]["kubeletVersion"] = "v1.34.0"
    await stage.client.update(NODES, node, subresource="status")
    watcher = await Inside.of(stage, "brake")

    assert (await watcher.ask("restart", "p"))["state"] == "Done"

    async def another() -> bool:
        found = await stage.pod("brake")
        return found is not None and found["metadata"]["uid"] != pod["metadata"]["uid"]

    await stage.until(another)


@staged(nodes=1)
async def test_what_cannot_be_arranged_is_refused_by_rule(stage: Stage) -> None:
    shared = pod_spec(containers=some("a", "b"), shareProcessNamespace=True)
    never = pod_spec(containers=some("a", "b"), restartPolicy="Never")
    privileged = [some("a", securityContext={"privileged": True})[0], some("b")[0]]
    for rule, app in (
        ("policy", arranged("x", "sometimes", "a")),
        ("policy-structure", arranged("x", "PassiveRedundant", "a")),
        ("policy-structure", arranged("x", "ActiveRedundant", "a")),
        ("policy-structure", arranged("x", "NModularRedundant", "a", "b")),
        ("policy-structure", arranged("x", "NModularRedundant", "a", "b", "c", "d")),
        ("policy-structure", arranged("x", "Monitoring", "a")),
        ("policy-structure", veh_pod("x", deploymentPolicy="PassiveRedundant", podSpec=shared)),
        ("policy-structure", veh_pod("x", deploymentPolicy="ActiveRedundant", podSpec=never)),
        ("policy-structure", {**watched("x"), "spec": {**watched("x")["spec"], "deploymentPolicy": ""}}),
        ("policy-structure", watched("x", watcherContainer=some("p")[0])),
        (
            "no-privileged",
            veh_pod(
                "x",
                "3rd-party",
                deploymentPolicy="ActiveRedundant",
                activeRedundant={"activeRedundantContainers": privileged},
                podSpec=pod_spec(containers=[]),
            ),
        ),
    ):
        with pytest.raises(ApiError, match=f"rule {rule}\\)"):
            await stage.client.create(VehPod, app, "default")


# -- pure

policies = st.sampled_from(["", "PassiveRedundant", "activeRedundant", "NModularRedundant", "Monitoring", "other"])
names = st.lists(st.sampled_from("abcde"), max_size=5)


@given(policies, names, names, st.sampled_from([None, "Always", "Never"]), st.booleans())
def test_what_is_not_refused_is_arranged_completely(
    policy: str, own: list[str], block: list[str], restart: str | None, shares: bool
) -> None:
    spec: Object = {"deploymentPolicy": policy, "podSpec": {"containers": some(*own)}}
    if restart:
        spec["podSpec"]["restartPolicy"] = restart
    if shares:
        spec["podSpec"]["shareProcessNamespace"] = True
    if block and policy == "Monitoring":
        spec["monitoring"] = {"primaryContainer": some(*block), "watcherContainer": some("w")[0]}
    if block and policy == "NModularRedundant":
        spec["nModularRedundant"] = {"nModularContainers": some(*block)}

    if list(violations(SYSTEM, spec)):
        return
    found = arrange(spec)
    if found is None:
        assert policy == ""
        return
    made = found.spec
    every = [one["name"] for kind in ("initContainers", "containers") for one in made.get(kind) or ()]
    assert len(every) == len(set(every))
    assert set(found.members) <= {one["name"] for one in made["containers"]}
    assert set(own) | set(block if policy in {"Monitoring", "NModularRedundant"} else ()) <= set(every)
    assert found.policy != "NModularRedundant" or len(found.members) in {3, 5}
    assert found.policy != "PassiveRedundant" or not shares
    assert made.get("restartPolicy") in {None, "Always"}
    assert (found.watcher in every) == (found.policy == "Monitoring")
    assert arrange(spec) == found


def test_what_takes_effect_while_a_pod_runs_does_not_replace_it() -> None:
    before = watched()["spec"]
    after = {**before, "voting": {"tolerance": 1.0}, "watcherLoss": "Degrade"}
    after["monitoring"] = {**before["monitoring"], "allowedActions": ["stop"], "heartbeatSeconds": 5}

    assert making_of(after) == making_of(before)
    assert making_of({"appType": "system", "podSpec": {}}) == {"appType": "system", "podSpec": {}}
