"""Whatever is sent to what the served OpenAPI describes: the answer is an object or a Status, and never a 500.

Requests are made from the documents the server itself gives out: every path with every method, query parameters, and
bodies of the declared schema, then spoilt a little. The requests take the same way through the server as from the
network, save TLS, authentication and sockets (``test_hostile`` has those).
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager, suppress

import orjson
import pytest

from fleetplane.apiserver.http import Response
from fleetplane.testing.plane import TestServer, running_server

from .differential.custom import DEFINITIONS, definition
from .fuzzing import STREAMS, Api, Maker, Sent, examples


class Unexpected(logging.Handler):
    """Keeps whatever the server logs as an error."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.records: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(logging.Formatter("%(message)s").format(record))


@asynccontextmanager
async def watched_server() -> AsyncIterator[tuple[TestServer, Api, Unexpected]]:
    handler = Unexpected()
    logging.getLogger().addHandler(handler)
    try:
        async with running_server() as server:
            await server.call("POST", DEFINITIONS, definition("gadgets"))
            api = Api()
            await api.read(server)
            yield server, api, handler
    finally:
        logging.getLogger().removeHandler(handler)


async def send(server: TestServer, sent: Sent) -> tuple[Response, bytes]:
    """The response and all of its body; streams are read for a moment."""
    response = await server.respond(sent.method, sent.path, sent.body, query=sent.query, headers=sent.headers)
    body = response.body
    if response.stream is not None:
        parts: list[bytes] = []

        async def read() -> None:
            async for part in response.stream or ():  # type: ignore[union-attr]
                parts.append(part)

        with suppress(TimeoutError):
            await asyncio.wait_for(read(), 0.02)
        if isinstance(response.stream, AsyncGenerator):
            await response.stream.aclose()
        body = b"".join(parts)
    return response, body


def wrong(sent: Sent, response: Response, body: bytes) -> str:
    """What is wrong with an answer, empty when nothing is."""
    if response.status >= 500 and response.status not in (501, 503, 504):
        return f"answered {response.status}: {body[:500]!r}"
    if response.content_type != "application/json" or response.upgrade is not None:
        return ""
    for line in body.splitlines() if response.stream is not None else [body]:
        try:
            answer = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            return f"answered no JSON ({error}): {line[:500]!r}"
        if response.stream is not None:
            answer = answer.get("object", {}) if answer.get("type") else {}
        if not isinstance(answer, dict) or not answer.get("kind"):
            return f"answered something without a kind: {line[:500]!r}"
        if response.status >= 400 and not (answer["kind"] == "Status" and answer.get("code") == response.status):
            return f"answered {response.status} without its Status: {line[:500]!r}"
    return ""


async def fuzz(seed: int, rounds: int) -> list[str]:
    """Sends every operation ``rounds`` times; returns what went wrong, at most ten things."""
    problems: list[str] = []
    async with watched_server() as (server, api, unexpected):
        dice = random.Random(seed)
        maker = Maker(api, dice)
        for one in examples(api):
            await server.call("POST", one.path, one.base)
        operations = [one for one in api.operations if not one.path.rpartition("/")[2].startswith(STREAMS)]
        for _ in range(rounds):
            dice.shuffle(operations)
            for operation in operations:
                if operation.method == "DELETE" and dice.random() < 0.6:
                    continue
                sent = maker.request(operation)
                response, body = await send(server, sent)
                problem = wrong(sent, response, body)
                if unexpected.records:
                    problem = f"{problem}\n{unexpected.records.pop()}"
                if problem:
                    problems.append(f"seed {seed}: {sent}\n{problem}")
                    if len(problems) == 10:
                        return problems
    return problems


@pytest.mark.parametrize("seed", range(2))
async def test_no_request_the_openapi_describes_fails_unexpectedly(seed: int) -> None:
    problems = await fuzz(seed, rounds=1)

    assert not problems, "\n\n".join(problems)


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(100, 110))
async def test_many_requests_and_none_fails_unexpectedly(seed: int) -> None:
    problems = await fuzz(seed, rounds=30)

    assert not problems, "\n\n".join(problems)
