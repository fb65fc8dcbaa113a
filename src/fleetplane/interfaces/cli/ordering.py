"""In which order a set of objects goes to the server, so that nothing comes before what it needs.

Kinds fall into steps; a step begins when the one before it is done. Within a step the order of the files is kept.
Deleting takes the steps backwards.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Final

from fleetplane.interfaces.cli.manifests import Manifest

_STEPS: Final[Sequence[frozenset[str]]] = (
    frozenset({"Namespace"}),
    frozenset({"CustomResourceDefinition", "APIService"}),
    frozenset(
        {"PriorityClass", "RuntimeClass", "StorageClass", "IngressClass", "DeviceClass", "ResourceQuota", "LimitRange"}
    ),
    frozenset({"ServiceAccount", "ClusterRole", "Role"}),
    frozenset({"ClusterRoleBinding", "RoleBinding"}),
    frozenset({"Secret", "ConfigMap", "PersistentVolume", "PersistentVolumeClaim", "Service"}),
)
_LATE: Final = frozenset(
    {
        "MutatingWebhookConfiguration",
        "ValidatingWebhookConfiguration",
        "MutatingAdmissionPolicyBinding",
        "ValidatingAdmissionPolicyBinding",
    }
)
_RANKS: Final[Mapping[str, int]] = {kind: rank for rank, kinds in enumerate(_STEPS) for kind in kinds}
DEFINITIONS: Final = "CustomResourceDefinition"


def rank(kind: str) -> int:
    """Lower goes first. What guards requests goes last: it must not guard the rest of its own set."""
    return len(_STEPS) + 1 if kind in _LATE else _RANKS.get(kind, len(_STEPS))


def steps(manifests: Sequence[Manifest]) -> list[list[Manifest]]:
    ordered = sorted(manifests, key=lambda one: rank(one.kind))
    return [list(step) for _, step in groupby(ordered, key=lambda one: rank(one.kind))]
