"""Pod statuses on their way to the API: the newest of each pod, a few at a time, again until they arrive.

A status that only says "not yet" waits a moment, because a better one usually follows; everything else goes at once.
While the control plane cannot be reached statuses wait here, one for each pod, and are sent when it returns.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, Final

import orjson

from fleetplane.client.cancelling import end_if_cancelled
from fleetplane.client.protocol import Client
from fleetplane.model import objects
from fleetplane.model.builtin.types import PODS
from fleetplane.model.errors import ApiError
from fleetplane.model.objects import Object
from fleetplane.node.pod import PodView
from fleetplane.node.worker import PodWorker

QUIET_SECONDS: Final = 0.25
RETRY_SECONDS: Final = 1.0
LONGEST_RETRY_SECONDS: Final = 30.0
_DULL: Final = {"ContainerCreating", "PodInitializing"}

_log = logging.getLogger(__name__)


class StatusReporter:
    """``uid_of`` tells the uid of the API object that shows a pod; empty when there is none (yet).

    ``changed`` and ``ended`` never wait; ``run`` does the sending.
    """

    def __init__(self, client: Client, *, parallel: int = 8, uid_of: Callable[[PodView], str] | None = None) -> None:
        self._client = client
        self._uid_of = uid_of or (lambda pod: pod.uid)
        self._parallel = parallel
        self._waiting: OrderedDict[str, PodWorker] = OrderedDict()
        self._ending: set[str] = set()
        self._sent: dict[str, bytes] = {}
        self._quiet: dict[str, asyncio.TimerHandle] = {}
        self._wake = asyncio.Event()
        self._busy: set[str] = set()

    def changed(self, worker: PodWorker) -> None:
        """The pod's status is a new one."""
        uid = worker.uid
        if uid in self._waiting:
            if uid in self._quiet and not is_dull(worker.status):
                self._quiet.pop(uid).cancel()
                self._wake.set()
            return
        self._waiting[uid] = worker
        if is_dull(worker.status) and uid not in self._sent:
            self._quiet[uid] = asyncio.get_running_loop().call_later(QUIET_SECONDS, self._speak, uid)
        else:
            self._wake.set()

    def ended(self, worker: PodWorker) -> None:
        """Nothing of the pod is left here: end it in the API too."""
        uid = worker.uid
        self._ending.add(uid)
        self._waiting[uid] = worker
        if uid in self._quiet:
            self._quiet.pop(uid).cancel()
        self._wake.set()

    def forget(self, uid: str) -> None:
        """The pod is gone from the API: there is nobody to tell."""
        self._waiting.pop(uid, None)
        self._ending.discard(uid)
        self._sent.pop(uid, None)
        if uid in self._quiet:
            self._quiet.pop(uid).cancel()

    def _speak(self, uid: str) -> None:
        self._quiet.pop(uid, None)
        self._wake.set()

    async def run(self) -> None:
        """Send until cancelled."""
        async with asyncio.TaskGroup() as group:
            for _ in range(self._parallel):
                group.create_task(self._send_on())

    async def _send_on(self) -> None:
        failures = 0
        while True:
            worker = self._next()
            if worker is None:
                self._wake.clear()
                await self._wake.wait()
                continue
            uid = worker.uid
            self._busy.add(uid)
            try:
                await self._send(worker)
                failures = 0
            except (ApiError, OSError, TimeoutError) as error:
                end_if_cancelled()
                failures += 1
                _log.info("status of pod %s not sent: %s; trying again", worker.pod.key, error)
                self._waiting.setdefault(uid, worker)
                await asyncio.sleep(min(RETRY_SECONDS * 2 ** min(failures, 10), LONGEST_RETRY_SECONDS))
            finally:
                self._busy.discard(uid)
                worker.rest()
                if uid in self._waiting:
                    self._wake.set()

    def _next(self) -> PodWorker | None:
        for uid, worker in self._waiting.items():
            if uid not in self._quiet and uid not in self._busy:
                del self._waiting[uid]
                return worker
        return None

    async def _send(self, worker: PodWorker) -> None:
        pod, uid = worker.pod, worker.uid
        ending = uid in self._ending
        if not ending or objects.finalizers(pod.object):
            await self._send_status(pod, worker.encoded_status)
        if ending:
            await self._end(pod)

    async def _send_status(self, pod: PodView, encoded: bytes) -> None:
        name, api_uid = pod.name, self._uid_of(pod)
        if not api_uid:
            return
        sent = self._sent.get(pod.uid)
        before = orjson.loads(sent) if sent else pod.object.get("status") or {}
        patch = status_patch(orjson.loads(encoded), before)
        if not patch:
            return
        body = {"metadata": {"uid": api_uid}, "status": patch}
        try:
            await self._client.patch(PODS, name, body, pod.namespace, type="strategic", subresource="status")
        except ApiError as error:
            if error.code in {404, 409}:
                return  # it is gone, or another pod has its name: the watch will say so
            if 400 <= error.code < 500 and error.code != 429:
                _log.error("the status of pod %s was refused: %s", pod.key, error.message)
                return
            raise
        self._sent[pod.uid] = encoded

    async def _end(self, pod: PodView) -> None:
        name, api_uid = pod.name, self._uid_of(pod)
        if not api_uid:
            self.forget(pod.uid)
            return
        try:
            await self._client.delete(PODS, name, pod.namespace, grace_period_seconds=0, uid=api_uid)
        except ApiError as error:
            if error.code not in {404, 409}:
                raise
        self.forget(pod.uid)


def is_dull(status: Mapping[str, Any]) -> bool:
    """Whether the status only says that nothing has happened yet."""
    if status.get("phase") != "Pending" or status.get("reason"):
        return False
    for key in ("initContainerStatuses", "containerStatuses"):
        for container in status.get(key) or []:
            waiting = container["state"].get("waiting")
            if waiting is None or waiting.get("reason") not in _DULL:
                return False
    return True


def status_patch(status: Object, before: Mapping[str, Any]) -> Object:
    """The strategic merge patch from one status to another: only what differs, empty when nothing does.

    Conditions merge by type, so those others set stay. Lists of addresses merge by address, so a change replaces them.
    """
    patch: Object = {key: value for key, value in status.items() if before.get(key) != value}
    for key in ("reason", "message", "podIP", "podIPs", "initContainerStatuses", "ephemeralContainerStatuses"):
        if key in before and key not in status:
            patch[key] = None
    if "conditions" in patch:
        known = {c.get("type"): c for c in before.get("conditions") or []}
        # Merged key by key: what a condition no longer says must be taken away.
        changed = [
            {**dict.fromkeys(known.get(c["type"], {}).keys() - c.keys()), **c}
            for c in status["conditions"]
            if known.get(c["type"]) != c
        ]
        if changed:
            patch["conditions"] = changed
        else:
            del patch["conditions"]
    for key in ("podIPs", "hostIPs"):
        if patch.get(key) and before.get(key):
            patch[key] = [{"$patch": "replace"}, *patch[key]]
    return patch
