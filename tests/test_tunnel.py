"""A node that dialled in: the server reaches its pods through the connection the node keeps, over real TLS."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from fleetplane.apiserver.http import Request
from fleetplane.apiserver.streaming.protocol import LogQuery
from fleetplane.apiserver.streaming.tunnel import TunnelStreams
from fleetplane.client.kubeconfig import find_access
from fleetplane.interfaces.cli.joining import _obtain
from fleetplane.model.builtin.types import NODES, PODS
from fleetplane.model.environment import SystemEnvironment
from fleetplane.model.errors import ApiError
from fleetplane.model.multiplex import WINDOW
from fleetplane.model.objects import Object
from fleetplane.model.user import UserInfo
from fleetplane.node.runtime import Session, Stream, Terminal
from fleetplane.node.stats import ContainerUse, NodeUse
from fleetplane.node.streams import ExecRequest, LogRequest, PodRef
from fleetplane.node.tunnel import keep_tunnel
from fleetplane.plane import BOOTSTRAP_USER, Plane
from fleetplane.settings import Settings

NODE = "edge-1"
TUNNEL = f"/apis/fleetplane.io/v1/nodetunnels/{NODE}"
LOG = "/api/v1/namespaces/default/pods/web/log"


class Echo:
    """A command that repeats its input and exits with 3."""

    def __init__(self) -> None:
        self.input: asyncio.Queue[bytes | None] = asyncio.Queue()
        self.sizes: list[Terminal] = []
        self.closed = asyncio.Event()

    async def read(self) -> AsyncIterator[tuple[Stream, bytes]]:
        yield "stderr", b"listening"
        while (data := await self.input.get()) is not None:
            yield "stdout", data

    async def write(self, data: bytes) -> None:
        await self.input.put(data)

    async def end_input(self) -> None:
        await self.input.put(None)

    async def resize(self, size: Terminal) -> None:
        self.sizes.append(size)

    async def exit_code(self) -> int:
        return 3

    async def close(self) -> None:
        self.closed.set()


@dataclass
class Pods:
    """The ``NodeStreams`` of a node with one pod, which logs without end when followed."""

    session: Echo = field(default_factory=Echo)
    asked: list[tuple[PodRef, Any]] = field(default_factory=list)
    logged: int = 0
    log_closed: asyncio.Event = field(default_factory=asyncio.Event)

    async def logs(self, pod: PodRef, request: LogRequest) -> AsyncIterator[bytes]:
        self.asked.append((pod, request))
        return self._lines(request.follow)

    async def _lines(self, follow: bool) -> AsyncIterator[bytes]:
        try:
            yield b"hello\n"
            while follow:
                self.logged += 10_000
                yield b"x" * 10_000
                await asyncio.sleep(0)
        finally:
            self.log_closed.set()

    async def exec(self, pod: PodRef, request: ExecRequest) -> Session:
        self.asked.append((pod, request))
        if request.container == "nobody":
            raise ApiError(404, 'container not found ("nobody")', reason="NotFound")
        return self.session

    async def attach(self, pod: PodRef, request: ExecRequest) -> Session:
        return self.session

    async def port_forward(self, pod: PodRef, port: int) -> Session:
        self.asked.append((pod, port))
        return self.session


async def eventually(look: Callable[[], Any]) -> Any:
    async with asyncio.timeout(10):
        while not (found := look()):
            await asyncio.sleep(0.02)
    return found


@dataclass
class Edge:
    plane: Plane
    pods: Pods
    pod: Object
    tunnel: asyncio.Task[None]

    @property
    def streams(self) -> TunnelStreams:
        found = self.plane._tunnels.streams_of(NODE)
        assert found is not None
        return found

    async def logs(self, **query: Any) -> AsyncIterator[bytes]:
        return await self.streams.logs(self.pod, "main", LogQuery(**query))


@pytest_asyncio.fixture
async def edge(tmp_path: Path) -> AsyncIterator[Edge]:
    environment = SystemEnvironment()
    async with Plane(Settings(data_dir=tmp_path / "data", port=0, runtime="none", operators="none")) as plane:
        client = plane.client()
        await client.create(NODES, {"metadata": {"name": NODE}})
        spec = {"nodeName": NODE, "containers": [{"name": "main", "image": "x"}]}
        pod = await client.create(PODS, {"metadata": {"name": "web"}, "spec": spec}, "default")
        authority = (plane.settings.data_dir / "pki" / "ca.crt").read_bytes()
        kubeconfig = tmp_path / "node.kubeconfig"
        await _obtain(client, kubeconfig, plane.url, authority, NODE, environment)
        pods = Pods()
        use = NodeUse(datetime.now(UTC), 15.0, 5, 6, (ContainerUse(pod["metadata"]["uid"], "main", "c", 7, 8192),))

        async def usage() -> NodeUse:
            return use

        tunnel = asyncio.create_task(keep_tunnel(find_access(kubeconfig), environment, NODE, pods, usage))
        await eventually(lambda: plane._tunnels.streams_of(NODE))
        yield Edge(plane, pods, pod, tunnel)
        tunnel.cancel()
        await asyncio.gather(tunnel, return_exceptions=True)


async def test_logs_come_through_the_tunnel(edge: Edge) -> None:
    log = await edge.plane.client().raw("GET", LOG, query={"tailLines": "5"})

    assert log == b"hello\n"
    ref, request = edge.pods.asked[0]
    assert ref == PodRef("default", "web", edge.pod["metadata"]["uid"])
    assert (request.container, request.tail_lines, request.follow) == ("main", 5, False)


async def test_a_session_goes_both_ways_to_its_exit_code(edge: Edge) -> None:
    session = await edge.streams.exec(edge.pod, "main", ["cat", "-"], stdin=True, tty=True)

    await session.resize(80, 24)
    await session.write(b"ping" * 50_000)
    await session.end_input()
    output = [piece async for piece in session.read()]

    assert output[0] == ("stderr", b"listening")
    assert b"".join(data for _, data in output[1:]) == b"ping" * 50_000
    assert await session.exit_code() == 3
    assert edge.pods.session.sizes == [Terminal(80, 24)]
    assert edge.pods.asked[0][1] == ExecRequest("main", ("cat", "-"), stdin=True, tty=True)
    await session.close()
    await asyncio.wait_for(edge.pods.session.closed.wait(), 5)


async def test_ports_are_forwarded(edge: Edge) -> None:
    session = await edge.streams.port_forward(edge.pod, 8080)
    await session.write(b"GET")
    await session.end_input()

    assert ("stdout", b"GET") in [piece async for piece in session.read()]
    assert edge.pods.asked[0][1] == 8080


async def test_the_nodes_refusal_is_told_in_its_words(edge: Edge) -> None:
    with pytest.raises(ApiError, match=r'container not found \("nobody"\)') as caught:
        await edge.streams.exec(edge.pod, "nobody", ["true"], stdin=False, tty=False)

    assert caught.value.code == 404


async def test_a_log_nobody_reads_stalls_only_itself(edge: Edge) -> None:
    stalled = await edge.logs(follow=True)
    await eventually(lambda: edge.pods.logged > WINDOW // 2)

    session = await edge.streams.exec(edge.pod, "main", ["cat"], stdin=True, tty=False)
    await session.end_input()
    await asyncio.wait_for(_drain(session.read()), 5)

    assert edge.pods.logged <= WINDOW + 50_000
    await stalled.aclose()  # type: ignore[attr-defined]
    await asyncio.wait_for(edge.pods.log_closed.wait(), 5)


async def test_usage_comes_through_the_tunnel(edge: Edge) -> None:
    found = await edge.plane.client().raw("GET", "/apis/metrics.k8s.io/v1beta1/namespaces/default/pods/web")

    assert b'"cpu":"7n","memory":"8Ki"' in found


async def test_a_lost_connection_is_told_and_made_again(edge: Edge) -> None:
    before = edge.streams
    session = await before.exec(edge.pod, "main", ["cat"], stdin=True, tty=False)

    await edge.plane._tunnels.close()
    await asyncio.wait_for(_drain(session.read()), 5)

    with pytest.raises(ApiError, match="was lost before the command ended"):
        await session.exit_code()
    await asyncio.wait_for(edge.pods.session.closed.wait(), 5)
    await eventually(lambda: edge.plane._tunnels.streams_of(NODE) not in {None, before})
    assert await edge.plane.client().raw("GET", LOG) == b"hello\n"


async def test_a_followed_log_does_not_end_as_if_it_were_whole(edge: Edge) -> None:
    following = await edge.logs(follow=True)
    await anext(following)

    await edge.plane._tunnels.close()

    with pytest.raises(ConnectionResetError, match="was lost"):
        await asyncio.wait_for(_drain(following), 5)


async def test_a_node_that_is_gone_cannot_be_reached(edge: Edge) -> None:
    edge.tunnel.cancel()
    await eventually(lambda: edge.plane._tunnels.streams_of(NODE) is None)

    answer = await edge.plane.server.handle(Request("GET", LOG, in_process_user=BOOTSTRAP_USER))

    assert answer.status == 503
    assert b"the node edge-1 of pod web cannot be reached now" in answer.body


@pytest.mark.parametrize(
    ("user", "code"),
    [
        (UserInfo("admin", groups=("system:masters",)), 403),
        (UserInfo("system:node:edge-2", groups=("system:nodes",)), 403),
        (UserInfo(f"system:node:{NODE}", groups=("system:authenticated",)), 403),
        (UserInfo(f"system:node:{NODE}", groups=("system:nodes",)), 400),
    ],
)
async def test_only_the_node_may_open_its_tunnel(edge: Edge, user: UserInfo, code: int) -> None:
    with pytest.raises(ApiError) as caught:
        await edge.plane.client(user).raw("GET", TUNNEL)

    assert caught.value.code == code


async def _drain(pieces: AsyncIterator[Any]) -> None:
    async for _ in pieces:
        await asyncio.sleep(0)
