"""What every container runtime must do, asked of each: simulated, several behind one face, Podman, containerd."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import pytest_asyncio
from tests.node import image
from tests.node.containerd import containerd, why_not_containerd

from fleetplane.model.environment import SystemEnvironment
from fleetplane.node.cri import CriRuntime
from fleetplane.node.network import pod_network
from fleetplane.node.podman import PodmanRuntime, look_at_host
from fleetplane.node.processes import run_command
from fleetplane.node.routed import RoutedRuntime
from fleetplane.node.runtime import (
    ContainerRuntime,
    ContainerSpec,
    Device,
    ImageMissing,
    LogOptions,
    Mount,
    NotThere,
    Resources,
    RuntimeFailure,
    Sandbox,
    SandboxSpec,
    Security,
    Session,
)
from fleetplane.node.simulated import SimulatedRuntime
from fleetplane.node.watchdog import grip
from fleetplane.node.watchdog.watch import Process

pytestmark = pytest.mark.asyncio(loop_scope="module")

OTHER = "other"


def why_not_podman() -> str:
    if not shutil.which("podman"):
        return "podman is not installed"
    if not shutil.which("busybox"):
        return "busybox is not installed"
    if not look_at_host().root:
        return "podman tests run as root"
    return ""


@dataclass
class Bench:
    """A runtime under test, and pods on it."""

    runtime: ContainerRuntime
    real: bool
    sandboxes: list[Sandbox]
    handler: str = ""

    async def sandbox(self, **changes: object) -> tuple[Sandbox, SandboxSpec]:
        uid = str(uuid.uuid4())
        spec = SandboxSpec("default", f"pod-{uid[:8]}", uid, node="here", hostname="a-pod", handler=self.handler)
        spec = replace(spec, **changes)  # type: ignore[arg-type]
        made = await self.runtime.start_sandbox(spec)
        self.sandboxes.append(made)
        return made, spec

    async def run(self, *command: str, **changes: object) -> tuple[Sandbox, str]:
        sandbox, shared = await self.sandbox()
        spec = ContainerSpec("main", image.NAME, command=command or ("sleep", "1000"))
        spec = replace(spec, **changes)  # type: ignore[arg-type]
        container_id = await self.runtime.create_container(sandbox, spec, shared)
        await self.runtime.start_container(container_id)
        return sandbox, container_id

    async def ended(self, container_id: str, seconds: float = 10) -> int:
        async with asyncio.timeout(seconds):
            async for _ in self.runtime.logs(container_id, LogOptions(follow=True)):
                pass
            state = await self.runtime.inspect_container(container_id)
        assert state.phase == "exited"
        return state.exit_code


@pytest_asyncio.fixture(
    params=[
        "simulated",
        "routed",
        pytest.param("podman", marks=pytest.mark.podman),
        pytest.param("cri", marks=pytest.mark.podman),
    ],
    scope="module",
    loop_scope="module",
)
async def runtime(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[ContainerRuntime]:
    environment = SystemEnvironment()
    if request.param == "simulated":
        simulated = SimulatedRuntime(environment)
        await simulated.pull_image(image.NAME)
        yield simulated
        await simulated.close()
        return
    if request.param == "routed":
        routed = RoutedRuntime(SimulatedRuntime(environment), {OTHER: SimulatedRuntime(environment)})
        await routed.pull_image(image.NAME, handler=OTHER)
        yield routed
        await routed.close()
        return
    if request.param == "cri":
        if reason := why_not_containerd():
            pytest.skip(reason)
        with containerd() as socket:
            directory = tmp_path_factory.mktemp("cri")
            cri = await CriRuntime.open(socket, directory, uuid.uuid4().hex[:8], environment)
            await cri.import_image(str(image.write_root(directory / "root.tar")), image.NAME)
            yield cri
            await cri.remove_instance(cri.instance)
            await cri.close()
        return
    if reason := why_not_podman():
        pytest.skip(reason)
    instance = uuid.uuid4().hex[:8]
    network, _ = pod_network(instance, ["10.97.0.0/16"])
    directory = Path("/tmp") / f"fp-{instance}"
    podman = await PodmanRuntime.open(look_at_host(), directory, network, instance, environment)
    if await podman.image(image.NAME) is None:
        archive = image.write_root(tmp_path_factory.mktemp("image") / "root.tar")
        await podman.import_image(str(archive), image.NAME)
    yield podman
    await network.stop(remove=True)
    await podman.close()
    shutil.rmtree(directory, ignore_errors=True)


@pytest_asyncio.fixture(loop_scope="module")
async def bench(runtime: ContainerRuntime) -> AsyncIterator[Bench]:
    handler = OTHER if isinstance(runtime, RoutedRuntime) else ""
    made = Bench(runtime, isinstance(runtime, PodmanRuntime | CriRuntime), [], handler)
    yield made
    for sandbox in made.sandboxes:
        await runtime.remove_sandbox(sandbox.id)


async def test_a_container_runs_and_is_found_by_its_pod(bench: Bench) -> None:
    sandbox, container_id = await bench.run()

    (found,) = await bench.runtime.containers(sandbox.uid)

    assert (found.id, found.phase, found.name, found.attempt) == (container_id, "running", "main", 0)
    assert found.pod_uid == sandbox.uid
    assert found.sandbox_id == sandbox.id
    assert found.started_at is not None


async def test_exit_code_is_told(bench: Bench) -> None:
    _, container_id = await bench.run("sh", "-c", "exit 3")

    assert await bench.ended(container_id) == 3


async def test_exit_is_an_event(bench: Bench) -> None:
    events = bench.runtime.events()
    waiting = asyncio.ensure_future(anext(events))
    await asyncio.sleep(0)
    sandbox, container_id = await bench.run("sh", "-c", "sleep 0.2; exit 1")
    await bench.runtime.inspect_container(container_id)
    seen = []
    async with asyncio.timeout(10):
        seen.append(await waiting)
        while seen[-1].what != "exited":
            seen.append(await anext(events))

    assert (seen[-1].pod_uid, seen[-1].container_id) == (sandbox.uid, container_id)
    await events.aclose()  # type: ignore[attr-defined]


async def test_output_is_logged_with_its_stream_and_time(bench: Bench) -> None:
    _, container_id = await bench.run("sh", "-c", "echo one; echo two")
    await bench.ended(container_id)

    lines = [line async for line in bench.runtime.logs(container_id, LogOptions())]

    assert [(line.stream, line.data) for line in lines] == [("stdout", b"one\n"), ("stdout", b"two\n")]
    last = [line.data async for line in bench.runtime.logs(container_id, LogOptions(tail=1))]
    assert last == [b"two\n"]


async def test_following_a_log_ends_with_the_container(bench: Bench) -> None:
    _, container_id = await bench.run("sh", "-c", "echo early; sleep 0.5")

    async with asyncio.timeout(10):
        lines = [line.data async for line in bench.runtime.logs(container_id, LogOptions(follow=True))]

    assert lines == [b"early\n"]


async def test_stopping_is_final_and_may_be_repeated(bench: Bench) -> None:
    _, container_id = await bench.run()

    await bench.runtime.stop_container(container_id, 0)
    await bench.runtime.stop_container(container_id, 0)

    assert (await bench.runtime.inspect_container(container_id)).phase == "exited"


async def test_a_removed_container_is_gone(bench: Bench) -> None:
    sandbox, container_id = await bench.run()

    await bench.runtime.remove_container(container_id)
    await bench.runtime.remove_container(container_id)

    assert await bench.runtime.containers(sandbox.uid) == []
    with pytest.raises(NotThere):
        await bench.runtime.inspect_container(container_id)


async def test_pause_and_resume(bench: Bench) -> None:
    _, container_id = await bench.run()

    await bench.runtime.pause_container(container_id)
    assert (await bench.runtime.inspect_container(container_id)).phase == "paused"
    await bench.runtime.resume_container(container_id)
    assert (await bench.runtime.inspect_container(container_id)).phase == "running"


async def test_exec_tells_code_and_output(bench: Bench) -> None:
    _, container_id = await bench.run()

    result = await bench.runtime.exec(container_id, ["sh", "-c", "echo said; exit 4"], 10)

    assert (result.exit_code, result.output) == (4, b"said\n")


async def test_exec_has_a_time_limit(bench: Bench) -> None:
    _, container_id = await bench.run()

    with pytest.raises(TimeoutError):
        await bench.runtime.exec(container_id, ["sleep", "30"], 0.5)


async def test_a_session_carries_input_to_its_end(bench: Bench) -> None:
    _, container_id = await bench.run()
    session = await bench.runtime.open_exec(container_id, ["cat"], stdin=True, tty=False)

    await session.write(b"hello\n")
    await session.end_input()
    async with asyncio.timeout(10):
        output = b"".join([data async for _, data in session.read()])

    assert output == b"hello\n"
    assert await session.exit_code() == 0
    await session.close()


async def test_a_second_attempt_stands_beside_the_first(bench: Bench) -> None:
    sandbox, shared = await bench.sandbox()
    for attempt in (0, 1):
        spec = ContainerSpec("main", image.NAME, attempt=attempt, command=("sh", "-c", f"exit {attempt}"))
        container_id = await bench.runtime.create_container(sandbox, spec, shared)
        await bench.runtime.start_container(container_id)
        await bench.ended(container_id)

    found = {state.attempt: state.exit_code for state in await bench.runtime.containers(sandbox.uid)}
    assert found == {0: 0, 1: 1}


async def test_starting_a_sandbox_twice_makes_one(bench: Bench) -> None:
    sandbox, spec = await bench.sandbox()

    again = await bench.runtime.start_sandbox(spec)

    assert (again.id, again.addresses) == (sandbox.id, sandbox.addresses)


async def test_a_removed_sandbox_takes_its_containers(bench: Bench) -> None:
    sandbox, _ = await bench.run()

    await bench.runtime.remove_sandbox(sandbox.id)
    await bench.runtime.remove_sandbox(sandbox.id)

    assert await bench.runtime.containers(sandbox.uid) == []
    assert sandbox.id not in {one.id for one in await bench.runtime.sandboxes()}


async def test_a_missing_image_cannot_be_pulled(bench: Bench) -> None:
    assert await bench.runtime.image("localhost/nothing:missing") is None
    with pytest.raises(ImageMissing):
        await bench.runtime.pull_image("localhost/nothing:missing")


async def test_nothing_to_find_is_said_so(bench: Bench) -> None:
    with pytest.raises(NotThere):
        await bench.runtime.start_container("0" * 64)


async def test_use_is_measured(bench: Bench) -> None:
    sandbox, container_id = await bench.run()

    (stats,) = await bench.runtime.stats(sandbox.uid)

    assert stats.container_id == container_id
    assert stats.memory_bytes > 0


# What only real containers can show


@pytest.fixture
def real(bench: Bench) -> Bench:
    if not bench.real:
        pytest.skip("only real containers can show this")
    return bench


async def _once_it_listens(host: str, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    failure = "nothing"
    for _ in range(600):
        try:
            async with asyncio.timeout(5):
                return await asyncio.open_connection(host, port)
        except OSError as error:  # TimeoutError too
            failure = repr(error)
            await asyncio.sleep(0.05)
    shown = [await run_command(["ip", *words]) for words in (("addr",), ("neigh",), ("route", "get", host))]
    raise AssertionError(f"{host}:{port} is not reached: {failure}\n" + "\n".join(one.decode() for one in shown))


async def test_pods_have_addresses_of_their_own(real: Bench) -> None:
    sandbox, _ = await real.run("httpd", "-f", "-p", "8080")
    if not sandbox.addresses:
        pytest.skip("this host gives pods no network of their own")

    reader, writer = await _once_it_listens(sandbox.addresses[0], 8080)
    writer.write(b"GET / HTTP/1.0\r\n\r\n")
    assert (await reader.readline()).startswith(b"HTTP/1")
    writer.close()


async def _once_connected(runtime: ContainerRuntime, sandbox_id: str, port: int) -> Session:
    async with asyncio.timeout(10):
        while True:
            try:
                return await runtime.connect(sandbox_id, port)
            except RuntimeFailure:
                await asyncio.sleep(0.02)


async def test_port_forward_reaches_the_loopback_of_the_pod(real: Bench) -> None:
    sandbox, _ = await real.run("httpd", "-f", "-p", "127.0.0.1:9000")
    if not sandbox.addresses:
        pytest.skip("this host gives pods no network of their own")

    session = await _once_connected(real.runtime, sandbox.id, 9000)
    await session.write(b"GET / HTTP/1.0\r\n\r\n")
    async with asyncio.timeout(10):
        output = b"".join([data async for _, data in session.read()])

    assert output.startswith(b"HTTP/1")
    await session.close()


async def test_limits_reach_the_kernel(real: Bench) -> None:
    sandbox, container_id = await real.run(resources=Resources(cpu_shares=512, cpu_quota=50_000, memory_bytes=64 << 20))

    (stats,) = await real.runtime.stats(sandbox.uid)
    assert stats.memory_limit_bytes == 64 << 20
    await real.runtime.update_resources(container_id, Resources(cpu_shares=512, memory_bytes=96 << 20))
    (stats,) = await real.runtime.stats(sandbox.uid)
    assert stats.memory_limit_bytes == 96 << 20


async def test_out_of_memory_is_told(real: Bench) -> None:
    _, container_id = await real.run(
        "sh", "-c", "dd if=/dev/zero of=/dev/null bs=100M count=5", resources=Resources(memory_bytes=16 << 20)
    )

    assert await real.ended(container_id) == 137
    assert (await real.runtime.inspect_container(container_id)).oom_killed


async def test_a_bad_command_is_told_in_words(real: Bench) -> None:
    with pytest.raises(RuntimeFailure, match=r"not found|no such file"):
        await real.run("/nonsense")


def _readable_file(directory: Path) -> None:
    directory.chmod(0o755)
    (directory / "file").write_text("from the host")


async def test_user_mounts_environment_and_directory(real: Bench, tmp_path: Path) -> None:
    _readable_file(tmp_path)
    _, container_id = await real.run(
        "sh",
        "-c",
        "id -u; id -g; cat /data/file; echo; echo $WORD; pwd; touch /data/x || echo read-only; hostname",
        env={"WORD": "value"},
        working_dir="/tmp",
        mounts=(Mount(str(tmp_path), "/data", read_only=True),),
        security=Security(user=1000, group=1000),
    )
    await real.ended(container_id)

    lines = [line async for line in real.runtime.logs(container_id, LogOptions())]
    said = b"".join(line.data for line in lines if line.stream == "stdout").decode().split("\n")
    assert said == ["1000", "1000", "from the host", "value", "/tmp", "read-only", "a-pod", ""]


async def test_containers_of_a_shared_pod_see_each_other(real: Bench) -> None:
    sandbox, shared = await real.sandbox(shared=True, pid="pod")
    ids = []
    for name in ("one", "two"):
        spec = ContainerSpec(name, image.NAME, command=("sleep", "1000"))
        ids.append(await real.runtime.create_container(sandbox, spec, shared))
        await real.runtime.start_container(ids[-1])

    result = await real.runtime.exec(ids[0], ["ps"], 10)

    assert result.output.count(b"sleep 1000") == 2


@pytest.mark.parametrize("frozen", [False, True])
async def test_a_watchdog_kills_all_of_a_container_and_nothing_else(real: Bench, frozen: bool) -> None:
    """Also what its first process leaves behind where the pod shares its processes."""
    sandbox, shared = await real.sandbox(shared=True, pid="pod")
    states = []
    for name in ("one", "two"):
        spec = ContainerSpec(name, image.NAME, command=("sh", "-c", "sleep 998 & exec sleep 999"))
        made = await real.runtime.create_container(sandbox, spec, shared)
        await real.runtime.start_container(made)
        states.append(await real.runtime.inspect_container(made))
    one, two = states
    if frozen:
        await real.runtime.pause_container(one.id)

    held = grip.grip(Process(one.id, one.pid, grip.began(one.pid)))
    assert held is not None
    grip.kill(one.id, held)
    held.close()

    assert await real.ended(one.id) == 137
    async with asyncio.timeout(10):
        while left := grip.members(one.id):
            for process in left:
                process.close()
            await asyncio.sleep(0.02)
    assert (await real.runtime.inspect_container(two.id)).phase == "running"


async def test_a_terminal_is_resized(real: Bench) -> None:
    from fleetplane.node.runtime import Terminal

    _, container_id = await real.run()
    session = await real.runtime.open_exec(
        container_id, ["sh", "-c", "sleep 0.3; stty size"], stdin=True, tty=True, size=Terminal(80, 24)
    )
    await session.resize(Terminal(132, 43))
    async with asyncio.timeout(10):
        output = b"".join([data async for _, data in session.read()])

    assert b"43 132" in output
    await session.close()


async def test_what_runs_is_found_again_by_another_runtime(real: Bench) -> None:
    """The agent may die at any time: nothing it needs is only in its memory."""
    sandbox, container_id = await real.run()
    second = await _opened_again(real.runtime)

    (found,) = [one for one in await second.sandboxes() if one.uid == sandbox.uid]
    (state,) = await second.containers(sandbox.uid)

    assert (found.id, found.ready, found.addresses) == (sandbox.id, True, sandbox.addresses)
    assert (state.id, state.phase) == (container_id, "running")
    assert state.started_at is not None


async def _opened_again(first: ContainerRuntime) -> ContainerRuntime:
    """As the next agent would."""
    if isinstance(first, CriRuntime):
        return await CriRuntime.open(first.socket, first.directory, first.instance, SystemEnvironment())
    assert isinstance(first, PodmanRuntime)
    network, _ = pod_network(first.instance, ["10.97.0.0/16"])
    return await PodmanRuntime.open(look_at_host(), first.directory, network, first.instance, SystemEnvironment())


async def test_a_service_that_dies_is_called_back_to_life(real: Bench) -> None:
    sandbox, container_id = await real.run()
    if not isinstance(real.runtime, PodmanRuntime):
        pytest.skip("only Podman's service is started by us")
    os.kill(int((real.runtime.directory / "podman.pid").read_text()), signal.SIGKILL)
    await asyncio.sleep(0.1)

    (state,) = await real.runtime.containers(sandbox.uid)
    assert (state.id, state.phase) == (container_id, "running")


async def test_a_container_whose_answer_was_lost_is_made_again(real: Bench) -> None:
    sandbox, shared = await real.sandbox()
    spec = ContainerSpec("main", image.NAME, command=("sleep", "1000"))
    first = await real.runtime.create_container(sandbox, spec, shared)

    second = await real.runtime.create_container(sandbox, spec, shared)

    assert second != first
    (state,) = await real.runtime.containers(sandbox.uid)
    assert (state.id, state.phase) == (second, "created")


async def test_devices_are_given_by_cdi_names(real: Bench) -> None:
    """A made-up device, as a vendor's toolkit would describe it. What does not know CDI must refuse."""
    kind = f"fleetplane.test/thing{uuid.uuid4().hex[:8]}"
    edits = {"env": ["THING=mine"], "deviceNodes": [{"path": "/dev/thing", "hostPath": "/dev/null"}]}
    described = {"cdiVersion": "0.5.0", "kind": kind, "devices": [{"name": "0", "containerEdits": edits}]}
    path = Path("/var/run/cdi") / f"{kind.replace('/', '-')}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(described))
    try:
        words = ("sh", "-c", 'echo "$THING"; test -c /dev/thing && echo there')
        if isinstance(real.runtime, CriRuntime) and (await real.runtime.info()).version.startswith("1.6"):
            with pytest.raises(RuntimeFailure, match=r"knows no CDI devices such as fleetplane.test/thing"):
                await real.run(*words, devices=(Device(f"{kind}=0"),))
            return
        _, container_id = await real.run(*words, devices=(Device(f"{kind}=0"),))
        await real.ended(container_id)
        lines = [line.data async for line in real.runtime.logs(container_id, LogOptions())]
        assert lines == [b"mine\n", b"there\n"]
    finally:
        path.unlink()
