"""Seeing what an operator would change, without changing it.

A transport that turns every write into the server's own dry run: defaults, admission and conflicts are real, nothing is
stored. What would have changed is told as a difference between the object as it is and as it would be.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any

import orjson

from fleetplane.client.protocol import Pairs, Transport
from fleetplane.model.objects import Object

_NOISE = frozenset({"managedFields", "resourceVersion", "generation", "creationTimestamp", "uid"})


@dataclass(frozen=True, slots=True)
class Intent:
    """One write that was not made. ``differences`` are lines such as ``spec.replicas: 1 -> 3``."""

    verb: str
    path: str
    differences: tuple[str, ...]

    def __str__(self) -> str:
        return "\n".join([f"{self.verb} {self.path}", *(f"  {line}" for line in self.differences)])


@dataclass(frozen=True, slots=True)
class DryRunTransport:
    """Reads pass through, writes become dry runs told to ``tell``. Use it with ``client.over(DryRunTransport(…))``.

    Leases are left out of it: without a real one nobody would lead. Run without leader election instead.
    """

    inner: Transport
    tell: Callable[[Intent], None]

    async def request(
        self, method: str, path: str, query: Pairs, headers: Pairs, body: bytes
    ) -> tuple[int, Mapping[str, str], bytes]:
        if method == "GET":
            return await self.inner.request(method, path, query, headers, body)
        before = await self._before(method, path, headers)
        dry = [*((name, value) for name, value in query if name != "dryRun"), ("dryRun", "All")]
        answer = await self.inner.request(method, path, dry, headers, body)
        status, _, data = answer
        if status < 300:
            after = {} if method == "DELETE" else _object(data)
            differences = tuple(differences_between(before, after))
            if differences or method == "DELETE":
                self.tell(Intent(_verb(method, before), path, differences if method != "DELETE" else ()))
        return answer

    def stream(
        self, method: str, path: str, query: Pairs, headers: Pairs, body: bytes
    ) -> AbstractAsyncContextManager[tuple[int, AsyncIterator[bytes]]]:
        return self.inner.stream(method, path, query, headers, body)

    async def close(self) -> None:
        await self.inner.close()

    async def _before(self, method: str, path: str, headers: Pairs) -> Object:
        if method == "POST":
            return {}
        kept = [pair for pair in headers if pair[0].lower() != "content-type"]
        status, _, data = await self.inner.request("GET", path, (), kept, b"")
        return _object(data) if status < 300 else {}


def differences_between(before: Any, after: Any, path: str = "") -> list[str]:
    """Lines that say what changes, without what the server keeps for itself."""
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        lines = []
        for key in sorted(before.keys() | after.keys()):
            if path == "metadata" and key in _NOISE:
                continue
            lines += differences_between(before.get(key), after.get(key), f"{path}.{key}" if path else key)
        return lines
    if before == after:
        return []
    if before is None and isinstance(after, Mapping) and after:
        return differences_between({}, after, path)
    return [f"{path}: {_shown(before)} -> {_shown(after)}"]


def _shown(value: Any) -> str:
    if value is None:
        return "(none)"
    text = orjson.dumps(value).decode()
    return text if len(text) <= 200 else text[:197] + "..."


def _object(data: bytes) -> Object:
    found = orjson.loads(data)
    return found if isinstance(found, dict) and found.get("kind") != "Status" else {}


def _verb(method: str, before: Object) -> str:
    if method == "DELETE":
        return "delete"
    return "change" if before else "create"
