"""The end of a definition: its objects are deleted first, then it goes itself.

Level-triggered: what counts is that a definition is being deleted and still has our finalizer. Objects that wait for
finalizers of their own are asked again until they are gone.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import replace

from fleetplane.apiserver.call import Call
from fleetplane.apiserver.crds import CLEANUP_FINALIZER
from fleetplane.apiserver.deleting import Deletes
from fleetplane.apiserver.http import Request
from fleetplane.apiserver.registry import Registry
from fleetplane.apiserver.routing import Target
from fleetplane.apiserver.writing import Writes
from fleetplane.model import errors
from fleetplane.model.objects import Object, finalizers, is_deleting
from fleetplane.model.user import MASTERS_GROUP, UserInfo
from fleetplane.store.protocol import Selection, Store, StoreError

log = logging.getLogger(__name__)

_USER = UserInfo("system:apiserver", groups=(MASTERS_GROUP,))
_AGAIN_SECONDS = 1.0


class DefinitionCleanup:
    """Finishes definitions that are being deleted, in all clusters; fed by a follower, run in the background."""

    def __init__(self, store: Store, registry: Registry) -> None:
        self._store = store
        self._registry = registry
        self._pending: dict[tuple[str, str], Object] = {}
        self._changed = asyncio.Event()

    def apply(self, cluster: str, definition: Object, deleted: bool) -> None:
        key = (cluster, definition["metadata"]["name"])
        if not deleted and is_deleting(definition) and CLEANUP_FINALIZER in finalizers(definition):
            self._pending[key] = definition
            self._changed.set()
        else:
            self._pending.pop(key, None)

    async def run(self, writes: Writes, deletes: Deletes, name_of: Callable[[str], str]) -> None:
        """Until cancelled."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            for (cluster, name), definition in list(self._pending.items()):
                try:
                    done = await self._finish(writes, deletes, name_of, cluster, definition)
                except (errors.ApiError, StoreError) as error:
                    log.warning("definition %s cannot be removed yet: %s", name, error)
                    done = isinstance(error, errors.ApiError) and error.code == 404
                if done:
                    self._pending.pop((cluster, name), None)
            if self._pending:
                await asyncio.sleep(_AGAIN_SECONDS)
                self._changed.set()

    async def _finish(
        self, writes: Writes, deletes: Deletes, name_of: Callable[[str], str], cluster: str, definition: Object
    ) -> bool:
        spec = definition["spec"]
        group, plural = spec["group"], spec["names"]["plural"]
        served = self._registry.find_plural(cluster, group, plural)
        selection = Selection(group, plural, cluster)
        if served is not None:
            target = Target(name_of(cluster), "", "deletecollection", True, group, served.type.version, plural)
            await deletes.delete_collection(Call(Request("DELETE", ""), target, served, _USER, cluster))
        if await self._store.count(selection):
            return False
        definitions = self._registry.find(cluster, "apiextensions.k8s.io", "v1", "customresourcedefinitions")
        if definitions is None:
            return True
        target = Target(
            name_of(cluster),
            "",
            "update",
            True,
            "apiextensions.k8s.io",
            "v1",
            "customresourcedefinitions",
            name=definition["metadata"]["name"],
        )

        async def without_finalizer(current: Object) -> Object:
            kept = [one for one in finalizers(current) if one != CLEANUP_FINALIZER]
            current["metadata"]["finalizers"] = kept
            return current

        call = Call(Request("PUT", ""), target, definitions, _USER, cluster, field_manager="fleetplane")
        await writes.change_object(replace(call), without_finalizer)
        return True
