"""What the server hands out when an object is written: cluster IPs and node ports.

An allocator fills the object in and names the claims; that no two objects hold the same is the store's guarantee, not
ours. When a claim turns out to be taken the write starts over, and the allocator picks another.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from fleetplane.apiserver.registry import Served
from fleetplane.model.objects import Object
from fleetplane.store.protocol import Claim, ClaimTaken


class Allocator(Protocol):
    async def prepare(self, cluster: str, new: Object, old: Object | None) -> None:
        """Fill in what is to be handed out, in place. Raises ApiError when nothing is left."""

    def claims(self, obj: Object) -> tuple[Claim, ...]:
        """Everything the object holds."""

    def taken(self, claim: Claim) -> bool:
        """Told that a claim was refused; whether the allocator chose it itself, so that trying again makes sense."""


class Allocators:
    """The allocators by the (group, resource) whose objects they fill in."""

    def __init__(self, allocators: Mapping[tuple[str, str], Allocator]) -> None:
        self._allocators = allocators

    def _of(self, served: Served) -> Allocator | None:
        return self._allocators.get((served.storage.group, served.storage.plural))

    async def prepare(self, served: Served, cluster: str, new: Object, old: Object | None) -> None:
        allocator = self._of(served)
        if allocator is not None:
            await allocator.prepare(cluster, new, old)

    def claims(self, served: Served, obj: Object) -> tuple[Claim, ...]:
        allocator = self._of(served)
        if allocator is None:
            return tuple([Claim(scope, value) for scope, value in served.behaviour.claims(obj)])
        return allocator.claims(obj)

    def may_retry(self, served: Served, error: ClaimTaken) -> bool:
        """Whether writing again may choose something else: as an allocator says, or what fills in a custom kind."""
        allocator = self._of(served)
        return served.custom if allocator is None else allocator.taken(error.claim)
