"""The node of the machine a plane runs on: which runtime it gets, and everything around it.

``choose_runtime`` answers what ``--runtime auto`` means here, with the reason in words. ``run_local_node`` opens the
runtime, runs the agent, and closes both; containers go on. An instance id in the node's directory keeps several planes
on one machine apart.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from fleetplane.client.protocol import Client
from fleetplane.model.environment import Environment
from fleetplane.model.objects import Object
from fleetplane.model.pod_networks import OWN
from fleetplane.node import machine
from fleetplane.node.agent import RECORDS, NodeAgent, NodeSettings, run_node
from fleetplane.node.agreement import Refused, agreement
from fleetplane.node.device_plugins import DIRECTORY
from fleetplane.node.files import held, remove_tree, write_private
from fleetplane.node.guard import WatchdogProcess, end_watchdog
from fleetplane.node.names import read_resolv_conf
from fleetplane.node.network import BridgeNetwork, HostNetwork, PodNetwork, pod_network, why_no_bridge
from fleetplane.node.plugins import Beside, opened, remove_plugged
from fleetplane.node.podman import PodmanRuntime, look_at_host
from fleetplane.node.podman.service import PodmanService
from fleetplane.node.registration import NodeDescription
from fleetplane.node.routed import RoutedRuntime
from fleetplane.node.routes import NodeRoutes, remove_routes
from fleetplane.node.runtime import ContainerRuntime, RuntimeFailure
from fleetplane.node.services import DnsServer, ServiceProxy, remove_rules, why_no_dns
from fleetplane.node.services.zone import build_zone
from fleetplane.node.volumes.manager import remove_pod_directories

if TYPE_CHECKING:
    from fleetplane.node.cri.cni import CniNetwork
    from fleetplane.node.cri.runtime import CriRuntime

OWNER: Final = "owner"
POD_NETWORKS: Final = ("10.88.0.0/16", "fd00:10:88::/64")
"""Where pods have their addresses unless said otherwise."""
LOCK: Final = "lock"
NETWORKS: Final = "networks.json"
RUNTIME: Final = "runtime"
"""A file with the socket of the CRI runtime a node uses; there is none where it uses Podman."""

_log = logging.getLogger(__name__)


def choose_runtime(wanted: str = "auto") -> tuple[Literal["podman", "cri", "simulated", "none"], str]:
    """The runtime to use and why. ``auto`` takes Podman where it is installed, and simulates otherwise."""
    if wanted in {"cri", "simulated", "none"}:
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


def sockets_root() -> Path:
    """Where short paths are: sockets may have 107 letters."""
    if os.geteuid() == 0:
        return Path("/run/fleetplane")
    return Path(os.environ.get("XDG_RUNTIME_DIR") or f"/tmp/fleetplane-{os.geteuid()}") / "fleetplane"  # noqa: S108


async def run_local_node(
    client: Client,
    settings: NodeSettings,
    environment: Environment,
    *,
    pod_networks: Sequence[str] = POD_NETWORKS,
    service_client: Client | None = None,
    by_handler: Mapping[str, ContainerRuntime] | None = None,
    cri_socket: str | None = None,
    ask_first: bool = False,
    on_ready: Callable[[NodeAgent], None] | None = None,
) -> None:
    """Run this machine as a node until cancelled. Raises RuntimeFailure when its container runtime cannot be used.

    That is Podman; or, with ``cri_socket``, what listens there (empty: in one of the usual places). ``by_handler`` are
    runtimes for pods whose RuntimeClass has one of these handlers, besides those of plug-ins; they are closed at the end too.

    ``service_client`` may list and watch Services and EndpointSlices, which a node's own identity may not; without one,
    Services have no addresses and no names on this node. ``ask_first`` is for a machine that joins others: its first choice
    of pod networks is agreed on with the control plane. Else that is only asked when it refuses what this node chose.
    """
    # The runtime is another process, with another current directory.
    settings = replace(settings, directory=settings.directory.absolute())
    with held(settings.directory / LOCK) as ours:
        if not ours:
            raise RuntimeFailure(f"another process runs the node of {settings.directory}; stop it first")
        kept = settings.directory / NETWORKS
        instance = instance_id(settings.directory, environment)
        agree = agreement(client, environment, _to_propose(settings))
        ask = ask_first
        while True:
            network, note = pod_network(instance, pod_networks, kept, agree if ask else None)
            try:
                await _run(
                    client, settings, environment, network, note, service_client, by_handler, cri_socket, on_ready
                )
            except* Refused as group:
                _log.warning("%s: this one takes another, and its pods start anew in it", group.exceptions[0])
            ask = True
            await asyncio.to_thread(kept.unlink, missing_ok=True)
            await remove_local_node(settings.directory, environment, volumes=False)


async def _run(
    client: Client,
    settings: NodeSettings,
    environment: Environment,
    pods_network: PodNetwork,
    note: str,
    service_client: Client | None,
    by_handler: Mapping[str, ContainerRuntime] | None,
    cri_socket: str | None,
    on_ready: Callable[[NodeAgent], None] | None,
) -> None:
    instance = instance_id(settings.directory, environment)
    sockets = sockets_root() / instance
    network: PodNetwork | CniNetwork
    runtime: PodmanRuntime | CriRuntime
    socket = ""
    if cri_socket is None:
        network = pods_network
        notes = [note] if note else []
        runtime = await PodmanRuntime.open(look_at_host(), sockets, network, instance, environment, notes)
    else:
        runtime = await _open_cri(cri_socket, settings.directory, instance, environment)
        network, socket = runtime.network, runtime.socket
    others = dict(by_handler or {})
    try:
        if isinstance(runtime, PodmanRuntime):  # the images and the network of others are not ours to share
            beside = Beside(runtime, runtime.network, environment, instance, settings.directory, sockets)
            others = {**opened(beside), **others}
        await asyncio.to_thread(_note_owner, settings.directory, sockets, socket)
        own = replace(settings, pod_networks=network.networks, volatile=sockets)
        if own.device_plugins is None and os.geteuid() == 0 and await asyncio.to_thread(DIRECTORY.is_dir):
            own = replace(own, device_plugins=DIRECTORY)
        async with asyncio.TaskGroup() as group, AsyncExitStack() as stack:
            group.create_task(_sweep(runtime, socket))
            if isinstance(network, BridgeNetwork):
                own = replace(own, annotations={**own.annotations, OWN: "own"})
                name = own.name or machine.host_name()
                group.create_task(NodeRoutes(client, environment, name, instance, network).run())
            if network.bridge and service_client is not None:
                dns = await _start_dns(stack, own, network, environment)
                own = replace(own, cluster_dns=network.gateways if dns is not None else own.cluster_dns)
                proxy = _proxy(service_client, environment, instance, network, dns, own.cluster_domain)
                group.create_task(proxy.run())
            routed = RoutedRuntime(runtime, others) if others else runtime
            watchdog = WatchdogProcess(sockets, own.directory / RECORDS)
            refused: asyncio.Future[list[str]] = asyncio.get_running_loop().create_future()
            group.create_task(_end_when(refused))
            await run_node(
                client,
                routed,
                own,
                environment,
                watchdog=watchdog,
                on_ready=on_ready,
                on_refused=lambda networks: None if refused.done() else refused.set_result(networks),
            )
    finally:
        await RoutedRuntime(runtime, others).close()


def _to_propose(settings: NodeSettings) -> NodeDescription:
    """What is known of the node before its runtime is."""
    return NodeDescription(
        name=settings.name or machine.host_name(),
        capacity={},
        labels=settings.labels,
        annotations={**settings.annotations, OWN: "own"},
        taints=settings.taints,
    )


async def _end_when(refused: asyncio.Future[list[str]]) -> None:
    raise Refused(f"another node has {' and '.join(await refused)}")


async def _start_dns(
    stack: AsyncExitStack, settings: NodeSettings, network: PodNetwork | CniNetwork, environment: Environment
) -> DnsServer | None:
    """The node's DNS server, where it can be had; its pods use the host's resolver otherwise."""
    if reason := why_no_dns():
        _log.warning("%s", reason)
        return None
    upstream = read_resolv_conf(machine.resolv_conf_text()).servers
    server = DnsServer(settings.cluster_domain, upstream, environment.random)
    try:
        await stack.enter_async_context(server.serving(network.gateways))
    except OSError as error:
        _log.warning("there is no cluster DNS on this node: %s", error)
        return None
    return server


def _proxy(
    client: Client,
    environment: Environment,
    instance: str,
    network: PodNetwork | CniNetwork,
    dns: DnsServer | None,
    domain: str,
) -> ServiceProxy:
    def on_change(services: list[Object], slices: list[Object]) -> None:
        if dns is not None:
            dns.zone = build_zone(domain, services, slices)

    return ServiceProxy(client, environment, instance, network.bridge, on_change)


async def remove_local_node(directory: Path, environment: Environment, *, volumes: bool = True) -> None:
    """Remove everything a node of this directory left on the machine: containers, network, sockets.

    For planes that are thrown away; the directory itself is left to whoever owns it, and so are its pods' volumes
    where they are to be found again.
    """
    if not await asyncio.to_thread((directory / "instance").exists):
        return
    instance = instance_id(directory, environment)
    runtime = await _open_for_removal(directory, instance, environment)
    try:
        await _remove(runtime, instance)
    finally:
        await end_watchdog(sockets_root() / instance)
        await runtime.close()
        await asyncio.to_thread(remove_tree, sockets_root() / instance)
    if volumes:
        await asyncio.to_thread(remove_pod_directories, directory / "volumes")


async def _open_cri(socket: str, directory: Path, instance: str, environment: Environment) -> CriRuntime:
    from fleetplane.node.cri import CriRuntime, find_socket  # noqa: PLC0415 - most nodes need none of it

    return await CriRuntime.open(socket or find_socket(), directory, instance, environment)


def _note_owner(directory: Path, sockets: Path, socket: str) -> None:
    """For whoever removes this node one day, or finds that its directory is gone."""
    sockets.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_private(sockets / OWNER, str(directory.absolute()).encode())
    for place in (directory, sockets):
        if socket:
            write_private(place / RUNTIME, socket.encode())
        else:
            (place / RUNTIME).unlink(missing_ok=True)


async def _open_for_removal(directory: Path, instance: str, environment: Environment) -> PodmanRuntime | CriRuntime:
    try:
        socket = await asyncio.to_thread((directory / RUNTIME).read_text)
    except OSError:
        return await PodmanRuntime.open(look_at_host(), sockets_root() / instance, HostNetwork(), instance, environment)
    return await _open_cri(socket, directory, instance, environment)


async def _sweep(runtime: PodmanRuntime | CriRuntime, socket: str) -> None:
    """Remove what planes left whose directories are gone: nobody will ever ask for it again."""
    for instance, owner, other in await asyncio.to_thread(_owners, sockets_root()):
        if instance == runtime.instance or other != socket or await asyncio.to_thread((owner / "instance").exists):
            continue
        _log.info("removing what a plane in %s left behind", owner)
        try:
            await _remove(runtime, instance)
        except RuntimeFailure as error:
            _log.warning("what a plane in %s left behind is still there: %s", owner, error.message)
            continue
        if not socket:
            service = PodmanService(look_at_host(), sockets_root() / instance)
            await service.stop()
        await asyncio.to_thread(remove_tree, sockets_root() / instance)


async def _remove(runtime: PodmanRuntime | CriRuntime, instance: str) -> None:
    await remove_plugged(sockets_root() / instance)
    await runtime.remove_instance(instance)
    if not why_no_bridge():
        await BridgeNetwork(instance, ()).remove_all()
        await remove_rules(instance)
        await remove_routes(instance)


def _owners(root: Path) -> list[tuple[str, Path, str]]:
    """Instances, their directories, and the sockets of their CRI runtimes."""
    found = []
    for entry in root.iterdir() if root.is_dir() else ():
        try:
            cri = entry / RUNTIME
            found.append((entry.name, Path((entry / OWNER).read_text()), cri.read_text() if cri.exists() else ""))
        except OSError:
            continue
    return found
