"""Several planes on one PostgreSQL: one of them controls, all of them serve, and another takes over."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from fleetplane.model.builtin.types import DEPLOYMENTS, LEASES, PODS
from fleetplane.plane import Plane
from fleetplane.settings import Settings

DEPLOYMENT = {
    "metadata": {"name": "web"},
    "spec": {
        "replicas": 3,
        "selector": {"matchLabels": {"app": "web"}},
        "template": {
            "metadata": {"labels": {"app": "web"}},
            "spec": {"containers": [{"name": "web", "image": "web"}]},
        },
    },
}


def settings(directory: Path, dsn: str, nodes: int = 0) -> Settings:
    return Settings(data_dir=directory, port=0, store=dsn, runtime="simulated", nodes=nodes, operators="network")


async def until(condition: Callable[[], Awaitable[Any]], seconds: float = 60) -> Any:
    async with asyncio.timeout(seconds):
        while not (found := await condition()):
            await asyncio.sleep(0.05)
    return found


@pytest.fixture
def directories(tmp_path: Path) -> tuple[Path, Path]:
    return tmp_path / "one", tmp_path / "two"


async def test_planes_on_one_store_share_the_work_and_replace_each_other(
    postgres_dsn: str, directories: tuple[Path, Path]
) -> None:
    first, second = directories

    async def ready(plane: Plane) -> int:
        found = await plane.client().list(PODS, "default")
        return sum((pod.get("status") or {}).get("phase") == "Running" for pod in found.items)

    async def holder(plane: Plane, name: str, namespace: str) -> str:
        return str((await plane.client().get(LEASES, name, namespace))["spec"]["holderIdentity"])

    async with Plane(settings(first, postgres_dsn, nodes=1)) as one:
        shutil.copytree(first / "pki", second / "pki")
        async with Plane(settings(second, postgres_dsn)) as two:
            await two.client().create(DEPLOYMENTS, DEPLOYMENT, "default")

            await until(lambda: _is(ready(two), 3))
            led = await holder(two, "fleetplane-controllers", "kube-system")
            assert len((await one.client().list(PODS, "default")).items) == 3

            await one.__aexit__(None, None, None)  # the one that leads leaves

            await two.client().patch(DEPLOYMENTS, "web", {"spec": {"replicas": 5}}, "default")
            await until(lambda: _is(_count(two), 5))
            assert await holder(two, "fleetplane-controllers", "kube-system") not in {"", led}
            assert await until(lambda: holder(two, "fleetplane-network", "fleetplane-system"))


async def _count(plane: Plane) -> int:
    return len((await plane.client().list(PODS, "default")).items)


async def _is(found: Awaitable[int], wanted: int) -> bool:
    return await found == wanted
