"""A request and its response, free of any HTTP library: what travels down the stages.

The network front end builds a ``Request`` from aiohttp, the in-process transport builds one directly; after that both
are the same thing and take the same way down.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

JSON = "application/json"


@dataclass(slots=True)
class Request:
    """``path`` is decoded and starts with ``/``; ``query`` keeps a repeated parameter's first value, ``queries`` all.

    ``headers`` is looked up by lower-case names; from the network it is a multi-mapping with ``getall``.
    ``peer_certificate`` is the verified client certificate in DER, if one was shown.
    ``in_process_user`` names the identity of an in-process caller (it skips authentication only, no other stage).
    """

    method: str
    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    queries: Mapping[str, list[str]] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    peer_certificate: bytes | None = None
    remote: str = ""
    in_process_user: Any = None
    connection: Any = None


@dataclass(slots=True)
class Response:
    """A complete answer, a streamed one when ``stream`` is set, or a connection taken over when ``upgrade`` is.

    ``upgrade`` gets the front end's own request and serves the connection until it ends.
    """

    status: int = 200
    body: bytes = b""
    content_type: str = JSON
    headers: dict[str, str] = field(default_factory=dict)
    stream: AsyncIterator[bytes] | None = None
    upgrade: Callable[[Any], Awaitable[Any]] | None = None


class Handler(Protocol):
    async def __call__(self, request: Request) -> Response: ...
