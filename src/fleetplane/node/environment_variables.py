"""A container's environment: where its values come from, in Kubernetes' order, and how they refer to each other.

Services of the namespace come first, then ``envFrom``, then ``env``; later names win. ``$(NAME)`` in a value stands for
a variable defined before it, ``$$`` for a dollar sign, and an unknown name stays as it is written.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from fleetplane.model import objects
from fleetplane.model.objects import Object
from fleetplane.node.building import ConfigFailure
from fleetplane.node.configuration import config_value, secret_value
from fleetplane.node.pod import ContainerView, PodView
from fleetplane.node.sources import Sources
from fleetplane.node.values import Facts, field_value, resource_value

_REFERENCE = re.compile(r"\$(\$|\([^()$]*\))")
_MASTER_SERVICE = ("default", "kubernetes")


def expand(text: str, values: Mapping[str, str]) -> str:
    """Replace references; what is not a reference to a known variable stays."""

    def replaced(found: re.Match[str]) -> str:
        if found[1] == "$":
            return "$"
        return values.get(found[1][1:-1], found[0])

    return _REFERENCE.sub(replaced, text) if "$" in text else text


def expand_all(words: Iterable[Any], values: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(expand(str(word), values) for word in words)


def service_variables(services: Sequence[Object], namespace: str, *, links: bool) -> dict[str, str]:
    """What containers are told of Services with a cluster IP; without ``links`` only of the API server's own."""
    found: dict[str, str] = {}
    for service in services:
        where = (objects.namespace(service), objects.name(service))
        if where != _MASTER_SERVICE and (not links or where[0] != namespace):
            continue
        spec = service.get("spec") or {}
        address, ports = spec.get("clusterIP"), spec.get("ports") or []
        if not address or address == "None" or not ports:
            continue
        found.update(_of_service(where[1].upper().replace("-", "_"), str(address), ports))
    return found


def _of_service(prefix: str, address: str, ports: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    found = {f"{prefix}_SERVICE_HOST": address, f"{prefix}_SERVICE_PORT": str(ports[0].get("port"))}
    host = f"[{address}]" if ":" in address else address
    first = ports[0]
    found[f"{prefix}_PORT"] = f"{str(first.get('protocol') or 'TCP').lower()}://{host}:{first.get('port')}"
    for port in ports:
        number, protocol = str(port.get("port")), str(port.get("protocol") or "TCP")
        if name := port.get("name"):
            found[f"{prefix}_SERVICE_PORT_{str(name).upper().replace('-', '_')}"] = number
        key = f"{prefix}_PORT_{number}_{protocol.upper()}"
        found[key] = f"{protocol.lower()}://{host}:{number}"
        found[f"{key}_PROTO"] = protocol.lower()
        found[f"{key}_PORT"] = number
        found[f"{key}_ADDR"] = address
    return found


async def container_environment(
    pod: PodView, container: ContainerView, facts: Facts, sources: Sources
) -> dict[str, str]:
    """The whole environment. Raises ConfigFailure in the kubelet's words."""
    links = pod.spec.get("enableServiceLinks") is not False
    values: dict[str, str] = {}
    values.update(
        service_variables(await sources.services(pod.namespace, patient=not pod.static), pod.namespace, links=links)
    )
    own: dict[str, str] = {}
    for origin in container.spec.get("envFrom") or []:
        own.update(await _from_origin(pod, origin, sources))
    for entry in container.spec.get("env") or []:
        value = await _value(pod, container, entry, facts, sources, {**values, **own})
        if value is not None:
            own[str(entry.get("name"))] = value
    return {**values, **own}


async def _from_origin(pod: PodView, origin: Mapping[str, Any], sources: Sources) -> dict[str, str]:
    prefix = str(origin.get("prefix") or "")
    if (ref := origin.get("configMapRef")) is not None:
        name = str(ref.get("name") or "")
        found = await sources.config_map(pod.namespace, name)
        if found is None:
            if ref.get("optional"):
                return {}
            raise ConfigFailure(f'configmap "{name}" not found')
        return {prefix + key: str(value) for key, value in (found.get("data") or {}).items()}
    if (ref := origin.get("secretRef")) is not None:
        name = str(ref.get("name") or "")
        found = await sources.secret(pod.namespace, name)
        if found is None:
            if ref.get("optional"):
                return {}
            raise ConfigFailure(f'secret "{name}" not found')
        data = found.get("data") or {}
        return {prefix + key: secret_value(found, key).decode(errors="replace") for key in data}
    return {}


async def _value(
    pod: PodView,
    container: ContainerView,
    entry: Mapping[str, Any],
    facts: Facts,
    sources: Sources,
    known: Mapping[str, str],
) -> str | None:
    """One variable's value; None where an optional reference leads nowhere."""
    origin = entry.get("valueFrom")
    if not origin:
        return expand(str(entry.get("value") or ""), known)
    if (ref := origin.get("fieldRef")) is not None:
        return field_value(pod, str(ref.get("fieldPath") or ""), facts)
    if (ref := origin.get("resourceFieldRef")) is not None:
        return resource_value(pod, ref, container.name, facts)
    if (ref := origin.get("configMapKeyRef")) is not None:
        return await _from_key(pod, ref, sources, secret=False)
    if (ref := origin.get("secretKeyRef")) is not None:
        return await _from_key(pod, ref, sources, secret=True)
    raise ConfigFailure(f"the environment variable {entry.get('name')} has a source this node does not know")


async def _from_key(pod: PodView, ref: Mapping[str, Any], sources: Sources, *, secret: bool) -> str | None:
    name, key, optional = str(ref.get("name") or ""), str(ref.get("key") or ""), bool(ref.get("optional"))
    found = await (sources.secret(pod.namespace, name) if secret else sources.config_map(pod.namespace, name))
    if found is None:
        if optional:
            return None
        raise ConfigFailure(f'{"secret" if secret else "configmap"} "{name}" not found')
    kind = "Secret" if secret else "ConfigMap"
    present = key in (found.get("data") or {}) or (not secret and key in (found.get("binaryData") or {}))
    if not present:
        if optional:
            return None
        raise ConfigFailure(f"couldn't find key {key} in {kind} {pod.namespace}/{name}")
    value = secret_value(found, key) if secret else config_value(found, key)
    return value.decode(errors="replace")
