"""Reading a provider's settings where they are: a ConfigMap and a Secret beside the config.

The Secret is read when it is needed and never listed, watched or kept: the right to get it is all it takes. So a change of
it is noticed within ``AGAIN`` seconds, and one that is missing within ``SOON``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from fleetplane.client.protocol import Client
from fleetplane.controller import Manager
from fleetplane.model.builtin.types import CONFIG_MAPS, SECRETS
from fleetplane.model.errors import ApiError
from fleetplane.model.objects import Object, metadata
from fleetplane.operators.peerpods.adaptor import Settings, names_of, settings_of

SOON: Final = 10.0
AGAIN: Final = 300.0


class Reading:
    """``also_known`` are providers beyond those of the original."""

    def __init__(self, manager: Manager, also_known: Sequence[str] = ()) -> None:
        self._config_maps = manager.informer(CONFIG_MAPS)
        self._also_known = tuple(also_known)

    async def settings(self, client: Client, config: Mapping[str, Any]) -> Settings:
        map_name, secret_name = names_of(config)
        namespace = str(metadata(config)["namespace"])
        config_map = self._config_maps.get(map_name, namespace, cluster=client.cluster or "root")
        secret = await _find(client, secret_name, namespace)
        return settings_of(config, config_map, secret, self._also_known)

    def recheck(self, settings: Settings) -> float:
        """Seconds until the Secret is worth another look."""
        return SOON if settings.reason else AGAIN


async def _find(client: Client, name: str, namespace: str) -> Object | None:
    try:
        return await client.get(SECRETS, name, namespace)
    except ApiError as error:
        if error.code == 404:
            return None
        raise
