"""The two API servers that are compared: a real kube-apiserver on etcd, and ours. Both without controllers.

The real one is looked for in ``$REAL_KUBE/bin`` (default ``~/.cache/real-kube/bin``) and etcd on the path; where either
is missing there is nothing to compare with.
"""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

START_SECONDS = 60
REAL_TOKEN = "admintoken"
JSON = "application/json"


@dataclass(slots=True)
class Answer:
    """``body`` is the decoded JSON, or the text where it is none."""

    status: int
    body: Any
    headers: Mapping[str, str] = field(default_factory=dict)


class Peer:
    """One server, over one connection that is kept open; ``processes`` are what serves it."""

    def __init__(self, url: str, token: str, processes: list[subprocess.Popen[str]]) -> None:
        self.url = url
        self.token = token
        self.processes = processes
        self._host = urlsplit(url).netloc
        self._connection: http.client.HTTPSConnection | None = None

    def connect(self, seconds: float = 30) -> http.client.HTTPSConnection:
        return http.client.HTTPSConnection(self._host, context=unverified(), timeout=seconds)

    def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """``body`` is any JSON value, or bytes to be sent as they are."""
        if self._connection is None:
            self._connection = self.connect()
        data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        given = {"Authorization": f"Bearer {self.token}", "Content-Type": JSON, "User-Agent": "differential/1"}
        where = path + ("?" + urlencode(query) if query else "")
        try:
            self._connection.request(method, where, data, given | dict(headers or {}))
            answer = self._connection.getresponse()
            text = answer.read()
        except (OSError, http.client.HTTPException):
            self._connection = None
            raise
        return Answer(answer.status, _decoded(text), dict(answer.getheaders()))

    def watch(self, path: str, query: Mapping[str, str], seconds: int = 1) -> list[Any]:
        """The events of a watch that lasts ``seconds``."""
        connection = self.connect()
        asked = urlencode({"watch": "true", "timeoutSeconds": str(seconds)} | dict(query))
        connection.request("GET", f"{path}?{asked}", headers={"Authorization": f"Bearer {self.token}"})
        with connection.getresponse() as answer:
            lines = answer.read().splitlines()
        connection.close()
        return [_decoded(line) for line in lines if line]

    def stop(self) -> None:
        stop_all(self.processes)


def stop_all(processes: Sequence[subprocess.Popen[str]]) -> None:
    """End what was started last first."""
    for process in reversed(processes):
        process.send_signal(signal.SIGTERM)
    for process in processes:
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()


def unverified() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _decoded(text: bytes) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text.decode(errors="replace")


def real_kube_missing() -> str:
    """Why there is no real Kubernetes here, empty when there is one."""
    if not (real_home() / "bin" / "kube-apiserver").exists():
        return "no kube-apiserver has been built in $REAL_KUBE/bin"
    return "" if shutil.which("etcd") else "etcd is not installed"


def real_home() -> Path:
    return Path(os.environ.get("REAL_KUBE") or Path.home() / ".cache" / "real-kube")


def start_real(directory: Path) -> Peer:
    """etcd and kube-apiserver 1.20 with their defaults, on free ports; returns when ``/readyz`` says ok."""
    directory.mkdir(parents=True, exist_ok=True)
    key = directory / "sa.key"
    subprocess.run(["openssl", "genrsa", "-out", str(key), "2048"], check=True, capture_output=True)
    (directory / "tokens.csv").write_text(f'{REAL_TOKEN},admin,admin,"system:masters"\n')
    client, peer, port = free_port(), free_port(), free_port()
    etcd_url, peer_url = f"http://127.0.0.1:{client}", f"http://127.0.0.1:{peer}"
    etcd = spawn(
        directory / "etcd.log",
        "etcd",
        f"--data-dir={directory / 'etcd'}",
        f"--listen-client-urls={etcd_url}",
        f"--advertise-client-urls={etcd_url}",
        f"--listen-peer-urls={peer_url}",
        f"--initial-advertise-peer-urls={peer_url}",
        f"--initial-cluster=default={peer_url}",
    )
    server = spawn(
        directory / "apiserver.log",
        str(real_home() / "bin" / "kube-apiserver"),
        f"--etcd-servers={etcd_url}",
        f"--secure-port={port}",
        "--bind-address=127.0.0.1",
        f"--cert-dir={directory / 'certs'}",
        "--service-account-issuer=https://127.0.0.1",
        f"--service-account-key-file={key}",
        f"--service-account-signing-key-file={key}",
        f"--token-auth-file={directory / 'tokens.csv'}",
        "--authorization-mode=RBAC",
        "--service-cluster-ip-range=10.0.0.0/24",
        "--allow-privileged",
    )
    made = Peer(f"https://127.0.0.1:{port}", REAL_TOKEN, [etcd, server])
    try:
        wait_ready(made)
    except BaseException:
        made.stop()
        raise
    return made


def start_ours(directory: Path, size_limit: int = 0, patience: float = 0) -> Peer:
    """Our API server alone; its log is ``ours.log`` in ``directory``. 0 leaves a limit as it is."""
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / "ours.log").open("a") as log:
        process = subprocess.Popen(
            [
                sys.executable,
                str(Path(__file__).with_name("alone.py")),
                str(directory / "data"),
                str(size_limit),
                str(patience),
            ],
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
    assert process.stdout is not None
    words = process.stdout.readline().split()
    if not words or words[0] != "ready":
        process.wait(20)
        raise RuntimeError(f"our server did not start: {(directory / 'ours.log').read_text()[-2000:]}")
    return Peer(words[1], words[2], [process])


@contextmanager
def both(directory: Path) -> Iterator[tuple[Peer, Peer]]:
    """(the real one, ours)"""
    real = start_real(directory / "real")
    try:
        ours = start_ours(directory / "ours")
        try:
            yield real, ours
        finally:
            ours.stop()
    finally:
        real.stop()


def wait_ready(peer: Peer) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        with suppress(OSError, http.client.HTTPException):
            if peer.request("GET", "/readyz").status == 200:
                return
        time.sleep(0.02)
    raise TimeoutError(f"{peer.url} was not ready in {START_SECONDS} s")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def spawn(log: Path, *command: str) -> subprocess.Popen[str]:
    with log.open("w") as out:
        return subprocess.Popen(command, stdout=out, stderr=out, text=True)
