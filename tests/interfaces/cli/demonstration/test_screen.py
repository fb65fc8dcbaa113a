"""What the demo shows: on a terminal, in a pipe, to a program, and when a step fails."""

from __future__ import annotations

import asyncio
import io
import json
import os
import signal
from pathlib import Path

import pytest
from rich.console import Console

from fleetplane.interfaces.cli.demonstration import tour
from fleetplane.interfaces.cli.demonstration.place import Place
from fleetplane.interfaces.cli.demonstration.screen import Screen
from fleetplane.interfaces.cli.demonstration.stage import Stage
from fleetplane.interfaces.cli.demonstration.steps import Done, Outcome, Say, Step, StepFailed, duration
from fleetplane.interfaces.cli.demonstration.summary import Summary, as_json
from fleetplane.interfaces.cli.errors import CommandError, ExitWith


async def works(stage: Stage, say: Say) -> Outcome:
    say("half way")
    return Outcome(0.0123, "it came true", "a process", "its device", "there is none here")


async def fails(stage: Stage, say: Say) -> Outcome:
    raise StepFailed("the camera stayed dark")


WORKS = Step("one", "A first thing", "fleetplane get pods && fleetplane up {up}", works)
FAILS = Step("two", "A second thing", "fleetplane get nodes", fails)
OUTCOME = Outcome(0.0123, "it came true", "a process", "its device", "there is none here")


def screen_on(terminal: bool) -> tuple[Screen, io.StringIO]:
    shown = io.StringIO()
    console = Console(file=shown, force_terminal=terminal, width=100, color_system=None)
    return Screen([WORKS, FAILS], as_json=False, console=console), shown


def summary(failure: str = "", kept: bool = False) -> Summary:
    return Summary((Done(WORKS, OUTCOME),), failure, 1.5, Place(Path("here")), kept, 77, 6443)


def test_a_pipe_gets_a_line_for_each_step_and_the_tables_without_control_characters() -> None:
    screen, shown = screen_on(terminal=False)

    with screen:
        screen.begin(WORKS)
        screen.end(Done(WORKS, OUTCOME))
    screen.finish(summary())

    text = shown.getvalue()
    assert text.startswith("done  A first thing: it came true (12 ms)\n")
    assert "\x1b" not in text
    assert "its device [1]" in text and "[1] there is none here" in text
    assert "now edit this file" in text


def test_a_terminal_sees_what_is_done_what_runs_and_what_is_to_come() -> None:
    screen, shown = screen_on(terminal=True)

    with screen:
        screen.end(Done(WORKS, OUTCOME))
        screen.begin(FAILS)
        screen.say("17 of 100")

    last = shown.getvalue().rpartition("✓")[2]
    assert "it came true" in last
    assert "A second thing 17 of 100" in last


def test_lines_to_paste_are_never_wrapped() -> None:
    screen, shown = screen_on(terminal=True)

    screen.finish(summary(kept=True))

    lines = shown.getvalue().splitlines()
    assert "  cd here && export KUBECONFIG=$PWD/plane/admin.kubeconfig" in lines
    assert any(line.endswith("fleetplane apply -f camera.yaml    # now edit this file") for line in lines)


def test_a_program_gets_one_object() -> None:
    told = json.loads(as_json(summary()))

    assert told["ok"] is True
    assert told["steps"][0]["simulated"] == "its device"
    assert told["steps"][0]["command"] == "fleetplane get pods && fleetplane up --data-dir plane"


def test_a_failed_step_ends_the_demo_and_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(CommandError, match="the demo failed: A second thing: the camera stayed dark"):
        tour.run_demo("simulated", False, tmp_path / "demo", "json", [WORKS, FAILS])

    told = json.loads(capsys.readouterr().out)
    assert told["ok"] is False
    assert told["error"] == "A second thing: the camera stayed dark"
    assert [one["step"] for one in told["steps"]] == ["one"]
    assert not (tmp_path / "demo").exists()


def test_a_plane_that_does_not_start_says_why_and_leaves_its_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr("fleetplane.interfaces.cli.demonstration.stage.free_port", lambda: 65536)

    with pytest.raises(CommandError, match="A plane starts: port must be between 0 and 65535, not 65536"):
        tour.run_demo("simulated", False, tmp_path / "demo", "text", tour.STEPS[:1])

    assert [one.suffix for one in tmp_path.iterdir()] == [".log"]


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0.0004, "0 ms"), (0.0444, "44 ms"), (0.444, "0.44 s"), (44.4, "44.4 s")]
)
def test_durations_are_as_people_say_them(seconds: float, shown: str) -> None:
    assert duration(seconds) == shown


def test_a_demo_that_cannot_begin_makes_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setenv("PATH", "/nowhere")

    with pytest.raises(CommandError, match="the demo cannot run real containers: Podman is not installed"):
        tour.run_demo("podman", False, None, "text", [WORKS])

    assert list(tmp_path.iterdir()) == []


def test_a_demo_that_is_told_to_end_removes_everything(tmp_path: Path) -> None:
    async def ends(stage: Stage, say: Say) -> Outcome:
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.sleep(30)
        raise AssertionError("it goes on")

    with pytest.raises(ExitWith) as ended:
        tour.run_demo("simulated", False, tmp_path / "demo", "json", [Step("end", "An end", "", ends)])

    assert ended.value.code == 143
    assert not (tmp_path / "demo").exists()
