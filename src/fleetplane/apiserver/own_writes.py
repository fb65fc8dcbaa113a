"""Writes the server makes for itself: what a stage or background work of its own has to put down.

They take the way of any request (admission, validation, field ownership), as the server's own user. Only what has no
other writer belongs here; controllers are clients.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from fleetplane.apiserver.call import Call
from fleetplane.apiserver.http import Request
from fleetplane.apiserver.registry import Registry
from fleetplane.apiserver.routing import Target
from fleetplane.apiserver.writing import Make, Writes
from fleetplane.model import errors
from fleetplane.model.objects import Object
from fleetplane.model.resources import ResourceType
from fleetplane.model.user import AUTHENTICATED_GROUP, MASTERS_GROUP, UserInfo

SERVER: Final = UserInfo("system:apiserver", groups=(MASTERS_GROUP, AUTHENTICATED_GROUP))
_MANAGER: Final = "kube-apiserver"


class OwnWrites:
    """``bind`` gives it the writing stage, which is made after those that need this. Clusters are named by id."""

    def __init__(self, registry: Registry, name_of: Callable[[str], str]) -> None:
        self._registry = registry
        self._name_of = name_of
        self._writes: Writes | None = None

    def bind(self, writes: Writes) -> None:
        self._writes = writes

    def _stage(self) -> Writes:
        if self._writes is None:
            raise RuntimeError("the writing stage is not there yet")
        return self._writes

    def _call(self, cluster: str, resource: ResourceType, target: Target) -> Call:
        served = self._registry.find(cluster, resource.group, resource.version, resource.plural)
        if served is None:
            raise errors.unknown_path()
        return Call(Request("PUT", ""), target, served, SERVER, cluster, field_manager=_MANAGER)

    def _target(
        self, cluster: str, resource: ResourceType, verb: str, namespace: str, name: str, subresource: str
    ) -> Target:
        return Target(
            self._name_of(cluster),
            "",
            verb,
            True,
            resource.group,
            resource.version,
            resource.plural,
            subresource,
            namespace,
            name,
        )

    async def ensure(self, cluster: str, resource: ResourceType, obj: Object) -> None:
        """Create an object unless one of its name exists. Raises ApiError."""
        metadata = obj["metadata"]
        target = self._target(cluster, resource, "create", metadata.get("namespace") or "", "", "")
        whole = {"apiVersion": resource.api_version, "kind": resource.kind, **obj}
        try:
            await self._stage().create_object(self._call(cluster, resource, target), whole, [])
        except errors.ApiError as error:
            if error.reason != "AlreadyExists":
                raise

    async def change(
        self,
        cluster: str,
        resource: ResourceType,
        name: str,
        make: Make,
        *,
        namespace: str = "",
        subresource: str = "",
    ) -> None:
        """Change an object; a change that changes nothing writes nothing. Raises ApiError, 404 when it is gone."""
        target = self._target(cluster, resource, "update", namespace, name, subresource)
        await self._stage().change_object(self._call(cluster, resource, target), make)
