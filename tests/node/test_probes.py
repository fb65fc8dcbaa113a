"""Counting answers against thresholds, and asking over the network."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.node.made import container, pod

from fleetplane.node.asking import NetworkAsker, port_number
from fleetplane.node.probes import Count, Timing, advance

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
