"""All checks, in the order a person mends things: the program, the machine, the plane's files, the server."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from fleetplane.client.kubeconfig import ConfigError, load
from fleetplane.interfaces.cli.command import Connection
from fleetplane.interfaces.cli.connection import listens
from fleetplane.interfaces.cli.doctor.files import check_files
from fleetplane.interfaces.cli.doctor.installation import check_installation
from fleetplane.interfaces.cli.doctor.machine import check_machine, check_port
from fleetplane.interfaces.cli.doctor.server import check_server, listens_for
from fleetplane.model.environment import Environment
from fleetplane.node.check import Finding, as_text
from fleetplane.settings import Settings


async def examine(settings: Settings, connection: Connection, environment: Environment) -> list[Finding]:
    findings = list(check_installation())
    findings += [one async for one in check_machine(settings, environment)]
    findings.append(check_port(settings, ours=await asyncio.to_thread(_serves, settings)))
    findings += await asyncio.to_thread(lambda: list(check_files(settings.data_dir, environment)))
    findings += [one async for one in check_server(connection, environment)]
    return findings


def _serves(settings: Settings) -> bool:
    """Whether the plane of this folder is the one that listens on the port."""
    path: Path = settings.data_dir / "admin.kubeconfig"
    try:
        server = load([path]).access().server
    except (ConfigError, OSError):
        return False
    return listens_for(server, settings.host, settings.port) and listens(server)


def report(findings: Sequence[Finding], output: str) -> str:
    """For a person or for a program."""
    wrong = [one for one in findings if one.verdict == "missing"]
    if output == "json":
        return json.dumps({"ok": not wrong, "findings": [asdict(one) for one in findings]}, indent=2)
    if wrong:
        end = f"{len(wrong)} of {len(findings)} things must be mended: {', '.join(one.subject for one in wrong)}."
    else:
        less = [one.subject for one in findings if one.verdict == "limited"]
        end = "Everything works." if not less else f"A plane can run here; limited: {', '.join(less)}."
    return f"{as_text(findings)}\n\n{end}"
