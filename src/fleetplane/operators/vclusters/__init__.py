"""Virtual clusters: a Kubernetes of one's own, made of pods or of rows, after Vk8s (``vk8s.sktelecom.com``).

Reading order: ``kinds`` (what users write), ``admission`` (what is refused), ``logical`` with ``credentials`` (clusters in
the host's own store), ``reconcile``; then the data plane of logical clusters: ``names`` and ``translate`` (pure), ``guests``,
``copies``, ``pods``, ``objects``. Clusters made of pods: ``machines`` and ``plan`` (pure), ``steps``, ``podsmode``.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from fleetplane.controller import Controller, Manager, Operator
from fleetplane.model.builtin.types import ENDPOINT_SLICES
from fleetplane.operators.vclusters.admission import PLUGINS
from fleetplane.operators.vclusters.copies import Copies
from fleetplane.operators.vclusters.guests import Guests
from fleetplane.operators.vclusters.kinds import LOGICAL_CLUSTERS, Vk8s, Vk8sPolicy, Vk8sSnapshot
from fleetplane.operators.vclusters.objects import Claims, Events, Nodes, Services
from fleetplane.operators.vclusters.pods import Pods
from fleetplane.operators.vclusters.reconcile import VirtualClusters
from fleetplane.operators.vclusters.snapshots import Snapshots
from fleetplane.operators.vclusters.steps import Machines
from fleetplane.operators.vclusters.tenants import Tenants


def controllers(manager: Manager, machines: Machines | None = None) -> Iterable[Controller]:
    """``machines``: how commands get into nodes made of pods; the API's ``pods/exec`` unless given."""
    # Other Kubernetes have no logical clusters, and before 1.21 no such EndpointSlices; clusters of pods need neither.
    manager.informer(LOGICAL_CLUSTERS).may_be_absent()
    manager.informer(ENDPOINT_SLICES, namespace="default", fields="metadata.name=kubernetes").may_be_absent()
    guests = Guests(manager)
    copies = Copies(manager, guests)
    return [
        VirtualClusters(manager, guests, machines).controller(),
        Tenants(manager).controller(),
        Snapshots(manager, machines).controller(),
        Pods(manager, guests, copies).controller(),
        *(one(manager, guests).controller() for one in (Services, Claims, Events, Nodes)),
    ]


OPERATOR: Final = Operator(
    name="vclusters",
    controllers=controllers,
    kinds=(Vk8s, Vk8sPolicy, Vk8sSnapshot),
    admission=PLUGINS,
    rules=(
        {
            "apiGroups": ["fleetplane.io"],
            "resources": ["logicalclusters"],
            "verbs": ["get", "list", "watch", "create", "patch", "delete"],
        },
        {"apiGroups": ["fleetplane.io"], "resources": ["logicalclusters/credentials"], "verbs": ["create"]},
        {"apiGroups": ["fleetplane.io"], "resources": ["logicalclusters/content"], "verbs": ["get", "create"]},
        {"apiGroups": ["fleetplane.io"], "resources": ["commits"], "verbs": ["create"]},
        {"apiGroups": ["vk8s.sktelecom.com"], "resources": ["vk8s"], "verbs": ["delete"]},
        {
            "apiGroups": ["network.otterscale.io"],
            "resources": ["ipclaims"],
            "verbs": ["get", "list", "create", "patch", "delete"],
        },
        {"apiGroups": ["storage.k8s.io"], "resources": ["storageclasses"], "verbs": ["create"]},
        {"apiGroups": [""], "resources": ["pods/exec"], "verbs": ["create"]},
        {"apiGroups": [""], "resources": ["events", "nodes"], "verbs": ["get", "list", "watch"]},
        {
            "apiGroups": [""],
            "resources": ["secrets", "configmaps", "pods", "services", "persistentvolumeclaims"],
            "verbs": ["get", "list", "watch", "create", "patch", "delete"],
        },
    ),
    # What it may do in the guests' clusters is the default role fleetplane:virtual-clusters of the server.
    description="Virtual Kubernetes clusters, made of pods or of rows (Vk8s).",
)
