"""ServiceAccount tokens: issued by TokenRequest, bound to live objects, published as an OpenID issuer.

A token is believed while its signature, audience and time hold *and* the ServiceAccount, and the Pod, Secret or Node it
is bound to, still exist with the same uid. Each logical cluster is an issuer of its own (``<issuer>/clusters/<uid>``,
the bare issuer for root), so that neither we nor a relying party outside can take one cluster's token for another's.

Claims are Kubernetes' (https://kubernetes.io/docs/reference/access-authn-authz/service-accounts-admin/). Tokens of
Secrets of type ``kubernetes.io/service-account-token`` are accepted while the Secret holds them.
"""

from __future__ import annotations

import base64
import binascii
import hmac
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric import ec

from fleetplane.apiserver.authentication import jwt
from fleetplane.apiserver.authentication.identity import ROOT, Dependency, Identity
from fleetplane.apiserver.authentication.jwt import InvalidToken, VerificationKey
from fleetplane.apiserver.reader import ObjectReader
from fleetplane.model import errors, objects
from fleetplane.model.environment import Environment, parse_timestamp, timestamp
from fleetplane.model.errors import FieldError
from fleetplane.model.objects import Object
from fleetplane.model.resources import ResourceType
from fleetplane.model.user import UserInfo, service_account_user

DEFAULT_ISSUER: Final = "https://kubernetes.default.svc.cluster.local"
SERVICE_ACCOUNTS: Final = ResourceType("", "v1", "ServiceAccount", "serviceaccounts")
SECRETS: Final = ResourceType("", "v1", "Secret", "secrets")
PODS: Final = ResourceType("", "v1", "Pod", "pods")
NODES: Final = ResourceType("", "v1", "Node", "nodes", namespaced=False)

DEFAULT_SECONDS: Final = 3600
MIN_SECONDS: Final = 600
MAX_SECONDS: Final = 1 << 32
DELETION_GRACE: Final = timedelta(seconds=60)
"""An object on its way out still vouches for its tokens this long after its deletion time (as in Kubernetes)."""

_LEGACY_ISSUER: Final = "kubernetes/serviceaccount"
_LEGACY: Final = "kubernetes.io/serviceaccount/"
_CLUSTER_CLAIM: Final = "fleetplane.io/cluster"
_EXTRA: Final = "authentication.kubernetes.io/"
_BOUND_KINDS: Final = {"Pod": PODS, "Secret": SECRETS, "Node": NODES}


class ServiceAccountTokens:
    """Issues and verifies. ``former_keys`` still verify, never sign; ``max_seconds`` caps what is issued."""

    def __init__(
        self,
        *,
        key: ec.EllipticCurvePrivateKey,
        reader: ObjectReader,
        environment: Environment,
        issuer: str = DEFAULT_ISSUER,
        audiences: Sequence[str] = (),
        former_keys: Sequence[jwt.PublicKey] = (),
        max_seconds: int = MAX_SECONDS,
    ) -> None:
        self._key = key
        self._reader = reader
        self._environment = environment
        self._issuer = issuer.rstrip("/")
        self._audiences = tuple(audiences)
        self._max_seconds = max(MIN_SECONDS, max_seconds)
        self.keys: tuple[VerificationKey, ...] = tuple(
            jwt.verification_key(one) for one in (key.public_key(), *former_keys)
        )

    def issuer_of(self, cluster: str) -> str:
        return self._issuer if cluster == ROOT else f"{self._issuer}/clusters/{cluster}"

    def audiences_of(self, cluster: str) -> tuple[str, ...]:
        """What a token must be meant for to be accepted by the API of this cluster."""
        return (self.issuer_of(cluster), *self._audiences)

    # --- issuing ----------------------------------------------------------------------------------------------------

    async def issue_token(self, cluster: str, service_account: Object, request: Object) -> Object:
        """Answer a TokenRequest for a live ServiceAccount: the request, defaulted, with ``status.token``.

        Raises:
            ApiError: 422 for a bad spec, 404 or 409 for a bound object that is absent or another one.
        """
        spec = request.get("spec") or {}
        seconds = _checked_seconds(request, spec)
        wanted = [str(one) for one in spec.get("audiences") or () if one] or list(self.audiences_of(cluster))[:1]
        now = self._environment.now()
        expires = int(now.timestamp()) + min(seconds, self._max_seconds)
        namespace, name = objects.namespace(service_account), objects.name(service_account)
        private: Object = {
            "namespace": namespace,
            "serviceaccount": {"name": name, "uid": objects.uid(service_account)},
        }
        if spec.get("boundObjectRef"):
            private.update(await self._bound(cluster, namespace, name, spec["boundObjectRef"]))
        claims: Object = {
            "aud": wanted,
            "exp": expires,
            "iat": int(now.timestamp()),
            "iss": self.issuer_of(cluster),
            "jti": self._environment.uuid(),
            "kubernetes.io": private,
            "nbf": int(now.timestamp()),
            "sub": f"system:serviceaccount:{namespace}:{name}",
        }
        answered = {**request, "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest"}
        answered["metadata"] = {"name": name, "namespace": namespace, "creationTimestamp": timestamp(now)}
        answered["spec"] = {**spec, "audiences": wanted, "expirationSeconds": seconds}
        answered["status"] = {
            "token": jwt.sign(claims, self._key, self.keys[0].key_id),
            "expirationTimestamp": timestamp(datetime.fromtimestamp(expires, UTC)),
        }
        return answered

    async def _bound(self, cluster: str, namespace: str, account: str, ref: Mapping[str, Any]) -> Object:
        """The claims that tie a token to the object it was asked for."""
        kind, name, uid = str(ref.get("kind") or ""), str(ref.get("name") or ""), str(ref.get("uid") or "")
        resource = _BOUND_KINDS.get(kind)
        if resource is None or ref.get("apiVersion") not in {"v1", None, ""}:
            raise errors.bad_request(f"cannot bind token to object of type {ref.get('apiVersion', '')}, Kind={kind}")
        found = await self._reader.get(cluster, resource, namespace if resource.namespaced else "", name)
        if found is None:
            raise errors.not_found(resource.plural, name)
        if uid and objects.uid(found) != uid:
            raise errors.conflict(
                resource.plural,
                name,
                f"the UID in the bound object reference ({uid}) does not match the UID in record. "
                "The object might have been deleted and then recreated",
            )
        claims: Object = {kind.lower(): {"name": name, "uid": objects.uid(found)}}
        if kind == "Pod":
            spec = found.get("spec") or {}
            if spec.get("serviceAccountName") != account:
                raise errors.bad_request(
                    f'cannot bind token for serviceaccount "{account}" to pod running with different serviceaccount name.'
                )
            node = await self._node(cluster, str(spec.get("nodeName") or ""))
            if node is not None:
                claims["node"] = node
        return claims

    async def _node(self, cluster: str, name: str) -> Object | None:
        if not name:
            return None
        found = await self._reader.get(cluster, NODES, "", name)
        return {"name": name, "uid": objects.uid(found)} if found is not None else {"name": name}

    def legacy_token(self, cluster: str, service_account: Object, secret_name: str) -> str:
        """The never-expiring token for a Secret of type ``kubernetes.io/service-account-token``."""
        namespace, name = objects.namespace(service_account), objects.name(service_account)
        claims: Object = {
            "iss": _LEGACY_ISSUER,
            "sub": f"system:serviceaccount:{namespace}:{name}",
            f"{_LEGACY}namespace": namespace,
            f"{_LEGACY}secret.name": secret_name,
            f"{_LEGACY}service-account.name": name,
            f"{_LEGACY}service-account.uid": objects.uid(service_account),
        }
        if cluster != ROOT:
            claims[_CLUSTER_CLAIM] = cluster
        return jwt.sign(claims, self._key, self.keys[0].key_id)

    def cluster_named_by(self, token: str) -> str:
        """The uid of the logical cluster whose issuer a token claims; empty when it claims none. Nothing is verified."""
        if not jwt.looks_like_token(token):
            return ""
        try:
            issuer = jwt.take_apart(token).claims.get("iss")
        except InvalidToken:
            return ""
        prefix = f"{self._issuer}/clusters/"
        return issuer.removeprefix(prefix) if isinstance(issuer, str) and issuer.startswith(prefix) else ""

    # --- verifying --------------------------------------------------------------------------------------------------

    async def __call__(self, token: str, cluster: str, audiences: Sequence[str]) -> Identity | None:
        if not jwt.looks_like_token(token):
            return None
        parsed = jwt.take_apart(token)
        issuer = parsed.claims.get("iss")
        if issuer == _LEGACY_ISSUER:
            return await self._legacy(token, jwt.verify(parsed, self.keys), cluster, audiences)
        if issuer != self.issuer_of(cluster):
            if isinstance(issuer, str) and (issuer == self._issuer or issuer.startswith(f"{self._issuer}/clusters/")):
                raise InvalidToken("the token belongs to another logical cluster")
            return None
        claims = jwt.verify(parsed, self.keys)
        jwt.check_times(claims, self._environment.now())
        accepted = audiences or self.audiences_of(cluster)
        meant_for = tuple(one for one in accepted if one in jwt.audiences(claims))
        if not meant_for:
            raise InvalidToken("the token is meant for another audience")
        private = claims.get("kubernetes.io")
        if not isinstance(private, dict):
            raise InvalidToken("the token has no kubernetes.io claims")
        return await self._live(cluster, claims, private, meant_for)

    async def _live(
        self, cluster: str, claims: Mapping[str, Any], private: Mapping[str, Any], meant_for: tuple[str, ...]
    ) -> Identity:
        namespace = str(private.get("namespace") or "")
        account = _ref(private, "serviceaccount")
        if not namespace or account is None:
            raise InvalidToken("the token does not name its ServiceAccount")
        if claims.get("sub") != f"system:serviceaccount:{namespace}:{account[0]}":
            raise InvalidToken("the token's subject is not its ServiceAccount")
        depends_on = [await self._alive(cluster, SERVICE_ACCOUNTS, namespace, *account)]
        extra: dict[str, tuple[str, ...]] = {}
        if claims.get("jti"):
            extra[f"{_EXTRA}credential-id"] = (f"JTI={claims['jti']}",)
        pod, secret, node = (_ref(private, kind) for kind in ("pod", "secret", "node"))
        if secret is not None:
            depends_on.append(await self._alive(cluster, SECRETS, namespace, *secret))
        if pod is not None:
            depends_on.append(await self._alive(cluster, PODS, namespace, *pod))
            extra |= {f"{_EXTRA}pod-name": (pod[0],), f"{_EXTRA}pod-uid": (pod[1],)}
        if node is not None:
            if pod is None:  # a pod's token outlives a change of its Node object, a node's own does not
                depends_on.append(await self._alive(cluster, NODES, "", *node))
            extra[f"{_EXTRA}node-name"] = (node[0],)
            if node[1]:
                extra[f"{_EXTRA}node-uid"] = (node[1],)
        found = service_account_user(namespace, *account)
        return Identity(
            UserInfo(found.name, found.uid, found.groups, extra),
            cluster,
            expires=datetime.fromtimestamp(float(claims["exp"]), UTC),
            audiences=meant_for,
            depends_on=tuple(depends_on),
        )

    async def _alive(self, cluster: str, resource: ResourceType, namespace: str, name: str, uid: str) -> Dependency:
        found = await self._reader.get(cluster, resource, namespace, name)
        if found is None or objects.uid(found) != uid:
            raise InvalidToken(f"the {resource.kind} that the token is bound to no longer exists")
        if self._is_gone(found):
            raise InvalidToken(f"the {resource.kind} that the token is bound to has been deleted")
        return Dependency(cluster, resource.kind, namespace, name)

    def _is_gone(self, obj: Object) -> bool:
        deleted = objects.metadata(obj).get("deletionTimestamp")
        return bool(deleted) and parse_timestamp(str(deleted)) < self._environment.now() - DELETION_GRACE

    async def _legacy(self, token: str, claims: Mapping[str, Any], cluster: str, audiences: Sequence[str]) -> Identity:
        if str(claims.get(_CLUSTER_CLAIM) or ROOT) != cluster:
            raise InvalidToken("the token belongs to another logical cluster")
        accepted = self.audiences_of(cluster)
        meant_for = tuple(one for one in audiences or accepted if one in accepted)
        if not meant_for:
            raise InvalidToken("the token is meant for another audience")
        text = {key: str(claims.get(_LEGACY + key) or "") for key in ("namespace", "secret.name")}
        account = str(claims.get(f"{_LEGACY}service-account.name") or "")
        uid = str(claims.get(f"{_LEGACY}service-account.uid") or "")
        namespace = text["namespace"]
        if not all((namespace, text["secret.name"], account, uid)):
            raise InvalidToken("the token does not name its ServiceAccount and Secret")
        if claims.get("sub") != f"system:serviceaccount:{namespace}:{account}":
            raise InvalidToken("the token's subject is not its ServiceAccount")
        secret = await self._reader.get(cluster, SECRETS, namespace, text["secret.name"])
        if secret is None or self._is_gone(secret) or not _holds(secret, token):
            raise InvalidToken("the token has been removed from its Secret")
        return Identity(
            service_account_user(namespace, account, uid),
            cluster,
            audiences=meant_for,
            depends_on=(
                await self._alive(cluster, SERVICE_ACCOUNTS, namespace, account, uid),
                Dependency(cluster, "Secret", namespace, text["secret.name"]),
            ),
        )

    # --- what relying parties read ----------------------------------------------------------------------------------

    def openid_configuration(self, cluster: str, jwks_uri: str) -> Object:
        """The body of ``/.well-known/openid-configuration`` (OpenID Connect Discovery 1.0, as Kubernetes fills it)."""
        return {
            "issuer": self.issuer_of(cluster),
            "jwks_uri": jwks_uri,
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["ES256"],
        }

    def jwks(self) -> Object:
        """The body of ``/openid/v1/jwks`` (content type ``application/jwk-set+json``)."""
        return {"keys": [jwt.to_jwk(one) for one in self.keys if isinstance(one.key, ec.EllipticCurvePublicKey)]}


def _checked_seconds(request: Object, spec: Mapping[str, Any]) -> int:
    seconds = spec.get("expirationSeconds")
    if seconds is None:
        return DEFAULT_SECONDS
    path = "spec.expirationSeconds"
    wrong: str | None = None
    if isinstance(seconds, bool) or not isinstance(seconds, int):
        wrong = "must be a whole number of seconds"
    elif seconds < MIN_SECONDS:
        wrong = "may not specify a duration less than 10 minutes"
    elif seconds > MAX_SECONDS:
        wrong = "may not specify a duration larger than 2^32 seconds"
    if wrong is not None:
        cause = FieldError.invalid(path, seconds, wrong)
        raise errors.invalid("TokenRequest", objects.name(request), [cause], group="authentication.k8s.io")
    return int(seconds)


def _ref(private: Mapping[str, Any], kind: str) -> tuple[str, str] | None:
    found = private.get(kind)
    if not isinstance(found, dict):
        return None
    return str(found.get("name") or ""), str(found.get("uid") or "")


def _holds(secret: Object, token: str) -> bool:
    try:
        held = base64.b64decode(str((secret.get("data") or {}).get("token") or ""), validate=True)
    except (binascii.Error, ValueError):
        return False
    return hmac.compare_digest(held, token.encode("utf-8", "surrogateescape"))
