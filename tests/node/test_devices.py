"""Devices a node gives to containers, and the small files that say so."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.node.made import container, pod

from fleetplane.node.building import ConfigFailure
from fleetplane.node.devices import Devices, cdi_devices, listed_devices
from fleetplane.node.eviction import Use, choose_victim, over_limits
from fleetplane.node.preload import preload_images
from fleetplane.node.simulated import SimulatedRuntime
from fleetplane.testing import SimulatedEnvironment

CAMERAS = {"example.org/camera": ["/dev/video0", "/dev/video1"]}


def asking(name: str, number: int, uid: str = "u1") -> tuple:
    made = pod(container(name, resources={"limits": {"example.org/camera": str(number)}}), meta={"uid": uid})
    return made, made.main[0]


def test_cdi_specifications_become_resources(tmp_path: Path) -> None:
    (tmp_path / "gpu.yaml").write_text(
        "cdiVersion: 0.6.0\nkind: nvidia.com/gpu\ndevices: [{name: '0'}, {name: '1'}, {name: all}]\n"
    )
    (tmp_path / "broken.json").write_text("{")

    assert cdi_devices([tmp_path]) == {"nvidia.com/gpu": ["nvidia.com/gpu=0", "nvidia.com/gpu=1"]}
    assert Devices(tmp_path, cdi_devices([tmp_path]), lambda _: True).capacity() == {"nvidia.com/gpu": "2"}


def test_the_nodes_own_list_adds_devices(tmp_path: Path) -> None:
    (tmp_path / "devices.json").write_text('{"example.org/camera": ["/dev/video0"]}')

    assert listed_devices(tmp_path) == {"example.org/camera": ["/dev/video0"]}


def test_a_device_is_given_to_one_container_at_a_time(tmp_path: Path) -> None:
    here = {"u1", "u2"}
    devices = Devices(tmp_path, CAMERAS, here.__contains__)

    (first,) = devices.allocate(*asking("a", 1))
    (second,) = devices.allocate(*asking("b", 1, "u2"))
    assert {first.source, second.source} == {"/dev/video0", "/dev/video1"}
    with pytest.raises(ConfigFailure, match="Requested: 1, Available: 0"):
        devices.allocate(*asking("c", 1, "u2"))
    here.discard("u1")
    assert devices.allocate(*asking("c", 1, "u2")) == [first]


def test_a_restarted_agent_remembers_who_has_what(tmp_path: Path) -> None:
    given = Devices(tmp_path, CAMERAS, lambda _: True).allocate(*asking("a", 1))

    again = Devices(tmp_path, CAMERAS, lambda _: True)
    assert again.allocate(*asking("a", 1)) == given
    assert again.allocate(*asking("b", 1)) != given


# Eviction


def use(name: str, memory: int, request: str = "", **spec: object) -> Use:
    resources = {"requests": {"memory": request}} if request else {}
    made = pod(container(resources=resources), meta={"name": name, "uid": name}, **spec)
    return Use(made, {"memory": memory})


def test_who_takes_more_than_asked_goes_first_then_the_least_important() -> None:
    modest, greedy = use("modest", 50 << 20, "100Mi"), use("greedy", 300 << 20, "100Mi")
    important = use("important", 900 << 20, "100Mi", priority=100)

    assert choose_victim([modest, important, greedy], "memory") is greedy
    assert choose_victim([modest, important], "memory") is important
    assert choose_victim([modest], "memory") is modest


def test_critical_and_static_pods_stay() -> None:
    critical = use("critical", 1 << 30, priority=2_000_000_000)
    static = Use(pod(meta={"annotations": {"kubernetes.io/config.source": "file"}}), {"memory": 1 << 30})

    assert choose_victim([critical, static], "memory") is None


def test_an_empty_dir_may_outgrow_its_limit() -> None:
    made = pod(volumes=[{"name": "work", "emptyDir": {"sizeLimit": "1Mi"}}])

    assert over_limits(made, {"work": 1 << 20}) is None
    failure = over_limits(made, {"work": (1 << 20) + 1})
    assert failure is not None
    assert failure.message.startswith('Usage of EmptyDir volume "work" exceeds the limit "1Mi"')


# Images from files


async def test_archives_are_loaded_once(tmp_path: Path) -> None:
    runtime = SimulatedRuntime(SimulatedEnvironment())
    loaded = []

    async def load(archive: str, name: str = "") -> object:
        loaded.append(Path(archive).name)
        return await runtime.pull_image(archive)

    runtime.import_image = load  # type: ignore[method-assign,assignment]
    (tmp_path / "app.tar").write_bytes(b"1")
    (tmp_path / "notes.txt").write_bytes(b"")
    await preload_images(runtime, tmp_path)
    await preload_images(runtime, tmp_path)
    assert loaded == ["app.tar"]
    (tmp_path / "app.tar").write_bytes(b"22")
    await preload_images(runtime, tmp_path)
    assert loaded == ["app.tar", "app.tar"]
