"""``fleetplane config``: which servers the kubeconfig knows, and which one is meant when nothing else is said."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from fleetplane.interfaces.cli import completion
from fleetplane.interfaces.cli.command import Connection, Group, plain_command
from fleetplane.interfaces.cli.errors import CommandError
from fleetplane.interfaces.cli.output import parse_format, print_document
from fleetplane.interfaces.cli.terminal import Terminal

_SECRET_KEYS = frozenset(
    {"client-key-data", "token", "password", "client-certificate-data", "certificate-authority-data"}
)
_CURRENT = re.compile(rb"^current-context:.*$", re.MULTILINE)


def _kubeconfig_option() -> Callable[[Any], Any]:
    return click.option(
        "--kubeconfig",
        type=click.Path(path_type=Path),
        envvar="FLEETPLANE_KUBECONFIG",
        help="The file; by default KUBECONFIG, the plane running here, then ~/.kube/config.",
    )


@plain_command(group="config", examples=("fleetplane config view", "fleetplane config view --raw -o json"))
@_kubeconfig_option()
@click.option("--raw", is_flag=True, help="Also certificates, keys and tokens.")
@click.option("-o", "--output", default="yaml", show_default=True, metavar="FORMAT", help="How to print: yaml or json.")
def view(kubeconfig: Path | None, raw: bool, output: str) -> None:
    """Show the kubeconfig, without its secrets."""
    form = parse_format(output)
    found = _merged(kubeconfig)
    print_document(Terminal(), form, found if raw else _redacted(found))


@plain_command(group="config", examples=("fleetplane config current-context",))
@_kubeconfig_option()
@click.option("-o", "--output", default="", metavar="FORMAT", help="How to print: json or yaml.")
def current_context(kubeconfig: Path | None, output: str) -> None:
    """Print which context is meant when none is named."""
    current = _merged(kubeconfig)["current-context"]
    if not current:
        raise CommandError("no context is chosen; choose one with 'fleetplane config use-context NAME'")
    form = parse_format(output)
    if form.is_text:
        click.echo(current)
    else:
        print_document(Terminal(), form, {"currentContext": current})


@plain_command(group="config", examples=("fleetplane config get-contexts", "fleetplane config get-contexts -o name"))
@_kubeconfig_option()
@click.option("-o", "--output", default="", metavar="FORMAT", help="How to print: name, json or yaml.")
def get_contexts(kubeconfig: Path | None, output: str) -> None:
    """List the contexts."""
    from fleetplane.interfaces.cli.tables import print_rows

    form = parse_format(output)
    found = _merged(kubeconfig)
    terminal = Terminal()
    if form.kind == "name":
        for one in found["contexts"]:
            terminal.line(one["name"])
        return
    if not form.is_text:
        print_document(terminal, form, found["contexts"])
        return
    rows = []
    for one in found["contexts"]:
        context = one["context"]
        mark = "*" if one["name"] == found["current-context"] else ""
        rows.append(
            [
                mark,
                one["name"],
                str(context.get("cluster") or ""),
                str(context.get("user") or ""),
                str(context.get("namespace") or ""),
            ]
        )
    print_rows(terminal, [["CURRENT", "NAME", "CLUSTER", "USER", "NAMESPACE"], *rows])


@plain_command(group="config", examples=("fleetplane config use-context production",))
@click.argument("name", shell_complete=completion.contexts)
@_kubeconfig_option()
def use_context(name: str, kubeconfig: Path | None) -> None:
    """Choose which context is meant when none is named."""
    known = [one["name"] for one in _merged(kubeconfig)["contexts"]]
    if name not in known:
        raise CommandError(f"the kubeconfig has no context {name!r}; it has: {', '.join(known) or 'none'}")
    path = _paths(kubeconfig)[0]
    try:
        _rewrite(path, name)
    except OSError as error:
        raise CommandError(f"cannot write {path}: {error.strerror}") from None
    click.echo(f"Switched to context {name}.")


def _paths(kubeconfig: Path | None) -> list[Path]:
    """The files a session would read, the first being the one that is written."""
    from fleetplane.client.kubeconfig import default_paths
    from fleetplane.interfaces.cli.connection import find

    if kubeconfig is not None:
        return [kubeconfig.expanduser()]
    if not os.environ.get("KUBECONFIG"):
        origin = Path(find(Connection()).origin)
        return [origin]
    named = default_paths(os.environ)
    return [path for path in named if path.is_file()] or named


def _merged(kubeconfig: Path | None) -> dict[str, Any]:
    from fleetplane.client.kubeconfig import ConfigError, load

    try:
        found = load(_paths(kubeconfig))
    except ConfigError as error:
        raise CommandError(str(error)) from None
    merged: dict[str, Any] = {"apiVersion": "v1", "kind": "Config", "current-context": found.current_context}
    for plural, singular, entries in (
        ("clusters", "cluster", found.clusters),
        ("contexts", "context", found.contexts),
        ("users", "user", found.users),
    ):
        merged[plural] = [{"name": name, singular: dict(entry.data)} for name, entry in entries.items()]
    return merged


def _redacted(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: "REDACTED" if key in _SECRET_KEYS and one else _redacted(one) for key, one in value.items()}
    return [_redacted(one) for one in value] if isinstance(value, list) else value


def _rewrite(path: Path, context: str) -> None:
    """Change one line and nothing else, so that comments survive; the file is whole at every moment."""
    import json

    text = path.read_bytes()
    line = f"current-context: {json.dumps(context)}".encode()
    if text.lstrip().startswith(b"{"):
        document = json.loads(text)
        new = json.dumps({**document, "current-context": context}, indent=2).encode() + b"\n"
    elif _CURRENT.search(text):
        new = _CURRENT.sub(lambda _: line, text, count=1)
    else:
        new = text.rstrip(b"\n") + b"\n" + line + b"\n"
    real = path.resolve()
    descriptor, temporary = tempfile.mkstemp(dir=real.parent, prefix=".kubeconfig-")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(new)
        Path(temporary).chmod(real.stat().st_mode & 0o777)
        Path(temporary).replace(real)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


config = Group(
    "config", "Look at the kubeconfig and choose a context.", [view, current_context, get_contexts, use_context]
)
