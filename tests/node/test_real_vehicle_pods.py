"""What vehicle pods ask of a node, with real containers: devices, freezing, reservations, succession, self-fencing."""

from __future__ import annotations

import asyncio
import os
import signal
import stat
from pathlib import Path
from typing import Any

import orjson
import pytest
from tests.node.test_real_node import client, create, log, plane, pod, until

from fleetplane.client.protocol import Client
from fleetplane.model.builtin.types import EVENTS, PODS
from fleetplane.model.objects import is_condition_true

pytestmark = [pytest.mark.podman, pytest.mark.asyncio(loop_scope="module")]

__all__ = ["client", "plane"]

DEVICES = "node.fleetplane.io/devices"
PAUSED = "node.fleetplane.io/paused"
GROUP = "node.fleetplane.io/group"
SUCCESSOR = "node.fleetplane.io/successor"
RESERVATION = "node.fleetplane.io/reservation"


def annotated(made: dict[str, Any], **notes: str) -> dict[str, Any]:
    return {**made, "metadata": {**made["metadata"], "annotations": notes}}


def in_state(state: str) -> Any:
    return lambda found: state in ((found["status"].get("containerStatuses") or [{}])[0].get("state") or {})


async def process_of(name: str) -> int:
    """The first process of a pod's container, found as an administrator would."""
    found = await asyncio.create_subprocess_exec(
        "podman", "ps", "-q", "--no-trunc", "--filter", f"label=io.fleetplane.pod.name={name}", stdout=-1
    )
    ids = (await found.communicate())[0].decode().split()
    found = await asyncio.create_subprocess_exec(
        "podman", "inspect", "--format", "{{.State.Pid}}", ids[0], stdout=asyncio.subprocess.PIPE
    )
    return int((await found.communicate())[0])


async def said(client: Client, name: str, lines: int) -> list[str]:
    await until(client, name, in_state("running"))
    async with asyncio.timeout(20):
        while len(found := (await log(client, name)).splitlines()) < lines:
            await asyncio.sleep(0.05)
    return found


def block_device() -> str:
    """A device no container may open by default."""
    for path in ("/dev/loop0", "/dev/loop1", "/dev/kvm", "/dev/kmsg"):
        try:
            mode = Path(path).stat().st_mode
        except OSError:
            continue
        if stat.S_ISBLK(mode) or stat.S_ISCHR(mode):
            return path
    pytest.skip("this machine has no device that containers may not open by default")


async def test_a_device_reaches_the_container_and_its_device_cgroup_and_no_other_does(client: Client) -> None:
    path = block_device()
    tries = (
        "t() { if (: < $1) 2>/dev/null; then echo $1 read; else echo $1 refused; fi; };"
        "w() { if (: >> $1) 2>/dev/null; then echo $1 written; else echo $1 not written; fi; };"
        "t /dev/camera; w /dev/camera; t /dev/other; grep -c /dev/camera /proc/mounts; sleep 1000"
    )
    made = pod("camera", "sh", "-c", tries)
    main = made["spec"]["containers"][0]
    main["volumeMounts"] = [{"name": "a", "mountPath": "/dev/camera"}, {"name": "b", "mountPath": "/dev/other"}]
    made["spec"]["volumes"] = [
        {"name": "a", "hostPath": {"path": path}},
        {"name": "b", "hostPath": {"path": path}},
    ]
    given = [{"source": path, "target": "/dev/camera", "permissions": "r"}]
    await create(client, annotated(made, **{DEVICES: orjson.dumps({"main": given}).decode()}))

    lines = await said(client, "camera", 4)

    # One cgroup, so the device may be read through the mount too; it may be written through neither.
    assert lines[:2] == ["/dev/camera read", "/dev/camera not written"]
    assert lines[3] == "0", "it is a node of its own and no mount"
    await client.delete(PODS, "camera", "default")


async def test_a_mounted_device_that_is_not_given_cannot_be_opened(client: Client) -> None:
    made = pod(
        "bare", "sh", "-c", "if (: < /dev/camera) 2>/dev/null; then echo read; else echo refused; fi; sleep 1000"
    )
    made["spec"]["containers"][0]["volumeMounts"] = [{"name": "a", "mountPath": "/dev/camera"}]
    made["spec"]["volumes"] = [{"name": "a", "hostPath": {"path": block_device()}}]
    await create(client, made)

    assert await said(client, "bare", 1) == ["refused"]
    await client.delete(PODS, "bare", "default")


async def test_a_frozen_pod_does_nothing_until_it_is_thawed(client: Client) -> None:
    made = pod("frozen", "sh", "-c", "while true; do echo on; sleep 0.05; done")
    await create(client, annotated(made, **{PAUSED: "true"}))
    await until(client, "frozen", in_state("running"))
    await asyncio.sleep(0.3)
    before = await log(client, "frozen")
    await asyncio.sleep(0.5)
    assert await log(client, "frozen") == before

    await client.patch(PODS, "frozen", {"metadata": {"annotations": {PAUSED: None}}}, "default")
    await said(client, "frozen", len(before.splitlines()) + 3)

    await client.patch(PODS, "frozen", {"metadata": {"annotations": {PAUSED: "true"}}}, "default")
    await asyncio.sleep(0.7)
    before = await log(client, "frozen")
    await asyncio.sleep(0.4)
    assert await log(client, "frozen") == before
    await client.delete(PODS, "frozen", "default")


async def test_the_named_successor_goes_on_when_the_active_is_killed(client: Client) -> None:
    beat = ("sh", "-c", "while true; do echo on; sleep 0.05; done")
    standby = annotated(pod("standby", *beat, restartPolicy="Never"), **{PAUSED: "true", GROUP: "g"})
    await create(client, standby)
    waiting = await until(client, "standby", in_state("running"))
    notes = {GROUP: "g", SUCCESSOR: waiting["metadata"]["uid"]}
    await create(client, annotated(pod("active", *beat, restartPolicy="Never"), **notes))
    await until(client, "active", in_state("running"))
    await asyncio.sleep(0.3)
    before = len((await log(client, "standby")).splitlines())

    os.kill(await process_of("active"), signal.SIGKILL)

    found = await until(client, "standby", lambda one: is_condition_true(one, "node.fleetplane.io/Promoted"))
    (told,) = [one for one in found["status"]["conditions"] if one["type"].endswith("Promoted")]
    await said(client, "standby", before + 2)
    await until(client, "standby", lambda one: " ms after" in str(one["status"]["conditions"]))
    assert told["reason"] == "ActiveEnded"
    await client.delete(PODS, "active", "default")
    await client.delete(PODS, "standby", "default")


async def test_an_active_that_is_deleted_has_no_successor_made_by_the_node(client: Client) -> None:
    standby = annotated(pod("second", restartPolicy="Never"), **{PAUSED: "true", GROUP: "h"})
    await create(client, standby)
    waiting = await until(client, "second", in_state("running"))
    notes = {GROUP: "h", SUCCESSOR: waiting["metadata"]["uid"]}
    await create(client, annotated(pod("first", restartPolicy="Never"), **notes))
    await until(client, "first", in_state("running"))

    await client.delete(PODS, "first", "default", grace_period_seconds=1)
    async with asyncio.timeout(20):
        while [one for one in (await client.list(PODS, "default")).items if one["metadata"]["name"] == "first"]:
            await asyncio.sleep(0.05)

    found = await client.get(PODS, "second", "default")
    assert not is_condition_true(found, "node.fleetplane.io/Promoted")
    await client.delete(PODS, "second", "default")


async def test_what_is_reserved_is_applied_and_what_cannot_be_is_told(client: Client) -> None:
    made = pod("kept", "sleep", "1000")
    wanted = {"cpuSet": "0", "memoryLow": "16Mi", "schedulingPolicy": "SCHED_RR", "schedulingPriority": 7}
    await create(client, annotated(made, **{RESERVATION: orjson.dumps(wanted).decode()}))
    await until(client, "kept", in_state("running"))
    process = await process_of("kept")
    told = ""
    async with asyncio.timeout(10):
        while os.sched_getaffinity(process) != {0}:
            await asyncio.sleep(0.05)
        while os.sched_getscheduler(process) != os.SCHED_RR and "SCHED_RR" not in told:
            events = (await client.list(EVENTS, "default")).items
            told = " ".join(one["message"] for one in events if one.get("reason") == "ReservationNotApplied")
            await asyncio.sleep(0.05)

    assert os.sched_getaffinity(process) == {0}
    if not told:
        assert os.sched_getparam(process).sched_priority == 7
    await client.delete(PODS, "kept", "default")

    await create(client, annotated(pod("odd", "sleep", "1000"), **{RESERVATION: '{"cpuSet": "4000"}'}))
    async with asyncio.timeout(20):
        while True:
            events = (await client.list(EVENTS, "default")).items
            messages = [one["message"] for one in events if one.get("reason") == "ReservationNotApplied"]
            if any("CPU set 4000" in one for one in messages):
                break
            await asyncio.sleep(0.05)
    await client.delete(PODS, "odd", "default")


async def container_process(name: str, container: str) -> int:
    label = (
        "--filter",
        f"label=io.fleetplane.pod.name={name}",
        "--filter",
        f"label=io.fleetplane.container={container}",
    )
    found = await asyncio.create_subprocess_exec("podman", "ps", "-q", "--no-trunc", *label, stdout=-1)
    (identity,) = (await found.communicate())[0].decode().split()
    found = await asyncio.create_subprocess_exec(
        "podman", "inspect", "--format", "{{.State.Pid}}", identity, stdout=asyncio.subprocess.PIPE
    )
    return int((await found.communicate())[0])


def leads(name: str, switchovers: int) -> Any:
    """Whether it does, told how long it took, and whether who led before is back."""

    def so(found: dict[str, Any]) -> bool:
        told = [one["message"] for one in found["status"].get("conditions") or () if one["type"].endswith("OneActive")]
        running = [one for one in found["status"].get("containerStatuses") or () if "running" in one["state"]]
        if len(running) != 2 or sum(one["restartCount"] for one in running) != switchovers:
            return False
        done = f"{name} is active; {switchovers} switchovers"
        return any(one.startswith(done) and (not switchovers or one.endswith(" ms")) for one in told)

    return so


async def test_of_two_containers_one_runs_and_the_other_goes_on_when_it_is_killed(client: Client) -> None:
    beat = "while true; do echo on; sleep 0.05; done"
    made = pod("pair", "sh", "-c", beat)
    main = made["spec"]["containers"][0]
    made["spec"]["containers"] = [{**main, "name": "a"}, {**main, "name": "b"}]
    made["spec"]["restartPolicy"] = "Always"
    await create(client, annotated(made, **{"node.fleetplane.io/one-active": "a,b"}))
    await until(client, "pair", leads("a", 0))
    await asyncio.sleep(0.3)
    silent = await log(client, "pair", container="b")
    await asyncio.sleep(0.4)
    assert await log(client, "pair", container="b") == silent, "the standby is frozen"

    os.kill(await container_process("pair", "a"), signal.SIGKILL)

    found = await until(client, "pair", leads("b", 1))
    (told,) = [one["message"] for one in found["status"]["conditions"] if one["type"].endswith("OneActive")]
    assert int(told.rpartition("took ")[2].removesuffix(" ms")) >= 0
    async with asyncio.timeout(20):
        while len((await log(client, "pair", container="b")).splitlines()) <= len(silent.splitlines()):
            await asyncio.sleep(0.05)
    silent = await log(client, "pair", container="a")
    await asyncio.sleep(0.4)
    assert await log(client, "pair", container="a") == silent, "who led before stands by"
    await client.delete(PODS, "pair", "default", grace_period_seconds=0)


async def test_a_container_is_held_back_and_let_go_and_containers_get_cpus_of_their_own(client: Client) -> None:
    cpus = sorted(os.sched_getaffinity(0))
    if len(cpus) < 2:
        pytest.skip("one CPU cannot be divided")
    made = pod("apart", "sleep", "1000", restartPolicy="Always")
    main = made["spec"]["containers"][0]
    made["spec"]["containers"] = [{**main, "name": "a"}, {**main, "name": "b"}]
    text = orjson.dumps({"cpuSet": f"{cpus[0]},{cpus[1]}", "apart": ["a", "b"]}).decode()
    await create(client, annotated(made, **{RESERVATION: text}))
    await until(client, "apart", lambda one: is_condition_true(one, "Ready"))
    shares = [os.sched_getaffinity(await container_process("apart", name)) for name in ("a", "b")]
    assert shares == [{cpus[0]}, {cpus[1]}]

    hold = {"metadata": {"annotations": {"node.fleetplane.io/held-containers": "b"}}}
    await client.patch(PODS, "apart", hold, "default")
    await until(client, "apart", runs("a"))
    await asyncio.sleep(0.5)
    assert runs("a")(await client.get(PODS, "apart", "default")), "it is not started again"
    await client.patch(
        PODS, "apart", {"metadata": {"annotations": {"node.fleetplane.io/held-containers": None}}}, "default"
    )
    await until(client, "apart", runs("a", "b"))
    await client.delete(PODS, "apart", "default", grace_period_seconds=0)


def runs(*names: str) -> Any:
    def so(found: dict[str, Any]) -> bool:
        statuses = found["status"].get("containerStatuses") or ()
        return sorted(one["name"] for one in statuses if "running" in one["state"]) == list(names)

    return so
