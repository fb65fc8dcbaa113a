"""A clock the test moves, live objects in a dict, and a PKI made once."""

from __future__ import annotations

import random
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from fleetplane.apiserver.pki import Pki, ensure_pki
from fleetplane.model.environment import SystemEnvironment
from fleetplane.model.resources import ResourceType

Obj = dict[str, Any]


class Clock:
    def __init__(self) -> None:
        self.random = random.Random(3)
        self.time = datetime.now(UTC)

    def now(self) -> datetime:
        return self.time

    def monotonic(self) -> float:
        return self.time.timestamp()

    def uuid(self) -> str:
        return str(uuid.UUID(int=self.random.getrandbits(128), version=4))

    def advance(self, seconds: float) -> None:
        self.time += timedelta(seconds=seconds)


class Objects:
    """An ObjectReader that counts what it is asked."""

    def __init__(self) -> None:
        self.held: dict[tuple[str, str, str, str], Obj] = {}
        self.reads = 0

    def put(self, kind: str, namespace: str, name: str, cluster: str = "root", **more: Any) -> Obj:
        metadata = {"namespace": namespace, "name": name, "uid": f"uid-of-{kind.lower()}-{name}"}
        obj = {"kind": kind, "metadata": metadata | more.pop("metadata", {}), **more}
        self.held[cluster, kind, namespace, name] = obj
        return obj

    def remove(self, kind: str, namespace: str, name: str, cluster: str = "root") -> Obj:
        return self.held.pop((cluster, kind, namespace, name))

    async def get(self, cluster: str, resource: ResourceType, namespace: str, name: str) -> Obj | None:
        self.reads += 1
        return self.held.get((cluster, resource.kind, namespace, name))

    async def list(self, cluster: str, resource: ResourceType, namespace: str | None = None) -> Sequence[Obj]:
        return [
            obj
            for (where, kind, ns, _), obj in self.held.items()
            if (where, kind) == (cluster, resource.kind) and namespace in (None, ns)
        ]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def live() -> Objects:
    return Objects()


@pytest.fixture(scope="session")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    directory: Path = tmp_path_factory.mktemp("pki")
    return ensure_pki(directory, SystemEnvironment())
