"""All built-in controllers of one manager, wired: what ``fleetplane up`` and ``fleetplane server`` run."""

from __future__ import annotations

from typing import Final

from fleetplane.controller.controller import Controller
from fleetplane.controller.manager import Manager
from fleetplane.model.builtin.types import (
    CERTIFICATE_SIGNING_REQUESTS,
    CONFIG_MAPS,
    CONTROLLER_REVISIONS,
    CRON_JOBS,
    CUSTOM_RESOURCE_DEFINITIONS,
    DAEMON_SETS,
    DEPLOYMENTS,
    ENDPOINT_SLICES,
    ENDPOINTS,
    HORIZONTAL_POD_AUTOSCALERS,
    JOBS,
    LEASES,
    NAMESPACES,
    NODES,
    PERSISTENT_VOLUME_CLAIMS,
    PERSISTENT_VOLUMES,
    POD_DISRUPTION_BUDGETS,
    PODS,
    REPLICA_SETS,
    REPLICATION_CONTROLLERS,
    RESOURCE_QUOTAS,
    SECRETS,
    SERVICE_ACCOUNTS,
    SERVICES,
    STATEFUL_SETS,
    STORAGE_CLASSES,
)
from fleetplane.workloads.autoscaling.reconcile import Autoscalers
from fleetplane.workloads.certificates.reconcile import Approve, Certificates, Sign
from fleetplane.workloads.cronjob.reconcile import CronJobs
from fleetplane.workloads.daemonset.reconcile import DaemonSets
from fleetplane.workloads.deployment.reconcile import Deployments
from fleetplane.workloads.disruption.reconcile import Budgets
from fleetplane.workloads.endpoints.reconcile import ServiceEndpoints
from fleetplane.workloads.garbage.reconcile import GarbageCollection
from fleetplane.workloads.job.reconcile import Jobs, OrphanPods
from fleetplane.workloads.namespaces.defaults import ACCOUNT_FIELDS, ROOT_CA_FIELDS, Accounts, RootCertificates
from fleetplane.workloads.namespaces.reconcile import Namespaces
from fleetplane.workloads.nodes.lifecycle import LEASE_NAMESPACE, NodeLifecycle
from fleetplane.workloads.nodes.taints import TaintEviction
from fleetplane.workloads.podgc.reconcile import PodCollection
from fleetplane.workloads.quota.reconcile import NAME as QUOTAS_NAME
from fleetplane.workloads.quota.reconcile import Quotas
from fleetplane.workloads.replicaset.reconcile import REPLICA_SET, REPLICATION_CONTROLLER, Replicas
from fleetplane.workloads.scheduler.plugins import Plugins
from fleetplane.workloads.scheduler.reconcile import Scheduler
from fleetplane.workloads.scheduler.volumes import Volumes
from fleetplane.workloads.shared.actor import Actor
from fleetplane.workloads.shared.nodecache import NodeCache
from fleetplane.workloads.shared.nodepods import NodePods
from fleetplane.workloads.shared.podcache import PodCache
from fleetplane.workloads.statefulset.reconcile import StatefulSets
from fleetplane.workloads.tokens.reconcile import FIELDS as TOKEN_FIELDS
from fleetplane.workloads.tokens.reconcile import NAMESPACE as TOKEN_NAMESPACE
from fleetplane.workloads.tokens.reconcile import TokenCleaner
from fleetplane.workloads.volumes.claims import ClaimBinder
from fleetplane.workloads.volumes.ephemeral import EphemeralVolumes
from fleetplane.workloads.volumes.volumes import ClaimProtection, VolumeKeeper

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
    REPLICATION_CONTROLLERS,
    POD_DISRUPTION_BUDGETS,
    CRON_JOBS,
    PERSISTENT_VOLUMES,
    STORAGE_CLASSES,
)
"""Resources that some controller caches anyway: the garbage collector sees them through the same informers."""


def controllers(
    manager: Manager,
    *,
    root_certificate: str = "",
    certificates: tuple[Approve, Sign] | None = None,
    scheduler_plugins: Plugins | None = None,
) -> list[Controller]:
    """The controllers, to be added to the manager before it runs.

    ``root_certificate`` (PEM) is published in every namespace, unless empty. ``certificates`` decide about and sign
    CertificateSigningRequests; without them requests wait. ``scheduler_plugins`` are those of installed packages
    unless given.
    """
    actor = Actor(manager.client, manager.environment, manager.events)
    pods = PodCache(manager.informer(PODS))
    replica_sets = manager.informer(REPLICA_SETS)
    deployments = manager.informer(DEPLOYMENTS)
    namespaces = manager.informer(NAMESPACES)
    accounts = manager.informer(SERVICE_ACCOUNTS, fields=ACCOUNT_FIELDS)
    jobs = manager.informer(JOBS)
    stateful_sets, daemon_sets = manager.informer(STATEFUL_SETS), manager.informer(DAEMON_SETS)
    claims = manager.informer(PERSISTENT_VOLUME_CLAIMS)
    history = manager.informer(CONTROLLER_REVISIONS)
    volumes, classes = manager.informer(PERSISTENT_VOLUMES), manager.informer(STORAGE_CLASSES)
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

    replication_controllers = manager.informer(REPLICATION_CONTROLLERS)
    sized = [deployments, replica_sets, stateful_sets, replication_controllers]
    budgets = Budgets(actor, manager.informer(POD_DISRUPTION_BUDGETS), pods, sized)
    scheduler = Scheduler(
        actor,
        pods,
        manager.informer(NODES),
        namespaces,
        plugins=Plugins.installed() if scheduler_plugins is None else scheduler_plugins,
        budgets=budgets.count_protected,
        volumes=Volumes(actor, claims, volumes, classes),
    )
    made = [
        Namespaces(actor, namespaces).controller(),
        Accounts(actor, namespaces, accounts).controller(),
        GarbageCollection(manager, actor, shared, definitions, wake_quotas).controller(),
        quotas.controller(),
        Replicas(REPLICA_SET, actor, replica_sets, pods).controller("replicaset"),
        Replicas(REPLICATION_CONTROLLER, actor, replication_controllers, pods).controller("replicationcontroller"),
        Deployments(actor, deployments, replica_sets, pods).controller(),
        StatefulSets(actor, stateful_sets, pods, claims, history).controller(),
        DaemonSets(actor, daemon_sets, pods, nodes, history).controller(),
        Jobs(actor, jobs, pods).controller(),
        OrphanPods(actor, jobs, manager.informer(PODS)).controller(),
        ServiceEndpoints(actor, services, pods, nodes, slices, endpoints).controller(),
        NodeLifecycle(actor, nodes, leases, node_pods).controller(),
        TaintEviction(actor, manager.informer(NODES), node_pods, pods).controller(),
        CronJobs(actor, manager.informer(CRON_JOBS), jobs).controller(),
        budgets.controller(),
        ClaimBinder(actor, claims, volumes, classes, nodes).controller(),
        VolumeKeeper(actor, volumes, claims).controller(),
        ClaimProtection(actor, claims, pods).controller(),
        EphemeralVolumes(actor, pods).controller(),
        Autoscalers(actor, manager.informer(HORIZONTAL_POD_AUTOSCALERS), pods).controller(),
        PodCollection(actor, pods, node_pods, nodes).controller(),
        TokenCleaner(actor, manager.informer(SECRETS, namespace=TOKEN_NAMESPACE, fields=TOKEN_FIELDS)).controller(),
        scheduler.controller(),
    ]
    if certificates is not None:
        requests = manager.informer(CERTIFICATE_SIGNING_REQUESTS)
        made.append(Certificates(actor, requests, *certificates).controller())
    if root_certificate:
        published = manager.informer(CONFIG_MAPS, fields=ROOT_CA_FIELDS)
        made.append(RootCertificates(actor, namespaces, published, root_certificate).controller())
    return made
