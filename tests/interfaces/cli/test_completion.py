"""Words that a shell may complete: from the server, in time, and never an error."""

from __future__ import annotations

from typing import Any

import pytest


@pytest.fixture
def complete(cli: Any, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Any:
    """What bash would offer for a command line; its last word is the incomplete one."""

    def words(line: str) -> list[str]:
        from fleetplane.interfaces.cli.main import run

        monkeypatch.setenv("_FLEETPLANE_COMPLETE", "bash_complete")
        monkeypatch.setenv("COMP_WORDS", line)
        monkeypatch.setenv("COMP_CWORD", str(len(line.split(" ")) - 1))
        capfd.readouterr()
        with pytest.raises(SystemExit):
            run([])
        return [one.partition(",")[2] for one in capfd.readouterr().out.split()]

    return words


def test_commands(complete: Any) -> None:
    assert complete("fleetplane des") == ["describe"]


def test_kinds(complete: Any) -> None:
    assert complete("fleetplane get deploy") == ["deployments"]
    assert complete("fleetplane get pods,deploy") == ["pods,deployments"]


def test_names_of_a_kind(complete: Any) -> None:
    assert complete("fleetplane get nodes s") == ["sim-0"]
    assert complete("fleetplane describe node/s") == ["node/sim-0"]
    assert complete("fleetplane cordon s") == ["sim-0"]


def test_namespaces(complete: Any) -> None:
    assert complete("fleetplane get pods -n kube-s") == ["kube-system"]


def test_without_a_server_there_is_silence(complete: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", "/nowhere")

    assert complete("fleetplane get po") == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_script_for_each_shell(cli: Any, shell: Any) -> None:
    assert "_FLEETPLANE_COMPLETE" in cli("completion", shell).out
