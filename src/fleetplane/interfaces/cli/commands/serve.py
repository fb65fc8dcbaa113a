"""The commands that serve: ``up``, ``server`` and the ``demo``.

Their options are settings of a plane, which come from the environment and a file, too; what is not given here must
therefore stay ``None``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from fleetplane.interfaces.cli.command import Command, debug_option, plain_command
from fleetplane.interfaces.cli.errors import UsageError


def _setting(name: str, help_text: str, **more: Any) -> click.Option:
    return click.Option([name], help=help_text, **more)


def _shared() -> list[click.Parameter]:
    return [
        _setting(
            "--data-dir", "Where the plane keeps everything [default: .fleetplane].", type=click.Path(path_type=Path)
        ),
        _setting("--host", "Address to serve on [default: 127.0.0.1]."),
        _setting("--port", "Port to serve on; 0 picks a free one [default: 6443].", type=int),
        _setting("--store", "sqlite, or a postgresql:// address [default: sqlite]."),
        _setting("--config", "A TOML file with settings.", type=click.Path(path_type=Path)),
        debug_option(),
    ]


def _run(config: Path | None, debug: bool, **given: Any) -> None:
    from fleetplane.interfaces.cli.running import run_plane

    run_plane(given | {"debug": debug or None}, config)


def _run_server(**given: Any) -> None:
    _run(runtime="none", nodes=0, operators="none", **given)


up = Command(
    "up",
    callback=_run,
    params=[
        *_shared(),
        _setting("--runtime", "What runs pods: auto, podman, cri, simulated or none [default: auto]."),
        _setting("--cri-socket", "Where containerd listens, for --runtime cri [default: one of the usual places]."),
        _setting("--nodes", "How many local nodes [default: 1].", type=int),
        _setting("--operators", "Which operators to run: all, none or a comma-separated list [default: all]."),
    ],
    help="""Run a whole plane in the foreground: API server, controllers, operators and a local node.

    Prints `ready <url> kubeconfig=<path>` when it serves. Stop it with Ctrl-C or SIGTERM.
    """,
    examples=("fleetplane up", "fleetplane up --data-dir ./plane --runtime simulated --nodes 3"),
)

server = Command(
    "server",
    callback=_run_server,
    params=_shared(),
    help="Run the API server with the built-in controllers, without nodes or operators.",
    examples=("fleetplane server --data-dir ./plane --port 6443",),
)


@plain_command(
    examples=(
        "fleetplane demo",
        "fleetplane demo --keep",
        "fleetplane demo --stop",
        "fleetplane demo --runtime simulated --output json",
    )
)
@click.option("--runtime", default="auto", show_default=True, help="What runs pods: auto, podman or simulated.")
@click.option("--keep", is_flag=True, help="Leave the plane running at the end, in .fleetplane-demo.")
@click.option("--stop", is_flag=True, help="Remove a demo that was kept, with everything it started.")
@click.option("--data-dir", type=click.Path(path_type=Path), help="Folder to use instead.")
@click.option(
    "-o", "--output", type=click.Choice(["text", "json"]), default="text", show_default=True, help="How to print."
)
def demo(runtime: str, keep: bool, stop: bool, data_dir: Path | None, output: str) -> None:
    """Take a tour on a throw-away plane.

    Progress on screen; at the end what was real, what was simulated, and how long each step took. Non-zero on any failure.
    """
    from fleetplane.interfaces.cli.demonstration.tour import run_demo, stop_demo

    if runtime not in {"auto", "podman", "simulated"}:
        raise UsageError(f"--runtime must be auto, podman or simulated, not {runtime!r}")
    if stop:
        stop_demo(data_dir)
        return
    run_demo(runtime, keep, data_dir, output)
