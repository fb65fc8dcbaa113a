"""All built-in controllers of one manager, wired: what ``fleetplane up`` and ``fleetplane server`` run."""

from __future__ import annotations

from typing import Final

from fleetplane.controller.controller import Controller
from fleetplane.controller.manager import Manager
from fleetplane.model.builtin.types import (
    CONFIG_MAPS,
    CONTROLLER_REVISIONS,
    CUSTOM_RESOURCE_DEFINITIONS,
    DAEMON_SETS,
    DEPLOYMENTS,
    ENDPOINT_SLICES,
    ENDPOINTS,
    JOBS,
    LEASES,
    NAMESPACES,
    NODES,
    PERSISTENT_VOLUME_CLAIMS,
    PODS,
    REPLICA_SETS,
    RESOURCE_QUOTAS,
    SERVICE_ACCOUNTS,
    SERVICES,
    STATEFUL_SETS,
)
from fleetplane.workloads.daemonset.reconcile import DaemonSets
from fleetplane.workloads.deployment.reconcile import Deployments
from fleetplane.workloads.endpoints.reconcile import ServiceEndpoints
from fleetplane.workloads.garbage.reconcile import GarbageCollection
from fleetplane.workloads.job.reconcile import Jobs, OrphanPods
from fleetplane.workloads.namespaces.defaults import ACCOUNT_FIELDS, ROOT_CA_FIELDS, Accounts, RootCertificates
from fleetplane.workloads.namespaces.reconcile import Namespaces
from fleetplane.workloads.nodes.lifecycle import LEASE_NAMESPACE, NodeLifecycle
from fleetplane.workloads.nodes.taints import TaintEviction
from fleetplane.workloads.quota.reconcile import NAME as QUOTAS_NAME
from fleetplane.workloads.quota.reconcile import Quotas
from fleetplane.workloads.replicaset.reconcile import REPLICA_SET, Replicas
from fleetplane.workloads.scheduler.plugins import Plugins
from fleetplane.workloads.scheduler.reconcile import Scheduler
from fleetplane.workloads.shared.actor import Actor
from fleetplane.workloads.shared.nodecache import NodeCache
from fleetplane.workloads.shared.nodepods import NodePods
from fleetplane.workloads.shared.podcache import PodCache
from fleetplane.workloads.statefulset.reconcile import StatefulSets

_SHARED: Final = (
    PODS,
    REPLICA_SETS,
    DEPLOYMENTS,
    STATEFUL_SETS,
    DAEMON_SETS,
    CONTROLLER_REVISIONS,
    JOBS,
    NODES,
    NAMESPACES,
    PERSISTENT_VOLUME_CLAIMS,
    SERVICES,
    ENDPOINT_SLICES,
    ENDPOINTS,
)
"""Resources that some controller caches anyway: the garbage collector sees them through the same informers."""


def controllers(
    manager: Manager, *, root_certificate: str = "", scheduler_plugins: Plugins | None = None
) -> list[Controller]:
    """The controllers, to be added to the manager before it runs.

    ``root_certificate`` (PEM) is published in every namespace, unless empty. ``scheduler_plugins`` are those of
    installed packages unless given.
    """
    actor = Actor(manager.client, manager.environment, manager.events)
    pods = PodCache(manager.informer(PODS))
    replica_sets = manager.informer(REPLICA_SETS)
    plugins = Plugins.installed() if scheduler_plugins is None else scheduler_plugins
    scheduler = Scheduler(actor, pods, manager.informer(NODES), manager.informer(NAMESPACES), plugins=plugins)
    namespaces = manager.informer(NAMESPACES)
    accounts = manager.informer(SERVICE_ACCOUNTS, fields=ACCOUNT_FIELDS)
    jobs = manager.informer(JOBS)
    stateful_sets, daemon_sets = manager.informer(STATEFUL_SETS), manager.informer(DAEMON_SETS)
    claims = manager.informer(PERSISTENT_VOLUME_CLAIMS)
    history = manager.informer(CONTROLLER_REVISIONS)
    nodes = NodeCache(manager.informer(NODES))
    services = manager.informer(SERVICES)
    slices, endpoints = manager.informer(ENDPOINT_SLICES), manager.informer(ENDPOINTS)
    leases = manager.informer(LEASES, namespace=LEASE_NAMESPACE)
    node_pods = NodePods(pods)
    shared = [manager.informer(one) for one in _SHARED]
    definitions = manager.informer(CUSTOM_RESOURCE_DEFINITIONS)
    quotas = Quotas(actor, manager.informer(RESOURCE_QUOTAS), pods, services, claims)

    def wake_quotas(cluster: str, namespace: str) -> None:
        for request in quotas.in_namespace(cluster, namespace):
            manager.runner(QUOTAS_NAME).enqueue(request)

    made = [
        Namespaces(actor, namespaces).controller(),
        Accounts(actor, namespaces, accounts).controller(),
        GarbageCollection(manager, actor, shared, definitions, wake_quotas).controller(),
        quotas.controller(),
        Replicas(REPLICA_SET, actor, replica_sets, pods).controller("replicaset"),
        Deployments(actor, manager.informer(DEPLOYMENTS), replica_sets, pods).controller(),
        StatefulSets(actor, stateful_sets, pods, claims, history).controller(),
        DaemonSets(actor, daemon_sets, pods, nodes, history).controller(),
        Jobs(actor, jobs, pods).controller(),
        OrphanPods(actor, jobs, manager.informer(PODS)).controller(),
        ServiceEndpoints(actor, services, pods, nodes, slices, endpoints).controller(),
        NodeLifecycle(actor, nodes, leases, node_pods).controller(),
        TaintEviction(actor, manager.informer(NODES), node_pods, pods).controller(),
        scheduler.controller(),
    ]
    if root_certificate:
        certificates = manager.informer(CONFIG_MAPS, fields=ROOT_CA_FIELDS)
        made.append(RootCertificates(actor, namespaces, certificates, root_certificate).controller())
    return made
