"""The node of the machine a plane runs on: which runtime it gets, and everything around it.

``choose_runtime`` answers what ``--runtime auto`` means here, with the reason in words. ``run_local_node`` opens the
runtime, runs the agent, and closes both; containers go on. An instance id in the node's directory keeps several planes
on one machine apart.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from fleetplane.client.protocol import Client
from fleetplane.model.environment import Environment
from fleetplane.node.agent import NodeAgent, NodeSettings, run_node
from fleetplane.node.files import write_private
from fleetplane.node.network import pod_network
from fleetplane.node.podman import PodmanRuntime, look_at_host


def choose_runtime(wanted: str = "auto") -> tuple[Literal["podman", "simulated", "none"], str]:
    """The runtime to use and why. ``auto`` takes Podman where it is installed, and simulates otherwise."""
    if wanted in {"simulated", "none"}:
        return wanted, "as asked"  # type: ignore[return-value]
    host = look_at_host()
    if host.podman:
        return "podman", f"Podman is installed ({host.podman})"
    if wanted == "podman":
        return "podman", "as asked, though Podman is not installed"
    return "simulated", "Podman is not installed, so containers are simulated"


def instance_id(directory: Path, environment: Environment) -> str:
    """Eight letters that stay with this directory."""
    path = directory / "instance"
    try:
        found = path.read_text().strip()
    except OSError:
        found = ""
    if len(found) != 8 or not found.isalnum():
        found = hashlib.sha256(f"{environment.uuid()}".encode()).hexdigest()[:8]
        write_private(path, found.encode())
    return found


def socket_directory(instance: str) -> Path:
    """A short path for sockets (they may have 107 letters), the same after every restart."""
    if os.geteuid() == 0:
        return Path("/run/fleetplane") / instance
    return Path(os.environ.get("XDG_RUNTIME_DIR") or f"/tmp/fleetplane-{os.geteuid()}") / f"fleetplane-{instance}"  # noqa: S108


async def run_local_node(
    client: Client,
    settings: NodeSettings,
    environment: Environment,
    *,
    pod_networks: Sequence[str] = ("10.88.0.0/16", "fd00:10:88::/64"),
    on_ready: Callable[[NodeAgent], None] | None = None,
) -> None:
    """Run this machine as a node on Podman until cancelled. Raises RuntimeFailure when Podman cannot be used."""
    settings.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    instance = instance_id(settings.directory, environment)
    network, note = pod_network(instance, pod_networks)
    notes = [note] if note else []
    runtime = await PodmanRuntime.open(
        look_at_host(), socket_directory(instance), network, instance, environment, notes
    )
    try:
        await run_node(
            client, runtime, replace(settings, pod_networks=network.networks), environment, on_ready=on_ready
        )
    finally:
        await runtime.close()
