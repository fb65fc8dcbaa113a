"""Passing requests on: as they came, but for who sends them.

The user is asserted in ``X-Remote-*`` headers under our front-proxy certificate; whatever credential or assertion the
client sent stays here. Answers are streamed as they come, so watches work; connections that switch protocols (exec and its
kin) are carried byte by byte. Nobody is sent elsewhere: an answer that redirects is refused, because a client would follow
it with its credentials.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from multidict import CIMultiDict

from fleetplane.apiserver.aggregation.remotes import Remote
from fleetplane.apiserver.aggregation.switching import switch, wanted_protocol
from fleetplane.apiserver.aggregation.tunnelling import carry
from fleetplane.apiserver.authentication.chain import WEBSOCKET_BEARER
from fleetplane.apiserver.http import Request, Response
from fleetplane.apiserver.outgoing import CallFailed, Destination, Outgoing, bounded
from fleetplane.apiserver.own_writes import SERVER
from fleetplane.apiserver.streaming.upgrade import take_over
from fleetplane.model import errors
from fleetplane.model.user import UserInfo

if TYPE_CHECKING:
    import ssl

    from aiohttp import ClientResponse
    from aiohttp.web import BaseRequest, StreamResponse

Query = Sequence[tuple[str, str]]
MAX_CARRIED: Final = 1000
"""So many connections that switched protocols are carried at once."""

_HOP_BY_HOP: Final = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
_OURS: Final = frozenset({"host", "authorization", "cookie", "content-length", "accept-encoding", "expect"})
_OURS_PREFIXES: Final = ("x-remote-", "impersonate-")
_NOT_BACK: Final = _HOP_BY_HOP | {"content-length", "content-encoding", "content-type", "date", "server"}
_NOT_SWITCHED: Final = frozenset({"connection", "content-length", "transfer-encoding"})
_OFFERED: Final = "Sec-WebSocket-Protocol"
_WHOLE: Final = 256 * 1024
"""An answer this small is read whole, so that it is one piece to audit and metrics."""


class Proxy:
    """``client_file`` holds the front-proxy certificate and its key (PEM)."""

    def __init__(self, outgoing: Outgoing, client_file: str) -> None:
        self._outgoing = outgoing
        self._client_file = client_file
        self._carried = 0

    def context(self, remote: Remote) -> ssl.SSLContext:
        """Raises CallFailed for a bundle that cannot be used."""
        return self._outgoing.trusting(remote.bundle, client=self._client_file, verify=not remote.insecure)

    async def where(self, cluster: str, remote: Remote, path: str) -> Destination:
        return await self._outgoing.service(cluster, remote.service_namespace, remote.service_name, remote.port, path)

    async def ask(
        self, cluster: str, remote: Remote, path: str, headers: Mapping[str, str], most: int
    ) -> tuple[int, Mapping[str, str], bytes]:
        """A request of our own: status, headers, body. Raises CallFailed, also for more than ``most`` bytes."""
        own = CIMultiDict([*headers.items(), *identity_headers(SERVER)])
        where = await self.where(cluster, remote, path)
        async with self._outgoing.request("GET", where, self.context(remote), b"", own, {}) as response:
            return response.status, response.headers, await bounded(response, most)

    async def pass_on(self, cluster: str, remote: Remote, path: str, request: Request, user: UserInfo) -> Response:
        """The other server's answer. Raises ApiError: 503 when it cannot be reached, 502 when it sends elsewhere."""
        query = [(key, value) for key, values in request.queries.items() for value in values]
        protocol = wanted_protocol(request.headers)
        try:
            if protocol:
                return await self._switch(cluster, remote, path, request, user, protocol, query)
            return await self._request(cluster, remote, path, request, user, query)
        except CallFailed as error:
            raise errors.unavailable(f"error trying to reach service: {error}", retry_after=None) from None

    async def _request(
        self, cluster: str, remote: Remote, path: str, request: Request, user: UserInfo, query: Query
    ) -> Response:
        headers = forwarded_headers(request.headers, user)
        stack = AsyncExitStack()
        try:
            where = await self.where(cluster, remote, path)
            answer = await stack.enter_async_context(
                self._outgoing.request(request.method, where, self.context(remote), request.body, headers, query)
            )
            return await _answer(answer, stack)
        except BaseException:
            await stack.aclose()
            raise

    async def _switch(
        self, cluster: str, remote: Remote, path: str, request: Request, user: UserInfo, protocol: str, query: Query
    ) -> Response:
        from yarl import URL  # noqa: PLC0415 - with aiohttp, where something is called

        if request.connection is None:
            raise errors.bad_request("there is no connection that could switch protocols")
        if self._carried >= MAX_CARRIED:
            raise errors.too_many_requests("too many connections to aggregated APIs are open, please try again later")
        self._carried += 1
        try:
            where = await self.where(cluster, remote, path)
            answer = await switch(
                self._outgoing,
                where,
                self.context(remote),
                protocol=protocol,
                method=request.method,
                path=URL.build(path=where.path, query=query).raw_path_qs,
                headers=_switching_headers(request.headers, user).items(),
                body=request.body,
            )
        except BaseException:
            self._carried -= 1
            raise
        if answer.connection is None:
            self._carried -= 1
            return _passed_back(answer.status, answer.headers, answer.body)
        return Response(101, upgrade=self._carrying(answer.headers, *answer.connection))

    def _carrying(
        self, headers: CIMultiDict[str], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> Callable[[BaseRequest], Awaitable[StreamResponse]]:
        async def upgrade(raw: BaseRequest) -> StreamResponse:
            from aiohttp import web  # noqa: PLC0415

            try:
                told = {key: value for key, value in headers.items() if key.lower() not in _NOT_SWITCHED}
                await carry(take_over(raw, {"Connection": "Upgrade", **told}), reader, writer)
            finally:
                self._carried -= 1
                writer.transport.abort()
            return web.Response()

        return upgrade


def forwarded_headers(headers: Mapping[str, str], user: UserInfo) -> CIMultiDict[str]:
    """What goes on: the client's headers without credentials, and who the user is."""
    made: CIMultiDict[str] = CIMultiDict()
    for key, value in headers.items():
        lower = key.lower()
        if lower not in _HOP_BY_HOP and lower not in _OURS and not lower.startswith(_OURS_PREFIXES):
            made.add(key, value)
    made["Accept-Encoding"] = "identity"
    for key, value in identity_headers(user):
        made.add(key, value)
    return made


def _switching_headers(headers: Mapping[str, str], user: UserInfo) -> CIMultiDict[str]:
    """The same for a request to switch; a browser's token, which travels as the name of a protocol, stays here too."""
    made = forwarded_headers(headers, user)
    offered = [one.strip() for value in made.popall(_OFFERED, []) for one in value.split(",")]
    kept = [one for one in offered if one and not one.startswith(WEBSOCKET_BEARER)]
    if kept:
        made[_OFFERED] = ", ".join(kept)
    return made


def identity_headers(user: UserInfo) -> Iterator[tuple[str, str]]:
    """``X-Remote-*``, as a front proxy sends them."""
    yield "X-Remote-User", _printable(user.name)
    if user.uid:
        yield "X-Remote-Uid", _printable(user.uid)
    for group in user.groups:
        yield "X-Remote-Group", _printable(group)
    for key, values in user.extra.items():
        for value in values:
            yield f"X-Remote-Extra-{quote(key.lower(), safe='')}", _printable(value)


def _printable(text: str) -> str:
    """Never a second header in one: control characters become spaces."""
    return "".join(letter if letter.isprintable() else " " for letter in text)


async def _answer(answer: ClientResponse, stack: AsyncExitStack) -> Response:
    made = _passed_back(answer.status, answer.headers)
    length = answer.content_length
    if length is not None and length <= _WHOLE:
        made.body = await answer.read()
        await stack.aclose()
    else:
        made.stream = _chunks(answer, stack)
    return made


def _passed_back(status: int, headers: Mapping[str, str], body: bytes = b"") -> Response:
    if 300 <= status <= 399 and headers.get("Location"):
        message = "the backend attempted to redirect this request, which is not permitted"
        raise errors.ApiError(502, message, reason="")
    return Response(
        status,
        body,
        content_type=headers.get("Content-Type", "application/octet-stream"),
        headers={key: value for key, value in headers.items() if key.lower() not in _NOT_BACK},
    )


async def _chunks(answer: ClientResponse, stack: AsyncExitStack) -> AsyncIterator[bytes]:
    async with stack:
        async for chunk in answer.content.iter_any():
            yield chunk
