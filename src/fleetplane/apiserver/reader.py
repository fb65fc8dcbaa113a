"""How the security stages look at live objects: the two reads they need, and nothing else.

The server core implements it on its store; tests implement it on a dict. Reads may be a moment stale.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from fleetplane.model.objects import Object
from fleetplane.model.resources import ResourceType


class ObjectReader(Protocol):
    """``cluster`` is the logical cluster's uid (``root`` for the default one), as in store keys."""

    async def get(self, cluster: str, resource: ResourceType, namespace: str, name: str) -> Object | None: ...

    async def list(self, cluster: str, resource: ResourceType, namespace: str | None = None) -> Sequence[Object]: ...
