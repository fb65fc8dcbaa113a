"""The program itself: help, usage errors, how fast it starts, and what its list of commands promises."""

from __future__ import annotations

import subprocess
import sys

import click
import pytest

from fleetplane.interfaces.cli.main import COMMANDS, app, run


def command(name: str) -> click.Command:
    found = app.get_command(click.Context(app), name)
    assert found is not None
    return found


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_its_summary_and_examples(name: str) -> None:
    made = command(name)

    assert made.name == name
    assert (made.help or "").strip().splitlines()[0] == COMMANDS[name].summary
    parts = made.commands.values() if isinstance(made, click.Group) else [made]
    for part in parts:
        assert getattr(part, "examples", ()), f"{part.name} has no examples"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_example_can_be_parsed(name: str) -> None:
    """No example in the help is one that the program would refuse."""
    import shlex

    made = command(name)
    for part in made.commands.values() if isinstance(made, click.Group) else [made]:
        for example in getattr(part, "examples", ()):
            ours = next(one for one in example.split(" | ") if "fleetplane " in one)
            words = shlex.split(ours[ours.index("fleetplane ") :].partition(" > ")[0])
            path = [name] if part is made else [name, part.name]
            assert words[: len(path) + 1] == ["fleetplane", *path], example
            part.make_context(part.name, words[len(path) + 1 :], resilient_parsing=False)


def test_help_is_there_for_everybody(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--help"]) == 0
    assert "Start with" in capsys.readouterr().out
    assert run(["get", "--help"]) == 0
    assert "Examples:" in capsys.readouterr().out


def test_without_a_command_the_help_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert run([]) == 2
    assert "Usage:" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["gett"], "fleetplane: there is no command 'gett'; did you mean 'get'?\n"),
        (["get", "--nope"], "fleetplane: No such option '--nope'; see 'fleetplane get --help'\n"),
        (["version", "-o", "xml"], "see 'fleetplane version --help'\n"),
    ],
)
def test_usage_errors_are_one_sentence_and_exit_two(
    words: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(words) == 2
    shown = capsys.readouterr().err
    assert shown.endswith(sentence)
    assert shown.count("\n") == 1


def test_commands_do_not_drag_in_what_they_do_not_need() -> None:
    """The server, a client and rich take longer to import than ``version`` may take to run."""
    code = (
        "import sys; from fleetplane.interfaces.cli.main import run; run(['version']); "
        "print([name for name in sys.modules if name.split('.')[0] in ('rich', 'aiohttp', 'asyncio', 'yaml')])"
    )

    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert shown.stdout.splitlines()[1] == "[]"


def test_a_client_command_does_not_import_the_server() -> None:
    code = (
        "import sys; from fleetplane.interfaces.cli.main import run; run(['get', 'pods', '--kubeconfig', '/nowhere']); "
        "print([name for name in sys.modules if name.startswith(('fleetplane.apiserver', 'fleetplane.store', 'rich'))])"
    )

    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert shown.stdout.splitlines() == ["[]"]
