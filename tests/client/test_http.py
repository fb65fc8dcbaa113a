"""The network transport against a real server on the loopback interface."""

from __future__ import annotations

import asyncio
import ssl
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trustme
from aiohttp import web

from fleetplane.client import credentials
from fleetplane.client.http import HttpTransport
from fleetplane.client.kubeconfig import Access, ConfigError, ExecPlugin
from fleetplane.client.protocol import Unreachable

Handler = Callable[[web.Request], "asyncio.Future[web.StreamResponse]"]


async def echo(request: web.Request) -> web.Response:
    seen = request.headers.get("authorization", "")
    return web.Response(text=f"{request.method} {request.rel_url} {seen}".strip())


@asynccontextmanager
async def serving(
    handler: object = echo, *, tls: ssl.SSLContext | None = None, path: str | None = None
) -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", handler)  # type: ignore[arg-type]
    runner = web.AppRunner(app)
    await runner.setup()
    site: web.BaseSite = (
        web.UnixSite(runner, path)
        if path
        else web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls, shutdown_timeout=0.1)
    )
    await site.start()
    try:
        port = "" if path else runner.addresses[0][1]
        yield f"unix://{path}" if path else f"{'https' if tls else 'http'}://127.0.0.1:{port}"
    finally:
        await runner.cleanup()


async def get(access: Access, path: str = "/x", query: tuple[tuple[str, str], ...] = ()) -> tuple[int, str]:
    transport = HttpTransport(access)
    try:
        status, _, body = await transport.request("GET", path, query, (), b"")
        return status, body.decode()
    finally:
        await transport.close()


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def server_tls(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1", "api.example.org").configure_cert(context)
    authority.configure_trust(context)
    context.verify_mode = ssl.CERT_OPTIONAL
    return context


async def test_paths_and_queries_arrive_as_meant() -> None:
    async with serving() as server:
        _, text = await get(
            Access(server), "/apis/a/system:x", (("labelSelector", "a in (b,c)"), ("c", "1"), ("c", "2"))
        )

    assert text == "GET /apis/a/system:x?labelSelector=a+in+%28b%2Cc%29&c=1&c=2"


async def test_a_server_on_a_unix_socket(tmp_path: Path) -> None:
    async with serving(path=str(tmp_path / "s")) as server:
        assert await get(Access(server)) == (200, "GET /x")


async def test_a_trusted_server_is_believed(authority: trustme.CA, server_tls: ssl.SSLContext) -> None:
    ca = authority.cert_pem.bytes()
    async with serving(tls=server_tls) as server:
        assert (await get(Access(server, ca=ca)))[0] == 200
        assert (await get(Access(server, ca=ca, tls_server_name="api.example.org")))[0] == 200
        assert (await get(Access(server, insecure=True)))[0] == 200
        with pytest.raises(Unreachable, match="certificate"):
            await get(Access(server))
        with pytest.raises(Unreachable, match="certificate"):
            await get(Access(server, ca=ca, tls_server_name="other.example.org"))


async def test_an_inline_client_certificate_is_shown(authority: trustme.CA, server_tls: ssl.SSLContext) -> None:
    async def who(request: web.Request) -> web.Response:
        shown = request.transport.get_extra_info("peercert") if request.transport else None
        return web.Response(text=str(bool(shown)))

    leaf = authority.issue_cert("eve@example.org")
    access = Access(
        "",
        ca=authority.cert_pem.bytes(),
        certificate=leaf.cert_chain_pems[0].bytes(),
        key=leaf.private_key_pem.bytes(),
    )
    async with serving(who, tls=server_tls) as server:
        assert await get(_at(access, server)) == (200, "True")


async def test_a_key_that_does_not_fit_is_named() -> None:
    with pytest.raises(ConfigError, match="do not work"):
        await get(Access("https://127.0.0.1:1", certificate=b"x", key=b"y"))


async def test_basic_and_bearer_are_sent() -> None:
    async with serving() as server:
        assert "Bearer t" in (await get(Access(server, token="t")))[1]
        assert "Basic ZTpw" in (await get(Access(server, username="e", password="p")))[1]


async def test_a_token_file_is_read_again_when_the_server_refuses(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("old\n")

    async def only_new(request: web.Request) -> web.Response:
        if request.headers["authorization"] == "Bearer old":
            token.write_text("new\n")  # it rotated while we were not looking
            return web.Response(status=401)
        return web.Response(text=request.headers["authorization"])

    async with serving(only_new) as server:
        assert await get(Access(server, token_file=token)) == (200, "Bearer new")


async def test_a_plugin_is_run_once_for_many_requests(tmp_path: Path) -> None:
    count = tmp_path / "count"
    script = (
        "import json,os,sys; open(os.environ['COUNT'],'a').write('x');"
        "info=json.loads(os.environ['KUBERNETES_EXEC_INFO']);"
        "print(json.dumps({'kind':'ExecCredential','status':{'token':info['spec']['cluster']['server'][:4]}}))"
    )
    plugin = ExecPlugin(sys.executable, ("-c", script), (("COUNT", str(count)),), "v1", True, "")
    async with serving() as server:
        transport = HttpTransport(Access(server, exec_plugin=plugin))
        answers = await asyncio.gather(*(transport.request("GET", "/", (), (), b"") for _ in range(4)))
        await transport.close()

    assert [answer[2] for answer in answers] == [b"GET / Bearer http"] * 4
    assert count.read_text() == "x"


@pytest.mark.parametrize(
    ("command", "arguments", "message"),
    [
        ("/no/such/program", (), "cannot be started: No such file or directory; install it"),
        (sys.executable, ("-c", "raise SystemExit(3)"), "exit status 3"),
        (sys.executable, ("-c", "print('hello')"), "did not print an ExecCredential"),
        (sys.executable, ("-c", "print('{\"status\":{}}')"), "neither a token nor a certificate"),
    ],
)
async def test_a_plugin_that_fails_is_explained(command: str, arguments: tuple[str, ...], message: str) -> None:
    plugin = ExecPlugin(command, arguments, (), "v1", False, "install it")

    with pytest.raises(ConfigError, match=message):
        await credentials.run_plugin(plugin, Access("https://x"))


async def test_nobody_listening_is_said_so() -> None:
    with pytest.raises(Unreachable, match=r"cannot reach http://127\.0\.0\.1:1"):
        await get(Access("http://127.0.0.1:1"))


async def test_a_stream_arrives_as_it_is_written_and_ends_when_left() -> None:
    left = asyncio.Event()

    async def drip(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        try:
            while True:
                await response.write(b"tick\n")
                await asyncio.sleep(0.01)
        finally:
            left.set()

    async with serving(drip) as server:
        transport = HttpTransport(Access(server))
        async with transport.stream("GET", "/", (), (), b"") as (status, chunks):
            assert (status, await anext(chunks)) == (200, b"tick\n")
        await asyncio.wait_for(left.wait(), 5)
        await transport.close()


async def test_redirects_are_not_followed() -> None:
    async def away(request: web.Request) -> web.Response:
        raise web.HTTPFound("http://example.org/")

    async with serving(away) as server:
        assert (await get(Access(server, token="t")))[0] == 302


def test_a_proxy_we_cannot_use_is_refused() -> None:
    with pytest.raises(ConfigError, match="socks5 proxies are not supported"):
        HttpTransport(Access("https://x", proxy_url="socks5://p:1"))


def _at(access: Access, server: str) -> Access:
    from dataclasses import replace

    return replace(access, server=server)
