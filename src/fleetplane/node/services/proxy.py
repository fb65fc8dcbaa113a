"""Keeps the kernel's Service rules what Services and EndpointSlices say.

Changes are gathered for a moment and written as one table. Until both lists are complete nothing is written, so that a
restart never forgets a Service for a second; rules of an earlier agent stay in force meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shutil
from collections.abc import Callable

from fleetplane.client.informer import Informer
from fleetplane.client.protocol import Client
from fleetplane.model.builtin.types import ENDPOINT_SLICES, SERVICES
from fleetplane.model.environment import Environment
from fleetplane.model.objects import Object
from fleetplane.node.network import PATH
from fleetplane.node.processes import CommandFailure, run_command
from fleetplane.node.services.rules import service_rules
from fleetplane.node.services.table import forwardings

GATHER_SECONDS = 0.05
RETRY_SECONDS = 5.0

_log = logging.getLogger(__name__)


class ServiceProxy:
    """``on_change`` is told after every change of Services or endpoints, with all of both (for DNS)."""

    def __init__(
        self,
        client: Client,
        environment: Environment,
        instance: str,
        bridge: str,
        on_change: Callable[[list[Object], list[Object]], None],
    ) -> None:
        self._services = Informer(client, SERVICES, environment, decoded_limit=100_000)
        self._slices = Informer(client, ENDPOINT_SLICES, environment, decoded_limit=100_000)
        self._table = _table(instance)
        self._bridge = bridge
        self._on_change = on_change
        self._nft = shutil.which("nft", path=PATH) or "nft"
        self._changed = asyncio.Event()
        self._written = ""

    async def run(self) -> None:
        """Until cancelled; the rules stay, as connections of pods do."""
        for informer in (self._services, self._slices):
            informer.add_handler(lambda _: self._changed.set())
        async with asyncio.TaskGroup() as group:
            group.create_task(self._services.run())
            group.create_task(self._slices.run())
            await self._services.wait_synced()
            await self._slices.wait_synced()
            self._changed.set()
            while True:
                await self._changed.wait()
                await asyncio.sleep(GATHER_SECONDS)
                self._changed.clear()
                await self._write()

    async def _write(self) -> None:
        services, slices = self._services.list(), self._slices.list()
        self._on_change(services, slices)
        rules = service_rules(self._table, forwardings(services, slices), self._bridge)
        if rules == self._written:
            return
        try:
            await run_command([self._nft, "-f", "-"], stdin=rules.encode())
        except CommandFailure as error:
            _log.error("the rules of Services were not written: %s", error)
            await asyncio.sleep(RETRY_SECONDS)
            self._changed.set()
            return
        self._written = rules


async def remove_rules(instance: str) -> None:
    """Take the rules away: for a node that is given up."""
    nft = shutil.which("nft", path=PATH) or "nft"
    with contextlib.suppress(CommandFailure):
        await run_command([nft, "delete", "table", "inet", _table(instance)])


def _table(instance: str) -> str:
    return f"fleetplane_services_{instance[:10]}"
