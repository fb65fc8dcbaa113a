"""The examples run as they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.operators.vehicles.stage import (
    DEVELOPER,
    DevRes,
    Stage,
    VehDeployment,
    VehPod,
    device,
    stage,
    staged,
    veh_pod,
)

from fleetplane.model import yaml
from fleetplane.model.builtin.types import CLUSTER_ROLES, CONFIG_MAPS, NAMESPACES, ROLE_BINDINGS
from fleetplane.model.errors import ApiError
from fleetplane.operators.vehicles import kinds
from fleetplane.testing import run_virtually

EXAMPLES = Path(__file__).parents[3] / "examples" / "vehicles"
ROLES = EXAMPLES / "roles.yaml"


@pytest.mark.parametrize(
    "path", sorted(one for one in EXAMPLES.glob("*.yaml") if one != ROLES), ids=lambda path: path.stem
)
def test_an_example_comes_to_run(path: Path) -> None:
    objects = [one.value for one in yaml.load_all(path.read_bytes())]

    async def story() -> None:
        async with stage(nodes=2) as made:
            wanted: list[tuple[Any, str]] = []
            for obj in objects:
                resource = CONFIG_MAPS if obj["kind"] == "ConfigMap" else getattr(kinds, obj["kind"])
                await made.client.create(resource, obj, "default")
                if resource in {VehPod, VehDeployment, kinds.VehApplication}:
                    wanted.append((resource, obj["metadata"]["name"]))
            for resource, name in wanted:
                await made.running(name, resource)

    run_virtually(story())


@staged(nodes=1)
async def test_who_may_edit_develops_applications_and_integrators_publish_what_they_name(made: Stage) -> None:
    for one in yaml.load_all(ROLES.read_bytes()):
        await made.client.create(CLUSTER_ROLES, one.value)
    for role, namespace in (("edit", "default"), ("vehicle-integrator", "integration")):
        if namespace != "default":
            await made.client.create(NAMESPACES, {"metadata": {"name": namespace}})
        reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role}
        subjects = [{"kind": "User", "name": DEVELOPER.name}]
        await made.client.create(
            ROLE_BINDINGS, {"metadata": {"name": "d"}, "roleRef": reference, "subjects": subjects}, namespace
        )
    developer = made.server.client(DEVELOPER)
    await developer.create(VehPod, veh_pod("a"), "default")
    assert [one["metadata"]["name"] for one in (await developer.list(VehPod, "default")).items] == ["a"]
    await developer.create(DevRes, device("cam"), "integration")
    for kind, obj, namespace in ((DevRes, device("cam"), "default"), (VehPod, veh_pod("a"), "integration")):
        with pytest.raises(ApiError) as refused:
            await developer.create(kind, obj, namespace)
        assert refused.value.code == 403
