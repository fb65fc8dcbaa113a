"""Reading for admission plug-ins where no server of ours asks them: in webhooks, and in controllers that ask the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fleetplane.client.protocol import Client
from fleetplane.model.errors import ApiError
from fleetplane.model.objects import Object
from fleetplane.model.resources import ResourceRef


@dataclass(frozen=True, slots=True)
class ClientReader:
    """Admission's ``Reader`` over a client."""

    client: Client

    async def get(self, resource: ResourceRef, name: str, namespace: str | None = None) -> Object | None:
        try:
            return await self.client.get(resource, name, namespace)
        except ApiError as error:
            if error.code == 404:
                return None
            raise

    async def list(
        self, resource: ResourceRef, namespace: str | None = None, *, labels: str | None = None
    ) -> Sequence[Object]:
        return [one async for one in self.client.iterate(resource, namespace, labels=labels)]
