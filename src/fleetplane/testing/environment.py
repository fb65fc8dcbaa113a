"""Time, randomness and ids from one seed."""

from __future__ import annotations

import asyncio
import random
import uuid
from datetime import UTC, datetime, timedelta
from typing import Final

EPOCH: Final = datetime(2026, 1, 1, tzinfo=UTC)


class SimulatedEnvironment:
    """An ``Environment`` whose clock is the running loop's and whose chance comes from ``seed``.

    On an ordinary loop time is real and everything else still repeats.
    """

    def __init__(self, seed: int = 0, *, start: datetime = EPOCH) -> None:
        self.seed = seed
        self.random = random.Random(seed)  # noqa: S311 - it must repeat
        self._ids = random.Random(f"ids-{seed}")  # noqa: S311
        self._start = start

    def now(self) -> datetime:
        return self._start + timedelta(seconds=self.monotonic())

    def monotonic(self) -> float:
        try:
            return asyncio.get_running_loop().time()
        except RuntimeError:
            return 0.0

    def uuid(self) -> str:
        return str(uuid.UUID(int=self._ids.getrandbits(128), version=4))
