"""What a node does otherwise when it is not root."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from fleetplane.node.building import ConfigFailure
from fleetplane.node.eviction import is_measured
from fleetplane.node.podman.spec import container_spec
from fleetplane.node.process_usage import usage_of_processes
from fleetplane.node.runtime import ContainerSpec, Resources, SandboxSpec
from fleetplane.node.volumes import rootless
from fleetplane.node.volumes.manager import _make_empty, remove_pod_directory


@pytest.fixture
def memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(rootless, "SHARED_MEMORY", tmp_path / "shm")
    monkeypatch.setattr(os, "geteuid", lambda: 1001)
    monkeypatch.setattr(rootless.shutil, "which", lambda name: None)
    (tmp_path / "shm").mkdir()
    real = Path.lstat
    # The tests may be run by anybody; what they make counts as ours.
    monkeypatch.setattr(Path, "lstat", lambda self: _owned(real(self), 1001))
    return tmp_path / "shm"


def _owned(found: os.stat_result, uid: int) -> os.stat_result:
    return os.stat_result((*found[:4], uid, *found[5:]))


def test_memory_is_a_directory_only_we_may_enter(memory: Path, tmp_path: Path) -> None:
    volume = tmp_path / "pod" / "volumes" / "cache"

    _make_empty(volume, {"medium": "Memory"}, None)
    (volume / "file").write_text("x")

    (private,) = memory.iterdir()
    assert private.stat().st_mode & 0o777 == 0o700
    assert [one.name for one in volume.resolve().iterdir()] == ["file"]
    assert volume.resolve().parent == private


def test_memory_is_given_back_with_the_pod(memory: Path, tmp_path: Path) -> None:
    _make_empty(tmp_path / "pod" / "volumes" / "cache", {"medium": "Memory"}, None)

    remove_pod_directory(tmp_path / "pod")

    assert not (tmp_path / "pod").exists()
    assert list((memory / "fleetplane-1001").iterdir()) == []


def test_a_directory_others_made_is_not_used(memory: Path, tmp_path: Path) -> None:
    (memory / "fleetplane-1001").mkdir(mode=0o777)
    (memory / "fleetplane-1001").chmod(0o777)

    with pytest.raises(ConfigFailure, match="is not ours alone"):
        _make_empty(tmp_path / "pod" / "volumes" / "cache", {"medium": "Memory"}, None)


def test_what_no_mount_limits_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert (is_measured({}), is_measured({"medium": "Memory"})) == (True, False)
    monkeypatch.setattr(os, "geteuid", lambda: 1001)
    assert is_measured({"medium": "Memory"})


def test_nobody_lowers_its_own_oom_score() -> None:
    spec = ContainerSpec("main", "app:1", resources=Resources(oom_score_adj=-997))
    more = {"pod_id": "", "network": {}, "rlimits": {}, "instance": {}}

    made = container_spec(SandboxSpec("default", "web", "u"), spec, **more, least_oom_score=5)  # type: ignore[arg-type]

    assert made["oom_score_adj"] == 5


def test_use_is_summed_over_processes() -> None:
    with subprocess.Popen(["sh", "-c", "sleep 30 & sleep 30 & echo; wait"], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        usage = usage_of_processes(process.pid)
        for one in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split():
            os.kill(int(one), 9)

    assert usage.pids == 3
    assert usage.memory_bytes > 0
    assert usage_of_processes(process.pid).pids == 0
