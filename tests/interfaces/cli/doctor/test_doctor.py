"""Each check, on a machine or a plane that has the trouble it looks for."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sqlite3
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from fleetplane.apiserver.pki import ensure_pki
from fleetplane.interfaces.cli.command import Connection
from fleetplane.interfaces.cli.doctor.examine import report
from fleetplane.interfaces.cli.doctor.files import check_certificates, check_database, check_files, check_privacy
from fleetplane.interfaces.cli.doctor.installation import check_installation
from fleetplane.interfaces.cli.doctor.machine import check_clock, check_port, check_room, listener
from fleetplane.interfaces.cli.doctor.server import check_server
from fleetplane.interfaces.cli.main import run
from fleetplane.interfaces.cli.running import disk_full
from fleetplane.model.environment import SystemEnvironment
from fleetplane.node.check import Finding
from fleetplane.settings import Settings
from fleetplane.store.sqlite import SqliteStore
from fleetplane.testing.environment import SimulatedEnvironment

HERE = SystemEnvironment()


def later(years: int) -> SimulatedEnvironment:
    return SimulatedEnvironment(start=datetime.now(UTC) + timedelta(days=365 * years))


async def server(kubeconfig: Path) -> list[Finding]:
    return [one async for one in check_server(Connection(kubeconfig=kubeconfig), HERE)]


def test_an_old_python_is_told_what_to_do() -> None:
    (python, _) = check_installation((3, 9, 2))

    assert python.verdict == "missing"
    assert "Python 3.9.2" in python.words and "3.11" in python.advice


def test_everything_this_program_needs_is_installed_here() -> None:
    assert [one.verdict for one in check_installation()] == ["works", "works"]


def test_a_port_in_use_is_named_with_the_program_that_has_it() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]

        finding = check_port(Settings(port=port), ours=False)

        assert finding.verdict == "missing"
        assert f"process {os.getpid()}" in finding.words
        assert check_port(Settings(port=port), ours=True).verdict == "works"
    assert check_port(Settings(port=port), ours=False).verdict == "works"
    assert listener(port) == ""


def test_an_address_of_another_machine_cannot_be_used() -> None:
    finding = check_port(Settings(host="192.0.2.1", port=0), ours=False)

    assert (finding.verdict, finding.advice) == ("missing", "Choose an address of this machine with --host.")


def usage(free: int) -> Callable[[Any], tuple[int, int, int]]:
    class Usage(tuple[int, int, int]):
        free = 0

    made = Usage((1 << 40, 0, free))
    made.free = free
    return lambda _place: made


def test_a_disk_without_room_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    verdicts = []
    for free in (1 << 20, 100 << 20, 1 << 40):
        monkeypatch.setattr("shutil.disk_usage", usage(free))
        verdicts.append(check_room(tmp_path).verdict)

    assert verdicts == ["missing", "limited", "works"]


def test_a_start_that_fails_on_a_full_disk_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", usage(4096))

    assert disk_full(tmp_path / "new" / "plane").endswith(
        "is full (4 KiB are free); free some space, or choose another place with --data-dir"
    )
    monkeypatch.setattr("shutil.disk_usage", usage(1 << 40))
    assert disk_full(tmp_path) == ""


def test_a_clock_that_is_behind_is_told(tmp_path: Path) -> None:
    assert check_clock(tmp_path, HERE).verdict == "works"
    assert check_clock(tmp_path, SimulatedEnvironment(start=datetime(2020, 1, 1, tzinfo=UTC))).verdict == "limited"


def test_certificates_are_followed_to_their_end(tmp_path: Path) -> None:
    ensure_pki(tmp_path, HERE)

    assert check_certificates(tmp_path, HERE).verdict == "works"
    ended = check_certificates(tmp_path, later(20))
    assert (ended.verdict, ended.advice) == ("missing", "Start the plane again: it renews its certificates.")
    (tmp_path / "admin.pem").write_bytes(b"-----BEGIN CERTIFICATE-----\nno\n-----END CERTIFICATE-----\n")
    assert "admin.pem cannot be read" in check_certificates(tmp_path, HERE).words


def test_a_whole_database_and_a_damaged_one_are_told_apart(tmp_path: Path) -> None:
    path = tmp_path / "fleetplane.db"
    asyncio.run(_make_store(path))

    assert check_database(path).verdict == "works"

    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * 8192)
    damaged = check_database(path)
    assert (damaged.verdict, damaged.advice) == ("missing", "Stop the plane and restore a backup.")


async def _make_store(path: Path) -> None:
    await (await SqliteStore.open(path)).close()


def test_a_database_of_a_newer_program_is_not_called_damaged(tmp_path: Path) -> None:
    path = tmp_path / "fleetplane.db"
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 999")

    finding = check_database(path)

    assert finding.verdict == "missing"
    assert "Upgrade Fleetplane" in finding.advice


def test_keys_that_others_can_read_are_told(tmp_path: Path) -> None:
    (tmp_path / "pki").mkdir(mode=0o700)
    key = tmp_path / "pki" / "ca.pem"
    key.touch(mode=0o600)
    assert check_privacy(tmp_path).verdict == "works"

    key.chmod(0o644)

    assert check_privacy(tmp_path).verdict == "limited"


def test_a_folder_without_a_plane_is_no_trouble(tmp_path: Path) -> None:
    assert [one.verdict for one in check_files(tmp_path, HERE)] == ["works"]


async def test_a_server_that_answers(plane: Any) -> None:
    findings = await server(plane.kubeconfig)

    assert [one.verdict for one in findings] == ["works", "works"]
    assert "answers as v1." in findings[-1].words


async def test_a_kubeconfig_that_is_none_or_absent(tmp_path: Path) -> None:
    (tmp_path / "bad").write_text("not: yaml: [")

    assert "is not YAML" in (await server(tmp_path / "bad"))[0].words
    assert "there is no kubeconfig" in (await server(tmp_path / "absent"))[0].words


async def test_a_kubeconfig_of_another_server_or_of_none(plane: Any, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    gone = tmp_path / "gone"
    gone.write_text(plane.kubeconfig.read_text().replace(plane.url, f"https://127.0.0.1:{port}"))
    stranger = tmp_path / "stranger"
    ensure_pki(tmp_path / "pki", HERE)
    lines = plane.kubeconfig.read_text().splitlines()
    kept = [line for line in lines if "client-certificate-data" not in line and "client-key-data" not in line]
    stranger.write_text(
        "\n".join(line.split("token:")[0] + "token: wrong" if "token:" in line else line for line in kept)
    )

    assert "fleetplane up" in (await server(gone))[-1].advice
    assert "does not accept the credentials" in (await server(stranger))[-1].words


def test_the_report_says_what_must_be_mended_and_programs_get_json() -> None:
    findings = [Finding("Port", "missing", "It is used.", "Choose another."), Finding("Clock", "works", "It is right.")]

    text, told = report(findings, "text"), json.loads(report(findings, "json"))

    assert "1 of 2 things must be mended: Port." in text
    assert "Choose another." in text
    assert told["ok"] is False and told["findings"][0]["verdict"] == "missing"


def test_the_command_ends_with_1_when_something_must_be_mended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("KUBECONFIG", raising=False)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        words = ["doctor", "--data-dir", str(tmp_path), "--port", str(taken.getsockname()[1]), "--output", "json"]

        assert run(words) == 1

    told = json.loads(capsys.readouterr().out)
    assert [one["subject"] for one in told["findings"] if one["verdict"] == "missing"] == ["Port"]
