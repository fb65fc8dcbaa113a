"""What of a node works on this machine and what is missing, in plain words: ``fleetplane node check``.

Looking changes nothing, except for one container that is made and removed where Podman and a local image allow it: the
only sure answer to whether containers run is to run one.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from fleetplane.model.environment import Environment, SystemEnvironment
from fleetplane.node.cri import CriRuntime, find_socket
from fleetplane.node.freezer import why_not
from fleetplane.node.machine import pressures
from fleetplane.node.network import PATH, why_no_bridge
from fleetplane.node.podman.host import HostFacts, look_at_host
from fleetplane.node.processes import CommandFailure, run_command
from fleetplane.node.runtime import RuntimeFailure

Verdict = Literal["works", "limited", "missing"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at. ``advice`` says what to do about it; empty where nothing is needed."""

    subject: str
    verdict: Verdict
    words: str
    advice: str = ""


async def check_node(
    data_dir: Path, environment: Environment, *, run_container: bool = True, cri_socket: str = ""
) -> list[Finding]:
    """Everything a node needs, most important first. Never raises for what it finds.

    ``cri_socket`` is where a CRI runtime is looked for besides the usual places.
    """
    host = look_at_host()
    findings = [
        await check_podman(host),
        check_cgroups(host),
        check_limits(host),
        check_freezing(host),
        check_network(),
        check_disk(data_dir),
    ]
    if run_container and host.podman:
        findings.insert(1, await check_container(host, environment))
    if socket := cri_socket or find_socket():
        findings.append(await check_cri(socket))
    findings.append(check_memory(data_dir))
    return findings


async def check_podman(host: HostFacts) -> Finding:
    if not host.podman:
        return Finding(
            "Podman",
            "missing",
            "Podman is not installed: real containers cannot run here.",
            "Install the package podman, or use --runtime simulated.",
        )
    try:
        version = (await run_command([host.podman, "--version"])).decode().strip()
    except CommandFailure as error:
        return Finding(
            "Podman", "missing", f"Podman is installed but does not run: {error}.", "Repair or reinstall it."
        )
    number = version.rpartition(" ")[2]
    if number.partition(".")[0].isdecimal() and int(number.partition(".")[0]) < 4:
        return Finding(
            "Podman", "limited", f"Podman {number} is older than what we test with.", "Install 4.3 or newer."
        )
    rights = "as root" if host.root else "rootless"
    return Finding("Podman", "works", f"Podman {number} is installed, used {rights}.")


async def check_cri(socket: str) -> Finding:
    """Looking makes nothing: the runtime is asked for its version and what it lacks."""
    with tempfile.TemporaryDirectory() as directory:
        try:
            runtime = await CriRuntime.open(socket, Path(directory), "check", SystemEnvironment())
        except RuntimeFailure as error:
            return Finding(
                "CRI runtime", "limited", f"It cannot be used: {error.message}.", "Only --runtime cri needs it."
            )
        try:
            info = await runtime.info()
            image = await runtime.missing_sandbox_image()
        finally:
            await runtime.close()
    found = f"{info.name} {info.version} listens at {socket}"
    if image:
        advice = f"Pull or import {image} (ctr --namespace k8s.io images import …); every pod needs it."
        return Finding("CRI runtime", "limited", f"{found}, without the image its pods begin with.", advice)
    if info.notes:
        advice = "Configure a CNI network to give pods one of their own."
        return Finding("CRI runtime", "limited", f"{found}; {info.notes[0]}.", advice)
    return Finding("CRI runtime", "works", f"{found}; use it with --runtime cri.")


def check_cgroups(host: HostFacts) -> Finding:
    match host.cgroups:
        case "none":
            return Finding(
                "Resource limits", "limited", "No cgroups are mounted: CPU and memory limits are not enforced.",
                "Mount the cgroup file system (systemd does it by itself).",
            )  # fmt: skip
        case "hybrid" if host.oci_runtime != "runc":
            return Finding(
                "Resource limits",
                "missing",
                "This machine mixes cgroup versions, which crun refuses.",
                "Install runc, or boot with systemd.unified_cgroup_hierarchy=1.",
            )
    if host.why_no_limits:
        return Finding(
            "Resource limits",
            "limited",
            "Without root, cgroup v1 lets nobody set limits: CPU and memory limits are not enforced.",
            "Run as root, or switch the machine to cgroup v2.",
        )
    if host.cgroups == "hybrid":
        words = "This machine mixes cgroup versions; containers run with runc instead of crun."
        return Finding("Resource limits", "works", words)
    return Finding("Resource limits", "works", f"CPU and memory limits are enforced through cgroup {host.cgroups}.")


def check_limits(host: HostFacts) -> Finding:
    if host.may_raise_limits:
        return Finding("Process limits", "works", "Containers may have any limit of open files and processes.")
    shown = ", ".join(f"{name} {value}" for name, value in sorted(host.rlimits.items()))
    return Finding(
        "Process limits",
        "limited",
        f"This process may not raise limits, so containers get at most the machine's own: {shown}.",
        "Grant CAP_SYS_RESOURCE if containers need more.",
    )


def check_freezing(host: HostFacts) -> Finding:
    if reason := why_not(root_user=host.root):
        return Finding(
            "Standbys",
            "limited",
            f"Pods cannot be frozen, so no standby runs here: {reason}.",
            "Run as root, or switch the machine to cgroup v2.",
        )
    return Finding("Standbys", "works", "Pods can be frozen, as standbys have to be.")


def check_network() -> Finding:
    reason = why_no_bridge()
    if reason:
        return Finding("Pod network", "limited", reason[0].upper() + reason[1:] + ".")
    if not Path("/sys/module/bridge").exists() and not shutil.which("modprobe", path=PATH):
        return Finding(
            "Pod network",
            "limited",
            "The kernel's bridge module is not loaded and cannot be.",
            "Load the modules bridge, veth and nf_tables.",
        )
    return Finding("Pod network", "works", "Pods get a network and addresses of their own.")


def check_disk(data_dir: Path) -> Finding:
    place = data_dir
    while not place.exists() and place != place.parent:
        place = place.parent
    if not os.access(place, os.W_OK):
        return Finding("Disk", "missing", f"{place} cannot be written.", "Choose another place with --data-dir.")
    short = [one.message for one in pressures(place) if one.condition == "DiskPressure"]
    if short:
        words = f"The disk of {place} is nearly full; the node would report DiskPressure and evict pods."
        return Finding("Disk", "limited", words, "Free some space.")
    return Finding("Disk", "works", f"{place} has room.")


def check_memory(data_dir: Path) -> Finding:
    short = [one.message for one in pressures(data_dir) if one.condition == "MemoryPressure"]
    if short:
        return Finding("Memory", "limited", short[0], "Free some memory; pods would be evicted.")
    return Finding("Memory", "works", "There is memory to spare.")


async def check_container(host: HostFacts, environment: Environment) -> Finding:
    """Run one container of a local image and see what happens."""
    try:
        listed = json.loads(await run_command([host.podman, "images", "--format", "json"]) or b"[]")
    except (CommandFailure, ValueError) as error:
        return Finding("Containers", "missing", f"Podman cannot list its images: {error}.", "See podman info.")
    names = [name for image in listed for name in image.get("Names") or []]
    if not names:
        return Finding(
            "Containers",
            "limited",
            "There is no local image to try a container with.",
            "Pull any image with podman pull, and check again.",
        )
    try:
        await asyncio.wait_for(_try_container(host, names[0], f"fleetplane-check-{environment.uuid()[:8]}"), 60)
    except (CommandFailure, TimeoutError) as error:
        return Finding(
            "Containers", "missing", f"A container of {names[0]} does not start: {error}", _advice(str(error))
        )
    return Finding("Containers", "works", f"A container was made and removed ({names[0]}).")


async def _try_container(host: HostFacts, image: str, name: str) -> None:
    limits: Sequence[str] = ()
    if not host.may_raise_limits:
        limits = [word for key, value in host.rlimits.items() for word in ("--ulimit", f"{key}={value}:{value}")]
    words = [host.podman, *host.flags, "create", "--name", name, "--network=none", *limits, image, "/fleetplane-check"]
    await run_command(words)
    try:
        await run_command([host.podman, *host.flags, "init", name])
    except CommandFailure as error:
        # The program does not exist: when the runtime says so, everything up to it has worked.
        if "fleetplane-check" not in str(error) and "no such file" not in str(error).lower():
            raise
    finally:
        await run_command([host.podman, *host.flags, "rm", "--force", "--time=0", name])


def _advice(error: str) -> str:
    if "rlimit" in error:
        return "The machine's limits are lower than Podman's defaults; run as a user with CAP_SYS_RESOURCE."
    if "hybrid" in error or "cgroup" in error:
        return "Install runc, or boot with systemd.unified_cgroup_hierarchy=1."
    if "netavark" in error or "iptables" in error:
        return "Install netavark and iptables."
    return "Try the same with podman run to see more."


def as_text(findings: Sequence[Finding]) -> str:
    """The findings for a terminal or a pipe."""
    marks = {"works": "ok     ", "limited": "limited", "missing": "missing"}
    lines = []
    for finding in findings:
        lines.append(f"{marks[finding.verdict]}  {finding.subject}: {finding.words}")
        if finding.advice:
            lines.append(f"         {finding.advice}")
    return "\n".join(lines)
