"""Events about pods and nodes, as the kubelet writes them: for people, never for programs.

Saying is immediate and never waits; writing happens in ``run``. Repetitions of the same message about the same object
raise the count of one Event instead of making another, and a talkative object is cut off (25 at once, then one in five
minutes), as client-go does. What cannot be written after a few tries is dropped: events are best effort.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from fleetplane.client.protocol import Client
from fleetplane.model import objects
from fleetplane.model.builtin.types import EVENTS
from fleetplane.model.environment import Environment, timestamp
from fleetplane.model.errors import ApiError
from fleetplane.model.objects import Object

BURST = 25
REFILL_SECONDS = 300.0
REMEMBERED = 4096
WAITING = 1000
TRIES = 3


class Recorder(Protocol):
    def say(
        self, obj: Mapping[str, Any], reason: str, message: str, *, warning: bool = False, container: str = ""
    ) -> None:
        """Note something about an object; ``container`` (``spec.containers{name}``) is the part it concerns."""


class SilentRecorder:
    """Says nothing."""

    def say(
        self, obj: Mapping[str, Any], reason: str, message: str, *, warning: bool = False, container: str = ""
    ) -> None:
        return


@dataclass(slots=True)
class _Known:
    name: str
    count: int
    first: str


@dataclass(slots=True)
class _Allowance:
    left: float
    at: float


class ApiRecorder:
    """Writes Events with a client. ``warnings_only`` is for simulated fleets, whose pods would say too much."""

    def __init__(
        self,
        client: Client,
        environment: Environment,
        *,
        component: str = "kubelet",
        host: str = "",
        warnings_only: bool = False,
    ) -> None:
        self._client = client
        self._environment = environment
        self._component = component
        self._host = host
        self._warnings_only = warnings_only
        self._known: OrderedDict[tuple[str, ...], _Known] = OrderedDict()
        self._allowances: OrderedDict[str, _Allowance] = OrderedDict()
        self._queue: asyncio.Queue[tuple[tuple[str, ...], Object]] = asyncio.Queue(maxsize=WAITING)

    def say(
        self, obj: Mapping[str, Any], reason: str, message: str, *, warning: bool = False, container: str = ""
    ) -> None:
        if (self._warnings_only and not warning) or self._queue.full():
            return
        uid = objects.uid(obj)
        if not self._allowed(uid or objects.name(obj)):
            return
        kind = "Warning" if warning else "Normal"
        key = (objects.namespace(obj), objects.name(obj), uid, container, kind, reason, message)
        self._queue.put_nowait((key, self._event(obj, kind, reason, message, container)))

    def _allowed(self, owner: str) -> bool:
        now = self._environment.monotonic()
        allowance = self._allowances.setdefault(owner, _Allowance(BURST, now))
        self._allowances.move_to_end(owner)
        if len(self._allowances) > REMEMBERED:
            self._allowances.popitem(last=False)
        allowance.left = min(BURST, allowance.left + (now - allowance.at) / REFILL_SECONDS)
        allowance.at = now
        if allowance.left < 1:
            return False
        allowance.left -= 1
        return True

    def _event(self, obj: Mapping[str, Any], kind: str, reason: str, message: str, container: str) -> Object:
        moment = timestamp(self._environment.now())
        about: Object = {
            "kind": obj.get("kind") or "Pod",
            "apiVersion": obj.get("apiVersion") or "v1",
            "name": objects.name(obj),
            "uid": objects.uid(obj),
        }
        if namespace := objects.namespace(obj):
            about["namespace"] = namespace
        if version := objects.resource_version(obj):
            about["resourceVersion"] = version
        if container:
            about["fieldPath"] = container
        suffix = f"{self._environment.random.getrandbits(64):016x}"
        return {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": f"{objects.name(obj)[:200]}.{suffix}", "namespace": namespace or "default"},
            "involvedObject": about,
            "reason": reason,
            "message": message[:1024],
            "type": kind,
            "source": {"component": self._component, "host": self._host},
            "reportingComponent": self._component,
            "reportingInstance": self._host,
            "firstTimestamp": moment,
            "lastTimestamp": moment,
            "count": 1,
        }

    async def run(self) -> None:
        """Write what was said, until cancelled."""
        while True:
            key, event = await self._queue.get()
            for wait in range(TRIES):
                try:
                    await self._write(key, event)
                    break
                except ApiError as error:
                    if error.code < 500 and error.code != 429:
                        break  # refused (a namespace that ends, most often): saying it again changes nothing
                except (OSError, TimeoutError):
                    pass
                await asyncio.sleep(2**wait)

    async def _write(self, key: tuple[str, ...], event: Object) -> None:
        namespace = objects.namespace(event)
        known = self._known.get(key)
        if known is not None:
            self._known.move_to_end(key)
            change = {"count": known.count + 1, "lastTimestamp": event["lastTimestamp"]}
            try:
                await self._client.patch(EVENTS, known.name, change, namespace, type="merge")
            except ApiError as error:
                if error.code != 404:
                    raise
            else:
                known.count += 1
                return
        await self._client.create(EVENTS, event, namespace)
        self._known[key] = _Known(objects.name(event), 1, event["firstTimestamp"])
        if len(self._known) > REMEMBERED:
            self._known.popitem(last=False)
