"""A watcher's control interface: what it may touch, what becomes of its requests, and what its silence means."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from tests.operators.vehicles.stage import (
    Stage,
    VehDeployment,
    VehPod,
    pod_spec,
    staged,
    veh_deployment,
    veh_pod,
)

from fleetplane.model.builtin.types import PODS, ROLES, SECRETS, SERVICE_ACCOUNTS
from fleetplane.model.objects import Object
from fleetplane.node.fleet import FleetSettings
from fleetplane.node.simulated import Behaviour
from fleetplane.operators.vehicles.kinds import VehMonitor
from fleetplane.operators.vehicles.monitoring import finished, held_of, judge, pulse, restarting

FOREVER = FleetSettings(behaviour=Behaviour(run_for=float("inf")))
SPACE = "system-application"
MONITOR = f"/apis/crd.piccolo.org/v1alpha1/namespaces/{SPACE}/vehmonitors/brake-watcher"


def monitored(name: str = "brake", on_loss: str = "Restart", **monitoring: Any) -> Object:
    block = {
        "primaryContainer": [{"name": "p", "image": "p:1"}, {"name": "q", "image": "q:1"}],
        "watcherContainer": {"name": "w", "image": "w:1"},
        **monitoring,
    }
    return veh_deployment(name, "Monitoring", monitoring=block, watcherLoss=on_loss, podSpec=pod_spec(containers=[]))


class Watcher:
    """Somebody who holds the token of the watcher's pod, and nothing else."""

    path = MONITOR
    monitor = "brake-watcher"

    def __init__(self, stage: Stage, token: str) -> None:
        self.stage = stage
        self.headers = {"authorization": f"Bearer {token}"}
        self.beats = 0
        self.asked = 0

    @classmethod
    async def of(cls, stage: Stage, name: str = "brake-watcher") -> Watcher:
        pod = await stage.pod(name)
        assert pod is not None
        bound = {"kind": "Pod", "apiVersion": "v1", "name": name, "uid": pod["metadata"]["uid"]}
        path = f"/api/v1/namespaces/{SPACE}/serviceaccounts/{pod['spec']['serviceAccountName']}/token"
        code, made = await stage.server.call("POST", path, {"spec": {"boundObjectRef": bound}})
        assert code == 201, made
        return cls(stage, made["status"]["token"])

    async def call(self, method: str, path: str, body: Any = b"", **query: str) -> tuple[int, Object]:
        headers = dict(self.headers)
        if method == "PATCH":
            headers["content-type"] = "application/merge-patch+json"
        response = await self.stage.server.respond(method, path, body, headers=headers, user=None, query=query)
        return response.status, {}

    async def say(self, **spec: Any) -> None:
        assert (await self.call("PATCH", self.path, {"spec": spec}))[0] == 200

    async def beat(self) -> None:
        while True:
            self.beats += 1
            await self.say(heartbeat=str(self.beats))
            await asyncio.sleep(0.5)

    async def ask(self, action: str, primary: str = "") -> Object:
        """The outcome, once there is one."""
        self.asked += 1
        number = f"r{self.asked}"
        # A merge patch keeps what it does not name, so a request names everything.
        await self.say(request={"id": number, "action": action, "primary": primary})

        async def answered() -> bool:
            outcome = (await monitor_status(self.stage, self.monitor)).get("outcome") or {}
            return outcome.get("id") == number and outcome.get("state") != "Accepted"

        await self.stage.until(answered)
        found: Object = (await monitor_status(self.stage, self.monitor))["outcome"]
        return found


@asynccontextmanager
async def beating(watcher: Watcher):
    task = asyncio.ensure_future(watcher.beat())
    try:
        yield
    finally:
        task.cancel()


async def monitor_status(stage: Stage, name: str = "brake-watcher") -> Object:
    return (await stage.client.get(VehMonitor, name, SPACE)).get("status") or {}


async def status(stage: Stage, name: str = "brake") -> Object:
    return (await stage.client.get(VehDeployment, name, "default")).get("status") or {}


async def uid_of(stage: Stage, name: str) -> str:
    pod = await stage.pod(name)
    return str(pod["metadata"]["uid"]) if pod is not None else ""


@staged(settings=FOREVER, nodes=1)
async def test_the_watcher_may_touch_its_primaries_and_its_monitor_and_nothing_else(stage: Stage) -> None:
    await stage.client.create(VehDeployment, monitored(), "default")
    await stage.client.create(VehDeployment, monitored("other"), "default")
    await stage.running("brake", VehDeployment)
    await stage.running("other", VehDeployment)
    await stage.client.create(SECRETS, {"metadata": {"name": "key"}}, SPACE)
    watcher = await Watcher.of(stage)
    pods = f"/api/v1/namespaces/{SPACE}/pods"

    allowed = [
        ("GET", f"{pods}/brake-p0"),
        ("GET", f"{pods}/brake-p1"),
        ("GET", MONITOR),
    ]
    assert [(await watcher.call(*one))[0] for one in allowed] == [200] * 3
    one_pod = {"fieldSelector": "metadata.name=brake-p0"}
    assert (await watcher.call("GET", pods, **one_pod))[0] == 200
    assert (await watcher.call("GET", f"{pods}/brake-p0/log"))[0] != 403
    refused = [
        ("GET", pods),
        ("GET", f"{pods}/other-p0"),
        ("GET", f"{pods}/other-p0/log"),
        ("GET", f"{pods}/brake-watcher"),
        ("DELETE", f"{pods}/brake-p0"),
        ("POST", f"{pods}/brake-p0/exec?command=sh"),
        ("POST", pods, {"metadata": {"name": "x"}}),
        ("GET", MONITOR.replace("brake", "other")),
        ("PATCH", MONITOR.replace("brake", "other"), {"spec": {"heartbeat": "1"}}),
        ("PATCH", f"{MONITOR}/status", {"status": {"watcher": "Alive"}}),
        ("DELETE", MONITOR),
        ("GET", f"/api/v1/namespaces/{SPACE}/secrets/key"),
        ("GET", f"/api/v1/namespaces/{SPACE}/secrets"),
        (
            "PATCH",
            "/apis/crd.piccolo.org/v1alpha1/namespaces/default/vehdeployments/brake",
            {"spec": {"state": "Stopped"}},
        ),
        ("GET", "/apis/crd.piccolo.org/v1alpha1/namespaces/default/vehdeployments/brake"),
        ("POST", f"/api/v1/namespaces/{SPACE}/serviceaccounts/other-watcher/token", {}),
        ("POST", f"/apis/rbac.authorization.k8s.io/v1/namespaces/{SPACE}/rolebindings", {"metadata": {"name": "x"}}),
    ]
    for one in refused:
        assert (await watcher.call(*one))[0] == 403, one


@staged(settings=FOREVER, nodes=1)
async def test_what_a_monitor_belongs_to_is_not_its_watchers_to_change(stage: Stage) -> None:
    await stage.client.create(VehDeployment, monitored(), "default")
    await stage.running("brake", VehDeployment)
    watcher = await Watcher.of(stage)

    for part in ({"finalizers": ["example.com/never"]}, {"labels": {"fleetplane.io/owner-uid": None}}):
        code, answered = await stage.server.call(
            "PATCH",
            MONITOR,
            {"metadata": part},
            headers={**watcher.headers, "content-type": "application/merge-patch+json"},
            user=None,
        )
        assert code == 403
        assert "rule monitor-metadata" in answered["message"]


@staged(settings=FOREVER, nodes=1)
async def test_the_watcher_finds_its_interface_in_its_environment(stage: Stage) -> None:
    await stage.client.create(VehDeployment, monitored(), "default")
    await stage.running("brake", VehDeployment)

    pod = await stage.pod("brake-watcher")
    assert pod is not None
    assert {one["name"]: one.get("value") for one in pod["spec"]["containers"][0]["env"]} == {
        "VEHICLE_MONITOR": "brake-watcher",
        "VEHICLE_NAMESPACE": SPACE,
        "VEHICLE_PRIMARIES": "brake-p0,brake-p1",
    }
    assert ((await stage.pod("brake-p0")) or {})["spec"]["serviceAccountName"] == "default"
    found = await monitor_status(stage)
    assert [(one["name"], one["state"]) for one in found["primaries"]] == [
        ("brake-p0", "Running"),
        ("brake-p1", "Running"),
    ]


@staged(settings=FOREVER, nodes=1)
async def test_what_is_permitted_is_done_and_what_is_not_is_refused_by_rule(stage: Stage) -> None:
    await stage.client.create(VehDeployment, monitored(allowedActions=["restart"]), "default")
    await stage.running("brake", VehDeployment)
    watcher = await Watcher.of(stage)
    before, untouched = await uid_of(stage, "brake-p0"), await uid_of(stage, "brake-p1")

    await watcher.say(verdicts=[{"primary": "brake-p0", "verdict": "suspect", "message": "late"}])
    done = await watcher.ask("restart", "brake-p0")

    assert done["state"] == "Done"
    await stage.running("brake", VehDeployment)
    assert await uid_of(stage, "brake-p0") not in {"", before}
    assert await uid_of(stage, "brake-p1") == untouched
    (seen,) = [one for one in (await status(stage))["instances"] if one["name"] == "brake-p0"]
    assert (seen["verdict"], seen["message"]) == ("suspect", "late")

    for action, primary, rule in (
        ("stop", "brake-p0", "monitor-action"),
        ("safe-state", "", "monitor-action"),
        ("restart", "other-p0", "monitor-primary"),
        ("restart", "brake-watcher", "monitor-primary"),
        ("restart", "", "monitor-primary"),
    ):
        refused = await watcher.ask(action, primary)
        assert (refused["state"], refused["rule"]) == ("Refused", rule)
    known = (await status(stage))["monitor"]
    assert (known["outcome"], known["rule"]) == ("Refused", "monitor-primary")
    assert await uid_of(stage, "brake-p1") == untouched


@staged(settings=FOREVER, nodes=1)
async def test_a_request_is_carried_out_once(stage: Stage) -> None:
    await stage.client.create(VehDeployment, monitored(allowedActions=["restart"]), "default")
    await stage.running("brake", VehDeployment)
    watcher = await Watcher.of(stage)
    await watcher.ask("restart", "brake-p0")
    await stage.running("brake", VehDeployment)
    after = await uid_of(stage, "brake-p0")

    await watcher.say(request={"id": "r1", "action": "restart", "primary": "brake-p0"}, heartbeat="again")
    await asyncio.sleep(70.0)

    assert await uid_of(stage, "brake-p0") == after


@staged(settings=FOREVER, nodes=1)
async def test_primaries_are_stopped_started_and_brought_into_the_safe_state(stage: Stage) -> None:
    allowed = ["restart", "stop", "start", "safe-state"]
    await stage.client.create(VehDeployment, monitored(allowedActions=allowed), "default")
    await stage.running("brake", VehDeployment)
    watcher = await Watcher.of(stage)

    assert (await watcher.ask("stop", "brake-p1"))["state"] == "Done"
    assert await stage.pod("brake-p1") is None
    assert await stage.phase("brake", VehDeployment) == "Degraded"
    assert (await status(stage))["monitor"]["stopped"] == ["brake-p1"]
    assert (await watcher.ask("restart", "brake-p1"))["rule"] == "monitor-state"

    assert (await watcher.ask("safe-state"))["state"] == "Done"
    assert [await stage.pod(name) for name in ("brake-p0", "brake-p1")] == [None, None]

    async def safe() -> bool:
        return await stage.phase("brake", VehDeployment) == "SafeState"

    await stage.until(safe)
    assert await stage.pod("brake-watcher") is not None

    assert (await watcher.ask("start"))["state"] == "Done"
    await stage.running("brake", VehDeployment)


@staged(settings=FOREVER, nodes=1)
async def test_primaries_wait_for_the_first_heartbeat_and_stop_when_heartbeats_do(stage: Stage) -> None:
    await stage.client.create(
        VehDeployment, monitored(on_loss="SafeState", heartbeatSeconds=1, missedHeartbeats=3), "default"
    )

    async def there() -> bool:
        return (await monitor_status(stage)).get("watchedBy", "") != ""

    async def watcher_exists() -> bool:
        return await stage.pod("brake-watcher") is not None

    await stage.until(watcher_exists)
    await stage.until(there)
    first = await uid_of(stage, "brake-watcher")
    assert await stage.pod("brake-p0") is None
    watcher = await Watcher.of(stage)
    async with beating(watcher):
        await stage.running("brake", VehDeployment)
        await asyncio.sleep(20.0)
        assert await stage.phase("brake", VehDeployment) == "Running"
        assert (await monitor_status(stage))["watcher"] == "Alive"

    async def stopped() -> bool:
        return await stage.pod("brake-p0") is None and await stage.pod("brake-p1") is None

    begun = asyncio.get_running_loop().time()
    await stage.until(stopped)
    assert asyncio.get_running_loop().time() - begun < 3.0 + 2.0

    async def another() -> bool:
        return await uid_of(stage, "brake-watcher") not in {"", first}

    await stage.until(another)


@staged(settings=FOREVER, nodes=1)
async def test_a_silent_watcher_is_started_anew_or_only_told_of(stage: Stage) -> None:
    for name, on_loss in (("brake", "Restart"), ("other", "Degrade")):
        await stage.client.create(VehDeployment, monitored(name, on_loss=on_loss), "default")
        await stage.running(name, VehDeployment)
    uids = {one: await uid_of(stage, one) for one in ("brake-watcher", "brake-p0", "other-watcher")}
    for name in ("brake", "other"):  # from now on it has to speak
        await stage.client.patch(VehDeployment, name, {"spec": {"monitoring": {"heartbeatSeconds": 1}}}, "default")

    async def changed() -> bool:
        degraded = await stage.phase("other", VehDeployment) == "Degraded"
        return degraded and await uid_of(stage, "brake-watcher") not in {"", uids["brake-watcher"]}

    await stage.until(changed)
    assert await uid_of(stage, "brake-p0") == uids["brake-p0"], "its primaries go on"
    assert await uid_of(stage, "other-watcher") == uids["other-watcher"]
    assert (await status(stage, "other"))["monitor"]["watcher"] == "Lost"


@staged(settings=FOREVER, nodes=1)
async def test_nobody_else_runs_under_a_watchers_account(stage: Stage) -> None:
    await stage.client.create(VehDeployment, monitored(), "default")
    await stage.running("brake", VehDeployment)
    borrowed = pod_spec(serviceAccountName="brake-watcher")

    await stage.client.create(VehPod, veh_pod("thief", podSpec=borrowed), "default")

    told = await stage.says("thief", "Admitted", "False", VehPod)
    assert "rule watcher-account" in told["message"]
    assert await stage.pod("thief") is None
    await stage.client.delete(PODS, "brake-watcher", SPACE)
    await stage.running("brake", VehDeployment)


@staged(settings=FOREVER, nodes=1)
async def test_the_account_of_somebody_else_is_not_taken_over(stage: Stage) -> None:
    await stage.client.create(VehDeployment, veh_deployment("first", "", replicas=1), "default")
    await stage.running("first", VehDeployment)
    await stage.client.create(SERVICE_ACCOUNTS, {"metadata": {"name": "brake-watcher"}}, SPACE)

    await stage.client.create(VehDeployment, monitored(), "default")

    told = await stage.says("brake", "Admitted", "False", VehDeployment)
    assert "rule name-taken" in told["message"]
    assert await stage.pod("brake-watcher") is None


@staged(settings=FOREVER, nodes=1)
async def test_nothing_of_the_interface_is_left(stage: Stage) -> None:
    await stage.client.create(VehDeployment, monitored(), "default")
    await stage.running("brake", VehDeployment)
    await stage.client.delete(VehDeployment, "brake", "default")

    async def gone() -> bool:
        left: list[Any] = []
        for kind in (VehMonitor, PODS, ROLES):
            left += (await stage.client.list(kind, SPACE)).items
        accounts = [one["metadata"]["name"] for one in (await stage.client.list(SERVICE_ACCOUNTS, SPACE)).items]
        return not left and accounts == ["default"]

    await stage.until(gone)


@staged(settings=FOREVER, nodes=1)
async def test_another_policy_takes_the_interface_away(stage: Stage) -> None:
    await stage.client.create(VehDeployment, monitored(), "default")
    await stage.running("brake", VehDeployment)
    spec = {"deploymentPolicy": "ActiveRedundant", "monitoring": None, "podSpec": pod_spec()}
    await stage.client.patch(VehDeployment, "brake", {"spec": spec}, "default")

    async def taken() -> bool:
        left = (await stage.client.list(VehMonitor, SPACE)).items
        return not left and "monitor" not in await status(stage) and await uid_of(stage, "brake-watcher") == ""

    await stage.until(taken)
    await stage.running("brake", VehDeployment)


# -- pure

NAMES = ("a", "b", "c")
ids = st.sampled_from(["", "1", "2"])
actions = st.sampled_from(["restart", "stop", "start", "safe-state", "burn"])
requests = st.one_of(
    st.none(),
    st.builds(lambda i, a, p: {"id": i, "action": a, "primary": p}, ids, actions, st.sampled_from(["", *NAMES, "z"])),
)
targets_ = st.fixed_dictionaries({name: st.sampled_from(["", "u1", "u2"]) for name in NAMES})
statuses = st.builds(
    lambda held, safe, outcome: {"held": held, "safe": safe, **({"outcome": outcome} if outcome else {})},
    st.lists(st.sampled_from([*NAMES, "old"]), unique=True, max_size=3),
    st.booleans(),
    st.one_of(
        st.none(),
        st.fixed_dictionaries(
            {
                "id": st.sampled_from(["1", "2"]),
                "action": actions,
                "primary": st.sampled_from(NAMES),
                "state": st.sampled_from(["Accepted", "Done", "Refused"]),
                "target": st.sampled_from(["", "u1", "u2"]),
            }
        ),
    ),
)


@given(requests, st.sets(actions), targets_, statuses)
def test_a_request_does_what_is_permitted_once_and_to_its_own_primaries_only(
    request: Any, allowed: set[str], targets: dict[str, str], before: Object
) -> None:
    allowed -= {"burn"}
    answer = judge(request, allowed, targets, before)

    if answer is None:
        assert not request or not request["id"] or request["id"] == (before.get("outcome") or {}).get("id")
        return
    after = {**before, **answer.status}
    assert judge(request, allowed, targets, after) is None, "a request is judged once"
    assert set(held_of(after, targets)) <= set(targets)
    if answer.state == "Refused":
        assert answer.status["outcome"]["rule"].startswith("monitor-")
        assert held_of(after, targets) == held_of(before, targets)
        assert restarting(after, targets) == ""
        return
    assert request["action"] in allowed
    assert request["primary"] in {"", *targets}
    stopped, before_it = set(held_of(after, targets)), set(held_of(before, targets))
    meant = {request["primary"]} if request["primary"] else set(targets)
    match request["action"]:
        case "restart":
            assert stopped == before_it
            assert restarting(after, targets) in {"", request["primary"]}
        case "stop":
            assert stopped == before_it | meant
        case "start":
            assert stopped == before_it - meant
        case _:
            assert stopped == set(targets)


@given(targets_, statuses)
def test_what_was_accepted_is_done_when_it_has_come_true(targets: dict[str, str], status: Object) -> None:
    found = finished(status, targets)
    if found is not None:
        assert restarting(status, targets) == ""
        assert status["outcome"]["state"] == "Accepted"
        if status["outcome"]["action"] != "restart":
            assert not any(targets[name] for name in held_of(status, targets))
        assert finished({**status, "outcome": {**status["outcome"], **found["outcome"]}}, targets) is None


@given(st.booleans(), st.floats(0, 100), st.none() | st.floats(0, 100), st.floats(0, 100), st.floats(0, 10))
def test_a_watcher_is_alive_only_while_it_is_ready_and_heard_of(
    ready: bool, since: float, beat: float | None, later: float, window: float
) -> None:
    now = max(since, beat or 0.0) + later
    found = pulse(ready=ready, since=since, beat=beat, now=now, window=window)
    assert (found == "Alive") == (ready and (window == 0 or (beat is not None and now - beat <= window)))
    assert (found == "Lost") == (ready and window > 0 and now - (since if beat is None else beat) > window)
