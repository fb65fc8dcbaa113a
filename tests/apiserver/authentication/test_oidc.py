"""Somebody else's identity provider names users: only those we trust, only as we map them."""

from __future__ import annotations

import json
import ssl
from typing import Any

import pytest
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import ec

from fleetplane.apiserver.authentication import jwt
from fleetplane.apiserver.authentication.chain import Authenticator
from fleetplane.apiserver.authentication.oidc import OidcTokens, fetch
from fleetplane.apiserver.authentication.oidc_settings import Issuer, read_issuers, simple_issuer
from fleetplane.apiserver.http import Request
from fleetplane.apiserver.pki import Pki

Obj = dict[str, Any]
URL = "https://idp.example"
KEY, NEXT = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())


class Provider:
    """An identity provider in a dict: what it publishes, and how often it was asked."""

    def __init__(self) -> None:
        self.keys = {"k1": KEY}
        self.issuer = URL
        self.is_down = False
        self.asked = 0

    async def fetch(self, url: str, authority: str) -> bytes:
        self.asked += 1
        if self.is_down:
            raise OSError("connection refused")
        if url == URL + "/.well-known/openid-configuration":
            return json.dumps({"issuer": self.issuer, "jwks_uri": URL + "/keys"}).encode()
        assert url == URL + "/keys"
        jwks = [jwt.to_jwk(jwt.verification_key(key.public_key(), kid)) for kid, key in self.keys.items()]
        return json.dumps({"keys": [{"kty": "oct", "k": "x"}, *jwks]}).encode()


def issuers(**change: Any) -> tuple[Issuer, ...]:
    entry: Obj = {
        "issuer": {"url": URL, "audiences": ["plane"]},
        "claimMappings": {
            "username": {"claim": "sub", "prefix": "idp:"},
            "groups": {"claim": "groups", "prefix": "idp:"},
        },
    }
    mappings = change.pop("claimMappings", {})
    entry = {**entry, **change, "claimMappings": {**entry["claimMappings"], **mappings}}
    kind = {"apiVersion": "apiserver.config.k8s.io/v1", "kind": "AuthenticationConfiguration"}
    return read_issuers({**kind, "jwt": [entry]})


@pytest.fixture
def provider() -> Provider:
    return Provider()


@pytest.fixture
def tokens(provider: Provider, clock: Any) -> OidcTokens:
    return OidcTokens(issuers(), provider.fetch, clock)


def token(clock: Any, key: Any = KEY, kid: str = "k1", **claims: Any) -> str:
    base = {"iss": URL, "aud": "plane", "sub": "ann", "groups": ["dev"], "exp": int(clock.now().timestamp()) + 300}
    return jwt.sign({k: v for k, v in (base | claims).items() if v is not None}, key, kid)


async def why_not(tokens: OidcTokens, one: str) -> str:
    with pytest.raises(jwt.InvalidToken) as caught:
        await tokens(one, "root", ())
    return str(caught.value)


async def test_claims_become_a_user(tokens: OidcTokens, clock: Any) -> None:
    found = await tokens(token(clock), "c1", ())

    assert found is not None
    assert (found.user.name, found.user.groups, found.cluster) == ("idp:ann", ("idp:dev",), None)


async def test_the_chain_takes_them_in_any_cluster(tokens: OidcTokens, pki: Pki, clock: Any) -> None:
    chain = Authenticator(pki, clock, [tokens])

    user = await chain.authenticate(Request("GET", "/api", headers={"authorization": f"Bearer {token(clock)}"}), "c1")

    assert user.groups == ("idp:dev", "system:authenticated")


@pytest.mark.parametrize(
    ("claims", "why"),
    [
        ({"aud": "other"}, "audience"),
        ({"aud": None}, "audience"),
        ({"exp": 1}, "expired"),
        ({"exp": None}, "never expires"),
        ({"sub": None}, "no user"),
        ({"sub": ""}, "no user"),
        ({"sub": {"a": 1}}, "neither"),
        ({"groups": [1]}, "neither"),
    ],
)
async def test_tokens_that_make_no_user(tokens: OidcTokens, clock: Any, claims: Obj, why: str) -> None:
    assert why in await why_not(tokens, token(clock, **claims))


async def test_other_issuers_and_keys(tokens: OidcTokens, clock: Any) -> None:
    assert await tokens(token(clock, iss="https://elsewhere"), "root", ()) is None
    assert "signature" in await why_not(tokens, token(clock, key=NEXT))


async def test_system_names_are_ours_to_give(provider: Provider, clock: Any) -> None:
    open_door = issuers(
        claimMappings={"username": {"claim": "sub", "prefix": ""}, "groups": {"claim": "groups", "prefix": ""}}
    )
    tokens = OidcTokens(open_door, provider.fetch, clock)

    assert "system:" in await why_not(tokens, token(clock, groups=["system:masters"]))
    assert "system:" in await why_not(tokens, token(clock, sub="system:admin"))


async def test_an_unverified_address_is_nobody(provider: Provider, clock: Any) -> None:
    tokens = OidcTokens(issuers(claimMappings={"username": {"claim": "email", "prefix": ""}}), provider.fetch, clock)

    assert "not verified" in await why_not(tokens, token(clock, email="a@b.c", email_verified=False))
    found = await tokens(token(clock, email="a@b.c", email_verified=True), "root", ())
    assert found is not None
    assert found.user.name == "a@b.c"


async def test_expressions_map_and_check(provider: Provider, clock: Any) -> None:
    configured = issuers(
        claimMappings={
            "username": {"expression": "'x:' + claims.sub"},
            "groups": {"expression": "claims.teams.map(t, 'team:' + t.name)"},
            "uid": {"claim": "oid"},
            "extra": [{"key": "acme.com/tenant", "valueExpression": "claims.tenant"}],
        },
        claimValidationRules=[{"expression": "claims.tenant == 'acme'", "message": "wrong tenant"}],
        userValidationRules=[{"expression": "!user.username.startsWith('x:root')", "message": "no roots"}],
    )
    tokens = OidcTokens(configured, provider.fetch, clock)
    more: Obj = {"teams": [{"name": "a"}, {"name": "b"}], "oid": "7", "tenant": "acme"}

    found = await tokens(token(clock, **more), "root", ())

    assert found is not None
    user = found.user
    assert (user.name, user.uid, user.groups) == ("x:ann", "7", ("team:a", "team:b"))
    assert user.extra == {"acme.com/tenant": ("acme",)}
    assert await why_not(tokens, token(clock, **more | {"tenant": "other"})) == "wrong tenant"
    assert await why_not(tokens, token(clock, **more | {"sub": "root2"})) == "no roots"
    assert "cannot be evaluated" in await why_not(tokens, token(clock, **more | {"teams": 3}))


async def test_required_claim_values(provider: Provider, clock: Any) -> None:
    tokens = OidcTokens(issuers(claimValidationRules=[{"claim": "hd", "requiredValue": "acme"}]), provider.fetch, clock)

    assert await tokens(token(clock, hd="acme"), "root", ())
    assert '"hd"' in await why_not(tokens, token(clock, hd="other"))


# --- keys -------------------------------------------------------------------------------------------------------------


async def test_keys_are_fetched_once_and_again_when_they_rotate(
    tokens: OidcTokens, provider: Provider, clock: Any
) -> None:
    for _ in range(3):
        await tokens(token(clock), "root", ())
    assert provider.asked == 2

    clock.advance(11)
    provider.keys = {"k2": NEXT}
    assert await tokens(token(clock, key=NEXT, kid="k2"), "root", ())
    assert provider.asked == 4


async def test_nobody_can_make_us_fetch_without_end(tokens: OidcTokens, provider: Provider, clock: Any) -> None:
    for number in range(20):
        await why_not(tokens, token(clock, key=NEXT, kid=f"made-up-{number}"))

    assert provider.asked == 2


async def test_a_provider_that_is_down_takes_nobody_away(tokens: OidcTokens, provider: Provider, clock: Any) -> None:
    await tokens(token(clock), "root", ())
    provider.is_down = True
    clock.advance(7200)

    assert await tokens(token(clock), "root", ())


async def test_without_keys_nobody_is_believed(tokens: OidcTokens, provider: Provider, clock: Any) -> None:
    provider.is_down = True
    assert "cannot be fetched" in await why_not(tokens, token(clock))
    provider.is_down = False
    provider.issuer = "https://impostor"
    clock.advance(11)

    assert "cannot be fetched" in await why_not(tokens, token(clock))


async def test_documents_come_over_verified_https_without_redirects(pki: Pki) -> None:
    async def answer(request: web.Request) -> web.Response:
        if request.path == "/moved":
            raise web.HTTPFound("/keys")
        return web.Response(body=b"x" * (2**21 if request.path == "/huge" else 5))

    app = web.Application()
    app.router.add_get("/{tail:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(pki.directory / "serving.pem")
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
    await site.start()
    try:
        base = f"https://127.0.0.1:{runner.addresses[0][1]}"
        assert await fetch(base + "/keys", pki.authority_pem.decode()) == b"xxxxx"
        for url, authority in (
            (base + "/keys", ""),
            (base + "/moved", pki.authority_pem.decode()),
            (base + "/huge", pki.authority_pem.decode()),
        ):
            with pytest.raises(OSError, match=r".+"):
                await fetch(url, authority)
    finally:
        await runner.cleanup()


# --- settings ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"issuer": {"url": "http://idp", "audiences": ["a"]}}, "https"),
        ({"issuer": {"url": "https://u:p@idp", "audiences": ["a"]}}, "https"),
        ({"issuer": {"url": URL}}, "audiences"),
        ({"issuer": {"url": URL, "audiences": ["a", "b"]}}, "MatchAny"),
        ({"issuer": {"url": URL, "audiences": ["a"], "discoveryURL": URL}}, "discoveryURL"),
        ({"claimMappings": {"username": {}}}, "username"),
        ({"claimMappings": {"username": {"claim": "sub"}}}, "prefix"),
        ({"claimMappings": {"username": {"claim": "sub", "prefix": "", "expression": "claims.sub"}}}, "both"),
        ({"claimMappings": {"username": {"expression": "claims.("}}}, "no usable expression"),
        ({"claimMappings": {"extra": [{"key": "Bad", "valueExpression": "'x'"}]}}, "key"),
        ({"claimMappings": {"extra": [{"key": "authentication.kubernetes.io/x", "valueExpression": "'x'"}]}}, "key"),
        ({"claimValidationRules": [{}]}, "expression or a claim"),
        ({"userValidationRules": [{"claim": "x"}]}, "needs an expression"),
    ],
)  # fmt: skip
def test_bad_settings_are_refused_by_field(change: Obj, field: str) -> None:
    with pytest.raises(ValueError, match=field):
        issuers(**change)


def test_the_short_form_prefixes_names_with_the_issuer() -> None:
    assert simple_issuer(URL, "plane").username.prefix == URL + "#"
    assert simple_issuer(URL, "plane", username_claim="email").username.prefix == ""
    assert simple_issuer(URL, "plane", username_prefix="-").username.prefix == ""
