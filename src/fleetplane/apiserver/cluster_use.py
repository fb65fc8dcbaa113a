"""When a logical cluster was last used by somebody, for those that are to sleep when nobody does.

A cluster that says ``spec.reportUseSeconds`` gets ``status.lastUsed``: written when somebody has used it, at most once in so
many seconds, and at once after a longer silence, so that a request wakes what sleeps. Somebody is everybody but the parts of
clusters themselves (names that begin with ``system:``): a cluster's own controllers, nodes and pods do not keep it awake.

Costs a look into a dictionary for each request; clusters that do not ask for it are not in there.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from datetime import datetime

from fleetplane.apiserver.routing import ROOT_CLUSTER
from fleetplane.model.environment import Environment, timestamp
from fleetplane.model.errors import ApiError
from fleetplane.model.objects import Object, is_deleting
from fleetplane.model.user import UserInfo
from fleetplane.store.protocol import StoreError

log = logging.getLogger(__name__)

Write = Callable[[Object, Callable[[Object], Object]], Awaitable[None]]
_AGAIN_SECONDS = 1.0


class ClusterUse:
    """Fed by a follower (``apply``) and by requests (``note``); ``run`` writes."""

    def __init__(self, environment: Environment) -> None:
        self._environment = environment
        self._watched: dict[str, tuple[Object, float]] = {}
        self._written: dict[str, float] = {}
        self._used: dict[str, datetime] = {}
        self._changed = asyncio.Event()

    def apply(self, cluster: str, obj: Object, deleted: bool) -> None:
        if cluster != ROOT_CLUSTER:
            return
        uid = obj["metadata"]["uid"]
        interval = (obj.get("spec") or {}).get("reportUseSeconds")
        if deleted or is_deleting(obj) or not interval:
            for known in (self._watched, self._written, self._used):
                known.pop(uid, None)
            return
        self._watched[uid] = obj, float(interval)

    def note(self, cluster: str | None, user: UserInfo) -> None:
        """Somebody's request was let in."""
        watched = self._watched.get(cluster or "")
        if watched is None or user.name.startswith("system:"):
            return
        now = self._environment.monotonic()
        if now - self._written.get(cluster or "", float("-inf")) >= watched[1]:
            self._written[cluster or ""] = now
            self._used[cluster or ""] = self._environment.now()
            self._changed.set()

    async def run(self, write: Write) -> None:
        """Until cancelled. ``write`` changes the status of a cluster's object."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            failed = False
            for uid, moment in list(self._used.items()):
                self._used.pop(uid, None)
                watched = self._watched.get(uid)
                if watched is None:
                    continue
                try:
                    await write(watched[0], _used_at(moment))
                except (ApiError, StoreError) as error:
                    if isinstance(error, ApiError) and error.code == 404:
                        continue
                    log.warning(
                        "the use of logical cluster %s is not written: %s", watched[0]["metadata"]["name"], error
                    )
                    self._used.setdefault(uid, moment)
                    failed = True
            if failed:
                await asyncio.sleep(_AGAIN_SECONDS)
                self._changed.set()


def _used_at(moment: datetime) -> Callable[[Object], Object]:
    def change(obj: Object) -> Object:
        return obj | {"status": (obj.get("status") or {}) | {"lastUsed": timestamp(moment)}}

    return change
