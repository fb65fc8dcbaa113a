"""The ``fleetplane`` command: its options, and how errors leave it.

Errors are one sentence that says what to do, on stderr, with exit code 1 (2 for usage); a traceback only with ``--debug``.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from fleetplane import __version__

app = typer.Typer(
    name="fleetplane",
    help="One control plane for workloads that do not live in one big cluster. It speaks the Kubernetes API.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

DataDir = Annotated[Path | None, typer.Option(help="Where the plane keeps everything.", show_default=".fleetplane")]
Config = Annotated[Path | None, typer.Option(help="A TOML file with settings.")]


class CommandError(Exception):
    """Ends a command with one sentence on stderr and exit code 1."""


@app.command(epilog="Example: fleetplane version --output json")
def version(output: Annotated[str, typer.Option("--output", "-o", help="text or json")] = "text") -> None:
    """Print the version."""
    if output == "json":
        import json

        typer.echo(json.dumps({"version": __version__}))
    else:
        typer.echo(f"fleetplane {__version__}")


@app.command(epilog="Example: fleetplane up --data-dir ./plane --runtime simulated --nodes 3")
def up(
    data_dir: DataDir = None,
    host: Annotated[str | None, typer.Option(help="Address to serve on.", show_default="127.0.0.1")] = None,
    port: Annotated[int | None, typer.Option(help="Port to serve on; 0 picks a free one.", show_default="6443")] = None,
    runtime: Annotated[
        str | None,
        typer.Option(help="What runs pods: auto, podman, simulated or none.", show_default="auto"),
    ] = None,
    nodes: Annotated[int | None, typer.Option(help="How many local nodes.", show_default="1")] = None,
    store: Annotated[
        str | None, typer.Option(help="sqlite, or a postgresql:// address.", show_default="sqlite")
    ] = None,
    operators: Annotated[
        str | None,
        typer.Option(help="Which operators to run: all, none or a comma-separated list.", show_default="all"),
    ] = None,
    config: Config = None,
    debug: Annotated[bool | None, typer.Option("--debug", help="Show tracebacks.")] = None,
) -> None:
    """Run a whole plane in the foreground: API server, controllers, operators and a local node.

    Prints `ready <url> kubeconfig=<path>` when it serves. Stop it with Ctrl-C or SIGTERM.
    """
    from fleetplane.interfaces.cli.running import run_plane

    run_plane(
        {
            "data_dir": data_dir,
            "host": host,
            "port": port,
            "runtime": runtime,
            "nodes": nodes,
            "store": store,
            "operators": operators,
            "debug": debug,
        },
        config,
    )


@app.command(epilog="Example: fleetplane server --data-dir ./plane --port 6443")
def server(
    data_dir: DataDir = None,
    host: Annotated[str | None, typer.Option(help="Address to serve on.", show_default="127.0.0.1")] = None,
    port: Annotated[int | None, typer.Option(help="Port to serve on; 0 picks a free one.", show_default="6443")] = None,
    store: Annotated[
        str | None, typer.Option(help="sqlite, or a postgresql:// address.", show_default="sqlite")
    ] = None,
    config: Config = None,
    debug: Annotated[bool | None, typer.Option("--debug", help="Show tracebacks.")] = None,
) -> None:
    """Run the API server with the built-in controllers, without nodes or operators."""
    from fleetplane.interfaces.cli.running import run_plane

    run_plane(
        {
            "data_dir": data_dir,
            "host": host,
            "port": port,
            "runtime": "none",
            "nodes": 0,
            "store": store,
            "operators": "none",
            "debug": debug,
        },
        config,
    )


@app.command(epilog="Example: fleetplane demo --keep")
def demo(
    runtime: Annotated[str, typer.Option(help="What runs pods: auto, podman or simulated.")] = "auto",
    keep: Annotated[bool, typer.Option("--keep", help="Leave the plane running at the end.")] = False,
    data_dir: Annotated[
        Path | None, typer.Option(help="Where the plane lives.", show_default="a new temporary folder")
    ] = None,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
) -> None:
    """Take a tour on a throw-away plane: progress on screen, a summary at the end, non-zero on any failure."""
    from fleetplane.interfaces.cli.demo import run_demo

    run_demo(runtime, keep, data_dir)


def main() -> None:
    """The entry point of the ``fleetplane`` script."""
    debug = "--debug" in sys.argv or os.environ.get("FLEETPLANE_DEBUG", "") in ("1", "true")
    try:
        app()
    except CommandError as error:
        if debug:
            raise
        typer.echo(f"fleetplane: {error}", err=True)
        raise SystemExit(1) from None
