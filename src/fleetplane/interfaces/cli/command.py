"""What every command shares: its help with examples, the options that say which server, and how it is run.

    @client_command(examples=("fleetplane get pods",))
    @click.argument("what", nargs=-1)
    async def get(session: Session, what: tuple[str, ...]) -> None:
        \"\"\"Show one or many objects.\"\"\"

Every option of such a command also comes from the environment: ``FLEETPLANE_GET_OUTPUT``; those that say which server
have one name for all commands (``FLEETPLANE_CONTEXT``), and ``[get]`` of the file in ``FLEETPLANE_CLI_CONFIG`` (or
``fleetplane/cli.toml`` below ``XDG_CONFIG_HOME``) holds defaults. Nothing here imports a client: help must be quick.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import click

from fleetplane.interfaces.cli import completion
from fleetplane.interfaces.cli.errors import CommandError


@dataclass(frozen=True, slots=True)
class Connection:
    """Which server, as whom and where in it, as far as the command line says."""

    kubeconfig: Path | None = None
    context: str | None = None
    namespace: str | None = None
    cluster: str | None = None
    debug: bool = False


class Command(click.Command):
    """A command whose help ends with examples. ``defaults_of`` names its table in the file of defaults."""

    def __init__(self, *args: Any, examples: Sequence[str] = (), defaults_of: str = "", **more: Any) -> None:
        super().__init__(*args, **more)
        self.examples = tuple(examples)
        self.defaults_of = defaults_of

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        if self.defaults_of:
            extra.setdefault("default_map", defaults(self.defaults_of))
        return super().make_context(info_name, args, parent, **extra)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        super().format_epilog(ctx, formatter)
        if self.examples:
            with formatter.section("Examples"):
                for example in self.examples:
                    formatter.write(" " * formatter.current_indent + example + "\n")


def debug_option() -> click.Option:
    return click.Option(["--debug"], is_flag=True, help="Show tracebacks.")


def connection_options() -> list[click.Option]:
    return [
        click.Option(
            ["-n", "--namespace"],
            envvar="FLEETPLANE_NAMESPACE",
            shell_complete=completion.namespaces,
            help="Namespace to work in; the context's by default.",
        ),
        click.Option(
            ["--kubeconfig"],
            type=click.Path(path_type=Path),
            envvar="FLEETPLANE_KUBECONFIG",
            help="File that says which server; by default KUBECONFIG, the plane running here, then ~/.kube/config.",
        ),
        click.Option(
            ["--context"],
            envvar="FLEETPLANE_CONTEXT",
            shell_complete=completion.contexts,
            help="Context of the kubeconfig.",
        ),
        click.Option(
            ["--cluster"], envvar="FLEETPLANE_CLUSTER", help="Logical cluster of a Fleetplane server; '*' lists all."
        ),
        debug_option(),
    ]


_CONNECTION_NAMES: Final = ("kubeconfig", "context", "namespace", "cluster", "debug")


class Group(click.Group):
    """A command that has commands: ``rollout status``."""

    def __init__(self, name: str, help: str, commands: Sequence[Command]) -> None:
        super().__init__(
            name,
            help=help,
            commands={str(one.name): one for one in commands},
            no_args_is_help=True,
            invoke_without_command=False,
        )


def client_command(
    *, examples: Sequence[str], name: str = "", group: str = ""
) -> Callable[[Callable[..., Coroutine[Any, Any, None]]], Command]:
    """A command that talks to a server: the coroutine is given a ``Session`` and the command's own options."""

    def decorate(function: Callable[..., Coroutine[Any, Any, None]]) -> Command:
        @functools.wraps(function)
        def call(**given: Any) -> None:
            from fleetplane.interfaces.cli.connection import run_session

            before = click.get_current_context().find_root().params
            both: dict[str, Any] = {key: given.pop(key) or before.get(key) for key in _CONNECTION_NAMES}
            connection = Connection(**both)
            run_session(connection, lambda session: function(session, **given))

        return _command(function, call, connection_options(), examples, name, group)

    return decorate


def plain_command(
    *, examples: Sequence[str], name: str = "", group: str = ""
) -> Callable[[Callable[..., None]], Command]:
    """A command that talks to no server."""

    def decorate(function: Callable[..., None]) -> Command:
        @functools.wraps(function)
        def call(debug: bool, **given: Any) -> None:
            function(**given)

        return _command(function, call, [debug_option()], examples, name, group)

    return decorate


def _command(
    function: Callable[..., Any],
    call: Callable[..., None],
    shared: Sequence[click.Parameter],
    examples: Sequence[str],
    name: str,
    group: str,
) -> Command:
    own: list[click.Parameter] = list(reversed(getattr(function, "__click_params__", [])))
    named = name or function.__name__.replace("_", "-")
    path = f"{group} {named}".strip()
    return Command(
        named,
        callback=call,
        params=[*own, *shared],
        help=function.__doc__,
        examples=examples,
        defaults_of=path,
        context_settings={"auto_envvar_prefix": f"FLEETPLANE_{path.upper().replace('-', '_').replace(' ', '_')}"},
    )


def defaults(command: str) -> Mapping[str, Any]:
    """What the file of defaults says about a command, such as ``get`` or ``rollout status``.

    Raises:
        CommandError: the file cannot be read.
    """
    named = os.environ.get("FLEETPLANE_CLI_CONFIG")
    base = os.environ.get("XDG_CONFIG_HOME") or str(Path("~/.config").expanduser())
    path = Path(named) if named else Path(base) / "fleetplane" / "cli.toml"
    if not named and not path.is_file():
        return {}
    import tomllib

    try:
        found: Any = tomllib.loads(path.read_text())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise CommandError(f"the file of defaults {path} cannot be read: {error}") from None
    for part in command.split():
        found = found.get(part, {}) if isinstance(found, dict) else found
    if not isinstance(found, dict):
        raise CommandError(f"[{command}] of the file of defaults {path} is not a table")
    return {key.replace("-", "_"): value for key, value in found.items()}


# --- Options that several commands have ---------------------------------------------------------------------------


def output_option(default: str = "", formats: str = "json, yaml or name") -> Callable[[Any], Any]:
    return click.option("-o", "--output", default=default, metavar="FORMAT", help=f"How to print: {formats}.")


def selector_option() -> Callable[[Any], Any]:
    return click.option("-l", "--selector", default="", help="Only objects with these labels: app=web,tier!=cache.")


def field_selector_option() -> Callable[[Any], Any]:
    return click.option("--field-selector", default="", help="Only objects with these fields: status.phase=Running.")


def all_namespaces_option() -> Callable[[Any], Any]:
    return click.option("-A", "--all-namespaces", is_flag=True, help="In every namespace.")


def files_options(help_text: str) -> Callable[[Any], Any]:
    def decorate(function: Any) -> Any:
        function = click.option("-R", "--recursive", is_flag=True, help="Also the folders below a folder.")(function)
        return click.option("-f", "--filename", "filenames", multiple=True, help=help_text)(function)

    return decorate


def timeout_option(default: str) -> Callable[[Any], Any]:
    return click.option("--timeout", default=default, show_default=True, help="How long to wait: 30s, 5m, 0 for ever.")


def targets_argument(required: bool = False) -> Callable[[Any], Any]:
    return click.argument(
        "what", nargs=-1, required=required, metavar="KIND [NAME]...", shell_complete=completion.targets
    )
