"""Dividing the objects of one controller between several processes, without a coordinator.

Every process knows how many there are and which one it is; the hash of a key says whose it is. The hash is of the key's
text and therefore the same in every process and every run. Changing the count moves most keys: stop all, then start all.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

from fleetplane.client.snapshot import ObjectKey


@dataclass(frozen=True, slots=True)
class Shard:
    """One of ``count`` shards, counted from 0."""

    index: int = 0
    count: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.index < self.count:
            raise ValueError(f"shard {self.index} of {self.count} does not exist; shards are counted from 0")

    def owns(self, key: ObjectKey) -> bool:
        return self.count == 1 or zlib.crc32("/".join(key).encode()) % self.count == self.index

    def lease_name(self, name: str) -> str:
        """Each shard elects its own leader."""
        return name if self.count == 1 else f"{name}-{self.index}-of-{self.count}"
