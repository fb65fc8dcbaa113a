"""When processes end: the kernel tells, by a descriptor of each process that becomes readable then (``pidfd_open``).

Nothing is asked and nothing is polled, so watching costs a file descriptor for each container and no time at all.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator


class ExitWatch:
    """Tells when processes end, by a descriptor of each that the kernel makes readable then (``pidfd_open``)."""

    def __init__(self) -> None:
        self._descriptors: dict[str, int] = {}
        self._pods: dict[str, str] = {}
        self._ended: dict[str, asyncio.Event] = {}
        self._listeners: set[asyncio.Queue[tuple[str, str]]] = set()

    def watch(self, container_id: str, pid: int, pod_uid: str = "") -> None:
        if pod_uid:
            self._pods[container_id] = pod_uid
        if container_id in self._ended or pid <= 0:
            return
        event = self._ended[container_id] = asyncio.Event()
        try:
            descriptor = os.pidfd_open(pid)
        except OSError:
            self._end(container_id, event)
            return
        self._descriptors[container_id] = descriptor
        asyncio.get_running_loop().add_reader(descriptor, self._readable, container_id)

    def _readable(self, container_id: str) -> None:
        self._close(container_id)
        self._end(container_id, self._ended[container_id])

    def _end(self, container_id: str, event: asyncio.Event) -> None:
        event.set()
        for queue in self._listeners:
            queue.put_nowait((container_id, self._pods.get(container_id, "")))

    def ended(self, container_id: str, pid: int) -> bool:
        """Whether this process is known to be gone."""
        return pid <= 0 or self.is_known_ended(container_id)

    def is_known_ended(self, container_id: str) -> bool:
        event = self._ended.get(container_id)
        return event is not None and event.is_set()

    async def wait(self, container_id: str, pid: int, seconds: float) -> bool:
        """Whether it ends in time."""
        self.watch(container_id, pid)
        event = self._ended.get(container_id)
        if event is None:
            return True
        try:
            async with asyncio.timeout(seconds):
                await event.wait()
        except TimeoutError:
            return False
        return True

    async def ends(self) -> AsyncIterator[tuple[str, str]]:
        queue: asyncio.Queue[tuple[str, str]] = asyncio.Queue()
        self._listeners.add(queue)
        try:
            while True:
                yield await queue.get()
        finally:
            self._listeners.discard(queue)

    def forget(self, container_id: str) -> None:
        self._close(container_id)
        self._ended.pop(container_id, None)
        self._pods.pop(container_id, None)

    def _close(self, container_id: str) -> None:
        descriptor = self._descriptors.pop(container_id, None)
        if descriptor is not None:
            asyncio.get_running_loop().remove_reader(descriptor)
            os.close(descriptor)

    def close(self) -> None:
        for container_id in list(self._descriptors):
            self._close(container_id)
