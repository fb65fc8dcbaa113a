"""One node's place in the API: its Node object, its lease, and that they stay what they should be.

Registration is tried until it succeeds; a control plane that is away costs nothing but log lines. The status is written
when it says something new, and every five minutes so that its heartbeat is not older. Resources that others put on the
node are kept and mirrored to allocatable as soon as they appear.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from fleetplane.client.informer import Change, Informer
from fleetplane.client.protocol import Client
from fleetplane.model import objects
from fleetplane.model.builtin.types import LEASES, NODES
from fleetplane.model.environment import Environment
from fleetplane.model.errors import ApiError
from fleetplane.model.objects import Object
from fleetplane.model.pod_networks import refused
from fleetplane.node.fencing import SELF_FENCING, seconds_of
from fleetplane.node.registration import (
    FREEZES,
    LEASE_NAMESPACE,
    NodeDescription,
    lease_object,
    node_object,
    node_status,
    says_the_same,
)

RENEW_SECONDS: Final = 10.0
LOOK_SECONDS: Final = 10.0
HEARTBEAT_SECONDS: Final = 300.0
LONGEST_RETRY: Final = 10.0

_log = logging.getLogger(__name__)


class NodeKeeper:
    """``describe`` is asked for the node's present state each time. ``registered`` is set once the API has it.

    ``on_refused`` is told if it cannot be registered because others have these pod networks of it.
    """

    def __init__(
        self,
        client: Client,
        environment: Environment,
        describe: Callable[[], NodeDescription],
        on_renewed: Callable[[str, float], None] = lambda node, sent: None,
        on_refused: Callable[[list[str]], None] = lambda networks: None,
    ) -> None:
        self._client = client
        self._environment = environment
        self._describe = describe
        self.name = describe().name
        self.object: Object = {"kind": "Node", "apiVersion": "v1", "metadata": {"name": self.name, "uid": self.name}}
        self.registered = asyncio.Event()
        self._on_renewed = on_renewed
        self._on_refused = on_refused
        self._was_registered = False
        self._told_at = 0.0
        self._changed = asyncio.Event()

    async def run(self) -> None:
        """Register, then keep; until cancelled."""
        await self._register()
        informer = Informer(self._client, NODES, self._environment, fields=f"metadata.name={self.name}")
        informer.add_handler(self._seen)
        async with asyncio.TaskGroup() as group:
            group.create_task(informer.run())
            group.create_task(self._renew())
            group.create_task(self._keep())

    @property
    def self_fencing(self) -> float | None:
        """What the Node promises of itself: how many seconds it goes on without the control plane."""
        return seconds_of(objects.annotations(self.object).get(SELF_FENCING))

    def look(self) -> None:
        """Something about the node has changed: tell soon."""
        self._changed.set()

    async def _register(self) -> None:
        failures = 0
        while True:
            try:
                self.object = await self._create_or_get()
                await self._tell()
                await self._renew_once()
            except (ApiError, OSError, TimeoutError) as error:
                failures += 1
                _log.log(
                    logging.WARNING if failures == 5 else logging.INFO,
                    "node %s is not registered yet: %s",
                    self.name,
                    error,
                )
                await asyncio.sleep(min(0.1 * 2 ** min(failures, 10), LONGEST_RETRY))
            else:
                self.registered.set()
                self._was_registered = True
                return

    async def _create_or_get(self) -> Object:
        node = self._describe()
        wanted = node_object(node, self._environment.now())
        try:
            return await self._client.create(NODES, wanted)
        except ApiError as error:
            if taken := refused(error):
                self._refuse(taken)
            if error.reason != "AlreadyExists":
                raise
        found = await self._client.get(NODES, self.name)
        labels: dict[str, str | None] = {
            key: value for key, value in objects.labels(wanted).items() if objects.labels(found).get(key) != value
        }
        if not node.freezes and FREEZES in objects.labels(found):
            labels[FREEZES] = None
        if labels:
            found = await self._client.patch(NODES, self.name, {"metadata": {"labels": labels}}, type="merge")
        return await self._annotated(found, wanted)

    def _refuse(self, networks: list[str]) -> None:
        if self._was_registered:
            _log.error(
                "the Node of %s was deleted, and another has its pod network %s now: start this node again, it takes another",
                self.name,
                " and ".join(networks),
            )
        else:
            self._on_refused(networks)

    async def _annotated(self, found: Object, wanted: Object) -> Object:
        """With the annotations it lacks: a Node that only proposed pod networks did not say all. What others wrote stays."""
        there = objects.annotations(found)
        missing = {key: value for key, value in objects.annotations(wanted).items() if key not in there}
        if not missing:
            return found
        try:
            return await self._client.patch(NODES, self.name, {"metadata": {"annotations": missing}}, type="merge")
        except ApiError as error:
            if not (taken := refused(error)):
                raise
            _log.error(
                "another node has the pod network %s of %s since before: stop one of them, remove its networks.json "
                "and its Node, and start it again",
                " and ".join(taken),
                self.name,
            )
            return found

    async def _tell(self) -> None:
        """Write the status if it says something new, or has not been written for long."""
        node = self._describe()
        if not node.freezes and FREEZES in objects.labels(self.object):
            taken = {"metadata": {"labels": {FREEZES: None}}}
            self.object = await self._client.patch(NODES, self.name, taken, type="merge")
        before = self.object.get("status") or {}
        now = self._environment.monotonic()
        status = node_status(node, before, self._environment.now())
        if says_the_same({**before, **status}, before) and now - self._told_at < HEARTBEAT_SECONDS:
            return
        patch = {key: value for key, value in status.items() if before.get(key) != value}
        if "addresses" in patch and before.get("addresses"):
            # Merged by type they would pile up: there may be several of one type.
            patch["addresses"] = [{"$patch": "replace"}, *status["addresses"]]
        self.object = await self._client.patch(
            NODES, self.name, {"status": patch}, type="strategic", subresource="status"
        )
        self._told_at = now

    def _seen(self, change: Change) -> None:
        if change.event == "DELETED":
            self.object = {**self.object, "status": {}}
            self.registered.clear()
        else:
            self.object = change.new.object
        self._changed.set()

    async def _keep(self) -> None:
        while True:
            try:
                async with asyncio.timeout(LOOK_SECONDS):
                    await self._changed.wait()
            except TimeoutError:
                pass
            self._changed.clear()
            try:
                if not self.registered.is_set():
                    await self._register()
                await self._tell()
            except (ApiError, OSError, TimeoutError) as error:
                _log.info("the status of node %s was not written: %s", self.name, error)
                await asyncio.sleep(1.0)

    async def _renew(self) -> None:
        while True:
            promised = self.self_fencing
            await asyncio.sleep(RENEW_SECONDS if promised is None else min(RENEW_SECONDS, promised / 4))
            try:
                await self._renew_once()
            except (ApiError, OSError, TimeoutError) as error:
                _log.info("the lease of node %s was not renewed: %s", self.name, error)

    async def _renew_once(self) -> None:
        lease = lease_object(self.name, objects.uid(self.object), self._environment.now())
        patch = {"spec": lease["spec"]}
        sent = self._environment.monotonic()
        try:
            await self._client.patch(LEASES, self.name, patch, LEASE_NAMESPACE, type="merge")
        except ApiError as error:
            if error.code != 404:
                raise
            await self._client.create(LEASES, lease, LEASE_NAMESPACE)
        self._on_renewed(self.name, sent)
