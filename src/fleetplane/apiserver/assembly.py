"""Puts an API server together from a store, a PKI and settings: which stages, in which order, knowing what."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from fleetplane.apiserver.admission.builtin import builtin_admission
from fleetplane.apiserver.admission.chain import AdmissionChain, ReaderFor
from fleetplane.apiserver.admission.chain import own as own_plugins
from fleetplane.apiserver.admission.definitions import definition_plugins
from fleetplane.apiserver.admission.namespaces import NamespaceView, namespace_plugins
from fleetplane.apiserver.admission.policies.dispatch import Policies
from fleetplane.apiserver.admission.views import View
from fleetplane.apiserver.admission.webhooks.calling import Webhooks
from fleetplane.apiserver.aggregation.local import local_api_services
from fleetplane.apiserver.aggregation.stage import Aggregation
from fleetplane.apiserver.allocation import Allocators
from fleetplane.apiserver.audit import Audit
from fleetplane.apiserver.authentication.identity import TokenAuthenticator
from fleetplane.apiserver.authorization.defaults import default_objects
from fleetplane.apiserver.call import Call
from fleetplane.apiserver.cleanup import DefinitionCleanup
from fleetplane.apiserver.cluster_content import ClusterContent
from fleetplane.apiserver.cluster_credentials import credentials_handler
from fleetplane.apiserver.cluster_use import ClusterUse
from fleetplane.apiserver.clusters import Clusters
from fleetplane.apiserver.commits import commit_handler, served_commits
from fleetplane.apiserver.conversion import Conversion
from fleetplane.apiserver.crds import Definitions
from fleetplane.apiserver.egress import Egress
from fleetplane.apiserver.following import Apply, Follower
from fleetplane.apiserver.health import Health
from fleetplane.apiserver.http import Response
from fleetplane.apiserver.logical import (
    LOGICAL_CLUSTERS,
    LogicalClusters,
    logical_cluster_plugin,
    reserved_namespace_plugin,
    served_logical_clusters,
)
from fleetplane.apiserver.outgoing import Outgoing, Services
from fleetplane.apiserver.own_writes import OwnWrites
from fleetplane.apiserver.pki import Pki
from fleetplane.apiserver.readers import StoreReader, Views
from fleetplane.apiserver.registry import Registry
from fleetplane.apiserver.security import compose_security
from fleetplane.apiserver.server import ApiServer, Limits, Parts
from fleetplane.apiserver.services import ServiceAllocator, service_networks
from fleetplane.apiserver.shared import SharedLayer
from fleetplane.apiserver.storage import ObjectStorage
from fleetplane.apiserver.streaming.handlers import stream_handlers
from fleetplane.apiserver.streaming.protocol import PodStreams, StreamsOf
from fleetplane.apiserver.streaming.tunnel import NodeTunnels
from fleetplane.apiserver.subresources import Handler
from fleetplane.apiserver.usage import UsageOf, served_metrics
from fleetplane.model import errors
from fleetplane.model.admission import AdmissionPlugin, AdmissionRequest
from fleetplane.model.environment import Environment, timestamp
from fleetplane.model.objects import Object, is_deleting
from fleetplane.model.resources import resource_of
from fleetplane.store.protocol import Store


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """``service_cidrs``: at most one per IP family, the preferred one first. ``tenant_calls``: see ``egress``."""

    service_cidrs: str = "10.96.0.0/16,fd00:10:96::/112"
    tenant_calls: str = ""
    node_ports: range = range(30000, 32768)
    limits: Limits = field(default_factory=Limits)


def _no_streams(_node: str) -> PodStreams | None:
    return None


def assemble(
    store: Store,
    pki: Pki,
    environment: Environment,
    settings: ServerSettings,
    *,
    plugins: Sequence[AdmissionPlugin] = (),
    subresources: Mapping[tuple[str, str], Handler] | None = None,
    audit: Audit | None = None,
    streams_of: StreamsOf = _no_streams,
    usage_of: UsageOf | None = None,
    more_tokens: Sequence[TokenAuthenticator] = (),
    tunnels: NodeTunnels | None = None,
) -> ApiServer:
    """A server that is ready to run. Raises ValueError for settings that cannot be used."""
    clusters = Clusters()
    extra = [served_logical_clusters(), served_commits()]
    if usage_of is not None:
        extra += served_metrics(ObjectStorage(store), lambda: registry, clusters, usage_of)
    if tunnels is not None:
        extra.append(tunnels.served())
    registry = Registry(extra)
    reader = StoreReader(ObjectStorage(store), registry)
    views = {(kind.group, kind.plural): View() for plugin in plugins for kind in map(resource_of, plugin.reads)}
    security = compose_security(pki, environment, reader, clusters, more_tokens)
    namespaces = NamespaceView()
    cleanup = DefinitionCleanup(store, registry)
    own = OwnWrites(registry, clusters.name_of)
    builtin = builtin_admission(store, environment, clusters, own, namespaces)
    outgoing = Outgoing(Services(reader, environment), Egress(settings.tenant_calls))
    definitions = Definitions(registry, Conversion(outgoing, environment).converter_for)
    policies = Policies(registry, namespaces, reader, security.authorize, own, environment)
    webhooks = Webhooks(registry, namespaces, outgoing, security.authorize, environment)

    def cluster_id(name: str) -> str:
        return clusters.resolve(name) or name

    chain = AdmissionChain(
        [
            *own_plugins(
                [
                    *namespace_plugins(namespaces, cluster_id),
                    *definition_plugins(registry, clusters, environment),
                    logical_cluster_plugin(),
                    reserved_namespace_plugin(),
                    *security.plugins(),
                    *builtin.plugins,
                ]
            ),
            *plugins,
        ],
        _readers(reader, plugins, views),
        [policies, webhooks],
    )
    followers: list[Follower] = []

    def follow(group: str, resource: str, apply: Apply, reset: Callable[[], None] = _nothing) -> None:
        followers.append(Follower(store, group, resource, apply, reset))

    follow("", "namespaces", namespaces.apply, namespaces.reset)
    follow("apiextensions.k8s.io", "customresourcedefinitions", definitions.apply, definitions.reset)
    follow("apiextensions.k8s.io", "customresourcedefinitions", cleanup.apply)
    logical = LogicalClusters(store, registry, clusters, security.drop_cluster)
    follow(LOGICAL_CLUSTERS.group, LOGICAL_CLUSTERS.plural, logical.apply)
    use = ClusterUse(environment)
    follow(LOGICAL_CLUSTERS.group, LOGICAL_CLUSTERS.plural, use.apply)
    for (group, plural), view in views.items():
        follow(group, plural, view.apply, view.reset)
    security.follow(follow)
    builtin.follow(follow)
    policies.follow(follow)
    webhooks.follow(follow)
    aggregation = Aggregation(registry, outgoing, reader, own, environment, pki)
    aggregation.follow(follow)

    content = ClusterContent(registry, store)

    async def find_cluster(call: Call) -> Object:
        found = await reader.get(call.key_cluster, LOGICAL_CLUSTERS, "", call.target.name)
        if found is None or is_deleting(found):
            raise errors.not_found(LOGICAL_CLUSTERS.plural, call.target.name, group=LOGICAL_CLUSTERS.group)
        return found

    async def restrict_token(call: Call, wanted: Object) -> None:
        target = call.target
        await chain.validate(
            call,
            AdmissionRequest(
                "CREATE",
                call.served.type,
                call.user,
                new=wanted,
                namespace=target.namespace,
                name=target.name,
                subresource="token",
                cluster=clusters.name_of(call.key_cluster),
            ),
        )

    async def commit(call: Call) -> Response:
        return await commits(call)

    started = timestamp(environment.now())
    parts = Parts(
        store=store,
        registry=registry,
        clusters=clusters,
        environment=environment,
        authenticate=security.authenticate,
        home=security.home,
        authorize=security.authorize,
        admission=chain,
        allocators=Allocators({("", "services"): _services(settings, environment)}),
        health=_health(store),
        shared=SharedLayer(registry, [*default_objects(), *local_api_services(registry, started)], started),
        followers=followers,
        subresources={
            **security.handlers(restrict_token),
            ("commits", ""): commit,
            (LOGICAL_CLUSTERS.plural, "credentials"): credentials_handler(
                LOGICAL_CLUSTERS, pki, reader, environment, logical.opened
            ),
            (LOGICAL_CLUSTERS.plural, "content"): content.handler(find_cluster),
            **stream_handlers(ObjectStorage(store), streams_of),
            **(subresources or {}),
        },
        paths=security.paths(),
        limits=settings.limits,
        released=builtin.ledger.released,
        companions={(LOGICAL_CLUSTERS.group, LOGICAL_CLUSTERS.plural): logical.companions},
        aggregation=aggregation,
        audit=audit,
        approve_request=security.approve_request,
        sign_request=security.sign_request,
        note_use=use.note,
    )
    server = ApiServer(parts)
    commits = commit_handler(ObjectStorage(store), registry, server.writes, server.deletes, server.authorize_call)
    own.bind(server.writes)
    content.bind(server.writes)
    parts.background = [
        lambda: cleanup.run(server.writes, server.deletes, clusters.name_of),
        lambda: logical.run(server.writes),
        lambda: use.run(partial(logical.change_status, server.writes)),
        *builtin.background,
        policies.type_checking.run,
        outgoing.run,
        aggregation.run,
        lambda: definitions.run(own),
    ]
    return server


def _readers(reader: StoreReader, plugins: Sequence[AdmissionPlugin], views: Views) -> ReaderFor:
    """Each plug-in gets from ``views`` what it said it reads, and all else from the store."""
    own: dict[str, Views] = {}
    for plugin in plugins:
        kinds = {(kind.group, kind.plural) for kind in map(resource_of, plugin.reads)}
        own[plugin.name] = {kind: view for kind, view in views.items() if kind in kinds}
    return lambda cluster, plugin: reader.in_cluster(cluster, own.get(plugin.name, {}))


def _services(settings: ServerSettings, environment: Environment) -> ServiceAllocator:
    return ServiceAllocator(service_networks(settings.service_cidrs), settings.node_ports, environment)


def _nothing() -> None:
    """Nothing to reset."""


def _health(store: Store) -> Health:
    async def ping() -> str | None:
        return None

    async def storage() -> str | None:
        await store.revision()
        return None

    return Health({"ping": ping, "store": storage}, {})
