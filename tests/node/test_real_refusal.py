"""A real node that came second to its pod network: it takes another, and its pods run there."""

from __future__ import annotations

import asyncio
import ipaddress
from pathlib import Path
from typing import Any

import pytest
from tests.contract.test_container_runtime import why_not_podman
from tests.node import image
from tests.node.test_real_node import _load_image

from fleetplane.client.protocol import Client
from fleetplane.model.builtin.types import NODES, PODS
from fleetplane.model.environment import SystemEnvironment
from fleetplane.model.errors import ApiError
from fleetplane.model.pod_networks import OWN
from fleetplane.node.agent import NodeAgent, NodeSettings
from fleetplane.node.local import remove_local_node, run_local_node
from fleetplane.node.network import why_no_bridge
from fleetplane.node.registration import NodeDescription, node_object
from fleetplane.testing import running_server

pytestmark = pytest.mark.podman

FIRST, SECOND = "10.93.0.0/24", "10.93.1.0/24"
STATIC = f"""
apiVersion: v1
kind: Pod
metadata: {{name: keeper}}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - {{name: main, image: '{image.NAME}', command: [sleep, '1000']}}
"""


async def running_pod(client: Client) -> dict[str, Any]:
    """The static pod's mirror, once it says that it runs."""
    while True:
        try:
            found = await client.get(PODS, "keeper-late", "default")
        except ApiError as error:
            assert error.code == 404
            found = {}
        if (found.get("status") or {}).get("phase") == "Running":
            return found
        await asyncio.sleep(0.05)


async def test_a_node_that_is_refused_its_network_takes_another_with_its_pods(tmp_path: Path) -> None:
    if reason := why_not_podman() or why_no_bridge():
        pytest.skip(reason)
    await _load_image(tmp_path)
    environment = SystemEnvironment()
    settings = NodeSettings(tmp_path / "node", name="late", static_pods=tmp_path / "static")
    (tmp_path / "static").mkdir()
    (tmp_path / "static" / "keeper.yaml").write_text(STATIC)
    ready: asyncio.Future[NodeAgent] = asyncio.get_running_loop().create_future()
    async with running_server() as server:
        client = server.client()
        other = NodeDescription("early", {}, annotations={OWN: "own"}, pod_networks=(FIRST,))
        await client.create(NODES, node_object(other, environment.now()))
        running = asyncio.ensure_future(
            run_local_node(client, settings, environment, pod_networks=["10.93.0.0/23"], on_ready=ready.set_result)
        )
        try:
            async with asyncio.timeout(60):
                await asyncio.wait([ready, running], return_when=asyncio.FIRST_COMPLETED)
                assert ready.done(), running
                node = await client.get(NODES, "late")
                pod = await running_pod(client)
        finally:
            running.cancel()
            await asyncio.wait([running])
            await remove_local_node(settings.directory, environment)

    assert node["spec"]["podCIDRs"] == [SECOND]
    assert ipaddress.ip_address(pod["status"]["podIP"]) in ipaddress.ip_network(SECOND)
    assert (tmp_path / "node" / "networks.json").read_text() == '{"10.93.0.0/23": ["10.93.1.0/24"]}'
