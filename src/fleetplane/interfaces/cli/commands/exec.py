"""``fleetplane exec``: a program in a container, with our input, output and terminal."""

from __future__ import annotations

import click

from fleetplane.interfaces.cli import completion
from fleetplane.interfaces.cli.command import client_command
from fleetplane.interfaces.cli.connection import Session
from fleetplane.interfaces.cli.errors import ExitWith, UsageError
from fleetplane.interfaces.cli.podselect import container_of, pods_of


@client_command(
    name="exec",
    examples=(
        "fleetplane exec web -- ls /",
        "fleetplane exec -it deploy/web -- sh",
        "fleetplane exec web -c sidecar -- cat /etc/hosts",
        "tar c data | fleetplane exec -i web -- tar x -C /srv",
    ),
)
@click.argument("pod", metavar="POD | KIND/NAME", shell_complete=completion.pods)
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED, metavar="-- COMMAND [ARGUMENT]...")
@click.option("-c", "--container", default="", help="Which container of the pod.")
@click.option("-i", "--stdin", "stdin", is_flag=True, help="Give it our standard input.")
@click.option("-t", "--tty", is_flag=True, help="Give it a terminal; with -i for interactive programs.")
@click.option("-q", "--quiet", is_flag=True, help="Print only what the program prints.")
async def exec_(
    session: Session, pod: str, command: tuple[str, ...], container: str, stdin: bool, tty: bool, quiet: bool
) -> None:
    """Run a program in a container.

    Ends with the program's own exit code.
    """
    from fleetplane.interfaces.cli.execution import execute
    from fleetplane.model.objects import name

    found = (await pods_of(session, [pod]))[0]
    if (found.get("status") or {}).get("phase") in {"Succeeded", "Failed"}:
        raise UsageError(f"pod {name(found)} has ended, so nothing can run in it")
    chosen = container_of(found, container)
    if not quiet and not container and len((found.get("spec") or {}).get("containers") or []) > 1:
        session.out.warn(f"Using container {chosen}; another one with -c.")
    code = await execute(session, found, chosen, command, stdin=stdin, tty=tty)
    if code:
        raise ExitWith(code)
