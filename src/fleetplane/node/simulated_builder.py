"""What holds a simulated pod back as it would a real one: the ConfigMaps and Secrets it refers to.

Simulated containers read no files and no environment, so nothing is made; but a pod whose volume or variable refers to
something that is not there waits, and says so in the kubelet's words. What was found is taken to be there for a minute,
so that ten thousand pods with one ConfigMap cost one request. The plane's own ``kube-root-ca.crt`` is not asked for.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from fleetplane.model.environment import Environment
from fleetplane.model.objects import Object
from fleetplane.node.building import ConfigFailure, PlainBuilder
from fleetplane.node.pod import ContainerView, PodView
from fleetplane.node.runtime import (
    ContainerSpec,
    ContainerState,
    Image,
    RegistryAuth,
    Resources,
    Sandbox,
    SandboxSpec,
)
from fleetplane.node.sources import Sources

FRESH_SECONDS: Final = 60.0
REMEMBERED: Final = 10_000
_PUBLISHED: Final = "kube-root-ca.crt"


class Wanted(NamedTuple):
    """A reference: ``kind`` is configmap or secret, ``keys`` what must be in it."""

    kind: str
    name: str
    keys: tuple[str, ...] = ()
    optional: bool = False


class SimulatedBuilder:
    """A ``PodBuilder``; what it does not look at itself is ``PlainBuilder``'s."""

    def __init__(self, sources: Sources, environment: Environment) -> None:
        self._plain = PlainBuilder()
        self._sources = sources
        self._environment = environment
        self._seen: OrderedDict[tuple[str, str, str], tuple[float, frozenset[str]]] = OrderedDict()

    async def prepare(self, pod: PodView) -> None:
        for volume in pod.spec.get("volumes") or ():
            for wanted in of_volume(volume):
                missing = await self._missing(pod.namespace, wanted)
                if missing is None:
                    continue
                told = f"references non-existent {_data(wanted)} key: {missing}" if missing else _absent(wanted)
                raise ConfigFailure(told, volume=str(volume.get("name") or ""))

    async def container(
        self, pod: PodView, container: ContainerView, attempt: int, sandbox: Sandbox, image: Image
    ) -> ContainerSpec:
        for wanted in of_container(container.spec):
            missing = await self._missing(pod.namespace, wanted)
            if missing is None:
                continue
            kind = "ConfigMap" if wanted.kind == "configmap" else "Secret"
            told = (
                f"couldn't find key {missing} in {kind} {pod.namespace}/{wanted.name}" if missing else _absent(wanted)
            )
            raise ConfigFailure(told)
        return await self._plain.container(pod, container, attempt, sandbox, image)

    async def sandbox(self, pod: PodView, attempt: int) -> SandboxSpec:
        return await self._plain.sandbox(pod, attempt)

    async def credentials(self, pod: PodView, image: str) -> Sequence[RegistryAuth]:
        return await self._plain.credentials(pod, image)

    def resources(self, pod: PodView, container: ContainerView) -> Resources:
        return self._plain.resources(pod, container)

    async def termination_message(self, pod: PodView, container: ContainerView, state: ContainerState) -> str:
        return await self._plain.termination_message(pod, container, state)

    async def release(self, pod: PodView) -> None:
        await self._plain.release(pod)

    async def _missing(self, namespace: str, wanted: Wanted) -> str | None:
        """None when all is there, the key that is not, or an empty text for the whole object."""
        keys = await self._keys(namespace, wanted)
        if wanted.optional:
            return None
        if keys is None:
            return ""
        return next((key for key in wanted.keys if key not in keys), None)

    async def _keys(self, namespace: str, wanted: Wanted) -> frozenset[str] | None:
        at, now = (wanted.kind, namespace, wanted.name), self._environment.monotonic()
        known = self._seen.get(at)
        if known is not None and now < known[0] and known[1].issuperset(wanted.keys):
            return known[1]
        fetch = self._sources.config_map if wanted.kind == "configmap" else self._sources.secret
        found = await fetch(namespace, wanted.name)
        if found is None:
            self._seen.pop(at, None)
            return None
        keys = _keys_of(found)
        self._seen[at] = (now + FRESH_SECONDS, keys)
        if len(self._seen) > REMEMBERED:
            self._seen.popitem(last=False)
        return keys


def of_volume(volume: Mapping[str, Any]) -> Iterator[Wanted]:
    """What a volume refers to."""
    for source in (volume, *((volume.get("projected") or {}).get("sources") or ())):
        if (found := source.get("configMap")) is not None:
            name = str(found.get("name") or "")
            if name != _PUBLISHED:
                yield Wanted("configmap", name, _items(found), bool(found.get("optional")))
        if (found := source.get("secret")) is not None:
            name = str(found.get("secretName") or found.get("name") or "")
            yield Wanted("secret", name, _items(found), bool(found.get("optional")))


def of_container(spec: Mapping[str, Any]) -> Iterator[Wanted]:
    """What a container's environment refers to."""
    for origin in spec.get("envFrom") or ():
        for field, kind in (("configMapRef", "configmap"), ("secretRef", "secret")):
            if (found := origin.get(field)) is not None:
                yield Wanted(kind, str(found.get("name") or ""), optional=bool(found.get("optional")))
    for entry in spec.get("env") or ():
        origin = entry.get("valueFrom") or {}
        for field, kind in (("configMapKeyRef", "configmap"), ("secretKeyRef", "secret")):
            if (found := origin.get(field)) is not None:
                key = str(found.get("key") or "")
                yield Wanted(kind, str(found.get("name") or ""), (key,), bool(found.get("optional")))


def _items(source: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(str(one.get("key") or "") for one in source.get("items") or ())


def _keys_of(obj: Object) -> frozenset[str]:
    parts: Iterable[Mapping[str, Any]] = (obj.get("data") or {}, obj.get("binaryData") or {})
    return frozenset(key for part in parts for key in part)


def _absent(wanted: Wanted) -> str:
    return f'{wanted.kind} "{wanted.name}" not found'


def _data(wanted: Wanted) -> str:
    return "config" if wanted.kind == "configmap" else "secret"
