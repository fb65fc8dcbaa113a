"""Vehicles: orchestration of applications of differing criticality in a car, after PICCOLO (``crd.piccolo.org``).

Reading order: ``kinds`` (what users write), ``limits`` (what each class of applications may do), ``plan`` (from names to a
pod), ``reconcile`` and ``admission``; then ``redundancy`` with ``deployment`` (several pods by a policy).

Python orchestrates, and is not a safety mechanism: it enforces configuration and reports (see ``docs/vehicles.md``).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from fleetplane.controller import Controller, Manager, Operator
from fleetplane.operators.vehicles.admission import PLUGINS
from fleetplane.operators.vehicles.deployment import VehDeployments
from fleetplane.operators.vehicles.kinds import AppType, DevRes, VehContainerConfig, VehDeployment, VehPod
from fleetplane.operators.vehicles.reconcile import Platform, VehPods


def controllers(manager: Manager) -> Iterable[Controller]:
    platform = Platform(manager)
    return [VehPods(manager, platform).controller(), VehDeployments(manager, platform).controller()]


OPERATOR: Final = Operator(
    name="vehicles",
    controllers=controllers,
    kinds=(DevRes, VehContainerConfig, AppType, VehPod, VehDeployment),
    admission=PLUGINS,
    rules=(
        {
            "apiGroups": [""],
            "resources": ["namespaces", "limitranges", "resourcequotas"],
            "verbs": ["get", "list", "watch", "create", "patch"],
        },
        {"apiGroups": [""], "resources": ["nodes"], "verbs": ["get", "list", "watch"]},
        {
            "apiGroups": ["scheduling.k8s.io"],
            "resources": ["priorityclasses"],
            "verbs": ["get", "list", "watch", "create"],
        },
    ),
    description="Vehicle applications by name: devices, configuration, redundancy, rules (PICCOLO).",
)
