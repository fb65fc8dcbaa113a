"""Volumes on disk: files that change at once, links that lead nowhere, types of host paths, tokens."""

from __future__ import annotations

import os
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.node.made import NOW, container, pod
from tests.node.test_values import FACTS, Known

from fleetplane.node.building import ConfigFailure
from fleetplane.node.tokens import Tokens
from fleetplane.node.volumes.host_path import check_host_path
from fleetplane.node.volumes.manager import VolumeManager
from fleetplane.node.volumes.payload import File, check_relative, write_payload
from fleetplane.node.volumes.projected import Projection
from fleetplane.node.volumes.subpath import open_inside
from fleetplane.testing import SimulatedEnvironment

# Payloads


def test_files_are_visible_under_their_names(tmp_path: Path) -> None:
    write_payload(tmp_path, {"a": File(b"1"), "dir/b": File(b"2", 0o600)}, "v1")

    assert (tmp_path / "a").read_bytes() == b"1"
    assert (tmp_path / "dir" / "b").read_bytes() == b"2"
    assert (tmp_path / "dir" / "b").stat().st_mode & 0o777 == 0o600


def test_a_change_replaces_everything_at_once(tmp_path: Path) -> None:
    write_payload(tmp_path, {"a": File(b"1"), "gone": File(b"x")}, "v1")
    held = os.open(tmp_path / "..data", os.O_RDONLY | os.O_DIRECTORY)
    assert write_payload(tmp_path, {"a": File(b"2"), "new": File(b"y")}, "v2")
    os.close(held)

    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["..data", "..v2", "a", "new"]
    assert (tmp_path / "a").read_bytes() == b"2"


def test_the_same_again_writes_nothing(tmp_path: Path) -> None:
    assert write_payload(tmp_path, {"a": File(b"1")}, "v1")
    assert not write_payload(tmp_path, {"a": File(b"1")}, "v2")
    assert (tmp_path / "..data").readlink() == Path("..v1")


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "a/../../x", "", "..data"])
def test_no_path_leaves_its_volume(name: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigFailure):
        write_payload(tmp_path, {name: File(b"")}, "v1")


# Sub-paths


def test_a_link_inside_a_volume_leads_nowhere(tmp_path: Path) -> None:
    volume = tmp_path / "volume"
    volume.mkdir()
    (tmp_path / "secret").mkdir()
    (volume / "link").symlink_to(tmp_path / "secret")

    for part in ("link", "link/inside"):
        with pytest.raises(ConfigFailure):
            open_inside(volume, part)
    assert not (tmp_path / "secret" / "inside").exists()


def test_missing_directories_of_a_sub_path_are_made(tmp_path: Path) -> None:
    descriptor = open_inside(tmp_path, "a/b")
    os.close(descriptor)

    assert (tmp_path / "a" / "b").is_dir()


def test_relative_means_inside() -> None:
    check_relative("a/b")
    with pytest.raises(ConfigFailure):
        check_relative("a/../b")


# Host paths


def test_host_path_types(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    check_host_path(tmp_path, "Directory")
    check_host_path(tmp_path / "file", "File")
    check_host_path(tmp_path / "made" / "deep", "DirectoryOrCreate")
    check_host_path(tmp_path / "made" / "file", "FileOrCreate")
    check_host_path(Path("/dev/null"), "CharDevice")

    assert (tmp_path / "made" / "deep").is_dir()
    assert (tmp_path / "made" / "file").is_file()
    with pytest.raises(ConfigFailure, match="is not a directory"):
        check_host_path(tmp_path / "file", "Directory")
    with pytest.raises(ConfigFailure, match="is not a socket"):
        check_host_path(tmp_path / "nothing", "Socket")


# All of a pod's


class Granting(Known):
    """Also gives tokens, numbered, for an hour."""

    def __init__(self, environment: SimulatedEnvironment, **objects: Any) -> None:
        super().__init__(**objects)
        self.environment = environment
        self.asked: list[dict[str, Any]] = []
        self.away = False

    async def token(self, namespace: str, account: str, body: dict[str, Any]) -> tuple[str, datetime]:
        if self.away:
            raise ConfigFailure("away")
        self.asked.append(body)
        return f"token-{len(self.asked)}", self.environment.now() + timedelta(hours=1)

    async def claim(self, namespace: str, name: str) -> Any:
        return self.objects.get(f"claim_{name}")

    async def volume(self, name: str) -> Any:
        return self.objects.get(f"pv_{name}")


def manager(tmp_path: Path, **objects: Any) -> tuple[VolumeManager, Granting]:
    environment = SimulatedEnvironment()
    sources = Granting(environment, **objects)
    tokens = Tokens(sources, environment)  # type: ignore[arg-type]
    return VolumeManager(tmp_path / "pods", sources, Projection(sources, tokens), environment), sources  # type: ignore[arg-type]


async def test_configuration_is_projected(tmp_path: Path) -> None:
    volumes, sources = manager(tmp_path, cm_cm={"data": {"k": "v"}}, secret_s={"data": {"p": "cHc="}})
    made = pod(
        container(volumeMounts=[{"name": "all", "mountPath": "/all", "subPath": "x"}]),
        volumes=[
            {
                "name": "all",
                "projected": {
                    "sources": [
                        {"configMap": {"name": "cm", "items": [{"key": "k", "path": "x/renamed"}]}},
                        {"secret": {"name": "s"}},
                        {"serviceAccountToken": {"path": "token", "audience": "vault"}},
                        {"downwardAPI": {"items": [{"path": "me", "fieldRef": {"fieldPath": "metadata.name"}}]}},
                    ]
                },
            }
        ],
    )
    await volumes.prepare(made, FACTS)

    root = volumes.volume_path(made, "all")
    found = {name: (root / name).read_text() for name in ("x/renamed", "p", "token", "me")}
    assert found == {"x/renamed": "v", "p": "pw", "token": "token-1", "me": "web"}
    assert sources.asked[0]["spec"]["audiences"] == ["vault"]
    (mount,) = await volumes.mounts(made, made.main[0], {})
    assert mount.read_only
    assert (Path(mount.source) / "renamed").read_text() == "v"


async def test_tokens_are_renewed_in_time_and_kept_meanwhile(tmp_path: Path) -> None:
    class Moving(SimulatedEnvironment):
        moment = NOW

        def now(self) -> datetime:
            return self.moment

    environment = Moving()
    sources = Granting(environment)
    tokens = Tokens(sources, environment)  # type: ignore[arg-type]

    assert await tokens.token(pod(), "", 3600) == "token-1"
    environment.moment = NOW + timedelta(minutes=40)
    assert await tokens.token(pod(), "", 3600) == "token-1"
    environment.moment = NOW + timedelta(minutes=50)
    sources.away = True
    assert await tokens.token(pod(), "", 3600) == "token-1"
    sources.away = False
    assert await tokens.token(pod(), "", 3600) == "token-2"


async def test_an_empty_dir_is_there_for_everyone_and_goes_with_the_pod(tmp_path: Path) -> None:
    volumes, _ = manager(tmp_path)
    made = pod(volumes=[{"name": "work", "emptyDir": {}}])
    await volumes.prepare(made, FACTS)
    path = volumes.volume_path(made, "work")
    assert path.stat().st_mode & 0o777 == 0o777
    (path / "kept").touch()
    await volumes.prepare(made, FACTS)
    assert (path / "kept").exists()

    await volumes.release(made)
    assert not volumes.directory(made).exists()


async def test_a_claim_leads_to_its_local_path(tmp_path: Path) -> None:
    claim = {"spec": {"volumeName": "pv"}, "status": {"phase": "Bound"}}
    volume = {"spec": {"hostPath": {"path": str(tmp_path / "data"), "type": "DirectoryOrCreate"}}}
    volumes, sources = manager(tmp_path, claim_data=claim, pv_pv=volume)
    made = pod(
        container(volumeMounts=[{"name": "d", "mountPath": "/d"}]),
        volumes=[{"name": "d", "persistentVolumeClaim": {"claimName": "data"}}],
    )
    await volumes.prepare(made, FACTS)

    (mount,) = await volumes.mounts(made, made.main[0], {})
    assert mount.source == str(tmp_path / "data")
    sources.objects["claim_data"] = {"spec": {}, "status": {"phase": "Pending"}}
    with pytest.raises(ConfigFailure, match='persistentvolumeclaim "data" is not bound yet'):
        await volumes.prepare(made, FACTS)


async def test_trouble_names_its_volume(tmp_path: Path) -> None:
    volumes, _ = manager(tmp_path)

    with pytest.raises(ConfigFailure) as caught:
        await volumes.prepare(pod(volumes=[{"name": "cfg", "configMap": {"name": "no"}}]), FACTS)
    assert (caught.value.volume, caught.value.message) == ("cfg", 'configmap "no" not found')
    with pytest.raises(ConfigFailure, match="volumes of type nfs are not supported"):
        await volumes.prepare(pod(volumes=[{"name": "x", "nfs": {}}]), FACTS)


async def test_a_sub_path_may_name_a_variable(tmp_path: Path) -> None:
    volumes, _ = manager(tmp_path, cm_cm={"data": {"a": "1"}})
    made = pod(
        container(volumeMounts=[{"name": "c", "mountPath": "/c", "subPathExpr": "$(FILE)"}]),
        volumes=[{"name": "c", "configMap": {"name": "cm"}}],
    )
    await volumes.prepare(made, FACTS)

    (mount,) = await volumes.mounts(made, made.main[0], {"FILE": "a"})
    assert mount.source.endswith("/a")
    assert _read(mount.source) == "1"


def _read(path: str) -> str:
    return Path(path).read_text()
