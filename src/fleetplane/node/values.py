"""What containers are told about their own pod: the downward API, as environment values and as file contents.

Pure functions. ``Facts`` is what a pod does not say about itself: where it runs and what its node has.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from fleetplane.model import objects
from fleetplane.model.quantity import Quantity
from fleetplane.node.building import ConfigFailure
from fleetplane.node.pod import PodView
from fleetplane.node.resources import amount

_SUBSCRIPT: Final = re.compile(r"metadata\.(labels|annotations)\['(.*)'\]")


@dataclass(frozen=True, slots=True)
class Facts:
    """``allocatable`` stands in for limits a container does not set."""

    node: str = ""
    host_addresses: tuple[str, ...] = ()
    pod_addresses: tuple[str, ...] = ()
    allocatable: Mapping[str, str] = field(default_factory=dict)


def field_value(pod: PodView, path: str, facts: Facts) -> str:
    """The value of a ``fieldRef``. Raises ConfigFailure."""
    simple = {
        "metadata.name": pod.name,
        "metadata.namespace": pod.namespace,
        "metadata.uid": pod.uid,
        "spec.nodeName": facts.node,
        "spec.serviceAccountName": pod.service_account,
        "status.hostIP": facts.host_addresses[0] if facts.host_addresses else "",
        "status.hostIPs": ",".join(facts.host_addresses),
        "status.podIP": facts.pod_addresses[0] if facts.pod_addresses else "",
        "status.podIPs": ",".join(facts.pod_addresses),
    }
    if path in simple:
        return simple[path]
    if found := _SUBSCRIPT.fullmatch(path):
        chosen: Mapping[str, str] = objects.labels(pod.object) if found[1] == "labels" else pod.annotations
        return chosen.get(found[2], "")
    if path == "metadata.labels":
        return _lines(objects.labels(pod.object))
    if path == "metadata.annotations":
        return _lines(pod.annotations)
    raise ConfigFailure(f"unsupported fieldPath: {path}")


def _lines(values: Mapping[str, str]) -> str:
    return "\n".join(f"{key}={json.dumps(values[key], ensure_ascii=False)}" for key in sorted(values))


def resource_value(pod: PodView, ref: Mapping[str, Any], container_name: str, facts: Facts) -> str:
    """The value of a ``resourceFieldRef``: whole units of the divisor, rounded up. Raises ConfigFailure."""
    name = str(ref.get("containerName") or container_name)
    container = pod.by_name.get(name)
    if container is None:
        raise ConfigFailure(f"container {name} not found")
    which, _, resource = str(ref.get("resource") or "").partition(".")
    if which not in {"limits", "requests"} or not resource:
        raise ConfigFailure(f"unsupported container resource : {ref.get('resource')}")
    wanted = container.spec.get("resources") or {}
    found = amount(wanted.get(which), resource)
    if found is None and which == "limits":
        found = amount(facts.allocatable, resource)
    if found is None:
        found = amount(wanted.get("limits"), resource) if which == "requests" else None
    divisor = Quantity.parse(ref.get("divisor") or "1")
    if not divisor:
        divisor = Quantity.of(1)
    return str(-(-(found or Quantity(0)).nanos // divisor.nanos))
