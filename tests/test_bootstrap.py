"""What a plane offers at its first start, and leaves alone ever after."""

from __future__ import annotations

from fleetplane.bootstrap import offer_storage
from fleetplane.client.protocol import Client
from fleetplane.model.builtin.types import STORAGE_CLASSES
from fleetplane.model.objects import annotations
from fleetplane.testing import running_server

MARK = "storageclass.kubernetes.io/is-default-class"


async def classes(client: Client) -> dict[str, bool]:
    """Every class, and whether it is the default."""
    found = (await client.list(STORAGE_CLASSES)).items
    return {one["metadata"]["name"]: annotations(one).get(MARK) == "true" for one in found}


async def test_the_default_storage_class_is_made_once() -> None:
    async with running_server() as server:
        client = server.client()
        await offer_storage(client)
        assert await classes(client) == {"standard": True}

        await client.delete(STORAGE_CLASSES, "standard")
        await offer_storage(client)

        assert await classes(client) == {}


async def test_a_default_of_ones_own_stays_the_only_one() -> None:
    async with running_server() as server:
        client = server.client()
        mine = {"metadata": {"name": "mine", "annotations": {MARK: "true"}}, "provisioner": "example.com/mine"}
        await client.create(STORAGE_CLASSES, mine)

        await offer_storage(client)

        assert await classes(client) == {"mine": True}


async def test_a_class_of_that_name_is_not_touched() -> None:
    async with running_server() as server:
        client = server.client()
        await client.create(STORAGE_CLASSES, {"metadata": {"name": "standard"}, "provisioner": "example.com/mine"})

        await offer_storage(client)

        assert await classes(client) == {"standard": False}
