"""Authentication, authorization and what hangs on them, composed: who asks, may they, and the reviews that answer it.

``Security`` owns the indexes the two stages decide from and names the followers that feed them; the server asks it
``authenticate`` and ``authorize`` for every request and mounts its handlers and plug-ins.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from fleetplane.apiserver import certificate_requests, metadata, validation
from fleetplane.apiserver.authentication.bootstrap import BootstrapTokens
from fleetplane.apiserver.authentication.chain import Authenticator, bearer_token
from fleetplane.apiserver.authentication.headers import impersonation_of
from fleetplane.apiserver.authentication.identity import TokenAuthenticator
from fleetplane.apiserver.authentication.impersonation import impersonate
from fleetplane.apiserver.authentication.service_account import ServiceAccountTokens
from fleetplane.apiserver.authentication.token_review import review_token
from fleetplane.apiserver.authorization import reviews
from fleetplane.apiserver.authorization.attributes import Authorizer, first_of
from fleetplane.apiserver.authorization.defaults import default_objects
from fleetplane.apiserver.authorization.escalation import escalation_checks
from fleetplane.apiserver.authorization.node import NodeAuthorizer, NodeIndex
from fleetplane.apiserver.authorization.node_restriction import node_restriction
from fleetplane.apiserver.authorization.rbac import RbacIndex
from fleetplane.apiserver.authorization.validation import role_plugins
from fleetplane.apiserver.call import Call
from fleetplane.apiserver.clusters import Clusters
from fleetplane.apiserver.decoding import decode_object
from fleetplane.apiserver.following import Apply
from fleetplane.apiserver.http import Request, Response
from fleetplane.apiserver.pki import Pki
from fleetplane.apiserver.reader import ObjectReader
from fleetplane.apiserver.routing import ROOT_CLUSTER, Target
from fleetplane.apiserver.server import Caller
from fleetplane.apiserver.subresources import Handler
from fleetplane.model import errors
from fleetplane.model.admission import (
    ALLOWED,
    AdmissionPlugin,
    AdmissionRequest,
    AdmissionRule,
    Decision,
    Reader,
    changed,
    refused,
)
from fleetplane.model.builtin.types import SERVICE_ACCOUNTS
from fleetplane.model.environment import Environment
from fleetplane.model.objects import Object

_RBAC = "rbac.authorization.k8s.io"
_REQUESTS = "certificatesigningrequests.certificates.k8s.io"
Follow = Callable[[str, str, Apply, Callable[[], None]], None]
"""``follow(group, plural, apply, reset)``"""


@dataclass(slots=True)
class Security:
    """See the module."""

    pki: Pki
    environment: Environment
    reader: ObjectReader
    clusters: Clusters
    rbac: RbacIndex
    nodes: NodeIndex
    tokens: ServiceAccountTokens
    authenticator: Authenticator
    authorize: Authorizer

    # -- the two stages ------------------------------------------------------------------------------------------------

    async def authenticate(self, request: Request, target: Target, cluster: str) -> Caller:
        user = await self.authenticator.authenticate(request, cluster, target.path)
        wanted = impersonation_of(request.headers)
        if wanted is None:
            return Caller(user)
        return Caller(impersonate(user, wanted, self.authorize, cluster), impersonated_by=user)

    def home(self, request: Request) -> str:
        """The cluster a request without one in its path is for: that of its ServiceAccount token, else root.

        Pods reach the API by ``KUBERNETES_SERVICE_HOST``, which has no room for a path. Nothing is believed here: the
        token is checked afterwards, for that very cluster, and no credential of root's names one.
        """
        if request.in_process_user is not None:
            return ROOT_CLUSTER
        token = bearer_token(request.headers)
        named = self.tokens.cluster_named_by(token) if token else ""
        return self.clusters.name_of(named) if named in self.clusters else ROOT_CLUSTER

    # -- what feeds them -----------------------------------------------------------------------------------------------

    def follow(self, follow: Follow) -> None:
        """Ask for everything the indexes need to know."""
        for plural, kind in (
            ("clusterroles", "ClusterRole"),
            ("clusterrolebindings", "ClusterRoleBinding"),
            ("roles", "Role"),
            ("rolebindings", "RoleBinding"),
        ):
            follow(_RBAC, plural, self.rbac.apply_event, _reset(self.rbac.reset, kind))
        for plural in ("serviceaccounts", "secrets", "nodes"):
            follow("", plural, self.authenticator.apply_event, _nothing)
        follow("", "pods", self._pod_event, _reset(self.nodes.reset, "Pod"))
        follow("", "persistentvolumes", self.nodes.apply_event, _reset(self.nodes.reset, "PersistentVolume"))
        follow(
            "storage.k8s.io", "volumeattachments", self.nodes.apply_event, _reset(self.nodes.reset, "VolumeAttachment")
        )

    def drop_cluster(self, cluster: str) -> None:
        """Forget a logical cluster that has gone."""
        self.rbac.drop_cluster(cluster)
        self.nodes.drop_cluster(cluster)

    def _pod_event(self, cluster: str, pod: Object, deleted: bool) -> None:
        self.nodes.apply_event(cluster, pod, deleted)
        self.authenticator.apply_event(cluster, pod, deleted)

    # -- what they answer ----------------------------------------------------------------------------------------------

    def handlers(self, restrict: Callable[[Call, Object], Awaitable[None]]) -> Mapping[tuple[str, str], Handler]:
        """The virtual resources. ``restrict`` runs admission for a token request and raises its refusal."""

        async def token(call: Call) -> Response:
            target = call.target
            account = await self.reader.get(call.key_cluster, SERVICE_ACCOUNTS, target.namespace, target.name)
            if account is None:
                raise errors.not_found("serviceaccounts", target.name)
            wanted = _token_request(call)
            await restrict(call, wanted)
            return _created(await self.tokens.issue_token(call.key_cluster, account, wanted))

        async def own_access(call: Call) -> Response:
            review, _ = _body(call)
            return _created(reviews.self_subject_access_review(review, call.user, self.authorize, call.key_cluster))

        async def access(call: Call) -> Response:
            review, _ = _body(call)
            return _created(reviews.subject_access_review(review, self.authorize, call.key_cluster))

        async def local_access(call: Call) -> Response:
            review, _ = _body(call)
            namespace = call.target.namespace
            return _created(reviews.local_subject_access_review(review, namespace, self.authorize, call.key_cluster))

        async def own_rules(call: Call) -> Response:
            review, _ = _body(call)
            return _created(reviews.self_subject_rules_review(review, call.user, self.rbac, call.key_cluster))

        async def myself(call: Call) -> Response:
            review, _ = _body(call)
            return _created(reviews.self_subject_review(review, call.user))

        async def token_review(call: Call) -> Response:
            review, _ = _body(call)
            return _created(await review_token(review, self.authenticator, call.key_cluster))

        return {
            ("serviceaccounts", "token"): token,
            ("selfsubjectaccessreviews", ""): own_access,
            ("subjectaccessreviews", ""): access,
            ("localsubjectaccessreviews", ""): local_access,
            ("selfsubjectrulesreviews", ""): own_rules,
            ("selfsubjectreviews", ""): myself,
            ("tokenreviews", ""): token_review,
        }

    def paths(self) -> Mapping[str, Callable[[Request], Awaitable[Response]]]:
        """The OpenID documents with which others check our ServiceAccount tokens."""

        async def configuration(_request: Request) -> Response:
            keys = f"{self.tokens.issuer_of(ROOT_CLUSTER)}/openid/v1/jwks"
            return Response(200, orjson.dumps(self.tokens.openid_configuration(ROOT_CLUSTER, keys)))

        async def keys(_request: Request) -> Response:
            return Response(200, orjson.dumps(self.tokens.jwks()), "application/jwk-set+json")

        return {"/.well-known/openid-configuration": configuration, "/openid/v1/jwks": keys}

    # -- certificates --------------------------------------------------------------------------------------------------

    def approve_request(self, request: Object, cluster: str) -> Object | None:
        """The condition that approves a CertificateSigningRequest whose requester may have it; ``cluster`` by name."""
        found = self.clusters.resolve(cluster) or ROOT_CLUSTER
        return certificate_requests.auto_approval(request, self.authorize, self.environment, found)

    def sign_request(self, request: Object, cluster: str) -> Object | None:
        """The status of an approved request, signed by the plane's authority; ``cluster`` by name."""
        found = self.clusters.resolve(cluster) or ROOT_CLUSTER
        signed = certificate_requests.sign(request, self.pki.authority, self.environment, found)
        return None if signed is None else signed["status"]

    # -- admission -----------------------------------------------------------------------------------------------------

    def plugins(self) -> Sequence[AdmissionPlugin]:
        def cluster_id(name: str) -> str:
            return self.clusters.resolve(name) or name

        return [
            node_restriction(),
            escalation_checks(self.rbac, self.authorize, cluster_id),
            *role_plugins(),
            *self._certificate_plugins(cluster_id),
        ]

    def _certificate_plugins(self, cluster_id: Callable[[str], str]) -> list[AdmissionPlugin]:
        async def prepare(request: AdmissionRequest, _reader: Reader) -> Decision:
            if request.new is None:
                return ALLOWED
            if request.old is None:
                return changed(certificate_requests.prepare(request.new, request.user))
            return changed(request.new | {"spec": request.old["spec"]})

        async def check(request: AdmissionRequest, _reader: Reader) -> Decision:
            return refused(request, certificate_requests.validate(request.object)) if request.new else ALLOWED

        async def may_approve(request: AdmissionRequest, _reader: Reader) -> Decision:
            verb = "approve" if request.subresource == "approval" else "sign"
            if verb == "sign" and _certificate(request.new) == _certificate(request.old):
                return ALLOWED
            objection = certificate_requests.approval_objection(
                request.user, request.object, self.authorize, cluster_id(request.cluster), verb
            )
            if objection is None:
                return ALLOWED
            return Decision(
                denial=errors.forbidden(
                    objection, group="certificates.k8s.io", resource="certificatesigningrequests", name=request.name
                )
            )

        return [
            AdmissionPlugin("requester.certificates.k8s.io", "mutate", [AdmissionRule([_REQUESTS])], prepare),
            AdmissionPlugin("request.certificates.k8s.io", "validate", [AdmissionRule([_REQUESTS], ["CREATE"])], check),
            AdmissionPlugin(
                "signer.certificates.k8s.io",
                "validate",
                [AdmissionRule([_REQUESTS], ["UPDATE"], ["approval", "status"])],
                may_approve,
            ),
        ]


def compose_security(
    pki: Pki,
    environment: Environment,
    reader: ObjectReader,
    clusters: Clusters,
    more_tokens: Sequence[TokenAuthenticator] = (),
) -> Security:
    """The stages as a plane runs them: RBAC with the default roles, and the Node authorizer before it.

    ``more_tokens`` are asked after the plane's own kinds of token.
    """
    rbac = RbacIndex(default_objects())
    nodes = NodeIndex()
    node_rules = rbac.role_rules(ROOT_CLUSTER, "ClusterRole", "", "system:node") or ()
    tokens = ServiceAccountTokens(key=pki.service_account_key, reader=reader, environment=environment)
    authenticator = Authenticator(
        pki, environment, [BootstrapTokens(reader, environment), tokens, *more_tokens], audiences_of=tokens.audiences_of
    )
    authorize = first_of([NodeAuthorizer(nodes, node_rules).authorize, rbac.authorize])
    return Security(pki, environment, reader, clusters, rbac, nodes, tokens, authenticator, authorize)


def openid_tokens(config: Object, environment: Environment) -> TokenAuthenticator:
    """Tokens of OpenID issuers, from an AuthenticationConfiguration. Raises ValueError that names the field."""
    from fleetplane.apiserver.authentication.oidc import OidcTokens, fetch  # noqa: PLC0415 - loads CEL
    from fleetplane.apiserver.authentication.oidc_settings import read_issuers  # noqa: PLC0415

    return OidcTokens(read_issuers(config), fetch, environment)


def _certificate(obj: Object | None) -> Any:
    return ((obj or {}).get("status") or {}).get("certificate")


def _body(call: Call) -> tuple[Object, list[str]]:
    """What is asked, of the types it must have."""
    obj, strict = decode_object(call.request.body, call.request.headers.get("content-type", ""))
    obj = metadata.drop_nulls(obj)
    obj.setdefault("metadata", {})
    validation.normalise(call, obj, strict)
    return obj, strict


def _token_request(call: Call) -> Object:
    """The TokenRequest: its path is a ServiceAccount's, whose schema knows nothing of it. Raises ApiError 400."""
    sent, _ = decode_object(call.request.body, call.request.headers.get("content-type", ""))
    obj: Object = metadata.drop_nulls(sent)
    obj.setdefault("metadata", {})
    spec = obj.get("spec", {})
    if not isinstance(spec, dict):
        raise errors.bad_request("spec of a TokenRequest must be an object")
    types = {"audiences": list, "expirationSeconds": int, "boundObjectRef": dict}
    for field, wanted in types.items():
        if field in spec and not isinstance(spec[field], wanted):
            raise errors.bad_request(f"spec.{field} of a TokenRequest has the wrong type")
    return obj


def _created(obj: Object) -> Response:
    return Response(201, orjson.dumps(obj))


def _nothing() -> None:
    """Nothing to reset."""


def _reset(reset: Callable[[str], None], kind: str) -> Callable[[], None]:
    return lambda: reset(kind)
