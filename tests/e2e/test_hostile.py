"""Clients that do everything wrong: the server answers with a Status or hangs up, stays bounded, and goes on serving.

Against the real server over TLS, with its patience shortened to a second or two. After each story an ordinary client must be
served, and the log must not have a single exception nobody expected.
"""

from __future__ import annotations

import contextlib
import gzip
import http.client
import json
import os
import socket
import ssl
import threading
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .differential.peers import Peer, start_ours, unverified

pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("hostile")]
MAPS = "/api/v1/namespaces/default/configmaps"
MIB = 1024 * 1024
PATIENCE = 1.0
"""Seconds the server under test waits for headers, bodies and readers."""


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("hostile")


@pytest.fixture(scope="module")
def server(directory: Path) -> Iterator[Peer]:
    peer = start_ours(directory, patience=PATIENCE)
    yield peer
    peer.stop()
    log = (directory / "ours.log").read_text()
    assert "Traceback" not in log, log[-5000:]
    assert "unexpectedly" not in log, log[-5000:]


@pytest.fixture(autouse=True)
def goes_on_serving(server: Peer) -> Iterator[None]:
    yield
    answer = server.request("GET", MAPS, query={"limit": "1"})
    assert answer.status == 200
    assert server.processes[0].poll() is None


def memory_mib(peer: Peer) -> float:
    for line in Path(f"/proc/{peer.processes[0].pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise AssertionError("the process has no memory")


def connect(peer: Peer, seconds: float = 20) -> ssl.SSLSocket:
    host, _, port = peer.url.removeprefix("https://").rpartition(":")
    plain = socket.create_connection((host, int(port)), timeout=seconds)
    return unverified().wrap_socket(plain)


def head(peer: Peer, method: str = "GET", path: str = MAPS, *more: str) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: x", f"Authorization: Bearer {peer.token}", *more]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def exchange(peer: Peer, data: bytes, seconds: float = 20) -> tuple[int, bytes]:
    """(status, body) of the first answer to raw bytes; status 0 when the server hangs up."""
    with connect(peer, seconds) as channel:
        with contextlib.suppress(OSError):
            channel.sendall(data)
        try:
            answer = http.client.HTTPResponse(channel)
            answer.begin()
            return answer.status, answer.read()
        except (OSError, http.client.HTTPException):
            return 0, b""


def post(peer: Peer, body: bytes, content_type: str = "application/json", *more: str) -> tuple[int, Any]:
    length = (
        () if any(one.startswith(("Content-Length", "Transfer")) for one in more) else (f"Content-Length: {len(body)}",)
    )
    status, text = exchange(peer, head(peer, "POST", MAPS, f"Content-Type: {content_type}", *length, *more) + body)
    return status, json.loads(text) if text[:1] == b"{" else text


def is_refusal(status: int, body: Any) -> bool:
    """A 4xx with its Status, or nothing but a closed connection."""
    if status == 0:
        return True
    return 400 <= status < 500 and isinstance(body, dict) and body["kind"] == "Status" and body["code"] == status


# --- heads ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "lines",
    [
        pytest.param([f"X: {'a' * 1_000_000}"], id="one long header"),
        pytest.param([f"X-{number}: a" for number in range(50_000)], id="many headers"),
        pytest.param(["X"], id="a header without a colon"),
        pytest.param([": x"], id="a header without a name"),
        pytest.param(["X: a\x00b"], id="a header with NUL"),
        pytest.param(["X: \xff\xfe"], id="a header that is no text"),
        pytest.param(["Content-Length: -1"], id="a negative length"),
        pytest.param(["Content-Length: 1e3"], id="a length that is no number"),
        pytest.param(["Content-Length: 3", "Content-Length: 5"], id="two lengths"),
        pytest.param(["Content-Length: 3", "Transfer-Encoding: chunked"], id="a length and chunks"),
        pytest.param(["Transfer-Encoding: whatever"], id="an unknown encoding"),
        pytest.param(["Connection: Upgrade", "Upgrade: websocket"], id="an upgrade nobody offers"),
        pytest.param(["Expect: 200-maybe"], id="an unknown expectation"),
        pytest.param(["Accept: " + ",".join(["a/b;q=x"] * 5000)], id="a long Accept"),
        pytest.param(["Impersonate-User: "], id="an empty impersonation"),
        pytest.param(["Authorization: Basic !!!"], id="two authorizations"),
    ],
)
def test_heads_that_make_no_sense(server: Peer, lines: list[str]) -> None:
    before = memory_mib(server)

    status, _ = exchange(server, head(server, "GET", MAPS, *lines))

    assert status == 0 or status in range(200, 500)
    assert memory_mib(server) - before < 50


@pytest.mark.parametrize(
    "target",
    [
        "/api/v1/namespaces/%zz/configmaps",
        "/api/v1/namespaces/%/configmaps",
        "/api/v1/namespaces/%00/configmaps",
        "/api/v1/namespaces/%ff%fe/configmaps",
        "/api/v1/namespaces/%c0%af/configmaps",
        "/api/v1/namespaces/../configmaps",
        "/api/v1/namespaces/%2e%2e/configmaps",
        "/api/v1/namespaces/default/configmaps/a%2Fb",
        "/api/v1//namespaces//default//configmaps",
        "//",
        "/" + "a/" * 20_000,
        "/" + "a" * 60_000,
        "/clusters/",
        "/clusters/%00/api/v1/pods",
        "/clusters/*/api/v1/namespaces/default/configmaps/a",
        "/clusters/none/api/v1/pods",
        "*",
        "http://elsewhere/api/v1/pods",
        "api/v1/pods",
        MAPS + "?labelSelector=%ff",
        MAPS + "?labelSelector=%00",
        MAPS + "?fieldSelector=" + "a%3Db," * 5000,
        MAPS + "?" + "&".join(f"a{number}=b" for number in range(10_000)),
        MAPS + "?%ff=%ff&%=%",
        MAPS + "?limit=" + "9" * 5000,
        MAPS + "?continue=" + "A" * 50_000,
        MAPS + "?labelSelector=" + "(" * 20_000,
        MAPS + "?labelSelector=a+in+(" + ",".join(["x"] * 20_000) + ")",
    ],
)  # fmt: skip
def test_targets_that_make_no_sense(server: Peer, target: str) -> None:
    status, body = exchange(server, head(server, "GET", target))

    assert status == 0 or status in range(200, 500), body


@pytest.mark.parametrize("method", ["TRACE", "CONNECT", "OPTIONS", "HEAD", "FOO", "PROPFIND", "get", "G" * 5000, ""])
@pytest.mark.parametrize("path", [MAPS, "/version", "/api/v1/namespaces/default/pods/a/exec"])
def test_methods_nobody_serves(server: Peer, method: str, path: str) -> None:
    with connect(server) as channel:
        with contextlib.suppress(OSError):
            channel.sendall(head(server, method, path))
        channel.settimeout(5)
        with contextlib.suppress(OSError):
            first = channel.recv(200)
            assert first == b"" or first.split()[1][:1] in (b"2", b"4"), first


@pytest.mark.parametrize(
    "data",
    [b"\x00" * 5000, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"GET /\r\n\r\n", b"\r\n" * 10_000, os.urandom(20_000), b"GET / HTTP/9.9\r\n\r\n"],
    ids=["zeros", "HTTP/2", "HTTP/0.9", "empty lines", "noise", "HTTP/9.9"],
)  # fmt: skip
def test_what_is_no_http_at_all(server: Peer, data: bytes) -> None:
    status, _ = exchange(server, data, 5)

    assert status == 0 or status in range(400, 500)


def test_requests_sent_without_waiting_are_answered_in_order(server: Peer) -> None:
    paths = ["/version", "/api", MAPS + "?limit=1", "/nothing", "/readyz"] * 10
    with connect(server) as channel:
        channel.sendall(b"".join(head(server, "GET", path) for path in paths))

        answers = []
        for _ in paths:
            answer = http.client.HTTPResponse(channel)
            answer.begin()
            answers.append((answer.status, answer.read()[:40]))

    assert [status for status, _ in answers] == [200, 200, 200, 404, 200] * 10
    assert len(set(answers)) == 5


def test_a_body_is_not_taken_for_the_next_request(server: Peer) -> None:
    smuggled = head(server, "DELETE", "/api/v1/namespaces/kube-public")
    body = b'{"metadata":{"name":"outer"}}'
    length = f"Content-Length: {len(body)}"
    first = head(server, "POST", MAPS, "Content-Type: application/json", length, "Transfer-Encoding: chunked")

    exchange(server, first + body + b"0\r\n\r\n" + smuggled, 5)

    answer = server.request("GET", "/api/v1/namespaces/kube-public")
    assert answer.status == 200
    assert "deletionTimestamp" not in answer.body["metadata"]


# --- bodies ---------------------------------------------------------------------------------------------------------------

DEEP = 100_000


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        pytest.param(b"", "application/json", id="nothing"),
        pytest.param(b"null", "application/json", id="null"),
        pytest.param(b"[" * DEEP, "application/json", id="open brackets"),
        pytest.param(b"[" * DEEP + b"]" * DEEP, "application/json", id="deep lists"),
        pytest.param(b'{"a":' * DEEP + b"1" + b"}" * DEEP, "application/json", id="deep objects"),
        pytest.param(b'{"metadata":{"name":"\xff\xfe"}}', "application/json", id="no UTF-8"),
        pytest.param(b'{"metadata":{"name":"\\ud800"}}', "application/json", id="half a character"),
        pytest.param(b'{"metadata":{"name":"a\\u0000b"}}', "application/json", id="NUL in a name"),
        pytest.param(b'{"metadata":{"name":"a","generation":1e999999}}', "application/json", id="an endless number"),
        pytest.param(b'{"metadata":{"name":"a","generation":' + b"9" * 100_000 + b"}}", "application/json", id="a long number"),
        pytest.param(b'{"metadata":{"name":"a","generation":NaN}}', "application/json", id="not a number"),
        pytest.param(b'{"metadata":{"name":"' + b"a" * 500_000 + b'"}}', "application/json", id="a long name"),
        pytest.param(b'{"metadata":[]}', "application/json", id="metadata that is a list"),
        pytest.param(b"\xef\xbb\xbf{}", "application/json", id="a byte order mark"),
        pytest.param(b"a: &a [x]\nb: &b [*a,*a]\nc: &c [*b,*b]\n" + b"".join(b"k%d: &k%d [*c,*c,*c,*c,*c,*c,*c,*c]\n" % (n, n) for n in range(50)), "application/yaml", id="YAML aliases"),
        pytest.param(b"".join(b"x%d: &x%d [%s]\n" % (n, n, b",".join([b"*x%d" % (n - 1)] * 10) if n else b"lol") for n in range(12)), "application/yaml", id="a billion laughs"),
        pytest.param(b"&a [*a]", "application/yaml", id="YAML that holds itself"),
        pytest.param(b"!!python/object/apply:os.system ['true']", "application/yaml", id="YAML that runs"),
        pytest.param(b"- " * DEEP, "application/yaml", id="deep YAML"),
        pytest.param(b"a: 1\n---\nb: 2", "application/yaml", id="two documents"),
        pytest.param(b"a: \x00", "application/yaml", id="YAML with NUL"),
        pytest.param(b"k8s\x00" + os.urandom(5000), "application/vnd.kubernetes.protobuf", id="noise for protobuf"),
        pytest.param(b"k8s\x00" + b"\x0a\xff\xff\xff\xff\x0f" * 1000, "application/vnd.kubernetes.protobuf", id="lengths beyond the end"),
        pytest.param(b"{}", "text/html", id="HTML"),
        pytest.param(b"{}", "application/json; charset=utf-16", id="another charset"),
        pytest.param(b"{}", "x" * 5000, id="a long type"),
    ],
)  # fmt: skip
def test_bodies_that_make_no_sense(server: Peer, body: bytes, content_type: str) -> None:
    before = memory_mib(server)
    started = time.monotonic()

    status, answer = post(server, body, content_type)

    assert is_refusal(status, answer), (status, answer)
    assert status != 0
    assert time.monotonic() - started < 10
    assert memory_mib(server) - before < 100


def test_a_body_that_is_too_large_is_refused_before_it_is_sent(server: Peer) -> None:
    status, answer = exchange(
        server, head(server, "POST", MAPS, "Content-Type: application/json", "Content-Length: 999999999")
    )

    assert (status, json.loads(answer)["reason"]) == (413, "RequestEntityTooLarge")


def test_a_body_without_end_is_refused_at_three_mebibytes(server: Peer) -> None:
    before = memory_mib(server)
    with connect(server) as channel:
        channel.sendall(head(server, "POST", MAPS, "Content-Type: application/json", "Transfer-Encoding: chunked"))
        started = time.monotonic()
        with contextlib.suppress(OSError):
            while time.monotonic() - started < 20:
                channel.sendall(b"10000\r\n" + b" " * 0x10000 + b"\r\n")

    assert time.monotonic() - started < 10, "it went on reading"
    assert memory_mib(server) - before < 30


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_a_compressed_body_does_not_swell(server: Peer, encoding: str) -> None:
    zeros = b" " * (200 * MIB)
    bomb = gzip.compress(zeros) if encoding == "gzip" else zlib.compress(zeros)
    before = memory_mib(server)

    status, answer = post(server, bomb, "application/json", f"Content-Encoding: {encoding}")

    assert is_refusal(status, answer), (status, answer)
    assert memory_mib(server) - before < 60


def test_patches_that_multiply_are_refused(server: Peer) -> None:
    server.request("POST", MAPS, {"metadata": {"name": "multiply"}, "data": {"a": "x" * 100_000}})
    copies = [{"op": "copy", "from": "/data", "path": f"/data/c{number}"} for number in range(60)]
    before = memory_mib(server)

    answer = server.request(
        "PATCH", f"{MAPS}/multiply", copies, headers={"Content-Type": "application/json-patch+json"}
    )

    assert answer.status in (413, 422)
    assert memory_mib(server) - before < 100


# --- slowness -------------------------------------------------------------------------------------------------------------


def hangs_up_within(channel: ssl.SSLSocket, seconds: float) -> bool:
    channel.settimeout(seconds)
    try:
        while channel.recv(65536):
            pass
    except TimeoutError:
        return False
    except OSError:
        return True
    return True


def test_a_head_that_never_ends_is_not_waited_for(server: Peer) -> None:
    channels = [connect(server) for _ in range(50)]
    for channel in channels:
        channel.sendall(b"GET /version HTTP/1.1\r\nHost: x\r\nX: ")

    assert all(hangs_up_within(channel, 3 * PATIENCE) for channel in channels)
    for channel in channels:
        channel.close()


def test_a_connection_without_a_request_is_not_kept(server: Peer) -> None:
    with connect(server) as channel:
        assert hangs_up_within(channel, 3 * PATIENCE)


def test_a_body_that_drips_is_refused(server: Peer) -> None:
    with connect(server) as channel:
        channel.sendall(head(server, "POST", MAPS, "Content-Type: application/json", "Content-Length: 1000"))
        started = time.monotonic()
        with contextlib.suppress(OSError):
            while time.monotonic() - started < 4 * PATIENCE:
                channel.sendall(b" ")
                time.sleep(0.05)
                channel.settimeout(0.01)
                with contextlib.suppress(TimeoutError):
                    if b"408" in channel.recv(100):
                        break
                channel.settimeout(20)

        assert time.monotonic() - started < 3 * PATIENCE


def test_a_body_that_breaks_off_writes_nothing(server: Peer) -> None:
    body = b'{"metadata":{"name":"broken-off"}}'
    with connect(server) as channel:
        channel.sendall(
            head(server, "POST", MAPS, "Content-Type: application/json", f"Content-Length: {len(body) + 1}") + body
        )

    time.sleep(0.1)
    assert server.request("GET", f"{MAPS}/broken-off").status == 404


def test_an_answer_nobody_reads_is_given_up(server: Peer) -> None:
    for number in range(30):
        body = {"metadata": {"name": f"large-{number}"}, "data": {"k": "v" * 200_000}}
        assert server.request("POST", MAPS, body).status == 201
    before = memory_mib(server)

    channels = [connect(server) for _ in range(20)]
    for channel in channels:
        channel.sendall(head(server) * 3)
    time.sleep(3 * PATIENCE)

    grown = memory_mib(server) - before
    for channel in channels:
        channel.close()
    for number in range(30):
        server.request("DELETE", f"{MAPS}/large-{number}")
    assert grown < 250


def watchers_that_do_not_read(server: Peer, count: int) -> None:
    """Opens so many watches, writes until their buffers are full, and looks who is still there."""
    channels = [connect(server) for _ in range(count)]
    for channel in channels:
        channel.sendall(head(server, "GET", MAPS + "?watch=true"))
    server.request("POST", MAPS, {"metadata": {"name": "noise"}, "data": {}})
    before = memory_mib(server)

    for number in range(150):
        patch = {"data": {"k": f"{number}" + "v" * 100_000}}
        server.request("PATCH", f"{MAPS}/noise", patch, headers={"Content-Type": "application/merge-patch+json"})
    time.sleep(2 * PATIENCE)

    grown = memory_mib(server) - before
    assert grown < 150 + count * 0.5, f"{grown} MiB for {count} watchers"
    assert all(hangs_up_within(channel, 10) for channel in channels)
    for channel in channels:
        channel.close()


def test_watchers_that_do_not_read_are_cut_off(server: Peer) -> None:
    watchers_that_do_not_read(server, 150)


@pytest.mark.soak
def test_thousands_of_watchers_that_do_not_read_are_cut_off(server: Peer) -> None:
    watchers_that_do_not_read(server, 3000)


def test_a_watcher_that_reads_is_not_hurt_by_those_that_do_not(server: Peer) -> None:
    idle = [connect(server) for _ in range(30)]
    for channel in idle:
        channel.sendall(head(server, "GET", MAPS + "?watch=true"))
    seen: list[str] = []
    start = server.request("GET", MAPS, query={"limit": "1"}).body["metadata"]["resourceVersion"]

    def read() -> None:
        for event in server.watch(MAPS, {"resourceVersion": start, "fieldSelector": "metadata.name=loud"}, 6):
            seen.append(event["object"].get("data", {}).get("n", ""))

    reader = threading.Thread(target=read)
    reader.start()
    time.sleep(0.5)
    server.request("POST", MAPS, {"metadata": {"name": "loud"}, "data": {"n": "0"}})
    for number in range(1, 100):
        patch = {"data": {"n": str(number), "k": "v" * 50_000}}
        server.request("PATCH", f"{MAPS}/loud", patch, headers={"Content-Type": "application/merge-patch+json"})
    reader.join(20)

    assert seen == [str(number) for number in range(100)]
    for channel in idle:
        channel.close()


# --- a full disk ----------------------------------------------------------------------------------------------------------


def test_when_the_disk_is_full_writes_are_refused_and_reads_go_on(tmp_path: Path) -> None:
    peer = start_ours(tmp_path, size_limit=8 * MIB)
    try:
        written = []
        for number in range(500):
            answer = peer.request("POST", MAPS, {"metadata": {"name": f"m{number}"}, "data": {"k": "v" * 100_000}})
            if answer.status != 201:
                break
            written.append(f"m{number}")

        assert answer.status == 503
        assert (answer.body["reason"], "full" in answer.body["message"]) == ("ServiceUnavailable", True)
        assert [one["metadata"]["name"] for one in peer.request("GET", MAPS).body["items"]] == sorted(written)
        assert peer.request("GET", f"{MAPS}/m0").status == 200
        assert peer.request("GET", "/livez").status == 200
    finally:
        peer.stop()
    log = (tmp_path / "ours.log").read_text()
    assert "Traceback" not in log, log[-3000:]

    again = start_ours(tmp_path)
    try:
        assert again.request("POST", MAPS, {"metadata": {"name": "after"}}).status == 201
        assert len(again.request("GET", MAPS).body["items"]) == len(written) + 1
    finally:
        again.stop()
