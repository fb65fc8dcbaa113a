"""Virtual clusters: a Kubernetes of one's own, made of pods or of rows, after Vk8s (``vk8s.sktelecom.com``).

Reading order: ``kinds`` (what users write), ``admission`` (what is refused), ``logical`` with ``credentials`` (clusters in
the host's own store), ``reconcile``.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from fleetplane.controller import Controller, Manager, Operator
from fleetplane.operators.vclusters.admission import PLUGINS
from fleetplane.operators.vclusters.kinds import Vk8s
from fleetplane.operators.vclusters.reconcile import VirtualClusters


def controllers(manager: Manager) -> Iterable[Controller]:
    return [VirtualClusters(manager).controller()]


OPERATOR: Final = Operator(
    name="vclusters",
    controllers=controllers,
    kinds=(Vk8s,),
    admission=PLUGINS,
    rules=(
        {
            "apiGroups": ["fleetplane.io"],
            "resources": ["logicalclusters"],
            "verbs": ["get", "list", "watch", "create", "patch", "delete"],
        },
        {"apiGroups": ["fleetplane.io"], "resources": ["logicalclusters/credentials"], "verbs": ["create"]},
        {
            "apiGroups": [""],
            "resources": ["secrets"],
            "verbs": ["get", "list", "watch", "create", "patch", "delete"],
        },
    ),
    description="Virtual Kubernetes clusters, made of pods or of rows (Vk8s).",
)
