"""The car: a camera application refused by a rule, mended and run with its device; a brake monitor that loses its active."""

from __future__ import annotations

import base64
import json
import os
import time
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from fleetplane.interfaces.cli.demonstration.stage import Stage, until
from fleetplane.interfaces.cli.demonstration.steps import Outcome, Say, StepFailed
from fleetplane.model.builtin.types import PODS
from fleetplane.model.errors import ApiError
from fleetplane.model.objects import Object, name, uid
from fleetplane.operators.vehicles.kinds import VehDeployment, VehPod

CAMERA: Final = "camera"
BRAKE: Final = "brake-monitor"
CAMERA_NAMESPACE: Final = "3rd-party-application"
BRAKE_NAMESPACE: Final = "system-application"
RULE: Final = "no-privileged"
INSIDE: Final = "/dev/video0"


def camera_device() -> str:
    """The host's camera; a plain character device stands in where there is none."""
    return INSIDE if Path(INSIDE).is_char_device() else "/dev/zero"


async def refused(stage: Stage, say: Say) -> Outcome:
    """The plane refuses the privileged container, with the name of the rule."""
    started = time.perf_counter()
    try:
        await stage.apply(stage.place.root / "camera-refused.yaml")
    except ApiError as error:
        took = time.perf_counter() - started
        if error.code != 403 or f"rule {RULE}" not in error.message:
            raise StepFailed(f"it was refused, but not by the rule {RULE}: {error.message}") from None
        return Outcome(took, f"refused by the rule {RULE}", "admission", facts={"rule": RULE, "message": error.message})
    raise StepFailed("a privileged container of a third party was accepted")


async def runs(stage: Stage, say: Say) -> Outcome:
    """The mended application runs, and its device is inside."""
    started = time.perf_counter()
    await stage.apply(stage.place.root / "camera.yaml")
    pod = await until(lambda: _running(stage, CAMERA, CAMERA_NAMESPACE, say))
    took = time.perf_counter() - started
    facts = {"node": pod["spec"].get("nodeName", "")}
    if stage.containers is None:
        return Outcome(took, "mended and running", "plane", "container, device", stage.why, facts)
    container = await stage.containers.of_pod(uid(pod))
    if container is None:
        raise StepFailed(f"the plane says that {CAMERA} runs, but Podman has no container of it")
    device = camera_device()
    say("looking for the device inside")
    inside = await _shell(stage, pod, f"ls -ln {INSIDE} && head -c 8 {INSIDE} | wc -c")
    found = os.stat(device).st_rdev  # noqa: PTH116 - a file of /dev does not make us wait
    words = inside.replace(",", " ").split()
    if not words[0].startswith("c") or (int(words[4]), int(words[5])) != (os.major(found), os.minor(found)):
        raise StepFailed(f"{INSIDE} in the container is not {device} of this machine: {inside.strip()}")
    if device == "/dev/zero" and words[-1] != "8":
        raise StepFailed(f"{INSIDE} is in the container but cannot be read: {inside.strip()}")
    facts |= {"container": container.id[:12], "pid": str(container.pid), "device": device}
    said = f"runs with {INSIDE} inside"
    if device == INSIDE:
        return Outcome(took, said, "container, device", facts=facts)
    why = f"{device} stands in for the camera, as this machine has no {INSIDE}"
    return Outcome(took, said, "container, device node", "the camera behind it", why, facts)


async def switched(stage: Stage, say: Say) -> Outcome:
    """The active's process is killed; the standby takes over. Measured from the kill to the standby's first word."""
    await stage.apply(stage.place.root / "brake.yaml")
    say("waiting for an active and a standby")
    before: Object = await until(lambda: _redundant(stage, say))
    active = next(one for one in before["status"]["instances"] if one["role"] == "active")
    standby = next(one for one in before["status"]["instances"] if one["role"] == "passive")
    pod = await stage.client.get(PODS, active["name"], BRAKE_NAMESPACE)
    container = None if stage.containers is None else await stage.containers.of_pod(uid(pod))
    if stage.containers is not None and container is None:
        raise StepFailed(f"the plane says that {name(pod)} runs, but Podman has no container of it")
    if stage.containers is not None:
        say(f"waiting until {standby['name']} is frozen")
        await until(lambda: _frozen(stage, standby["name"]))
    say(f"killing {name(pod)}")
    killed_at, started = stage.environment.now(), time.perf_counter()
    if stage.containers is None or container is None:
        await stage.client.delete(PODS, name(pod), BRAKE_NAMESPACE, grace_period_seconds=1)
    else:
        await stage.containers.kill(container)
    after: Object = await until(lambda: _took_over(stage, before), every=0.005)
    took = time.perf_counter() - started
    facts = {"killed": name(pod), "tookOver": standby["name"], "noticedToThawedMs": after["status"].get("lastSwitchMs")}
    said = f"{standby['name']} took over"
    if stage.containers is None:
        return Outcome(took, said, "plane", "containers; killed by deleting the pod", stage.why, facts)
    first = await until(lambda: _first_word(stage, standby["name"], killed_at))
    took = (first - killed_at).total_seconds()
    return Outcome(took, said, "SIGKILL; until its first line", facts=facts)


async def _running(stage: Stage, pod_name: str, where: str, say: Say) -> Object | None:
    try:
        app = await stage.client.get(VehPod, pod_name, "default")
        pod = await stage.client.get(PODS, pod_name, where)
    except ApiError as error:
        if error.code == 404:
            return None
        raise
    say((app.get("status") or {}).get("phase") or "waiting for its pod")
    phase = (pod.get("status") or {}).get("phase")
    if phase == "Failed":
        raise StepFailed(f"the pod {pod_name} failed: {(pod.get('status') or {}).get('message') or 'no reason given'}")
    return pod if phase == "Running" and (app.get("status") or {}).get("phase") == "Running" else None


async def _redundant(stage: Stage, say: Say) -> Object | None:
    found = await stage.client.get(VehDeployment, BRAKE, "default")
    states = [(one.get("role"), one.get("state")) for one in (found.get("status") or {}).get("instances") or ()]
    say("; ".join(f"{role}: {state}" for role, state in states) or "waiting for an active and a standby")
    return found if sorted(states) == [("active", "Running"), ("passive", "Standby")] else None


async def _frozen(stage: Stage, standby: str) -> bool:
    """Whether the standby's processes stand still: one that still ran would seem to take over at once."""
    pod = await stage.client.get(PODS, standby, BRAKE_NAMESPACE)
    container = await stage.containers.of_pod(uid(pod)) if stage.containers else None
    return container is not None and container.is_frozen()


async def _took_over(stage: Stage, before: Object) -> Object | None:
    found = await stage.client.get(VehDeployment, BRAKE, "default")
    status, earlier = found.get("status") or {}, before["status"]
    moved = status.get("active") and status["active"] != earlier["active"]
    return found if moved and status.get("lastSwitchMs") != earlier.get("lastSwitchMs") else None


async def _first_word(stage: Stage, pod: str, after: datetime) -> datetime | None:
    """When an instance first wrote a line after a moment, by its container's own log."""
    since = int((stage.environment.now() - after).total_seconds()) + 2
    query = {"timestamps": "true", "sinceSeconds": str(since)}
    log = await stage.client.raw("GET", PODS.path(BRAKE_NAMESPACE, pod, "log"), query=query)
    for line in log.decode(errors="replace").splitlines():
        moment = datetime.fromisoformat(line.partition(" ")[0])
        if moment > after:
            return moment
    return None


async def _shell(stage: Stage, pod: Object, script: str) -> str:
    """What a script prints in the camera's container. Raises StepFailed when it fails."""
    query = [("container", CAMERA), ("command", "/bin/sh"), ("command", "-c"), ("command", script), ("stdout", "true")]
    path = PODS.path(CAMERA_NAMESPACE, name(pod), "exec")
    asked = {"accept": "application/vnd.fleetplane.exec+json, application/json"}
    answer: dict[str, Any] = json.loads(await stage.client.raw("POST", path, query=query, headers=asked))
    if answer["exitCode"]:
        said = base64.b64decode(answer["stderr"]).decode(errors="replace").strip()
        raise StepFailed(f"the device does not work inside the container: {said or answer['exitCode']}")
    return base64.b64decode(answer["stdout"]).decode(errors="replace")
