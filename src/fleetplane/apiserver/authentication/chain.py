"""The chain: every way to say who one is, tried in order, each identity held to the logical cluster it was issued for.

Order: an in-process caller, the front proxy, a client certificate, a bearer token (the administrator's, then bootstrap,
ServiceAccount and OpenID tokens). The first that knows the credential decides; a credential that is known and no good
ends the request with 401 instead of falling back to somebody else. Without any credential only health and version are
answered, as ``system:anonymous``.

A credential is good in its own logical cluster. The plane's administrators (``system:masters`` of root) are good in all
of them, so that somebody can repair any; nobody else of one cluster is anybody in another.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from cryptography import x509

from fleetplane.apiserver.authentication import client_certificate
from fleetplane.apiserver.authentication.headers import FrontProxyHeaders, values
from fleetplane.apiserver.authentication.identity import ROOT, Dependency, Identity, TokenAuthenticator
from fleetplane.apiserver.authentication.jwt import MAX_TOKEN_BYTES, InvalidToken
from fleetplane.apiserver.authentication.remembered import Remembered
from fleetplane.apiserver.http import Request
from fleetplane.apiserver.pki import ADMIN_NAME, FRONT_PROXY_NAME, Pki
from fleetplane.model import errors, objects
from fleetplane.model.environment import Environment
from fleetplane.model.objects import Object
from fleetplane.model.user import (
    ANONYMOUS_NAME,
    AUTHENTICATED_GROUP,
    MASTERS_GROUP,
    UNAUTHENTICATED_GROUP,
    UserInfo,
    anonymous,
    with_groups,
)

CLUSTER_INFO: Final = "/api/v1/namespaces/kube-public/configmaps/cluster-info"
"""What a machine that joins asks before it knows whom it may believe; RBAC decides whether anybody may."""
ANONYMOUS_PATHS: Final = ("/livez", "/readyz", "/healthz", "/version", CLUSTER_INFO)
TOKEN_SECONDS: Final = 10.0
"""How long a token's answer is remembered at most, as in kube-apiserver; events end it earlier."""
CERTIFICATE_SECONDS: Final = 3600.0

WEBSOCKET_BEARER: Final = "base64url.bearer.authorization.k8s.io."


@dataclass(frozen=True, slots=True)
class AuthenticationSettings:
    """``client_authorities`` vouch for users beside the plane's own; ``front_proxy_names`` are the common names a front
    proxy's certificate may have."""

    client_authorities: Sequence[x509.Certificate] = ()
    front_proxy_names: Sequence[str] = (FRONT_PROXY_NAME,)
    front_proxy_headers: FrontProxyHeaders = field(default_factory=FrontProxyHeaders)


class Authenticator:
    """``authenticate`` a request, or a ``token`` alone. ``tokens`` are tried in order.

    ``audiences_of`` tells the API audiences of a logical cluster, for tokens that name none themselves.
    """

    def __init__(
        self,
        pki: Pki,
        environment: Environment,
        tokens: Sequence[TokenAuthenticator] = (),
        settings: AuthenticationSettings | None = None,
        *,
        audiences_of: Callable[[str], tuple[str, ...]] = lambda _cluster: (),
    ) -> None:
        self._pki = pki
        self._environment = environment
        self._tokens = tuple(tokens)
        self._audiences_of = audiences_of
        self._settings = settings or AuthenticationSettings()
        self._remembered_tokens: Remembered[Identity] = Remembered(environment)
        self._remembered_certificates: Remembered[tuple[Identity | None, bool]] = Remembered(environment, capacity=4096)

    async def authenticate(self, request: Request, cluster: str = ROOT, path: str | None = None) -> UserInfo:
        """Who makes the request. ``path`` is its path without a logical cluster's prefix.

        Raises:
            ApiError: 401. It never says which part of a credential was wrong.
        """
        if isinstance(request.in_process_user, UserInfo):
            return request.in_process_user
        if request.peer_certificate is not None:
            found = self._by_certificate(request.peer_certificate, request.headers)
            if found is not None:
                return self._admitted(found, cluster)
        token = bearer_token(request.headers)
        if token is not None:
            identity = await self.token(token, cluster)
            if identity is None:
                raise errors.unauthorized()
            return identity.user
        asked = request.path if path is None else path
        if request.peer_certificate is None and is_public(asked):
            return anonymous()
        raise errors.unauthorized()

    async def token(self, token: str, cluster: str = ROOT, audiences: Sequence[str] = ()) -> Identity | None:
        """Whom a bearer token names in a cluster; None when it is not to be believed. ``audiences`` empty: our own."""
        found = await self.examine(token, cluster, audiences)
        return found if isinstance(found, Identity) else None

    async def examine(self, token: str, cluster: str = ROOT, audiences: Sequence[str] = ()) -> Identity | str:
        """As ``token``, but says why not. For those who may review tokens, never for whoever showed one."""
        key = self._remembered_tokens.digest(token, cluster, *audiences)
        found = self._remembered_tokens.get(key)
        if found is not None:
            return found
        moment = self._remembered_tokens.moment()
        try:
            identity = await self._by_token(token, cluster, audiences)
            if identity is None:
                return "the token is of no kind that is accepted here"
            user = self._admitted(identity, cluster)
        except InvalidToken as error:
            return str(error)
        except errors.ApiError:
            return "the token belongs to another logical cluster"
        admitted = Identity(user, identity.cluster, identity.expires, identity.audiences, identity.depends_on)
        seconds = self._seconds(identity, TOKEN_SECONDS)
        self._remembered_tokens.put(key, admitted, seconds, identity.depends_on, since=moment)
        return admitted

    def apply_event(self, cluster: str, obj: Object, deleted: bool) -> None:
        """Tokens that rely on the object are looked at anew. Feed it ServiceAccounts, Secrets, Pods and Nodes."""
        if deleted or obj.get("kind") in {"Secret", "ServiceAccount"} or objects.is_deleting(obj):
            kind = str(obj.get("kind") or "")
            self._remembered_tokens.forget(Dependency(cluster, kind, objects.namespace(obj), objects.name(obj)))

    # --- how --------------------------------------------------------------------------------------------------------

    def _by_certificate(self, der: bytes, headers: Mapping[str, str]) -> Identity | None:
        key = self._remembered_certificates.digest(der)
        found = self._remembered_certificates.get(key)
        if found is None:
            found = self._read_certificate(der)
            seconds = self._seconds(found[0], CERTIFICATE_SECONDS) if found[0] is not None else 60.0
            self._remembered_certificates.put(key, found, seconds)
        identity, is_proxy = found
        if not is_proxy:
            return identity
        asserted = self._settings.front_proxy_headers.user_of(headers)
        return None if asserted is None else Identity(asserted, None)

    def _read_certificate(self, der: bytes) -> tuple[Identity | None, bool]:
        """Whom it names, and whether that is a front proxy."""
        mine = (self._pki.authority.certificate, *self._settings.client_authorities)
        identity = client_certificate.identity_of(der, mine, self._environment)
        if identity is not None:
            return identity, False
        proxies = (self._pki.front_proxy_authority.certificate,)
        identity = client_certificate.identity_of(der, proxies, self._environment)
        allowed = self._settings.front_proxy_names
        if identity is not None and (not allowed or identity.user.name in allowed):
            return identity, True
        return None, False

    async def _by_token(self, token: str, cluster: str, audiences: Sequence[str]) -> Identity | None:
        if len(token) > MAX_TOKEN_BYTES:
            raise InvalidToken("the token is too large")
        if self._pki.is_admin_token(token):
            found: Identity | None = Identity(UserInfo(ADMIN_NAME, groups=(MASTERS_GROUP,)), ROOT)
        else:
            found = None
            for one in self._tokens:
                found = await one(token, cluster, audiences)
                if found is not None:
                    break
        if found is None or found.audiences:
            return found
        return self._for_us(found, cluster, audiences)

    def _for_us(self, identity: Identity, cluster: str, audiences: Sequence[str]) -> Identity:
        """A token that names no audience is meant for this API, and for nobody else who asks about it."""
        own = self._audiences_of(cluster)
        meant_for = tuple(one for one in audiences if one in own) if audiences else own
        if audiences and not meant_for:
            raise InvalidToken("the token is meant for another audience")
        return Identity(identity.user, identity.cluster, identity.expires, meant_for, identity.depends_on)

    def _admitted(self, identity: Identity, cluster: str) -> UserInfo:
        """The user as the rest of the request sees it. Raises 401 where the identity means nothing."""
        user = identity.user
        if identity.cluster is not None and identity.cluster != cluster:
            is_plane_admin = identity.cluster == ROOT and user.in_group(MASTERS_GROUP)
            if not is_plane_admin:
                raise errors.unauthorized()
        if user.name == ANONYMOUS_NAME or user.in_group(UNAUTHENTICATED_GROUP):
            return user
        return with_groups(user, (AUTHENTICATED_GROUP,))

    def _seconds(self, identity: Identity, at_most: float) -> float:
        if identity.expires is None:
            return at_most
        return min(at_most, (identity.expires - self._environment.now()).total_seconds())


def is_public(path: str) -> bool:
    """Health and version, and single health checks below them; and what is published for machines that join."""
    return any(path == one or path.startswith(one + "/") for one in ANONYMOUS_PATHS)


def bearer_token(headers: Mapping[str, str]) -> str | None:
    """The token of an ``Authorization: Bearer`` header, or of a WebSocket subprotocol as browsers send it."""
    header = headers.get("authorization")
    if header is not None:
        scheme, _, token = header.strip().partition(" ")
        token = token.strip()
        if scheme.lower() == "bearer" and token and " " not in token:
            return token
        return "" if scheme.lower() == "bearer" else None
    for value in values(headers, "sec-websocket-protocol"):
        for protocol in value.split(","):
            if protocol.strip().startswith(WEBSOCKET_BEARER):
                encoded = protocol.strip().removeprefix(WEBSOCKET_BEARER)
                try:
                    return base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4)).decode("utf-8")
                except (binascii.Error, ValueError):
                    return ""
    return None
