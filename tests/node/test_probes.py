"""Counting answers against thresholds, and asking over the network."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.node.made import container, pod

from fleetplane.node.asking import NetworkAsker, port_number
from fleetplane.node.probes import Answer, Count, Timing, advance

TIMING = Timing.of({"successThreshold": 2, "failureThreshold": 3})


def after(answers: list[bool]) -> Count:
    count = Count()
    for healthy in answers:
        count = advance(count, healthy, TIMING)
    return count


def test_thresholds_must_be_reached_in_a_row() -> None:
    assert after([True]).verdict is None
    assert after([True, True]).verdict is True
    assert after([True, True, False, False]).verdict is True
    assert after([True, True, False, False, False]).verdict is False
    assert after([False, False, True, False]).verdict is None


@given(st.lists(st.booleans(), max_size=30))
def test_a_verdict_is_what_the_last_run_long_enough_said(answers: list[bool]) -> None:
    verdict, run = None, 0
    for number, healthy in enumerate(answers):
        run = run + 1 if number and answers[number - 1] == healthy else 1
        if run >= (TIMING.success_threshold if healthy else TIMING.failure_threshold):
            verdict = healthy
    assert after(answers).verdict is verdict


@asynccontextmanager
async def answering(status: int, delay: float = 0.0) -> AsyncIterator[int]:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await asyncio.sleep(delay)
        writer.write(f"HTTP/1.1 {status} X\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode())
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


@pytest.mark.parametrize(("status", "healthy"), [(200, True), (302, True), (399, True), (404, False), (500, False)])
async def test_http_answers(status: int, healthy: bool) -> None:
    asker, main = NetworkAsker(), pod().main[0]
    async with answering(status) as port:
        answer = await asker.http({"port": port, "path": "/x"}, main, ["127.0.0.1"], 2)
    await asker.close()

    assert answer.healthy is healthy
    assert healthy or answer.message == f"HTTP probe failed with statuscode: {status}"


async def test_http_takes_too_long() -> None:
    asker, main = NetworkAsker(), pod().main[0]
    async with answering(200, delay=5) as port:
        answer = await asker.http({"port": port}, main, ["127.0.0.1"], 0.1)
    await asker.close()

    assert not answer.healthy
    assert "context deadline exceeded" in answer.message


async def test_tcp_and_nobody() -> None:
    asker, main = NetworkAsker(), pod().main[0]
    async with answering(200) as port:
        assert (await asker.tcp({"port": port}, main, ["127.0.0.1"], 2)).healthy
    answer = await asker.tcp({"port": port}, main, ["127.0.0.1"], 2)
    assert not answer.healthy
    assert not (await asker.tcp({"port": port}, main, [], 2)).healthy


def test_ports_by_name() -> None:
    main = pod(container(ports=[{"name": "web", "containerPort": 8080}])).main[0]

    assert port_number(main, "web") == 8080
    assert port_number(main, "81") == 81
    for wrong in ("no", 0, 70_000):
        with pytest.raises(ValueError, match="port"):
            port_number(main, wrong)


# gRPC, against the health server that services themselves use


@asynccontextmanager
async def health_server() -> AsyncIterator[tuple[int, Any]]:
    """``set(service, status)`` of the second says what it answers."""
    grpc = pytest.importorskip("grpc", reason="the package grpcio is not installed")
    health = pytest.importorskip("grpc_health.v1.health", reason="the package grpcio-health-checking is not installed")
    from grpc_health.v1 import health_pb2_grpc

    servicer = health.aio.HealthServicer()
    server = grpc.aio.server()
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield port, servicer
    finally:
        await server.stop(grace=None)


async def ask_grpc(port: int, service: str = "", seconds: float = 5) -> Answer:
    probe = {"port": port, "service": service} if service else {"port": port}
    return await NetworkAsker().grpc(probe, pod().main[0], ("127.0.0.1",), seconds)


SERVING, NOT_SERVING = 1, 2


async def test_a_grpc_server_that_serves_is_healthy() -> None:
    async with health_server() as (port, health):
        await health.set("", SERVING)
        await health.set("shop.Cart", SERVING)

        assert (await ask_grpc(port)).healthy
        assert (await ask_grpc(port, "shop.Cart")).healthy


async def test_a_grpc_server_that_does_not_serve_is_not() -> None:
    async with health_server() as (port, health):
        await health.set("shop.Cart", NOT_SERVING)

        answer = await ask_grpc(port, "shop.Cart")

        assert answer == Answer(False, 'service unhealthy (responded with "NOT_SERVING")')


async def test_a_grpc_service_nobody_knows_is_not_healthy() -> None:
    async with health_server() as (port, _):
        answer = await ask_grpc(port, "shop.Nothing")

        assert not answer.healthy
        assert answer.message.startswith("error: health rpc failed")


async def test_a_grpc_server_without_health_is_said_so() -> None:
    grpc = pytest.importorskip("grpc", reason="the package grpcio is not installed")
    server = grpc.aio.server()
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()

    answer = await ask_grpc(port)

    assert answer.message == "error: this server does not implement the grpc health protocol (grpc.health.v1.Health)"
    await server.stop(grace=None)


async def test_a_grpc_server_that_is_silent_takes_no_longer_than_allowed() -> None:
    async def swallow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    pytest.importorskip("grpc", reason="the package grpcio is not installed")
    server = await asyncio.start_server(swallow, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server:
        answer = await ask_grpc(port, seconds=0.3)

    assert answer.message == f'timeout: failed to connect service "127.0.0.1:{port}" within 300ms'


async def test_nobody_on_a_grpc_port() -> None:
    pytest.importorskip("grpc", reason="the package grpcio is not installed")
    server = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()

    answer = await ask_grpc(port)

    assert not answer.healthy
    assert "refused" in answer.message
