"""OpenID Connect tokens: users that somebody else's identity provider names (JWT with JWKS discovery).

An issuer's keys are fetched over https when first needed, again when a token names a key we do not know (but not more
often than every ten seconds, whoever asks), and once an hour; a provider that is down for a while takes nobody away who
is known already. Names that begin with ``system:`` are ours to give: an issuer that maps to one makes no user.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import orjson

from fleetplane.apiserver.authentication import jwt
from fleetplane.apiserver.authentication.identity import Identity
from fleetplane.apiserver.authentication.jwt import InvalidToken, VerificationKey
from fleetplane.apiserver.authentication.oidc_settings import Issuer, UnusableClaims
from fleetplane.model.environment import Environment
from fleetplane.model.objects import Object
from fleetplane.model.user import UserInfo

log = logging.getLogger(__name__)

Fetch = Callable[[str, str], Awaitable[bytes]]
"""``fetch(url, authority)``: the body of an https GET; ``authority`` is PEM, empty for the system's. Raises OSError."""

MAX_DOCUMENT_BYTES: Final = 1024 * 1024
MAX_KEYS: Final = 100
KEY_SECONDS: Final = 3600.0
RETRY_SECONDS: Final = 10.0
FETCH_SECONDS: Final = 10.0
CLOCK_LEEWAY: Final = 10.0
"""Seconds an issuer's clock may be off."""

_RESERVED: Final = "system:"


class OidcTokens:
    """Verifies tokens of the configured issuers."""

    def __init__(self, issuers: Sequence[Issuer], fetch: Fetch, environment: Environment) -> None:
        self._environment = environment
        self._issuers = {one.url: (one, KeyRing(one, fetch, environment)) for one in issuers}

    async def __call__(self, token: str, cluster: str, audiences: Sequence[str]) -> Identity | None:
        if not self._issuers or not jwt.looks_like_token(token):
            return None
        parsed = jwt.take_apart(token)
        found = self._issuers.get(str(parsed.claims.get("iss")))
        if found is None:
            return None
        issuer, ring = found
        claims = jwt.verify(parsed, await ring.keys(str(parsed.header.get("kid") or "")))
        jwt.check_times(claims, self._environment.now(), leeway=CLOCK_LEEWAY)
        if not set(jwt.audiences(claims)) & set(issuer.audiences):
            raise InvalidToken("the token is meant for another audience")
        try:
            user = user_of(claims, issuer)
        except UnusableClaims as error:
            raise InvalidToken(str(error)) from error
        try:
            expires = datetime.fromtimestamp(float(claims["exp"]), UTC)
        except (ValueError, OverflowError, OSError):
            raise InvalidToken("the token's expiry is out of range") from None
        return Identity(user, None, expires=expires)


def user_of(claims: Mapping[str, Any], issuer: Issuer) -> UserInfo:
    """The user that believed claims make. Raises UnusableClaims."""
    for check in issuer.claim_checks:
        if not check.holds({"claims": claims}):
            raise UnusableClaims(check.message)
    if issuer.username.claim == "email" and claims.get("email_verified", True) is not True:
        raise UnusableClaims("the e-mail address is not verified")
    names = issuer.username.texts(claims)
    if len(names) != 1:
        raise UnusableClaims("the claims name no user")
    uids = issuer.uid.texts(claims) if issuer.uid.is_set else []
    groups = issuer.groups.texts(claims) if issuer.groups.is_set else []
    if any(one.startswith(_RESERVED) for one in (*names, *groups)):
        raise UnusableClaims(f'the claims name a user or group that begins with "{_RESERVED}"')
    extra = {key: tuple(found) for key, mapped in issuer.extra if (found := mapped.texts(claims))}
    user = UserInfo(names[0], uids[0] if uids else "", tuple(dict.fromkeys(groups)), extra)
    for check in issuer.user_checks:
        if not check.holds({"user": _shown(user)}):
            raise UnusableClaims(check.message)
    return user


def _shown(user: UserInfo) -> Object:
    """The ``user`` variable of expressions: all its parts, also empty ones."""
    return {"username": user.name, "uid": user.uid, "groups": [], "extra": {}} | user.to_object()


class KeyRing:
    """The keys of one issuer, fetched when needed."""

    def __init__(self, issuer: Issuer, fetch: Fetch, environment: Environment) -> None:
        self._issuer = issuer
        self._fetch = fetch
        self._environment = environment
        self._keys: tuple[VerificationKey, ...] = ()
        self._fetched = float("-inf")
        self._tried = float("-inf")
        self._lock = asyncio.Lock()

    async def keys(self, key_id: str) -> tuple[VerificationKey, ...]:
        """What may have signed a token that names ``key_id``. Raises InvalidToken when no keys can be had."""
        if self._is_lacking(key_id):
            async with self._lock:
                if self._is_lacking(key_id):
                    await self._refresh()
        if not self._keys:
            raise InvalidToken("the issuer's keys cannot be fetched at the moment")
        return self._keys

    def _is_lacking(self, key_id: str) -> bool:
        now = self._environment.monotonic()
        if now - self._tried < RETRY_SECONDS:
            return False
        known = any(one.key_id == key_id for one in self._keys) if key_id else bool(self._keys)
        return not known or now - self._fetched >= KEY_SECONDS

    async def _refresh(self) -> None:
        self._tried = self._environment.monotonic()
        try:
            async with asyncio.timeout(FETCH_SECONDS):
                self._keys = await self._discover()
            self._fetched = self._environment.monotonic()
        except (OSError, TimeoutError, ValueError) as error:
            log.warning("the keys of the OpenID issuer %s cannot be fetched: %s", self._issuer.url, error)

    async def _discover(self) -> tuple[VerificationKey, ...]:
        issuer = self._issuer
        configuration = _document(await self._fetch(issuer.configuration_url, issuer.authority))
        if configuration.get("issuer") != issuer.url:
            raise ValueError("its discovery document names another issuer")
        address = str(configuration.get("jwks_uri") or "")
        if not address.startswith("https://"):
            raise ValueError("its jwks_uri is not https")
        listed = _document(await self._fetch(address, issuer.authority)).get("keys")
        found: list[VerificationKey] = []
        for one in listed[:MAX_KEYS] if isinstance(listed, list) else ():
            try:
                found.append(jwt.from_jwk(one))
            except (ValueError, AttributeError):
                continue  # providers publish keys for other purposes as well
        if not found:
            raise ValueError("it publishes no key that we can use")
        return tuple(found)


def _document(body: bytes) -> Mapping[str, Any]:
    if len(body) > MAX_DOCUMENT_BYTES:
        raise ValueError("its answer is too large")
    found = orjson.loads(body)
    if isinstance(found, dict):
        return found
    raise ValueError("its answer is not a JSON object")


async def fetch(url: str, authority: str) -> bytes:
    """GET over https, certified by ``authority`` (PEM) or the system's; no redirects, bounded in size. Raises OSError."""
    import aiohttp  # noqa: PLC0415  # only planes with an OpenID issuer ever need a client here

    context = ssl.create_default_context(cadata=authority or None)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    timeout = aiohttp.ClientTimeout(total=FETCH_SECONDS)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout, trust_env=True) as session,
            session.get(url, ssl=context, allow_redirects=False) as response,
        ):
            if response.status != 200:
                raise OSError(f"it answered {response.status}")
            body = bytearray()
            async for chunk in response.content.iter_chunked(65536):
                body += chunk
                if len(body) > MAX_DOCUMENT_BYTES:
                    raise OSError("its answer is too large")
            return bytes(body)
    except aiohttp.ClientError as error:
        raise OSError(str(error)) from error
