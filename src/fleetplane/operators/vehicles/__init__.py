"""Vehicles: orchestration of applications of differing criticality in a car, after PICCOLO (``crd.piccolo.org``).

Reading order: ``kinds`` (what users write), ``limits`` (what each class of applications may do), ``plan`` (from names to a
pod), ``reconcile`` and ``admission``; then ``redundancy`` with ``deployment`` (several pods by a policy)
and ``voting``; ``rules``, ``signals``, ``lifecycle`` and ``rule_form`` (what signals start, stop and change);
``application`` (several as one) with ``package``, ``package_signing`` and ``trust`` (how it travels, and who vouches for it);
``scheduling``, ``degradation`` and ``interference`` (levels of criticality on one node).

Python orchestrates, and is not a safety mechanism: it enforces configuration and reports (see ``docs/vehicles.md``).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from fleetplane.controller import Controller, Manager, Operator
from fleetplane.operators.vehicles.admission import PLUGINS
from fleetplane.operators.vehicles.application import VehApplications
from fleetplane.operators.vehicles.degradation import Degradation
from fleetplane.operators.vehicles.deployment import VehDeployments
from fleetplane.operators.vehicles.kinds import (
    AppType,
    DevRes,
    LifecycleManagingRule,
    VehApplication,
    VehContainerConfig,
    VehDegradation,
    VehDeployment,
    VehMonitor,
    VehPod,
    VehSignalSource,
)
from fleetplane.operators.vehicles.lifecycle import Lifecycle
from fleetplane.operators.vehicles.reconcile import Platform, VehPods
from fleetplane.operators.vehicles.rule_form import PLUGINS as RULE_FORM
from fleetplane.operators.vehicles.trust import PLUGINS as TRUST


def controllers(manager: Manager) -> Iterable[Controller]:
    platform = Platform(manager)
    return [
        VehPods(manager, platform).controller(),
        VehDeployments(manager, platform).controller(),
        *Lifecycle(manager).controllers(),
        VehApplications(manager).controller(),
        Degradation(manager).controller(),
    ]


OPERATOR: Final = Operator(
    name="vehicles",
    controllers=controllers,
    kinds=(
        DevRes,
        VehContainerConfig,
        AppType,
        VehPod,
        VehDeployment,
        VehMonitor,
        LifecycleManagingRule,
        VehSignalSource,
        VehApplication,
        VehDegradation,
    ),
    admission=(*PLUGINS, *TRUST, *RULE_FORM),
    rules=(
        {
            "apiGroups": [""],
            "resources": ["namespaces", "limitranges", "resourcequotas"],
            "verbs": ["get", "list", "watch", "create", "patch"],
        },
        {"apiGroups": [""], "resources": ["limitranges", "resourcequotas"], "verbs": ["delete"]},
        {
            "apiGroups": ["networking.k8s.io"],
            "resources": ["networkpolicies"],
            "verbs": ["get", "list", "watch", "create", "patch", "delete"],
        },
        # Watchers' accounts; and what they are granted, which nobody can grant without having it.
        {"apiGroups": [""], "resources": ["serviceaccounts"], "verbs": ["get", "create"]},
        {
            "apiGroups": ["rbac.authorization.k8s.io"],
            "resources": ["roles", "rolebindings"],
            "verbs": ["get", "create", "patch"],
        },
        {"apiGroups": [""], "resources": ["pods/log"], "verbs": ["get"]},
        {"apiGroups": ["crd.piccolo.org"], "resources": ["vehmonitors"], "verbs": ["update"]},
        {"apiGroups": ["crd.piccolo.org"], "resources": ["vehmonitors/status"], "verbs": ["patch"]},
        {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "list", "watch"]},
        {"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"]},
        {"apiGroups": ["crd.piccolo.org"], "resources": ["vehpods", "vehdeployments"], "verbs": ["delete"]},
        {"apiGroups": [""], "resources": ["nodes"], "verbs": ["get", "list", "watch", "patch"]},
        {"apiGroups": ["metrics.k8s.io"], "resources": ["nodes"], "verbs": ["get", "list"]},
        {
            "apiGroups": ["scheduling.k8s.io"],
            "resources": ["priorityclasses"],
            "verbs": ["get", "list", "watch", "create"],
        },
    ),
    description="Vehicle applications by name: devices, configuration, redundancy, rules (PICCOLO).",
)
