"""``fleetplane reset`` leaves nothing of ours, everything of others, and nothing alone that runs."""

from __future__ import annotations

import fcntl
from pathlib import Path

from click.testing import CliRunner, Result

from fleetplane.interfaces.cli.main import app


def reset(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["reset", *arguments], standalone_mode=False)


def plane_in(folder: Path) -> Path:
    (folder / "pki").mkdir(parents=True)
    (folder / "pki" / "ca.pem").write_text("secret")
    (folder / "fleetplane.db").write_text("data")
    (folder / "fleetplane.db.lock").write_text("1")
    return folder


def test_what_is_ours_goes_with_the_directory(tmp_path: Path) -> None:
    folder = plane_in(tmp_path / "plane")

    done = reset("--data-dir", str(folder), "--yes")

    assert done.exception is None
    assert done.stdout.endswith("removed\n")
    assert not folder.exists()


def test_what_others_put_there_stays_and_is_named(tmp_path: Path) -> None:
    folder = plane_in(tmp_path / "plane")
    (folder / "notes.txt").write_text("mine")

    done = reset("--data-dir", str(folder), "--yes")

    assert "left in" in done.stdout
    assert [one.name for one in folder.iterdir()] == ["notes.txt"]


def test_nothing_goes_without_a_yes(tmp_path: Path) -> None:
    folder = plane_in(tmp_path / "plane")

    done = reset("--data-dir", str(folder))

    assert "say --yes" in str(done.exception)
    assert (folder / "pki" / "ca.pem").exists()


def test_what_runs_is_left_alone(tmp_path: Path) -> None:
    folder = plane_in(tmp_path / "plane")
    with (folder / "fleetplane.db.lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = reset("--data-dir", str(folder), "--yes")

    assert "stop it first" in str(done.exception)
    assert (folder / "fleetplane.db").exists()


def test_a_folder_that_is_not_ours_is_refused(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()

    done = reset("--data-dir", str(tmp_path))

    assert "there is no plane and no node" in str(done.exception)
    assert (tmp_path / "photos").exists()
