"""Which server is talked to, and what is said when there is none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fleetplane.interfaces.cli.command import Connection
from fleetplane.interfaces.cli.connection import find


@pytest.fixture
def nowhere(cli: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """No kubeconfig anywhere."""
    monkeypatch.delenv("KUBECONFIG")
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    monkeypatch.chdir(tmp_path)
    return cli


def test_nothing_to_talk_to(nowhere: Any) -> None:
    found = nowhere("get", "pods")

    assert found.code == 1
    assert found.err == (
        "fleetplane: there is no server to talk to: start a plane here with 'fleetplane up', "
        "or name a kubeconfig with --kubeconfig\n"
    )


def test_the_plane_that_runs_here_needs_no_option(nowhere: Any, plane: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLEETPLANE_DATA_DIR", str(plane.data_dir))

    assert nowhere("get", "nodes", "-o", "name").out == "node/sim-0\n"


def test_a_plane_that_does_not_run(nowhere: Any, plane: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    stopped = tmp_path / "stopped"
    stopped.mkdir()
    port = plane.url.rpartition(":")[2]
    (stopped / "admin.kubeconfig").write_text(plane.kubeconfig.read_text().replace(f":{port}", ":1"))
    monkeypatch.setenv("FLEETPLANE_DATA_DIR", str(stopped))

    found = nowhere("get", "pods")

    assert found.code == 1
    assert f"fleetplane up --data-dir {stopped}" in found.err


def test_the_home_directory_comes_after_the_running_plane(nowhere: Any, plane: Any, tmp_path: Path) -> None:
    (tmp_path / ".kube").mkdir()
    (tmp_path / ".kube" / "config").write_bytes(plane.kubeconfig.read_bytes())

    assert find(Connection()).origin == str(tmp_path / ".kube" / "config")


def test_a_server_that_does_not_answer_is_one_sentence(nowhere: Any, plane: Any, tmp_path: Path) -> None:
    path = tmp_path / "dead"
    port = plane.url.rpartition(":")[2]
    path.write_text(plane.kubeconfig.read_text().replace(f":{port}", ":1"))

    found = nowhere("get", "pods", "--kubeconfig", str(path))

    assert found.code == 1
    assert found.err.startswith("fleetplane: cannot reach https://127.0.0.1:1: Connection refused; ")
    assert found.err.count("\n") == 1


def test_a_context_that_does_not_exist(cli: Any) -> None:
    found = cli("get", "pods", "--context", "nope")

    assert found.code == 1
    assert "no context 'nope'" in found.err


def test_options_come_from_the_environment_and_a_file(
    cli: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "fleetplane").mkdir()
    (tmp_path / "fleetplane" / "cli.toml").write_text("[get]\nno-headers = true\n")
    monkeypatch.setenv("FLEETPLANE_NAMESPACE", "kube-system")
    monkeypatch.setenv("FLEETPLANE_GET_OUTPUT", "name")

    assert cli("get", "nodes").out == "node/sim-0\n"
    monkeypatch.delenv("FLEETPLANE_GET_OUTPUT")
    assert "NAME" not in cli("get", "nodes").out


def test_a_logical_cluster(cli: Any) -> None:
    found = cli("get", "nodes", "--cluster", "root")

    assert found.code == 0
