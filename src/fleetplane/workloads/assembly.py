"""All built-in controllers of one manager, wired: what ``fleetplane up`` and ``fleetplane server`` run."""

from __future__ import annotations

from fleetplane.controller.controller import Controller
from fleetplane.controller.manager import Manager
from fleetplane.model.builtin.types import DEPLOYMENTS, NAMESPACES, NODES, PODS, REPLICA_SETS
from fleetplane.workloads.deployment.reconcile import Deployments
from fleetplane.workloads.replicaset.reconcile import REPLICA_SET, Replicas
from fleetplane.workloads.scheduler.plugins import Plugins
from fleetplane.workloads.scheduler.reconcile import Scheduler
from fleetplane.workloads.shared.actor import Actor
from fleetplane.workloads.shared.podcache import PodCache


def controllers(manager: Manager, *, scheduler_plugins: Plugins | None = None) -> list[Controller]:
    """The controllers, to be added to the manager before it runs.

    ``scheduler_plugins`` are those of installed packages unless given.
    """
    actor = Actor(manager.client, manager.environment, manager.events)
    pods = PodCache(manager.informer(PODS))
    replica_sets = manager.informer(REPLICA_SETS)
    plugins = Plugins.installed() if scheduler_plugins is None else scheduler_plugins
    scheduler = Scheduler(
        actor, manager.informer(PODS), manager.informer(NODES), manager.informer(NAMESPACES), plugins=plugins
    )
    return [
        Replicas(REPLICA_SET, actor, replica_sets, pods).controller("replicaset"),
        Deployments(actor, manager.informer(DEPLOYMENTS), replica_sets, pods).controller(),
        scheduler.controller(),
    ]
