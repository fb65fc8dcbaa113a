"""The state of a cluster of pods, out of its master and into one: a file in the node, in pieces of one command each.

The node image's ``snapshot.sh`` writes the file, its ``init-kubernetes.sh`` begins with one. A piece is the output, or the
input, of one command, so that whoever carries a state never holds more of it than a piece, however large it is. The file
holds the cluster's keys: it lies beside the node's other keys, for root alone, and goes as soon as it is carried.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Final

from fleetplane.model.errors import ApiError
from fleetplane.operators.vclusters.steps import Machines, Outcome, StepFailed, StepPending, alone, is_busy, told

PIECE: Final = 700 << 10
"""Bytes of a piece: with base64 it stays below the MiB that a Secret, and a command's output, may have."""
SNAPSHOT_SECONDS: Final = 600.0
PIECE_SECONDS: Final = 60.0
BUSY_SECONDS: Final = 5.0
_MAKE: Final = 'umask 077; : > "$1"'
"""For root alone before anything is in it, whatever the node's umask is."""


class CannotTake(Exception):
    """The image takes no snapshots; the message says so."""


class State:
    """One file in one node."""

    def __init__(self, machines: Machines, namespace: str, pod: str, file: str) -> None:
        self._machines = machines
        self._namespace, self._pod = namespace, pod
        self.file = file

    @asynccontextmanager
    async def taken(self) -> AsyncIterator[int]:
        """Have the state written; its size in bytes. The file goes at the end.

        Raises CannotTake, StepFailed, or StepPending while something else is being done in the node.
        """
        if (await self._run("test", "-x", "./snapshot.sh")).code != 0:
            raise CannotTake("the node image has no snapshot.sh: it takes no snapshots of its state")
        try:
            command = ["./snapshot.sh", self.file]
            made = await self._run(*alone(command), timeout=SNAPSHOT_SECONDS)
            if is_busy(made):
                raise StepPending(BUSY_SECONDS)
            _look_at(command, made)
            yield int((await self._do("stat", "-c", "%s", self.file)).stdout)
        finally:
            with suppress(ApiError, TimeoutError):
                await self.remove()

    async def piece(self, number: int) -> bytes:
        """Raises StepFailed."""
        words = ["dd", f"if={self.file}", f"bs={PIECE}", f"skip={number}", "count=1"]
        return (await self._do(*words)).data

    async def bring(self, pieces: AsyncIterator[bytes], digest: str) -> None:
        """Write it. Raises StepFailed where what lies there afterwards is something else."""
        await self.remove()
        await self._do("sh", "-c", _MAKE, "make-file", self.file)
        number = 0
        async for piece in pieces:
            await self._do("dd", f"of={self.file}", f"bs={PIECE}", f"seek={number}", "conv=notrunc", stdin=piece)
            number += 1
        found = await self._do("sha256sum", self.file)
        if found.stdout.partition(" ")[0] != digest:
            raise StepFailed("the snapshot did not arrive in the node as it was taken")

    async def remove(self) -> None:
        await self._run("rm", "-f", self.file)

    async def _do(self, *command: str, stdin: bytes = b"") -> Outcome:
        outcome = await self._run(*command, stdin=stdin)
        _look_at(command, outcome)
        return outcome

    async def _run(self, *command: str, stdin: bytes = b"", timeout: float = PIECE_SECONDS) -> Outcome:
        return await self._machines.run(self._namespace, self._pod, command, stdin=stdin, timeout=timeout)


def _look_at(command: Sequence[str], outcome: Outcome) -> None:
    if outcome.code != 0:
        raise StepFailed(told(command, outcome))
