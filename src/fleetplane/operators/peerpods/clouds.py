"""From a provider's name to something that makes VMs: settings found, credentials fresh, every call counted.

The settings are those of a PeerPodConfig that names the provider (one of the record's own namespace first, then the
oldest), or of the ConfigMap and Secret with the usual names beside the record. They are read again after ``FRESH``
seconds, so that new credentials are taken up without a restart.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from prometheus_client import Counter, Histogram

from fleetplane.client.protocol import Client
from fleetplane.controller import Manager
from fleetplane.model.builtin.types import NAMESPACES
from fleetplane.model.objects import Object, uid
from fleetplane.operators.peerpods.adaptor import Settings
from fleetplane.operators.peerpods.kinds import PeerPodConfig
from fleetplane.operators.peerpods.plan import seniority
from fleetplane.operators.peerpods.providers.protocol import (
    Failure,
    Instance,
    Provider,
    ProviderError,
    ProviderFactory,
    Size,
    Surroundings,
    VmSpec,
)
from fleetplane.operators.peerpods.settings import Reading

FRESH: Final = 10.0

T = TypeVar("T")


class CloudMetrics:
    """Series of one manager's registry."""

    def __init__(self, manager: Manager) -> None:
        registry = manager.metrics.registry
        self._environment = manager.environment
        self.calls = Counter(
            "fleetplane_peerpods_provider_calls_total",
            "Calls to providers, by outcome (ok, or why not).",
            ["provider", "operation", "outcome"],
            registry=registry,
        )
        self.seconds = Histogram(
            "fleetplane_peerpods_provider_call_seconds",
            "How long providers take.",
            ["provider", "operation"],
            buckets=(0.01, 0.05, 0.1, 0.5, 1, 5, 10, 30, 60, 120),
            registry=registry,
        )
        self.orphans = Counter(
            "fleetplane_peerpods_orphans_deleted_total",
            "VMs deleted that had no record.",
            ["provider"],
            registry=registry,
        )

    @contextmanager
    def counting(self, provider: str, operation: str) -> Iterator[None]:
        started, outcome = self._environment.monotonic(), "cancelled"
        try:
            yield
            outcome = "ok"
        except ProviderError as error:
            outcome = error.failure.value
            raise
        finally:
            self.calls.labels(provider, operation, outcome).inc()
            self.seconds.labels(provider, operation).observe(self._environment.monotonic() - started)


@dataclass(frozen=True, slots=True)
class Cloud:
    """A provider whose calls are counted. ``default_type`` is what the config says of records that say nothing."""

    name: str
    provider: Provider
    metrics: CloudMetrics
    default_type: str = ""

    async def create(self, spec: VmSpec) -> Instance:
        return await self._counted("create", self.provider.create(spec))

    async def describe(self, *, id: str = "", token: str = "") -> Instance | None:
        return await self._counted("describe", self.provider.describe(id=id, token=token))

    async def delete(self, id: str) -> None:
        await self._counted("delete", self.provider.delete(id))

    async def list(self, tags: Mapping[str, str]) -> Sequence[Instance]:
        return await self._counted("list", self.provider.list(tags))

    async def resize(self, id: str, size: Size) -> Instance:
        return await self._counted("resize", self.provider.resize(id, size))

    async def _counted(self, operation: str, call: Awaitable[T]) -> T:
        with self.metrics.counting(self.name, operation):
            return await call


class Clouds:
    """See the module."""

    def __init__(self, manager: Manager, reading: Reading, factories: Mapping[str, ProviderFactory]) -> None:
        self._manager = manager
        self._reading = reading
        self._factories = dict(factories)
        self._configs = manager.informer(PeerPodConfig)
        self._found: dict[tuple[str, str, str], tuple[float, Cloud]] = {}
        self._finding: dict[tuple[str, str, str], asyncio.Lock] = {}
        self._made: dict[tuple[str, str, str, str], Provider] = {}
        self._cluster_uids: dict[str, str] = {}
        self.metrics = CloudMetrics(manager)

    async def find(self, client: Client, name: str, namespace: str) -> Cloud:
        """The provider of this name. Raises ProviderError when there is none, or its settings are not enough."""
        key = (client.cluster or "root", name, namespace)
        if (known := self._fresh(key)) is not None:
            return known
        async with self._finding.setdefault(key, asyncio.Lock()):  # many records ask at once; one of them looks
            return self._fresh(key) or await self._look(client, key)

    def _fresh(self, key: tuple[str, str, str]) -> Cloud | None:
        known = self._found.get(key)
        is_fresh = known is not None and self._manager.environment.monotonic() - known[0] < FRESH
        return known[1] if known is not None and is_fresh else None

    async def _look(self, client: Client, key: tuple[str, str, str]) -> Cloud:
        _, name, namespace = key
        now = self._manager.environment.monotonic()
        for config in self._candidates(key[0], namespace):
            settings = await self._reading.settings(client, config)
            if settings.provider == name:
                cloud = self.of(client, config, settings)
                self._found[key] = now, cloud
                return cloud
        raise ProviderError(
            Failure.CREDENTIALS, f"no PeerPodConfig, and no peer-pods-cm in {namespace}, says CLOUD_PROVIDER {name!r}"
        )

    def of(self, client: Client, config: Mapping[str, Any], settings: Settings) -> Cloud:
        """The provider these settings speak of; the same one as long as they stay. Raises ProviderError."""
        factory = self._factories.get(settings.provider)
        if factory is None:
            known = ", ".join(sorted(self._factories)) or "none"
            raise ProviderError(
                Failure.UNSUPPORTED, f"VMs of {settings.provider!r} are made by the adaptor only; built in are: {known}"
            )
        namespace = str(config["metadata"]["namespace"])
        key = (client.cluster or "root", namespace, settings.provider, settings.digest)
        if key not in self._made:
            for old in [one for one in self._made if one[:3] == key[:3]]:
                del self._made[old]  # of former credentials
            self._made[key] = factory(settings.values, Surroundings(client, self._manager.environment, namespace))
        default = str((config.get("spec") or {}).get("instanceType") or "")
        return Cloud(settings.provider, self._made[key], self.metrics, default)

    async def cluster_uid(self, client: Client) -> str:
        """What VMs of this cluster are tagged with: the uid of kube-system, which nothing outlives."""
        cluster = client.cluster or "root"
        if cluster not in self._cluster_uids:
            self._cluster_uids[cluster] = uid(await client.get(NAMESPACES, "kube-system"))
        return self._cluster_uids[cluster]

    def _candidates(self, cluster: str, namespace: str) -> list[Object]:
        configs = sorted(self._configs.list(cluster=cluster), key=seniority)
        configs.sort(key=lambda one: one["metadata"]["namespace"] != namespace)
        return [*configs, {"metadata": {"namespace": namespace}}]
