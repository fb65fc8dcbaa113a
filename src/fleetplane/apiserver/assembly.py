"""Puts an API server together from a store, a PKI and settings: which stages, in which order, knowing what."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import orjson

from fleetplane.apiserver.admission.chain import AdmissionChain
from fleetplane.apiserver.admission.definitions import definition_plugins
from fleetplane.apiserver.admission.namespaces import NamespaceView, namespace_plugins
from fleetplane.apiserver.allocation import Allocators
from fleetplane.apiserver.authentication.bootstrap import BootstrapTokens
from fleetplane.apiserver.authentication.chain import Authenticator
from fleetplane.apiserver.authentication.headers import impersonation_of
from fleetplane.apiserver.authentication.impersonation import impersonate
from fleetplane.apiserver.authentication.service_account import ServiceAccountTokens
from fleetplane.apiserver.authorization.attributes import Authorizer
from fleetplane.apiserver.authorization.defaults import default_objects
from fleetplane.apiserver.authorization.rbac import RbacIndex
from fleetplane.apiserver.call import Call
from fleetplane.apiserver.cleanup import DefinitionCleanup
from fleetplane.apiserver.clusters import Clusters
from fleetplane.apiserver.crds import Definitions
from fleetplane.apiserver.decoding import decode_object
from fleetplane.apiserver.following import Apply, Follower
from fleetplane.apiserver.health import Health
from fleetplane.apiserver.http import Request, Response
from fleetplane.apiserver.pki import Pki
from fleetplane.apiserver.readers import StoreReader
from fleetplane.apiserver.registry import Converter, Registry
from fleetplane.apiserver.server import ApiServer, Limits, Parts
from fleetplane.apiserver.services import ServiceAllocator, parse_networks
from fleetplane.apiserver.shared import SharedLayer
from fleetplane.apiserver.storage import ObjectStorage
from fleetplane.apiserver.subresources import Handler
from fleetplane.model import errors
from fleetplane.model.admission import AdmissionPlugin
from fleetplane.model.environment import Environment, timestamp
from fleetplane.model.objects import Object
from fleetplane.model.user import UserInfo
from fleetplane.store.protocol import Store


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """``service_cidrs``: at most one per IP family, the preferred one first."""

    service_cidrs: str = "10.96.0.0/16,fd00:10:96::/112"
    node_ports: range = range(30000, 32768)
    limits: Limits = field(default_factory=Limits)


def assemble(
    store: Store,
    pki: Pki,
    environment: Environment,
    settings: ServerSettings,
    *,
    plugins: Sequence[AdmissionPlugin] = (),
    subresources: Mapping[tuple[str, str], Handler] | None = None,
) -> ApiServer:
    """A server that is ready to run. Raises ValueError for settings that cannot be used."""
    registry = Registry()
    clusters = Clusters()
    storage = ObjectStorage(store)
    reader = StoreReader(storage, registry)
    rbac = RbacIndex(default_objects())
    authorize: Authorizer = rbac.authorize
    tokens = ServiceAccountTokens(key=pki.service_account_key, reader=reader, environment=environment)
    authenticator = Authenticator(pki, environment, [BootstrapTokens(reader, environment), tokens])
    definitions = Definitions(registry, _no_converter)
    namespaces = NamespaceView()
    chain = AdmissionChain(
        [
            *namespace_plugins(namespaces, lambda name: clusters.resolve(name) or name),
            *definition_plugins(registry, clusters, environment),
            *plugins,
        ],
        reader.in_cluster,
    )
    services = ServiceAllocator(parse_networks(settings.service_cidrs), settings.node_ports, environment)

    async def authenticate(request: Request, cluster: str) -> UserInfo:
        user = await authenticator.authenticate(request, cluster)
        wanted = impersonation_of(request.headers)
        return user if wanted is None else impersonate(user, wanted, authorize, cluster)

    async def issue(call: Call) -> Response:
        account = await storage.find(call.served, call.key_cluster, call.target.namespace, call.target.name)
        if account is None:
            raise errors.not_found("serviceaccounts", call.target.name)
        wanted, _ = decode_object(call.request.body, call.request.headers.get("content-type", ""))
        issued = await tokens.issue_token(call.key_cluster, account, wanted)
        return Response(201, orjson.dumps(issued))

    def follow(group: str, resource: str, apply: Apply, reset: Callable[[], None] = _nothing) -> Follower:
        return Follower(store, group, resource, apply, reset)

    rbac_group = "rbac.authorization.k8s.io"
    cleanup = DefinitionCleanup(store, registry)
    followers = [
        follow("apiextensions.k8s.io", "customresourcedefinitions", cleanup.apply),
        follow("", "namespaces", namespaces.apply, namespaces.reset),
        follow("apiextensions.k8s.io", "customresourcedefinitions", definitions.apply, definitions.reset),
        *(
            follow(rbac_group, plural, rbac.apply_event)
            for plural in ("clusterroles", "clusterrolebindings", "roles", "rolebindings")
        ),
        *(follow("", plural, authenticator.apply_event) for plural in ("serviceaccounts", "secrets")),
    ]
    parts = Parts(
        store=store,
        registry=registry,
        clusters=clusters,
        environment=environment,
        authenticate=authenticate,
        authorize=authorize,
        admission=chain,
        allocators=Allocators({("", "services"): services}),
        health=_health(store),
        shared=SharedLayer(registry, default_objects(), timestamp(environment.now())),
        followers=followers,
        subresources={("serviceaccounts", "token"): issue, **(subresources or {})},
        paths={},
        limits=settings.limits,
    )
    server = ApiServer(parts)
    parts.background = [lambda: cleanup.run(server.writes, server.deletes, clusters.name_of)]
    return server


def _nothing() -> None:
    """Nothing to reset."""


def _no_converter(_cluster: str, _definition: Object) -> Converter | None:
    return None


def _health(store: Store) -> Health:
    async def ping() -> str | None:
        return None

    async def storage() -> str | None:
        await store.revision()
        return None

    return Health({"ping": ping, "store": storage}, {})


def first_address(cidr: str) -> str:
    """The address of the ``kubernetes`` Service: the first of the preferred service range."""
    return str(ipaddress.ip_network(cidr.split(",", maxsplit=1)[0].strip())[1])
