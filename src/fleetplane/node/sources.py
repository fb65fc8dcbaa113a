"""What pods refer to: ConfigMaps, Secrets, claims, tokens; from the API, and from disk while it cannot be reached.

Every object a pod has used is kept in a private file, so that a node that restarts alone can start its pods as they
were. Freshness wins over speed: each use asks the API first (the caller decides how often), and only a control plane
that does not answer makes the copy count. What the API says is not there is not there, whatever the disk says.
"""

from __future__ import annotations

import asyncio
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import orjson

from fleetplane.client.protocol import Client
from fleetplane.model.builtin.types import (
    CONFIG_MAPS,
    PERSISTENT_VOLUME_CLAIMS,
    PERSISTENT_VOLUMES,
    RUNTIME_CLASSES,
    SECRETS,
    SERVICE_ACCOUNTS,
    SERVICES,
)
from fleetplane.model.environment import parse_timestamp
from fleetplane.model.errors import ApiError
from fleetplane.model.objects import Object
from fleetplane.model.resources import ResourceType
from fleetplane.node.building import ConfigFailure
from fleetplane.node.files import read_json, remove_file, write_private

ANSWER_SECONDS: Final = 10.0
HASTY_SECONDS: Final = 0.1


class Sources:
    """See the module. ``directory`` may be None: then nothing is kept (tests, simulated nodes)."""

    def __init__(self, client: Client, directory: Path | None) -> None:
        self._client = client
        self._directory = directory

    async def config_map(self, namespace: str, name: str) -> Object | None:
        return await self._fetch(CONFIG_MAPS, namespace, name)

    async def secret(self, namespace: str, name: str) -> Object | None:
        return await self._fetch(SECRETS, namespace, name)

    async def service_account(self, namespace: str, name: str) -> Object | None:
        return await self._fetch(SERVICE_ACCOUNTS, namespace, name)

    async def claim(self, namespace: str, name: str) -> Object | None:
        return await self._fetch(PERSISTENT_VOLUME_CLAIMS, namespace, name)

    async def volume(self, name: str) -> Object | None:
        return await self._fetch(PERSISTENT_VOLUMES, "", name)

    async def runtime_class(self, name: str) -> Object | None:
        return await self._fetch(RUNTIME_CLASSES, "", name)

    async def services(self, namespace: str, *, patient: bool = True) -> list[Object]:
        """The Services of a namespace and ``default/kubernetes``, as containers' environment shows them.

        Who is not ``patient`` (a static pod may be what the control plane waits for) gets what is known at once.
        """
        found: list[Object] = []
        try:
            async with asyncio.timeout(ANSWER_SECONDS if patient else HASTY_SECONDS):
                found = list((await self._client.list(SERVICES, namespace)).items)
            await asyncio.to_thread(self._keep, SERVICES, namespace, "", {"items": found})
        except (ApiError, OSError, TimeoutError) as error:
            if not _unreachable(error):
                raise ConfigFailure(f"services of namespace {namespace} cannot be listed: {error}") from error
            kept = await asyncio.to_thread(self._kept, SERVICES, namespace, "")
            found = list((kept or {}).get("items") or [])
        if namespace != "default":
            own = await self._own_service(patient=patient)
            found = [own, *found] if own is not None else found
        return found

    async def _own_service(self, *, patient: bool) -> Object | None:
        if patient:
            return await self._fetch(SERVICES, "default", "kubernetes")
        try:
            return await self._fetch(SERVICES, "default", "kubernetes", HASTY_SECONDS)
        except ConfigFailure:
            return None

    async def token(self, namespace: str, account: str, body: Object) -> tuple[str, datetime]:
        """A ServiceAccount token by TokenRequest, and when it expires. Raises ConfigFailure."""
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                made = await self._client.create(SERVICE_ACCOUNTS, body, namespace, subresource="token", name=account)
        except (ApiError, OSError, TimeoutError) as error:
            raise ConfigFailure(f"failed to fetch token: {error}") from error
        status = made.get("status") or {}
        return str(status.get("token") or ""), parse_timestamp(str(status.get("expirationTimestamp")))

    async def _fetch(
        self, resource: ResourceType, namespace: str, name: str, seconds: float = ANSWER_SECONDS
    ) -> Object | None:
        """The object, or None where it does not exist. Raises ConfigFailure where nobody can say."""
        try:
            async with asyncio.timeout(seconds):
                found = await self._client.get(resource, name, namespace or None)
        except (ApiError, OSError, TimeoutError) as error:
            if isinstance(error, ApiError) and error.code == 404:
                await asyncio.to_thread(self._drop, resource, namespace, name)
                return None
            if not _unreachable(error):
                raise ConfigFailure(f"failed to get {resource.plural} {namespace}/{name}: {error}") from error
            kept = await asyncio.to_thread(self._kept, resource, namespace, name)
            if kept is None:
                where = f'{resource.kind.lower()} "{name}"'
                raise ConfigFailure(f"{where} is not known here and the control plane cannot be reached") from error
            return kept
        await asyncio.to_thread(self._keep, resource, namespace, name, found)
        return found

    def _path(self, resource: ResourceType, namespace: str, name: str) -> Path | None:
        if self._directory is None:
            return None
        return self._directory / resource.plural / (namespace or "-") / f"{name or '-'}.json"

    def _keep(self, resource: ResourceType, namespace: str, name: str, obj: Any) -> None:
        path = self._path(resource, namespace, name)
        if path is None:
            return
        encoded = orjson.dumps(obj)
        try:
            if path.read_bytes() == encoded:
                return
        except OSError:
            pass
        write_private(path, encoded)

    def _kept(self, resource: ResourceType, namespace: str, name: str) -> Object | None:
        path = self._path(resource, namespace, name)
        return read_json(path) if path is not None else None

    def _drop(self, resource: ResourceType, namespace: str, name: str) -> None:
        path = self._path(resource, namespace, name)
        if path is not None:
            remove_file(path)


def _unreachable(error: Exception) -> bool:
    return not isinstance(error, ApiError) or error.code >= 500 or error.code == 429
