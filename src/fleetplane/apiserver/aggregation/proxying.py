"""Passing requests on: as they came, but for who sends them.

The user is asserted in ``X-Remote-*`` headers under our front-proxy certificate; whatever credential or assertion the
client sent stays here. Answers are streamed as they come, so watches work. Connections that are to be upgraded (exec and
its kin) are not passed on.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from multidict import CIMultiDict

from fleetplane.apiserver.aggregation.remotes import Remote
from fleetplane.apiserver.http import Request, Response
from fleetplane.apiserver.outgoing import CallFailed, Destination, Outgoing, bounded
from fleetplane.apiserver.own_writes import SERVER
from fleetplane.model import errors
from fleetplane.model.user import UserInfo

if TYPE_CHECKING:
    import ssl

    from aiohttp import ClientResponse

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
_OURS: Final = frozenset({"host", "authorization", "cookie", "content-length", "accept-encoding"})
_OURS_PREFIXES: Final = ("x-remote-", "impersonate-")
_NOT_BACK: Final = _HOP_BY_HOP | {"content-length", "content-encoding", "content-type", "date", "server"}
_WHOLE: Final = 256 * 1024
"""An answer this small is read whole, so that it is one piece to audit and metrics."""


class Proxy:
    """``client_file`` holds the front-proxy certificate and its key (PEM)."""

    def __init__(self, outgoing: Outgoing, client_file: str) -> None:
        self._outgoing = outgoing
        self._client_file = client_file

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
        """The other server's answer. Raises ApiError 503 when it cannot be reached, 400 for what cannot be passed on."""
        if request.headers.get("upgrade"):
            raise errors.bad_request("connections to an aggregated API cannot be upgraded")
        query = [(key, value) for key, values in request.queries.items() for value in values]
        headers = forwarded_headers(request.headers, user)
        stack = AsyncExitStack()
        try:
            where = await self.where(cluster, remote, path)
            answer = await stack.enter_async_context(
                self._outgoing.request(request.method, where, self.context(remote), request.body, headers, query)
            )
            return await _answer(answer, stack)
        except CallFailed as error:
            await stack.aclose()
            raise errors.unavailable(f"error trying to reach service: {error}", retry_after=None) from None
        except BaseException:
            await stack.aclose()
            raise


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
    made = Response(
        answer.status,
        content_type=answer.headers.get("Content-Type", "application/octet-stream"),
        headers={key: value for key, value in answer.headers.items() if key.lower() not in _NOT_BACK},
    )
    length = answer.content_length
    if length is not None and length <= _WHOLE:
        made.body = await answer.read()
        await stack.aclose()
    else:
        made.stream = _chunks(answer, stack)
    return made


async def _chunks(answer: ClientResponse, stack: AsyncExitStack) -> AsyncIterator[bytes]:
    async with stack:
        async for chunk in answer.content.iter_any():
            yield chunk
