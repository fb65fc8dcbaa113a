"""The ``fleetplane`` command: which commands there are, and how errors leave it.

Commands are listed here by name and module, and imported when they are called: starting is most of what a short command
costs, and shells call us to complete words. A command's module holds its options and its help.

Errors are one sentence that says what to do, on stderr, with exit code 1 (2 for usage, and of diff);
a traceback only with ``--debug``.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Mapping
from typing import Final, NamedTuple

import click
from click.shell_completion import CompletionItem

from fleetplane.interfaces.cli.command import connection_options
from fleetplane.interfaces.cli.errors import CommandError, ExitWith, UsageError

__all__ = ["CommandError", "app", "main"]

_COMPLETE: Final = "_FLEETPLANE_COMPLETE"
"""What a shell sets to ask for words; click reads it."""

_COMMANDS_PACKAGE: Final = "fleetplane.interfaces.cli.commands"


class Entry(NamedTuple):
    """Where a command is: ``module`` in the package of commands, ``summary`` for the list of commands."""

    module: str
    summary: str


SECTIONS: Final[Mapping[str, Mapping[str, Entry]]] = {
    "Run a plane": {
        "up": Entry(
            "serve", "Run a whole plane in the foreground: API server, controllers, operators and a local node."
        ),
        "server": Entry("serve", "Run the API server with the built-in controllers, without nodes or operators."),
        "node": Entry("join", "Run this machine as a node of a plane elsewhere, or check what works on it."),
        "token": Entry("join", "Make a token with which another machine can join."),
        "operators": Entry("operate", "Run operators in the foreground against any Kubernetes."),
        "manifests": Entry("operate", "Print what operators need to run on a Kubernetes."),
        "ip-manager": Entry("ip_manager", "Serve the IP manager's old REST calls on an address pool."),
        "reset": Entry("reset", "Remove a plane or a node from this machine: containers, networks, all its data."),
        "demo": Entry("serve", "Take a tour on a throw-away plane."),
    },
    "Look": {
        "get": Entry("get", "Show one or many objects."),
        "describe": Entry("describe", "Show everything about an object: fields, conditions, events."),
        "why": Entry("why", "Tell what keeps an object from being ready."),
        "events": Entry("events", "Show what happened, oldest first."),
        "logs": Entry("logs", "Print what a container wrote."),
        "exec": Entry("exec", "Run a program in a container."),
        "top": Entry("top", "Show what nodes and pods use."),
        "history": Entry("history", "Show the revisions of an object, and who changed which fields."),
        "diff": Entry("history", "Show what would change, or what has changed since a revision."),
        "explain": Entry("explain", "Tell what a kind and its fields mean."),
        "api-resources": Entry("api_resources", "List the kinds of objects the server has."),
    },
    "Change": {
        "apply": Entry("apply", "Make the server's objects what files say."),
        "delete": Entry("delete", "Delete objects by name, selector or file."),
        "wait": Entry("wait", "Wait until objects are ready, changed or gone."),
        "label": Entry("label", "Set or remove labels."),
        "annotate": Entry("label", "Set or remove annotations."),
        "scale": Entry("scale", "Set how many replicas of an object there should be."),
        "rollout": Entry("rollout", "Follow, stop or take back a change."),
        "rollback": Entry(
            "history", "Make an earlier revision the wanted state again; what was deleted is made again."
        ),
        "cordon": Entry("nodes", "Let no new pods come to a node."),
        "uncordon": Entry("nodes", "Let new pods come to a node again."),
        "drain": Entry("nodes", "Cordon a node and move its pods away, as fast as their disruption budgets allow."),
    },
    "Virtual clusters": {
        "vcluster": Entry("vcluster", "Make, use and end virtual clusters."),
    },
    "Vehicles": {
        "vehicles": Entry("vehicles", "Render and package vehicle applications."),
    },
    "This program": {
        "doctor": Entry("doctor", "Check this machine, this installation and the plane here."),
        "config": Entry("config", "Look at the kubeconfig and choose a context."),
        "completion": Entry("completion", "Print a script that completes words in a shell."),
        "version": Entry("version", "Print the version."),
    },
}

COMMANDS: Final[Mapping[str, Entry]] = {name: entry for section in SECTIONS.values() for name, entry in section.items()}


class LazyGroup(click.Group):
    """The root: knows every command's name and summary, and imports a command when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        entry = COMMANDS.get(cmd_name)
        if entry is None:
            return None
        module = importlib.import_module(f"{_COMMANDS_PACKAGE}.{entry.module}")
        command = getattr(module, "exec_" if cmd_name == "exec" else cmd_name.replace("-", "_"))
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and not args[0].startswith("-") and args[0] not in COMMANDS:
            from difflib import get_close_matches

            near = get_close_matches(args[0], COMMANDS, n=1)
            hint = f"did you mean {near[0]!r}?" if near else "see 'fleetplane --help'"
            raise click.UsageError(f"there is no command {args[0]!r}; {hint}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for title, commands in SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl([(name, entry.summary) for name, entry in commands.items()])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        return [
            CompletionItem(name, help=entry.summary) for name, entry in COMMANDS.items() if name.startswith(incomplete)
        ]


def _print_version(ctx: click.Context, parameter: click.Parameter, value: bool) -> None:
    if value:
        from fleetplane import __version__

        click.echo(f"fleetplane {__version__}")
        ctx.exit()


def _hidden(option: click.Option) -> click.Option:
    option.hidden = True
    return option


app = LazyGroup(
    name="fleetplane",
    help="One control plane for workloads that do not live in one big cluster. It speaks the Kubernetes API.",
    epilog="Start with 'fleetplane demo', or 'fleetplane up' and 'fleetplane get nodes' in a second terminal.",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    params=[
        click.Option(
            ["--version"],
            is_flag=True,
            expose_value=False,
            is_eager=True,
            callback=_print_version,
            help="Print the version.",
        )
    ],
    no_args_is_help=True,
)
# As with kubectl, what says which server may also stand before the command. Listed with each command, once is enough.
app.params += [_hidden(option) for option in connection_options()]


def main() -> None:
    """The entry point of the ``fleetplane`` script."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """One command line, to its exit code."""
    failed = 2 if arguments[:1] == ["diff"] else 1  # of diff 1 is an answer, as of diff(1)
    try:
        if _COMPLETE in os.environ:
            app.main(arguments, prog_name="fleetplane")
        # Not app.main(): it decides about interrupts and closed pipes itself, and differently.
        with app.make_context("fleetplane", arguments) as context:
            app.invoke(context)
        sys.stdout.flush()
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.ctx.get_help() if error.ctx else "", err=True)
        return 2
    except click.UsageError as error:
        return _complain(_usage(error, arguments), 2)
    except click.exceptions.Exit as error:
        return error.exit_code
    except ExitWith as error:
        return error.code
    except (click.Abort, KeyboardInterrupt):
        return 130
    except BrokenPipeError:
        # Whoever read our output has enough. Python would complain once more when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except (CommandError, click.ClickException) as error:
        if wants_debug(arguments):
            raise
        sentence = error.format_message() if isinstance(error, click.ClickException) else str(error)
        return _complain(sentence, 2 if isinstance(error, UsageError) else failed)
    except Exception as error:
        if wants_debug(arguments):
            raise
        first = str(error).partition("\n")[0]
        return _complain(
            f"this is a mistake in fleetplane ({type(error).__name__}: {first}); --debug shows where", failed
        )
    return 0


def _usage(error: click.UsageError, arguments: list[str]) -> str:
    """What is wrong with the command line, and where to read how it should be."""
    sentence = error.format_message().rstrip(".")
    if "--help" in sentence or "did you mean" in sentence:
        return sentence
    called = f"fleetplane {arguments[0]}" if arguments and arguments[0] in COMMANDS else "fleetplane"
    return f"{sentence}; see '{error.ctx.command_path if error.ctx else called} --help'"


def wants_debug(arguments: list[str]) -> bool:
    """Whether tracebacks are wanted."""
    return "--debug" in arguments or os.environ.get("FLEETPLANE_DEBUG", "") in {"1", "true"}


def _complain(sentence: str, code: int) -> int:
    click.echo(f"fleetplane: {sentence}", err=True)
    return code
