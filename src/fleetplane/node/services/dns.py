"""The cluster's DNS server for the pods of one node.

It listens on the node's own addresses in the pod network, answers for the cluster's domain from a zone in memory, and
passes everything else on, unread, to the host's resolvers. Questions come from pods, so nothing about them is trusted:
their number in flight is bounded, their size is what UDP and TCP allow, and an unreadable one gets no answer.
"""

from __future__ import annotations

import asyncio
import importlib.util
import logging
import random
import socket
from collections.abc import Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, Final

from fleetplane.node.services.zone import Record, Zone

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

PORT: Final = 53
TTL: Final = 5
UDP_LIMIT: Final = 1232
MOST_AT_ONCE: Final = 256
UPSTREAM_SECONDS: Final = 3.0
TCP_SECONDS: Final = 10.0
MOST_ALIASES: Final = 8

_log = logging.getLogger(__name__)


def why_no_dns() -> str:
    """Why there is no cluster DNS here; empty when there is."""
    if importlib.util.find_spec("dnslib") is None:
        return "cluster DNS needs the package dnslib, which is missing from this installation; pods use the host's resolver"
    return ""


_IP_FREEBIND: Final = 15
_IPV6_FREEBIND: Final = 78
"""Of Linux; Python has no names for them."""


class DnsServer:
    """``zone`` may be replaced at any time; ``upstream`` are the host's resolvers."""

    def __init__(self, domain: str, upstream: Sequence[str], chance: random.Random) -> None:
        self.zone = Zone(domain.rstrip(".") + ".")
        self._upstream = list(upstream)
        self._chance = chance
        self._slots = asyncio.Semaphore(MOST_AT_ONCE)
        self._tasks: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def serving(self, addresses: Sequence[str], port: int = PORT) -> AsyncIterator[None]:
        """Answer on these addresses, by UDP and TCP, while the context lasts. Raises OSError."""
        loop = asyncio.get_running_loop()
        async with AsyncExitStack() as stack:
            for address in addresses:
                datagrams = _bound(socket.SOCK_DGRAM, address, port)
                transport, _ = await loop.create_datagram_endpoint(lambda: _Datagrams(self), sock=datagrams)
                stack.callback(transport.close)
                listening = _bound(socket.SOCK_STREAM, address, port)
                server = await asyncio.start_server(self._connection, sock=listening, limit=65_540)
                stack.callback(server.close)
            try:
                yield
            finally:
                for task in list(self._tasks):
                    task.cancel()

    def received(self, question: bytes, transport: asyncio.DatagramTransport, sender: Any) -> None:
        """A question by UDP: answered by a task, if not too many are."""
        if self._slots.locked():
            return  # whoever asks will ask again
        task = asyncio.get_running_loop().create_task(self._answer_datagram(question, transport, sender))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer_datagram(self, question: bytes, transport: asyncio.DatagramTransport, sender: Any) -> None:
        async with self._slots:
            answer = await self.answer(question, UDP_LIMIT)
        if answer and not transport.is_closing():
            transport.sendto(answer, sender)

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, TimeoutError, asyncio.IncompleteReadError):
            async with asyncio.timeout(TCP_SECONDS):
                while True:
                    length = int.from_bytes(await reader.readexactly(2), "big")
                    async with self._slots:
                        answer = await self.answer(await reader.readexactly(length), 65_535)
                    if not answer:
                        break
                    writer.write(len(answer).to_bytes(2, "big") + answer)
                    await writer.drain()
        writer.close()

    async def answer(self, question: bytes, limit: int) -> bytes:
        """The reply's bytes, at most ``limit`` of them; empty for what is no question."""
        import dnslib  # noqa: PLC0415 - an extra: loaded where there is a server

        try:
            asked = dnslib.DNSRecord.parse(question)
            if asked.header.qr or asked.header.opcode or len(asked.questions) != 1:
                return b""
            name = str(asked.q.qname).lower()
        except (dnslib.DNSError, ValueError, IndexError, TypeError):
            return b""
        if not self.zone.covers(name):
            return await self._ask_upstream(question, tcp=limit > UDP_LIMIT) or _refusal(asked, dnslib.RCODE.SERVFAIL)
        kind = str(dnslib.QTYPE.get(asked.q.qtype, asked.q.qtype))
        reply = self._reply(dnslib, asked, name, kind)
        await self._resolve_alias(dnslib, reply, kind)
        packed: bytes = reply.pack()
        return packed if len(packed) <= limit else bytes(reply.truncate().pack())

    def _reply(self, dnslib: Any, asked: Any, name: str, kind: str) -> Any:
        reply = asked.reply(ra=1, aa=1)
        found = self._follow(name, kind)
        if found is None:
            reply.header.rcode = dnslib.RCODE.NXDOMAIN
        if not found:
            reply.add_auth(_authority(dnslib, self.zone.domain))
            return reply
        # Clients take the first address: a new order each time spreads them.
        addresses = [one for one in found if one.kind in {"A", "AAAA"}]
        self._chance.shuffle(addresses)
        for record in [*(one for one in found if one.kind not in {"A", "AAAA"}), *addresses]:
            reply.add_answer(_resource(dnslib, record))
        for target in {one.value for one in found if one.kind == "SRV"}:
            for extra in [*(self.zone.find(target, "A") or []), *(self.zone.find(target, "AAAA") or [])]:
                reply.add_ar(_resource(dnslib, extra))
        return reply

    async def _resolve_alias(self, dnslib: Any, reply: Any, kind: str) -> None:
        """An alias that leads out of the cluster is followed for the client, which will not do it itself."""
        last = reply.rr[-1] if reply.rr else None
        if last is None or kind == "CNAME" or last.rtype != dnslib.QTYPE.CNAME:
            return
        question = dnslib.DNSRecord.question(str(last.rdata), kind)
        answered = await self._ask_upstream(bytes(question.pack()), tcp=False)
        with suppress(dnslib.DNSError, ValueError, IndexError):
            for record in dnslib.DNSRecord.parse(answered).rr if answered else ():
                reply.add_answer(record)

    def _follow(self, name: str, kind: str) -> list[Record] | None:
        """The answers, through names of ours that stand for others."""
        found = self.zone.find(name, kind)
        gathered: list[Record] = []
        for _ in range(MOST_ALIASES):
            gathered += found or []
            alias = next((one for one in found or [] if one.kind == "CNAME"), None)
            if alias is None or kind == "CNAME" or not self.zone.covers(alias.value.lower()):
                break
            found = self.zone.find(alias.value.lower(), kind)
        return gathered if gathered or found is not None else None

    async def _ask_upstream(self, question: bytes, *, tcp: bool) -> bytes:
        for server in self._upstream:
            try:
                async with asyncio.timeout(UPSTREAM_SECONDS):
                    return await (_ask_by_tcp(server, question) if tcp else _ask_by_udp(server, question))
            except (OSError, TimeoutError, asyncio.IncompleteReadError) as error:
                _log.debug("resolver %s did not answer: %s", server, error)
        return b""


def _bound(kind: int, address: str, port: int) -> socket.socket:
    """A socket at an address the machine may get only later: a CNI bridge is made with the first pod. Raises OSError."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    made = socket.socket(family, kind)
    try:
        if kind == socket.SOCK_STREAM:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET:
            made.setsockopt(socket.IPPROTO_IP, _IP_FREEBIND, 1)
        else:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            made.setsockopt(socket.IPPROTO_IPV6, _IPV6_FREEBIND, 1)
        made.setblocking(False)
        made.bind((address, port))
    except OSError:
        made.close()
        raise
    return made


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, server: DnsServer) -> None:
        self._server = server
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]

    def datagram_received(self, data: bytes, addr: Any) -> None:
        if self._transport is not None:
            self._server.received(data, self._transport, addr)


class _Waiting(asyncio.DatagramProtocol):
    """Waits for the answer with the question's id."""

    def __init__(self, number: bytes) -> None:
        self._number = number
        self.answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    def datagram_received(self, data: bytes, addr: Any) -> None:
        if data[:2] == self._number and not self.answer.done():
            self.answer.set_result(data)

    def error_received(self, exc: Exception) -> None:
        if not self.answer.done():
            self.answer.set_exception(exc)


async def _ask_by_udp(server: str, question: bytes) -> bytes:
    transport, waiting = await asyncio.get_running_loop().create_datagram_endpoint(
        lambda: _Waiting(question[:2]), remote_addr=(server, PORT)
    )
    try:
        transport.sendto(question)
        return await waiting.answer
    finally:
        transport.close()


async def _ask_by_tcp(server: str, question: bytes) -> bytes:
    reader, writer = await asyncio.open_connection(server, PORT)
    try:
        writer.write(len(question).to_bytes(2, "big") + question)
        await writer.drain()
        return await reader.readexactly(int.from_bytes(await reader.readexactly(2), "big"))
    finally:
        writer.close()


def _resource(dnslib: Any, record: Record) -> Any:
    data = {
        "A": lambda: dnslib.A(record.value),
        "AAAA": lambda: dnslib.AAAA(record.value),
        "CNAME": lambda: dnslib.CNAME(record.value),
        "PTR": lambda: dnslib.PTR(record.value),
        "TXT": lambda: dnslib.TXT(record.value),
        "SRV": lambda: dnslib.SRV(0, 100, record.port, record.value),
    }[record.kind]()
    return dnslib.RR(record.name, getattr(dnslib.QTYPE, record.kind), rdata=data, ttl=TTL)


def _authority(dnslib: Any, domain: str) -> Any:
    """Who says that there is nothing, and for how long that may be remembered."""
    soa = dnslib.SOA(f"ns.dns.{domain}", f"hostmaster.{domain}", (1, 7200, 1800, 86400, TTL))
    return dnslib.RR(domain, dnslib.QTYPE.SOA, rdata=soa, ttl=TTL)


def _refusal(asked: Any, code: int) -> bytes:
    reply = asked.reply(ra=1)
    reply.header.rcode = code
    return bytes(reply.pack())
