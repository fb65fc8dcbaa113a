"""Simulated nodes for any control plane: ``fleet.py KUBECONFIG COUNT``, until SIGTERM.

A real control plane has no kubelet here. These are the nodes our own plane has, so what differs between the two are the
controllers and the scheduler.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path

from fleetplane.client.http import connect_to
from fleetplane.client.kubeconfig import find_access
from fleetplane.model.environment import SystemEnvironment
from fleetplane.node.fleet import SimulatedFleet, run_simulated_nodes


def tell(_: SimulatedFleet) -> None:
    sys.stdout.write("ready\n")
    sys.stdout.flush()


async def main(kubeconfig: Path, count: int) -> None:
    client = await connect_to(find_access(kubeconfig))
    running = asyncio.ensure_future(run_simulated_nodes(client, count, SystemEnvironment(), on_ready=tell))
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, running.cancel)
    await asyncio.wait([running])
    await client.close()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2])))
