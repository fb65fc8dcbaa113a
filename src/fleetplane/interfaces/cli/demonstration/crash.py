"""The plane is killed in the middle of its work, as by a power cut: whatever it had acknowledged must still be there."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Final

from fleetplane.client.protocol import Unreachable
from fleetplane.interfaces.cli.demonstration.containers import Container
from fleetplane.interfaces.cli.demonstration.stage import Stage, until
from fleetplane.interfaces.cli.demonstration.steps import Outcome, Say, StepFailed
from fleetplane.model.builtin.types import CONFIG_MAPS
from fleetplane.model.errors import ApiError
from fleetplane.model.objects import Object, metadata, name, uid
from fleetplane.operators.vehicles.kinds import VehDeployment, VehPod

WRITERS: Final = 8
ENOUGH: Final = 1000


async def survived(stage: Stage, say: Say) -> Outcome:
    before = await _applications(stage)
    containers = await _running(stage)
    acknowledged = await _write_until_killed(stage, say)
    say(f"killed after {len(acknowledged)} acknowledged writes; starting it again")
    during = await _running(stage)
    took = await stage.start_plane()
    say("comparing")
    found = {
        name(one): metadata(one)["resourceVersion"] for one in (await stage.client.list(CONFIG_MAPS, "default")).items
    }
    lost = [one for one, version in acknowledged.items() if found.get(one) != version]
    if lost:
        raise StepFailed(f"{len(lost)} of {len(acknowledged)} acknowledged writes are lost, {lost[0]} among them")
    if await _applications(stage) != before:
        raise StepFailed("the applications are not those that were there before")
    await until(lambda: _settled(stage))
    after = await _running(stage)
    if not containers.items() <= during.items() or not containers.items() <= after.items():
        raise StepFailed("a container was stopped or started anew while the plane was away")
    facts = {"acknowledgedWrites": len(acknowledged), "lost": 0, "containersKept": len(containers)}
    said = f"{len(acknowledged):,} writes, none lost"
    if stage.containers is None:
        return Outcome(took, said, "plane, SIGKILL", "containers, which live in the plane", stage.why, facts)
    return Outcome(
        took, f"{said}; {len(containers)} containers never stopped", "plane, SIGKILL, containers", facts=facts
    )


async def _write_until_killed(stage: Stage, say: Say) -> dict[str, str]:
    """Name and version of every write the plane acknowledged before it was killed."""
    acknowledged: dict[str, str] = {}
    child = stage.plane
    assert child is not None

    async def write(writer: int) -> None:
        number = 0
        while True:
            number += 1
            wanted = {"metadata": {"name": f"written-{writer}-{number}"}, "data": {"n": str(number)}}
            try:
                made = await stage.client.create(CONFIG_MAPS, wanted, "default")
            except (Unreachable, ApiError, OSError):
                return
            acknowledged[name(made)] = metadata(made)["resourceVersion"]

    async with asyncio.TaskGroup() as group:
        for writer in range(WRITERS):
            group.create_task(write(writer))
        started = time.monotonic()
        while len(acknowledged) < ENOUGH and time.monotonic() - started < 10:
            say(f"{len(acknowledged)} writes acknowledged")
            await asyncio.sleep(0.02)
        await child.kill()
    return acknowledged


async def _applications(stage: Stage) -> dict[str, str]:
    found: list[Object] = []
    for kind in (VehPod, VehDeployment):
        found += (await stage.client.list(kind, "default")).items
    return {uid(one): name(one) for one in found}


async def _running(stage: Stage) -> Mapping[str, tuple[int, str]]:
    """Process and start of every container that runs, by its id."""
    if stage.containers is None:
        return {}
    running: list[Container] = [one for one in await stage.containers.list() if one.running]
    return {one.id: (one.pid, one.began) for one in running}


async def _settled(stage: Stage) -> bool:
    """Whether the plane knows again that its applications run."""
    found: list[Object] = []
    for kind in (VehPod, VehDeployment):
        found += (await stage.client.list(kind, "default")).items
    return all((one.get("status") or {}).get("phase") == "Running" for one in found)
