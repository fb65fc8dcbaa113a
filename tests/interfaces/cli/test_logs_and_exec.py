"""``logs`` and ``exec``, against a node that understands small shell scripts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import termios
from typing import Any

import pytest

from fleetplane.interfaces.cli.errors import CommandError
from fleetplane.interfaces.cli.execution import exit_code


@pytest.fixture
def pod(cli: Any, namespace: str) -> Any:
    """A running pod with two containers, the first of which has written two lines."""
    made = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "talk", "labels": {"app": "talk"}},
        "spec": {
            "containers": [
                {"name": "one", "image": "app:1", "command": ["sh", "-c", "echo hello; echo world; sleep 1000"]},
                {"name": "two", "image": "app:1", "command": ["sh", "-c", "echo other; sleep 1000"]},
            ]
        },
    }
    applied = cli("apply", "-n", namespace, "-f", "-", "--wait", stdin=json.dumps(made))
    assert applied.code == 0, applied.err
    return namespace


def test_what_a_container_wrote(cli: Any, pod: str) -> None:
    assert cli("logs", "talk", "-n", pod).out == "hello\nworld\n"
    assert cli("logs", "talk", "-c", "two", "-n", pod).out == "other\n"


def test_the_last_lines(cli: Any, pod: str) -> None:
    assert cli("logs", "talk", "--tail", "1", "-n", pod).out == "world\n"


def test_all_containers_with_their_names(cli: Any, pod: str) -> None:
    shown = cli("logs", "-l", "app=talk", "--all-containers", "--prefix", "-n", pod)

    assert shown.lines == ["[talk/one] hello", "[talk/one] world", "[talk/two] other"]


def test_lines_as_json(cli: Any, pod: str) -> None:
    shown = cli("logs", "talk", "-o", "json", "-n", pod)

    assert [json.loads(line)["line"] for line in shown.lines] == ["hello", "world"]


def test_a_container_that_does_not_exist(cli: Any, pod: str) -> None:
    shown = cli("logs", "talk", "-c", "three", "-n", pod)

    assert (shown.code, shown.err) == (1, "fleetplane: pod talk has no container 'three'; it has: one, two\n")


def test_a_kind_that_has_no_pods(cli: Any, pod: str) -> None:
    shown = cli("logs", "node/sim-0")

    assert shown.code == 1
    assert "has no selector" in shown.err


@pytest.fixture
def shell(pod: str, cli: Any) -> Any:
    """``exec`` in a process of its own, because it reads and writes file descriptors."""

    def call(*words: str, stdin: str = "") -> Any:
        command = [sys.executable, "-m", "fleetplane.interfaces.cli", "exec", "-n", pod, *words]
        return subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=20, check=False)

    return call


def test_the_programs_output_and_exit_code_are_ours(shell: Any) -> None:
    done = shell("talk", "-c", "one", "--", "sh", "-c", "echo hi; exit 4")

    assert (done.returncode, done.stdout, done.stderr) == (4, "hi\n", "")


def test_our_input_is_the_programs(shell: Any) -> None:
    done = shell("-i", "-q", "talk", "--", "cat", stdin="some input\n")

    assert (done.returncode, done.stdout) == (0, "some input\n")


def test_which_container_was_used_is_said_on_stderr(shell: Any) -> None:
    assert shell("talk", "--", "sh", "-c", "exit 0").stderr == "Using container one; another one with -c.\n"


def test_a_pod_that_does_not_exist(shell: Any) -> None:
    done = shell("nope", "--", "ls")

    assert (done.returncode, done.stderr) == (1, 'fleetplane: pods "nope" not found\n')


def test_a_terminal_is_lent_and_given_back(pod: str) -> None:
    """With -it our terminal is raw while the program runs, and as it was afterwards."""
    ours, its = os.openpty()
    before = termios.tcgetattr(its)
    command = [sys.executable, "-m", "fleetplane.interfaces.cli", "exec", "-n", pod, "-it", "-q", "talk", "--"]
    program = ["sh", "-c", "echo ready; sleep 0.5; exit 3"]
    with subprocess.Popen([*command, *program], stdin=its, stdout=its, stderr=its) as running:
        shown = b""
        while b"ready" not in shown:
            shown += os.read(ours, 100)
        during = termios.tcgetattr(its)
        assert running.wait(20) == 3
    after = termios.tcgetattr(its)
    os.close(ours)
    os.close(its)

    assert not during[3] & termios.ICANON
    assert after == before


@pytest.mark.parametrize(
    ("status", "code"),
    [
        ({"status": "Success"}, 0),
        ({"status": "Failure", "details": {"causes": [{"reason": "ExitCode", "message": "42"}]}}, 42),
    ],
)
def test_the_status_that_ends_a_program(status: dict[str, Any], code: int) -> None:
    assert exit_code(status) == code


def test_a_program_that_could_not_be_started() -> None:
    with pytest.raises(CommandError, match="no such file"):
        exit_code({"status": "Failure", "message": "no such file"})
