"""Three simulated worker nodes that join a plane over the network: ``python -m … <kubeconfig>``, until SIGTERM.

Peer pods are spread over workers; a laptop is one machine. They are cordoned, so that nothing else of the demo comes to run
on a node that only pretends.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from pathlib import Path

from fleetplane.client.http import connect_to
from fleetplane.client.kubeconfig import load
from fleetplane.interfaces.cli.logs import configure_logging
from fleetplane.model.builtin.types import NODES
from fleetplane.model.environment import SystemEnvironment
from fleetplane.node.fleet import FleetSettings, SimulatedFleet

WORKERS = 3
PREFIX = "worker-"
LABEL = "node.kubernetes.io/worker"


async def _run(kubeconfig: Path) -> None:
    environment = SystemEnvironment()
    client = await connect_to(load([kubeconfig]).access(), environment)
    fleet = SimulatedFleet(client, WORKERS, environment, FleetSettings(prefix=PREFIX, labels={LABEL: ""}))
    running = asyncio.ensure_future(fleet.run())
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, running.cancel)
    try:
        await fleet.ready.wait()
        for name in fleet.nodes:
            await client.patch(NODES, name, {"spec": {"unschedulable": True}})
        sys.stdout.write(f"ready {' '.join(fleet.nodes)}\n")
        sys.stdout.flush()
        with contextlib.suppress(asyncio.CancelledError):
            await running
    finally:
        await client.close()


if __name__ == "__main__":
    configure_logging("error")
    asyncio.run(_run(Path(sys.argv[1])))
