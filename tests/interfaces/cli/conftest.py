"""One simulated plane for all commands, in a thread of its own, and a command line that runs in the test's process."""

from __future__ import annotations

import asyncio
import io
import itertools
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from fleetplane.interfaces.cli.main import run
from fleetplane.plane import Plane
from fleetplane.settings import Settings


@dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()


@dataclass(frozen=True)
class Served:
    url: str
    kubeconfig: Path
    data_dir: Path


Cli = Callable[..., Result]


@contextmanager
def serving(data_dir: Path, operators: str = "none") -> Iterator[Served]:
    """A simulated plane in a thread."""
    started: list[Served | BaseException] = []
    ready, stop = threading.Event(), asyncio.Event()
    loops: list[asyncio.AbstractEventLoop] = []

    async def serve() -> None:
        loops.append(asyncio.get_running_loop())
        settings = Settings(data_dir=data_dir, port=0, runtime="simulated", nodes=1, operators=operators)
        async with Plane(settings) as running:
            started.append(Served(running.url, running.kubeconfig, data_dir))
            ready.set()
            await stop.wait()

    def in_thread() -> None:
        try:
            asyncio.run(serve())
        except BaseException as error:
            started.append(error)
            ready.set()

    thread = threading.Thread(target=in_thread, daemon=True)
    thread.start()
    assert ready.wait(30), "the plane did not start"
    if isinstance(started[0], BaseException):
        raise started[0]
    yield started[0]
    loops[0].call_soon_threadsafe(stop.set)
    thread.join(10)


@pytest.fixture(scope="session")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(tmp_path_factory.mktemp("plane")) as served:
        yield served


@pytest.fixture
def cli(plane: Served, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Cli:
    """Runs one command line: ``cli("get", "pods")``."""
    monkeypatch.setenv("KUBECONFIG", str(plane.kubeconfig))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))

    def call(*words: str, stdin: str = "") -> Result:
        capfd.readouterr()
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(stdin.encode())))
        code = run(list(words))
        captured = capfd.readouterr()
        return Result(code, captured.out, captured.err)

    return call


_numbers = itertools.count(1)


@pytest.fixture
def namespace(cli: Cli) -> str:
    """A namespace of the test's own."""
    name = f"test-{next(_numbers)}"
    made = json.dumps({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    assert cli("apply", "-f", "-", stdin=made).code == 0
    return name


@pytest.fixture
def deployment() -> Callable[..., str]:
    """The manifest of a Deployment, as JSON."""

    def made(name: str = "web", replicas: int = 1, **more: Any) -> str:
        labels = {"app": name}
        return json.dumps(
            {
                "apiVersion": "apps/v1",
                "kind": "Deployment",
                "metadata": {"name": name, "labels": labels, **more.get("metadata", {})},
                "spec": {
                    "replicas": replicas,
                    "selector": {"matchLabels": labels},
                    "template": {
                        "metadata": {"labels": labels},
                        "spec": {"containers": [{"name": "main", "image": more.get("image", "app:1")}]},
                    },
                },
            }
        )

    return made


@pytest.fixture
def config_map() -> Callable[..., str]:
    """The manifest of a ConfigMap, as JSON."""

    def made(name: str = "settings", **more: Any) -> str:
        labels = more.pop("labels", {})
        metadata = {"name": name, **({"labels": labels} if labels else {})}
        return json.dumps({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": more})

    return made
