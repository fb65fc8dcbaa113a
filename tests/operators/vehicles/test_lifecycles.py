"""Randomised lifecycles on the real server: a clumsy user, crashing containers, vanishing pods, an operator that dies.

One run is many lifecycles: applications are made, changed, stopped, moved between classes and deleted while things go
wrong. Invariants are looked at all along, and at the end everything is as it was last asked for, or gone without a trace.
The long form is `make soak`.
"""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest
from tests.operators.vehicles.stage import (
    DevRes,
    Stage,
    VehContainerConfig,
    VehDeployment,
    VehPod,
    config,
    device,
    stage,
    veh_deployment,
    veh_pod,
)

from fleetplane.model.builtin.types import PODS
from fleetplane.model.errors import ApiError
from fleetplane.node.fleet import FleetSettings
from fleetplane.node.simulated import Behaviour
from fleetplane.operators.vehicles import plan
from fleetplane.testing import run_virtually

FOREVER = FleetSettings(behaviour=Behaviour(run_for=float("inf")))
APPS = ("a", "b", "c")
SPACES = ("system-application", "3rd-party-application")


class World:
    """What was asked for, and what must hold whatever happens."""

    def __init__(self, made: Stage, seed: int) -> None:
        self.stage = made
        self.chance = random.Random(seed)
        self.lifecycles = 0
        self.looks = 0

    async def live(self, lifecycles: int) -> None:
        while self.lifecycles < lifecycles:
            await self._step()
            await asyncio.sleep(self.chance.random() * 3)

    async def _step(self) -> None:
        client, chance = self.stage.client, self.chance
        kind: Any = chance.choice((VehPod, VehDeployment))
        name = ("p-" if kind is VehPod else "d-") + chance.choice(APPS)
        choice = chance.random()
        try:
            if choice < 0.45:
                made = self._new(kind, name)
                await client.create(kind, made, "default")
            elif choice < 0.6:
                await client.delete(kind, name, "default")
                self.lifecycles += 1
            elif choice < 0.7:
                state = chance.choice(("Running", "Running", "Stopped"))
                await client.patch(kind, name, {"spec": {"state": state}}, "default")
            elif choice < 0.78:
                await client.patch(kind, name, {"spec": {"appType": chance.choice(("system", "3rd-party"))}}, "default")
            elif choice < 0.85:
                image = f"app:{chance.randint(1, 3)}"
                spec = {"podSpec": {"containers": [{"name": "main", "image": image}]}}
                await client.patch(kind, name, {"spec": spec}, "default")
            elif choice < 0.9:
                await self._depend()
            else:
                await self._break()
        except ApiError as error:
            if error.code == 403:
                assert "(rule " in error.message, error.message
            else:
                assert error.code in {404, 409}, error.message

    def _new(self, kind: Any, name: str) -> dict[str, Any]:
        app_type = self.chance.choice(("system", "system", "3rd-party"))
        more: dict[str, Any] = {"vehContainerConfigInfo": ["env"]} if self.chance.random() < 0.5 else {}
        if self.chance.random() < 0.3:
            more["devResInfo"] = [{"devName": "cam", "devDestPath": "/dev/x"}]
        if kind is VehPod:
            return veh_pod(name, app_type, **more)
        return veh_deployment(name, self.chance.choice(("PassiveRedundant", "passiveRedundant", "")), app_type, **more)

    async def _depend(self) -> None:
        client = self.stage.client
        value = [{"name": "A", "value": str(self.chance.randint(1, 3))}]
        match self.chance.randint(0, 3):
            case 0:
                await client.create(VehContainerConfig, config("env", piccoloEnv=value), "default")
            case 1:
                await client.patch(VehContainerConfig, "env", {"spec": {"piccoloEnv": value}}, "default")
            case 2:
                await client.create(DevRes, device("cam", allowedAppTypes=["3rd-party"]), "default")
            case _:
                await client.delete(DevRes, "cam", "default")

    async def _break(self) -> None:
        pods = [one for space in SPACES for one in await self.stage.pods(space)]
        if not pods:
            return
        pod = self.chance.choice(pods)
        if self.chance.random() < 0.6:
            self.stage.crash(pod, self.chance.choice((0, 1, 137)))
        else:
            await self.stage.client.delete(
                PODS, pod["metadata"]["name"], pod["metadata"]["namespace"], grace_period_seconds=1
            )

    async def watch(self) -> None:
        """Never two actives: on the nodes themselves, not as anybody reports it."""
        runtime = self.stage.fleet.runtime
        while True:
            self.looks += 1
            pods = [one for space in SPACES for one in await self.stage.pods(space)]
            active: dict[str, list[str]] = {}
            for pod in pods:
                meta = pod["metadata"]
                labels, owner = meta.get("labels") or {}, meta["labels"].get("fleetplane.io/owner-uid", "")
                if labels.get("vehicles.fleetplane.io/role") not in {"active", "passive"}:
                    continue
                worker = self.stage.fleet.engine.workers.get(meta["uid"])
                promoted = worker is not None and worker.notes.promotion is not None
                thawed = promoted or meta["annotations"].get("node.fleetplane.io/paused") != "true"
                runs = any(one.phase == "running" for one in runtime._by_pod.get(meta["uid"], {}).values())
                if thawed and runs:
                    active.setdefault(owner, []).append(meta["name"])
            for owner, names in active.items():
                assert len(names) <= 1, f"two actives of {owner}: {names}"
            for pod in pods:
                for container in pod["spec"]["containers"]:
                    paths = [one["mountPath"] for one in container.get("volumeMounts") or ()]
                    names = [one["name"] for one in container.get("env") or ()]
                    assert len(set(paths)) == len(paths), "something was mounted twice"
                    assert len(set(names)) == len(names), "something was set twice"
            await asyncio.sleep(0.03)

    async def end(self) -> None:
        client = self.stage.client
        for kind in (VehPod, VehDeployment):
            for one in (await client.list(kind, "default")).items:
                await client.delete(kind, one["metadata"]["name"], "default")

        async def gone() -> bool:
            left = [one for kind in (VehPod, VehDeployment) for one in (await client.list(kind, "default")).items]
            return not left and not [one for space in SPACES for one in await self.stage.pods(space)]

        await self.stage.until(gone)


def live(seed: int, lifecycles: int) -> World:
    async def main() -> World:
        failure: BaseException | None = None
        async with stage(seed=seed, nodes=3, settings=FOREVER) as made:
            world = World(made, seed)
            try:
                async with asyncio.TaskGroup() as group:
                    watching = group.create_task(world.watch())
                    await world.live(lifecycles)
                    watching.cancel()
                await world.end()
                assert not list(made.manager.informer(PODS).list("system-application"))
            except BaseExceptionGroup as several:
                failure = several.exceptions[0]
            except Exception as error:
                failure = error
        if failure is not None:
            raise failure
        return world

    try:
        return run_virtually(main())
    except BaseException as error:
        error.add_note(f"replay with seed={seed}, lifecycles={lifecycles}")
        raise


@pytest.mark.parametrize("seed", range(2))
def test_whatever_happens_no_two_are_active_and_nothing_stays(seed: int) -> None:
    world = live(seed, 8)
    assert world.lifecycles >= 8
    assert world.looks > 100


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(100))
def test_ten_thousand_lifecycles(seed: int) -> None:
    assert live(1000 + seed, 100).lifecycles >= 100


def test_the_finalizer_is_ours_and_always_the_same() -> None:
    assert plan.FINALIZER == "vehicles.fleetplane.io/cleanup"
