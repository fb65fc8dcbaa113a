"""Peer pods: pods in VMs of their own beside the node, after Confidential Containers (``confidentialcontainers.org``).

Reading order: ``kinds`` (what users write), ``plan`` (capacity over nodes), ``adaptor`` and ``settings`` (what runs on the
nodes and what it needs to know), ``admission`` (a pod becomes a peer pod), ``reconcile``; then ``records`` (VMs that
cannot be forgotten) with ``clouds`` and ``providers``, ``orphans`` (those that were).

Another operator embeds it in five lines::

    from fleetplane.operators.peerpods import peer_pods

    manager = Manager(client, environment=SystemEnvironment(), name="mine")
    peer_pods({"mycloud": my_cloud}).install(manager)
    await manager.run()
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from fleetplane.controller import Controller, Manager, Operator
from fleetplane.operators.peerpods.adaptor import IMAGE
from fleetplane.operators.peerpods.admission import PLUGINS
from fleetplane.operators.peerpods.clouds import Clouds
from fleetplane.operators.peerpods.kinds import PeerPod, PeerPodConfig
from fleetplane.operators.peerpods.orphans import Orphans, Sweeping
from fleetplane.operators.peerpods.providers import PROVIDERS
from fleetplane.operators.peerpods.providers.protocol import ProviderFactory
from fleetplane.operators.peerpods.reconcile import Configs
from fleetplane.operators.peerpods.records import Records
from fleetplane.operators.peerpods.settings import Reading


def peer_pods(
    providers: Mapping[str, ProviderFactory] = PROVIDERS,
    *,
    image: str = IMAGE,
    sweeping: Sweeping = Sweeping(),  # noqa: B008 - immutable
) -> Operator:
    """The operator, for whoever embeds it.

    Args:
        providers: Where VMs come from, by the name ``CLOUD_PROVIDER`` has for them.
        sweeping: How orphans are looked for.
        image: The adaptor's.
    """

    def controllers(manager: Manager) -> Iterable[Controller]:
        reading = Reading(manager, tuple(providers))
        clouds = Clouds(manager, reading, providers)
        return [
            Configs(manager, reading, image).controller(),
            Records(manager, clouds).controller(),
            Orphans(manager, reading, clouds, sweeping).controller(),
        ]

    return Operator(
        name="peerpods",
        controllers=controllers,
        kinds=(PeerPodConfig, PeerPod),
        admission=PLUGINS,
        rules=(
            {"apiGroups": [""], "resources": ["nodes/status"], "verbs": ["patch"]},
            {"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"]},
            {"apiGroups": [""], "resources": ["namespaces"], "resourceNames": ["kube-system"], "verbs": ["get"]},
            {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["create"]},
            {
                "apiGroups": [""],
                "resources": ["configmaps"],
                "resourceNames": ["byom-ip-pool-state"],
                "verbs": ["get", "patch"],
            },
            {"apiGroups": ["confidentialcontainers.org"], "resources": ["peerpods"], "verbs": ["delete"]},
            {"apiGroups": ["node.k8s.io"], "resources": ["runtimeclasses"], "verbs": ["create", "delete"]},
        ),
        description="Pods in VMs of their own: capacity, admission, and VMs that are not forgotten (peer pods).",
    )


OPERATOR: Final = peer_pods()
