"""Who holds which NodePort of the host, told before anything is made. Pure.

The API server gives each port to one Service, whoever asks first. Here is found out beforehand that somebody else has it,
so that a cluster whose ports are taken says so, by port, instead of being half there. Ports may be reserved twice on paper
by two clusters that are not built yet: the older one gets them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from fleetplane.model.objects import is_deleting, metadata, uid


class Held(NamedTuple):
    """A NodePort and who has it; ``cluster`` is the uid of the Vk8s that the Service belongs to, if any."""

    port: int
    protocol: str
    owner: str
    namespace: str
    cluster: str


class Conflict(NamedTuple):
    port: int
    protocol: str
    owner: str
    """For people: whose it is, by kind and name."""
    namespace: str


def wanted_ports(spec: Mapping[str, Any]) -> set[tuple[int, str]]:
    """The NodePorts a cluster names, with their protocols."""
    named = {
        (int(port["nodePort"]), str(port.get("protocol") or "TCP"))
        for port in spec.get("ports") or ()
        if port.get("nodePort")
    }
    if spec.get("accessPodImage") and spec.get("accessPodPort"):
        named.add((int(spec["accessPodPort"]), "TCP"))
    return named


def held_by_services(services: Iterable[Mapping[str, Any]]) -> Iterator[Held]:
    for service in services:
        meta = metadata(service)
        owner = next((str(one["uid"]) for one in meta.get("ownerReferences") or () if one.get("controller")), "")
        for port in (service.get("spec") or {}).get("ports") or ():
            if port.get("nodePort"):
                protocol = str(port.get("protocol") or "TCP")
                yield Held(
                    int(port["nodePort"]), protocol, f"Service {meta['name']}", str(meta.get("namespace")), owner
                )


def held_by_elders(
    vcluster: Mapping[str, Any], others: Iterable[Mapping[str, Any]], *, is_new: bool = False
) -> Iterator[Held]:
    """What clusters that were made before want for themselves; ``is_new``: this one is not made yet, all others were."""
    mine = _age(vcluster)
    for other in others:
        if uid(other) == uid(vcluster) or is_deleting(other) or (not is_new and _age(other) > mine):
            continue
        meta = metadata(other)
        for port, protocol in wanted_ports(other.get("spec") or {}):
            yield Held(port, protocol, f"Vk8s {meta['name']}", str(meta.get("namespace")), uid(other))


def conflicts(vcluster: Mapping[str, Any], held: Iterable[Held]) -> list[Conflict]:
    """The ports a cluster names that somebody else has, in order."""
    wanted = wanted_ports(vcluster.get("spec") or {})
    mine = uid(vcluster)
    found = {
        (one.port, one.protocol): Conflict(one.port, one.protocol, one.owner, one.namespace)
        for one in held
        if (one.port, one.protocol) in wanted and (not mine or one.cluster != mine)
    }
    return [found[key] for key in sorted(found)]


def told(conflicts: Iterable[Conflict], namespace: str) -> str:
    """For people. Names of other namespaces are not theirs to know."""
    return ", ".join(
        f"NodePort {one.port}/{one.protocol} belongs to {one.owner}"
        if one.namespace == namespace
        else f"NodePort {one.port}/{one.protocol} is taken in another namespace"
        for one in conflicts
    )


def _age(vcluster: Mapping[str, Any]) -> tuple[str, str]:
    meta = metadata(vcluster)
    return str(meta.get("creationTimestamp") or ""), str(meta.get("uid") or "")
