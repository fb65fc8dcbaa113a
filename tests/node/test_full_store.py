"""An image store without room: what does not fit is said so, and what fits goes on."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio
from tests.contract.test_container_runtime import why_not_podman
from tests.node import image

from fleetplane.model.environment import SystemEnvironment
from fleetplane.node.network import HostNetwork
from fleetplane.node.podman import PodmanRuntime, look_at_host
from fleetplane.node.runtime import ContainerSpec, RuntimeFailure, SandboxSpec

pytestmark = [pytest.mark.podman]

ROOM = 24 << 20


def _run(*words: str) -> None:
    subprocess.run(words, check=True, capture_output=True, timeout=30)


@pytest_asyncio.fixture
async def runtime(tmp_path: Path) -> AsyncIterator[PodmanRuntime]:
    """Podman on a small storage of its own."""
    if reason := why_not_podman():
        pytest.skip(reason)
    directory = Path("/tmp") / f"fps-{os.urandom(4).hex()}"
    store = directory / "store"
    store.mkdir(parents=True)
    await asyncio.to_thread(_run, "mount", "-t", "tmpfs", "-o", f"size={ROOM}", "tmpfs", str(store))
    host = look_at_host()
    program = directory / "podman"
    program.write_text(
        f'#!/bin/sh\nexec {host.podman} --root {store}/root --runroot {directory}/run --tmpdir {directory}/tmp --storage-driver vfs "$@"\n'
    )
    program.chmod(0o755)
    made = await PodmanRuntime.open(
        replace(host, podman=str(program)), directory / "s", HostNetwork(), "small", SystemEnvironment()
    )
    yield made
    await made.remove_instance("small")
    await made.close()
    await asyncio.to_thread(_run, "umount", "-l", str(store))
    shutil.rmtree(directory, ignore_errors=True)


async def test_without_room_images_and_containers_are_refused_and_others_go_on(
    runtime: PodmanRuntime, tmp_path: Path
) -> None:
    archive = str(image.write_root(tmp_path / "root.tar"))
    await runtime.import_image(archive, image.NAME)
    spec = SandboxSpec("default", "web", "u-1", network="host")
    sandbox = await runtime.start_sandbox(spec)
    first = await runtime.create_container(sandbox, ContainerSpec("one", image.NAME, command=("sleep", "1000")), spec)
    await runtime.start_container(first)
    filler = runtime.directory.parent / "store" / "filler"
    with filler.open("wb") as file:
        try:
            while True:
                file.write(b"x" * 65536)
                file.flush()
        except OSError:
            pass

    with pytest.raises(RuntimeFailure, match="no space left on device"):
        await runtime.import_image(archive, "localhost/another:1")
    with pytest.raises(RuntimeFailure, match="no space left on device"):
        await runtime.create_container(sandbox, ContainerSpec("two", image.NAME, command=("sleep", "1000")), spec)
    assert (await runtime.inspect_container(first)).phase == "running"

    filler.unlink()
    second = await runtime.create_container(sandbox, ContainerSpec("two", image.NAME, command=("sleep", "1000")), spec)
    await runtime.start_container(second)
    assert {one.phase for one in await runtime.containers("u-1")} == {"running"}
