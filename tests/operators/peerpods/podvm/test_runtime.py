"""The runtime for peer pods on a real VM, without a plane: one pod's life, a runtime that starts anew, a VM that dies."""

from __future__ import annotations

import asyncio
import os
import signal
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from tests.node import image
from tests.operators.peerpods.podvm.machine import why_no_qemu

from fleetplane.model.environment import SystemEnvironment
from fleetplane.node.network import HostNetwork
from fleetplane.node.runtime import (
    ContainerSpec,
    ContainerState,
    Image,
    ImageMissing,
    LogOptions,
    Mount,
    NotThere,
    RegistryAuth,
    RuntimeFailure,
    Sandbox,
    SandboxSpec,
    Security,
)
from fleetplane.operators.peerpods.admission import MEMORY, VCPUS
from fleetplane.operators.peerpods.podvm.runtime import PodVmRuntime, tail_of, vm_size
from fleetplane.operators.peerpods.providers.protocol import Size
from fleetplane.operators.peerpods.providers.qemu import Qemu, QemuHost, _holder

pytestmark = pytest.mark.asyncio(loop_scope="module")


@dataclass
class OneImage:
    """A store with one image, in a tar."""

    tar: Path

    async def image(self, name: str, *, handler: str = "") -> Image | None:
        return Image("sha256:1", (image.NAME,)) if name == image.NAME else None

    async def images(self) -> Sequence[Image]:
        return [Image("sha256:1", (image.NAME,))]

    async def pull_image(self, name: str, auth: Sequence[RegistryAuth] = (), *, handler: str = "") -> Image:
        raise ImageMissing(f"there is no {name}")

    async def import_image(self, archive: str, name: str = "") -> Image:
        raise RuntimeFailure("not here")

    async def remove_image(self, name: str) -> None:
        return

    async def image_config(self, name: str) -> Mapping[str, Any]:
        return {"Env": ["FROM=image", "BOTH=image"], "Cmd": ["sh", "-c", "echo by itself"], "WorkingDir": "/tmp"}

    async def export_image(self, name: str) -> AsyncIterator[bytes]:
        data = self.tar.read_bytes()
        for start in range(0, len(data), 100_000):
            yield data[start : start + 100_000]


@dataclass
class Bench:
    folder: Path
    tar: Path
    own: Path

    def open(self) -> PodVmRuntime:
        return PodVmRuntime(
            self.provider,
            OneImage(self.tar),
            HostNetwork(),
            SystemEnvironment(),
            instance="here",
            folder=self.folder / "kept",
            own=[self.own],
        )

    @property
    def provider(self) -> Qemu:
        return Qemu(QemuHost(folder=self.folder / "vms"))


SPEC = SandboxSpec("default", "pod", "0b5e7b46", hostname="a-pod", handler="kata-remote", network="none")


@dataclass
class Pod:
    """The one sandbox of these tests: a VM takes some seconds to boot."""

    bench: Bench
    runtime: PodVmRuntime
    sandbox: Sandbox

    async def start(self, name: str, *command: str, **more: Any) -> str:
        spec = ContainerSpec(name, image.NAME, command=command, **more)
        made = await self.runtime.create_container(self.sandbox, spec, SPEC)
        await self.runtime.start_container(made)
        return made

    async def ended(self, container_id: str) -> ContainerState:
        async with asyncio.timeout(60):
            while (state := await self.runtime.inspect_container(container_id)).phase != "exited":
                await asyncio.sleep(0.05)
        return state

    async def said(self, container_id: str, **options: Any) -> list[str]:
        lines = self.runtime.logs(container_id, LogOptions(**options))
        return [f"{line.stream} {line.data.decode()}" async for line in lines]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pod(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Pod]:
    if reason := why_no_qemu():
        pytest.skip(reason)
    tar = image.write_root(tmp_path_factory.mktemp("image") / "root.tar")
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="fpvm-") as folder:
        bench = Bench(Path(folder), tar, tmp_path_factory.mktemp("own"))
        runtime = bench.open()
        try:
            yield Pod(bench, runtime, await runtime.start_sandbox(SPEC))
        finally:
            await runtime.remove_instance()
            await runtime.close()
            assert await bench.provider.list({}) == []


async def test_a_container_has_its_user_environment_directory_and_volumes(pod: Pod) -> None:
    volume = pod.bench.own / "data"
    volume.mkdir()
    (volume / "file").write_text("from the node")
    script = (
        "id -u; id -g; pwd; echo $FROM $BOTH $MINE; cat /data/file; echo; touch /data/x || echo read-only; hostname"
    )
    made = await pod.start(
        "rich",
        "sh",
        "-c",
        script,
        env={"MINE": "pod", "BOTH": "pod"},
        mounts=(Mount(str(volume), "/data", read_only=True),),
        security=Security(user=1000),
    )

    state = await pod.ended(made)

    out = [line.removeprefix("stdout ").strip() for line in await pod.said(made) if line.startswith("stdout")]
    assert out == ["1000", "1000", "/tmp", "image pod pod", "from the node", "read-only", "a-pod"]
    assert (state.exit_code, state.image_id) == (0, "sha256:1")


async def test_without_a_command_the_image_says_what_runs(pod: Pod) -> None:
    made = await pod.start("plain")

    await pod.ended(made)

    assert await pod.said(made) == ["stdout by itself\n"]


async def test_a_container_may_do_little_sees_only_itself_and_nothing_of_the_vm(pod: Pod) -> None:
    script = "mount -t tmpfs x /mnt 2>/dev/null || echo no mounts; ps | wc -l; ls /run /opt 2>/dev/null; grep CapBnd /proc/self/status"
    made = await pod.start("small", "sh", "-c", script)

    await pod.ended(made)

    out = await pod.said(made)
    assert out[0] == "stdout no mounts\n"
    assert int(out[1].split()[1]) <= 5
    assert out[-1].split()[-1] == "00000000800405fb"


async def test_containers_of_a_pod_share_a_volume_and_what_one_wrote_for_the_node_comes_back(pod: Pod) -> None:
    shared, word = pod.bench.own / "shared", pod.bench.own / "last-word"
    shared.mkdir()
    word.touch()
    mounts = (Mount(str(shared), "/shared"), Mount(str(word), "/dev/termination-log"))
    first = await pod.start(
        "writer", "sh", "-c", "echo one > /shared/x; echo bye > /dev/termination-log", mounts=mounts
    )
    await pod.ended(first)
    second = await pod.start("reader", "cat", "/shared/x", mounts=mounts[:1])
    await pod.ended(second)

    assert await pod.said(second) == ["stdout one\n"]
    assert word.read_text() == "bye\n"


async def test_exec_has_input_output_both_ways_a_code_and_a_limit_of_time(pod: Pod) -> None:
    made = await pod.start("shell", "sleep", "1000")
    runtime = pod.runtime

    result = await runtime.exec(made, ["sh", "-c", "echo out; echo err >&2; exit 4"], 30)
    assert (result.exit_code, sorted(result.output.split())) == (4, [b"err", b"out"])
    with pytest.raises(TimeoutError):
        await runtime.exec(made, ["sleep", "30"], 0.3)
    with pytest.raises(RuntimeFailure, match="executable file not found"):
        await runtime.exec(made, ["nonsense"], 30)
    session = await runtime.open_exec(made, ["cat"], stdin=True, tty=False)
    sent = os.urandom(300_000)
    writing = asyncio.create_task(session.write(sent))
    got = b""
    async for _, data in session.read():
        got += data
        if len(got) == len(sent):
            await writing
            await session.end_input()
    assert got == sent
    assert await session.exit_code() == 0
    await session.close()

    await runtime.stop_container(made, 0)
    await runtime.stop_container(made, 0)
    assert (await runtime.inspect_container(made)).exit_code == 137


async def test_a_terminal_is_one_and_attach_hears_and_is_heard(pod: Pod) -> None:
    made = await pod.start("tty", "sh", "-c", "stty size; read word; echo got $word", tty=True, stdin=True)
    session = await pod.runtime.attach(made, stdin=True, tty=True)
    await session.write(b"hello\n")
    async with asyncio.timeout(30):
        heard = b"".join([data async for _, data in session.read()])
    await session.close()

    assert b"got hello" in heard


async def test_a_log_is_followed_to_its_end_and_its_tail_is_the_tail(pod: Pod) -> None:
    made = await pod.start("talker", "sh", "-c", "echo one; echo two >&2; sleep 0.3; echo three")

    async with asyncio.timeout(60):
        followed = await pod.said(made, follow=True)

    assert followed == ["stdout one\n", "stderr two\n", "stdout three\n"]
    assert await pod.said(made, tail=1) == ["stdout three\n"]


async def test_a_container_can_be_frozen_limited_measured_and_removed(pod: Pod) -> None:
    from fleetplane.node.runtime import Resources

    made = await pod.start("busy", "sleep", "1000")
    runtime = pod.runtime

    await runtime.pause_container(made)
    assert (await runtime.inspect_container(made)).phase == "paused"
    await runtime.resume_container(made)
    await runtime.update_resources(made, Resources(memory_bytes=64 << 20))
    used = next(one for one in await runtime.stats(SPEC.uid) if one.container_id == made)
    assert used.memory_limit_bytes == 64 << 20
    assert used.memory_bytes > 0
    await runtime.remove_container(made)
    await runtime.remove_container(made)
    with pytest.raises(NotThere):
        await runtime.inspect_container(made)


async def test_a_port_inside_is_reached_through_the_channel(pod: Pod) -> None:
    made = await pod.start("web", "httpd", "-f", "-p", "127.0.0.1:9000", "-h", "/etc")
    async with asyncio.timeout(30):
        while True:
            try:
                session = await pod.runtime.connect(pod.sandbox.id, 9000)
                break
            except RuntimeFailure:
                await asyncio.sleep(0.05)
        await session.write(b"GET /passwd HTTP/1.0\r\n\r\n")
        answer = b"".join([data async for _, data in session.read()])
    await session.close()

    assert b"root:x:0:0" in answer
    await pod.runtime.stop_container(made, 0)


async def test_what_is_of_the_node_is_refused(pod: Pod) -> None:
    with pytest.raises(RuntimeFailure, match="without any of the node's files"):
        await pod.start("nosy", "true", mounts=(Mount("/etc", "/x"),))
    (pod.bench.own / "link").symlink_to("/etc")
    with pytest.raises(RuntimeFailure, match="without any of the node's files"):
        await pod.start("sly", "true", mounts=(Mount(str(pod.bench.own / "link"), "/x"),))


async def test_a_runtime_that_starts_anew_finds_everything_and_a_dead_vm_is_the_end_of_its_containers(
    pod: Pod,
) -> None:
    made = await pod.start("steady", "sh", "-c", "echo here; sleep 1000")
    await asyncio.sleep(0.2)
    await pod.runtime.close()

    pod.runtime = runtime = pod.bench.open()
    assert [one.id for one in await runtime.sandboxes()] == [pod.sandbox.id]
    assert (await runtime.inspect_container(made)).phase == "running"
    assert await pod.said(made) == ["stdout here\n"]
    assert (await runtime.start_sandbox(SPEC)).id == pod.sandbox.id
    events = runtime.events()
    waiting = asyncio.ensure_future(anext(events))
    await asyncio.sleep(0)

    (vm,) = await pod.bench.provider.list({})
    pid = _holder(pod.bench.folder / "vms" / vm.id)
    assert pid is not None
    os.kill(pid, signal.SIGKILL)

    async with asyncio.timeout(30):
        seen = [await waiting]
        while (seen[-1].what, seen[-1].container_id) != ("exited", made):
            seen.append(await anext(events))
        await events.aclose()
    state = await runtime.inspect_container(made)
    assert (state.phase, state.exit_code, state.error) == ("exited", 137, "the pod VM has ended")
    await runtime.remove_sandbox(pod.sandbox.id)
    await runtime.remove_sandbox(pod.sandbox.id)
    assert await runtime.sandboxes() == []


async def test_the_size_of_a_vm_is_what_the_pod_asks_for_and_room_for_the_vm_itself() -> None:
    assert vm_size({VCPUS: "2", MEMORY: "512"}) == Size(2, 640)
    assert vm_size({VCPUS: "many", MEMORY: "-1"}) == Size()


async def test_pieces_of_a_line_count_as_one_in_a_tail() -> None:
    from datetime import UTC, datetime

    from fleetplane.node.runtime import LogLine

    def line(text: bytes, *, partial: bool = False) -> LogLine:
        return LogLine(datetime(2026, 1, 1, tzinfo=UTC), "stdout", text, partial)

    lines = [line(b"a"), line(b"b", partial=True), line(b"c"), line(b"d")]

    assert tail_of(lines, 2) == lines[1:]
    assert tail_of(lines, 0) == []
    assert tail_of(lines, 9) == lines
