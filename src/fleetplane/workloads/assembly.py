"""All built-in controllers of one manager, wired: what ``fleetplane up`` and ``fleetplane server`` run.

ResourceQuota is not among them: the server counts usage itself, in the moment it admits a write.
"""

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


class _Parts:
    """What the controllers share: one actor, one informer per resource, and the caches that hang on them."""

    def __init__(self, manager: Manager) -> None:
        self.manager = manager
        self.informer = manager.informer
        self.actor = Actor(manager.client, manager.environment, manager.events)
        # First of all handlers: whoever is woken by a change of a pod or node must find it in these.
        self.pods = PodCache(manager.informer(PODS))
        self.nodes = NodeCache(manager.informer(NODES))
        self.node_pods = NodePods(self.pods)


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
    parts = _Parts(manager)
    plugins = Plugins.installed() if scheduler_plugins is None else scheduler_plugins
    made = [
        *_of_namespaces(parts, root_certificate),
        *_of_garbage(parts),
        *_of_workloads(parts),
        *_of_nodes(parts),
        *_of_storage(parts),
        *_of_scheduling(parts, plugins),
        TokenCleaner(
            parts.actor, manager.informer(SECRETS, namespace=TOKEN_NAMESPACE, fields=TOKEN_FIELDS)
        ).controller(),
    ]
    if certificates is not None:
        requests = manager.informer(CERTIFICATE_SIGNING_REQUESTS)
        made.append(Certificates(parts.actor, requests, *certificates).controller())
    return made


def _of_namespaces(parts: _Parts, root_certificate: str) -> list[Controller]:
    actor, informer = parts.actor, parts.informer
    namespaces = informer(NAMESPACES)
    made = [
        Namespaces(actor, namespaces).controller(),
        Accounts(actor, namespaces, informer(SERVICE_ACCOUNTS, fields=ACCOUNT_FIELDS)).controller(),
    ]
    if root_certificate:
        published = informer(CONFIG_MAPS, fields=ROOT_CA_FIELDS)
        made.append(RootCertificates(actor, namespaces, published, root_certificate).controller())
    return made


def _of_garbage(parts: _Parts) -> list[Controller]:
    shared = [parts.informer(one) for one in _SHARED]
    definitions = parts.informer(CUSTOM_RESOURCE_DEFINITIONS)
    return [GarbageCollection(parts.manager, parts.actor, shared, definitions).controller()]


def _of_workloads(parts: _Parts) -> list[Controller]:
    actor, informer, pods, nodes = parts.actor, parts.informer, parts.pods, parts.nodes
    sets, older, jobs = informer(REPLICA_SETS), informer(REPLICATION_CONTROLLERS), informer(JOBS)
    history, claims = informer(CONTROLLER_REVISIONS), informer(PERSISTENT_VOLUME_CLAIMS)
    slices, endpoints = informer(ENDPOINT_SLICES), informer(ENDPOINTS)
    return [
        Replicas(REPLICA_SET, actor, sets, pods).controller("replicaset"),
        Replicas(REPLICATION_CONTROLLER, actor, older, pods).controller("replicationcontroller"),
        Deployments(actor, informer(DEPLOYMENTS), sets, pods).controller(),
        StatefulSets(actor, informer(STATEFUL_SETS), pods, claims, history).controller(),
        DaemonSets(actor, informer(DAEMON_SETS), pods, nodes, history).controller(),
        Jobs(actor, jobs, pods).controller(),
        OrphanPods(actor, jobs, informer(PODS)).controller(),
        CronJobs(actor, informer(CRON_JOBS), jobs).controller(),
        Autoscalers(actor, informer(HORIZONTAL_POD_AUTOSCALERS), pods).controller(),
        ServiceEndpoints(actor, informer(SERVICES), pods, nodes, slices, endpoints).controller(),
    ]


def _of_nodes(parts: _Parts) -> list[Controller]:
    actor, informer, pods, nodes = parts.actor, parts.informer, parts.pods, parts.nodes
    leases = informer(LEASES, namespace=LEASE_NAMESPACE)
    return [
        NodeLifecycle(actor, nodes, leases, parts.node_pods).controller(),
        TaintEviction(actor, informer(NODES), parts.node_pods, pods).controller(),
        PodCollection(actor, pods, parts.node_pods, nodes).controller(),
    ]


def _of_storage(parts: _Parts) -> list[Controller]:
    actor, informer, pods = parts.actor, parts.informer, parts.pods
    claims, volumes = informer(PERSISTENT_VOLUME_CLAIMS), informer(PERSISTENT_VOLUMES)
    return [
        ClaimBinder(actor, claims, volumes, informer(STORAGE_CLASSES), parts.nodes).controller(),
        VolumeKeeper(actor, volumes, claims).controller(),
        ClaimProtection(actor, claims, pods).controller(),
        EphemeralVolumes(actor, pods).controller(),
    ]


def _of_scheduling(parts: _Parts, plugins: Plugins) -> list[Controller]:
    """The scheduler asks the disruption budgets before it evicts, so both are made here."""
    actor, informer = parts.actor, parts.informer
    sized = [informer(one) for one in (DEPLOYMENTS, REPLICA_SETS, STATEFUL_SETS, REPLICATION_CONTROLLERS)]
    budgets = Budgets(actor, informer(POD_DISRUPTION_BUDGETS), parts.pods, sized)
    volumes = Volumes(
        actor, informer(PERSISTENT_VOLUME_CLAIMS), informer(PERSISTENT_VOLUMES), informer(STORAGE_CLASSES)
    )
    scheduler = Scheduler(
        actor,
        parts.pods,
        informer(NODES),
        informer(NAMESPACES),
        plugins=plugins,
        budgets=budgets.count_protected,
        volumes=volumes,
    )
    return [budgets.controller(), scheduler.controller()]
