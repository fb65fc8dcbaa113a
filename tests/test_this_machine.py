"""This machine's node begins before there is a plane: it waits for its server, not with its containers."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from fleetplane import this_machine
from fleetplane.client.protocol import Client, Pairs
from fleetplane.interfaces.cli import running
from fleetplane.model.builtin.types import NODES
from fleetplane.model.environment import SystemEnvironment
from fleetplane.model.user import UserInfo
from fleetplane.node.files import held
from fleetplane.node.local import LOCK, run_local_node
from fleetplane.node.runtime import RuntimeFailure
from fleetplane.plane_error import PlaneError
from fleetplane.settings import Settings
from fleetplane.this_machine import ThisMachine


class Server:
    """Answers every list with nothing, and remembers who asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def transport(self, user: UserInfo) -> Any:
        server = self

        class Transport:
            async def request(
                self, method: str, path: str, query: Pairs, headers: Pairs, body: bytes
            ) -> tuple[int, Mapping[str, str], bytes]:
                server.asked.append(f"{user.name} {method} {path}")
                return 200, {}, b'{"metadata":{"resourceVersion":"1"},"items":[]}'

        return Transport()


@pytest.fixture
def began(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A node that notes how far it came, with one request to its server."""
    steps: list[str] = []

    async def run(client: Client, *args: Any, **more: Any) -> None:
        steps.append("begun")
        await client.list(NODES)
        steps.append("answered")
        more["on_ready"]("the agent")
        await asyncio.Event().wait()

    monkeypatch.setattr(this_machine, "run_local_node", run)
    return steps


def machine(tmp_path: Path) -> ThisMachine:
    return ThisMachine(Settings(data_dir=tmp_path / "data", node_name="here"), SystemEnvironment())


async def test_its_requests_wait_for_the_server(tmp_path: Path, began: list[str]) -> None:
    node, server = machine(tmp_path), Server()
    node.begin()
    while not began:
        await asyncio.sleep(0)
    assert not server.asked

    node.connect(server.transport)
    running_node = asyncio.create_task(node.run())

    assert str(await node.ready) == "the agent"
    assert server.asked == ["system:node:here GET /api/v1/nodes"]
    assert began == ["begun", "answered"]
    running_node.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running_node


async def test_what_never_ran_is_ended(tmp_path: Path, began: list[str]) -> None:
    node = machine(tmp_path)
    node.begin()
    while not began:
        await asyncio.sleep(0)

    await node.end()

    assert not node.ready.done()


async def test_what_it_cannot_do_it_says_when_the_plane_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def run(*args: Any, **more: Any) -> None:
        raise RuntimeFailure("Podman is not installed")

    monkeypatch.setattr(this_machine, "run_local_node", run)
    node = machine(tmp_path)
    failing = asyncio.create_task(node.run())
    await asyncio.sleep(0.02)
    assert not failing.done()

    node.connect(Server().transport)

    with pytest.raises(PlaneError, match="cannot run pods: Podman is not installed; try --runtime simulated"):
        await failing


async def test_a_node_is_run_by_one_process_at_a_time(tmp_path: Path) -> None:
    from fleetplane.node.agent import NodeSettings

    with held(tmp_path / LOCK) as ours:
        assert ours
        with pytest.raises(RuntimeFailure, match="another process runs the node of"):
            await run_local_node(None, NodeSettings(tmp_path), SystemEnvironment())  # type: ignore[arg-type]
    with held(tmp_path / LOCK) as ours:
        assert ours


@pytest.mark.parametrize(
    ("settings", "installed", "expected"),
    [
        (Settings(), True, True),
        (Settings(), False, False),
        (Settings(runtime="podman"), True, True),
        (Settings(runtime="cri"), False, True),
        (Settings(runtime="simulated"), True, False),
        (Settings(nodes=0), True, False),
    ],
)
def test_only_what_will_surely_be_a_node_begins_early(
    settings: Settings, installed: bool, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running.shutil, "which", lambda name: "/usr/bin/podman" if installed else None)

    assert running._will_be_a_node(settings) is expected
