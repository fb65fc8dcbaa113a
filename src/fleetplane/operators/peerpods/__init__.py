"""Peer pods: pods in VMs of their own beside the node, after Confidential Containers (``confidentialcontainers.org``).

Reading order: ``kinds`` (what users write), ``plan`` (capacity over nodes), ``adaptor`` and ``settings`` (what runs on the
nodes and what it needs to know), ``admission`` (a pod becomes a peer pod), ``reconcile``.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from fleetplane.controller import Controller, Manager, Operator
from fleetplane.operators.peerpods.adaptor import IMAGE
from fleetplane.operators.peerpods.admission import PLUGINS
from fleetplane.operators.peerpods.kinds import PeerPod, PeerPodConfig
from fleetplane.operators.peerpods.reconcile import Configs
from fleetplane.operators.peerpods.settings import Reading


def peer_pods(*, image: str = IMAGE) -> Operator:
    """The operator, for whoever embeds it.

    Args:
        image: The adaptor's.
    """

    def controllers(manager: Manager) -> Iterable[Controller]:
        reading = Reading(manager)
        return [Configs(manager, reading, image).controller()]

    return Operator(
        name="peerpods",
        controllers=controllers,
        kinds=(PeerPodConfig, PeerPod),
        admission=PLUGINS,
        rules=(
            {"apiGroups": [""], "resources": ["nodes/status"], "verbs": ["patch"]},
            {"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"]},
            {"apiGroups": ["node.k8s.io"], "resources": ["runtimeclasses"], "verbs": ["create", "delete"]},
        ),
        description="Pods in VMs of their own: capacity, admission, and VMs that are not forgotten (peer pods).",
    )


OPERATOR: Final = peer_pods()
