"""The thirty lines of the operator author's guide: the same in guide and example, and they work, in a process and over a network."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from tests.docs.blocks import ROOT, blocks

from fleetplane.client.http import connect_to
from fleetplane.client.kubeconfig import load
from fleetplane.client.protocol import Client
from fleetplane.controller import Manager
from fleetplane.interfaces.cli.errors import CommandError
from fleetplane.interfaces.cli.operator_file import operators_of_file
from fleetplane.model.builtin.types import CONFIG_MAPS
from fleetplane.model.environment import SystemEnvironment
from fleetplane.model.errors import ApiError
from fleetplane.model.objects import Object
from fleetplane.model.resources import ResourceType
from fleetplane.operating import install_kinds
from fleetplane.plane import Plane
from fleetplane.settings import Settings
from fleetplane.testing.plane import running_server

FILE = ROOT / "examples" / "operator" / "greetings.py"
GREETINGS = ResourceType("example.org", "v1", "Greeting", "greetings")


def test_the_guide_shows_the_example_and_it_is_thirty_lines() -> None:
    shown = next(block.text for block in blocks(ROOT / "docs" / "operators.md") if block.language == "python")

    assert shown.strip() == FILE.read_text().strip()
    assert len([line for line in shown.splitlines() if line.strip()]) <= 30


async def test_it_works_in_a_process() -> None:
    async with running_server() as server:
        await says_hello(server.client())


async def test_it_works_against_a_server(tmp_path: Path) -> None:
    async with Plane(Settings(data_dir=tmp_path, port=0, runtime="none", nodes=0, operators="none")) as plane:
        client = await connect_to(load([plane.kubeconfig]).access())
        try:
            await says_hello(client)
        finally:
            await client.close()


async def says_hello(client: Client) -> None:
    """Create a greeting, spoil its ConfigMap, and give one that the kind forbids."""
    (operator,) = operators_of_file(FILE)
    await install_kinds(client, [operator])
    manager = Manager(client, environment=SystemEnvironment(), name="greetings")
    operator.install(manager)
    async with asyncio.timeout(30), asyncio.TaskGroup() as group:
        running = group.create_task(manager.run())
        await client.create(GREETINGS, greeting(times=2), "default")

        assert await eventually(client, "Hello\nHello")
        await client.delete(CONFIG_MAPS, "hello", "default")
        assert await eventually(client, "Hello\nHello"), "what was deleted comes back"
        said = await client.get(GREETINGS, "hello", "default")
        with pytest.raises(ApiError) as refused:
            await client.create(GREETINGS, greeting(times=11) | {"metadata": {"name": "loud"}}, "default")

        assert said["status"]["said"] == 2
        assert refused.value.code == 422
        manager.stop()
        await running


def greeting(times: int) -> Object:
    return {"metadata": {"name": "hello"}, "spec": {"text": "Hello", "times": times}}


async def eventually(client: Client, text: str) -> bool:
    while True:
        try:
            found = await client.get(CONFIG_MAPS, "hello", "default")
        except ApiError as error:
            assert error.code == 404
        else:
            if found["data"]["text"] == text:
                return True
        await asyncio.sleep(0.02)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "defines no operator"),
        ("import nothing_such", "cannot be loaded: ModuleNotFoundError"),
        (None, "is not a Python file"),
    ],
)
def test_a_file_without_an_operator_is_told(tmp_path: Path, text: str | None, said: str) -> None:
    path = tmp_path / "mine.py"
    if text is not None:
        path.write_text(text)

    with pytest.raises(CommandError, match=said):
        operators_of_file(path)
