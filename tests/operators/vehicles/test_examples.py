"""The examples run as they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.operators.vehicles.stage import VehDeployment, VehPod, stage

from fleetplane.model import yaml
from fleetplane.model.builtin.types import CONFIG_MAPS
from fleetplane.operators.vehicles import kinds
from fleetplane.testing import run_virtually

EXAMPLES = Path(__file__).parents[3] / "examples" / "vehicles"


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.yaml")), ids=lambda path: path.stem)
def test_an_example_comes_to_run(path: Path) -> None:
    objects = [one.value for one in yaml.load_all(path.read_bytes())]

    async def story() -> None:
        async with stage(nodes=2) as made:
            wanted: list[tuple[Any, str]] = []
            for obj in objects:
                resource = CONFIG_MAPS if obj["kind"] == "ConfigMap" else getattr(kinds, obj["kind"])
                await made.client.create(resource, obj, "default")
                if resource in {VehPod, VehDeployment}:
                    wanted.append((resource, obj["metadata"]["name"]))
            for resource, name in wanted:
                await made.running(name, resource)

    run_virtually(story())
