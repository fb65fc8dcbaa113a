"""The pod networks of a node, as a claim: no two nodes that say so have the same.

A node that takes its pod networks from a range which it shares with others puts the annotation on its Node. From then on
they are its alone: the store refuses another such Node with one of them, however close together both come. Nodes that do
not say so may have what they like, as in Kubernetes, where whoever made the cluster sees to it.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping
from typing import Any, Final

from fleetplane.model import objects
from fleetplane.model.errors import ApiError

FIELD: Final = "spec.podCIDRs"
OWN: Final = "node.fleetplane.io/pod-networks"
"""Annotation of a Node; with the value ``own`` nobody else may have its pod networks."""

_TAKEN: Final = "already allocated"


def claimed(node: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Scope and value of each network that is the node's alone."""
    if objects.annotations(node).get(OWN) != "own":
        return
    for text in (node.get("spec") or {}).get("podCIDRs") or ():
        try:
            network = ipaddress.ip_network(text, strict=False)
        except ValueError:
            continue
        yield f"nodes/{FIELD}", str(network)


def refused(error: ApiError) -> list[str]:
    """The networks for which a Node was refused because another node has them; none for any other refusal."""
    if error.code != 422:
        return []
    told = [cause.detail for cause in error.causes if cause.field == FIELD and cause.detail.endswith(_TAKEN)]
    return [detail.split('"')[1] for detail in told if detail.count('"') > 1]
