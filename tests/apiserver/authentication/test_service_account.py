"""ServiceAccount tokens live and die with what they are bound to, and stay inside their logical cluster."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from fleetplane.apiserver.authentication import jwt
from fleetplane.apiserver.authentication.service_account import DEFAULT_ISSUER, ServiceAccountTokens
from fleetplane.model.environment import timestamp
from fleetplane.model.errors import ApiError

KEY = ec.generate_private_key(ec.SECP256R1())


@pytest.fixture
def tokens(live: Any, clock: Any) -> ServiceAccountTokens:
    live.put("ServiceAccount", "a", "bot")
    live.put("Pod", "a", "web", spec={"serviceAccountName": "bot", "nodeName": "n1"})
    live.put("Node", "", "n1")
    return ServiceAccountTokens(key=KEY, reader=live, environment=clock)


async def issued(tokens: ServiceAccountTokens, live: Any, cluster: str = "root", **spec: Any) -> str:
    account = live.held[cluster, "ServiceAccount", "a", "bot"]
    answer = await tokens.issue_token(cluster, account, {"spec": spec})
    return str(answer["status"]["token"])


POD = {"kind": "Pod", "apiVersion": "v1", "name": "web"}


async def test_an_issued_token_names_its_account(tokens: ServiceAccountTokens, live: Any) -> None:
    found = await tokens(await issued(tokens, live), "root", ())

    assert found is not None
    assert found.user.name == "system:serviceaccount:a:bot"
    assert found.user.uid == "uid-of-serviceaccount-bot"
    assert found.user.groups == ("system:serviceaccounts", "system:serviceaccounts:a", "system:authenticated")
    assert found.audiences == (DEFAULT_ISSUER,)
    assert found.user.extra["authentication.kubernetes.io/credential-id"][0].startswith("JTI=")


async def test_a_pods_token_tells_pod_and_node(tokens: ServiceAccountTokens, live: Any) -> None:
    found = await tokens(await issued(tokens, live, boundObjectRef=POD), "root", ())

    assert found is not None
    extra = found.user.extra
    assert extra["authentication.kubernetes.io/pod-name"] == ("web",)
    assert extra["authentication.kubernetes.io/node-name"] == ("n1",)
    assert extra["authentication.kubernetes.io/node-uid"] == ("uid-of-node-n1",)


async def test_the_answer_is_the_defaulted_request(tokens: ServiceAccountTokens, live: Any, clock: Any) -> None:
    account = live.held["root", "ServiceAccount", "a", "bot"]

    answer = await tokens.issue_token("root", account, {"spec": {"boundObjectRef": POD}})

    assert answer["kind"] == "TokenRequest"
    assert answer["spec"] == {"boundObjectRef": POD, "audiences": [DEFAULT_ISSUER], "expirationSeconds": 3600}
    clock.advance(3600)
    assert answer["status"]["expirationTimestamp"] == timestamp(clock.now())


async def refused(tokens: ServiceAccountTokens, token: str, cluster: str = "root", audiences: Any = ()) -> str:
    with pytest.raises(jwt.InvalidToken) as caught:
        await tokens(token, cluster, audiences)
    assert token not in str(caught.value)
    return str(caught.value)


async def test_an_expired_token_is_refused(tokens: ServiceAccountTokens, live: Any, clock: Any) -> None:
    token = await issued(tokens, live, expirationSeconds=600)
    clock.advance(599)
    assert await tokens(token, "root", ())

    clock.advance(1)

    assert "expired" in await refused(tokens, token)


@pytest.mark.parametrize("gone", [("ServiceAccount", "a", "bot"), ("Pod", "a", "web")])
async def test_a_token_ends_with_its_objects(
    tokens: ServiceAccountTokens, live: Any, gone: tuple[str, str, str]
) -> None:
    token = await issued(tokens, live, boundObjectRef=POD)

    live.remove(*gone)

    assert "no longer exists" in await refused(tokens, token)


async def test_a_new_object_of_the_same_name_does_not_revive_a_token(tokens: ServiceAccountTokens, live: Any) -> None:
    token = await issued(tokens, live, boundObjectRef=POD)

    live.put("Pod", "a", "web", metadata={"uid": "another"})

    assert "no longer exists" in await refused(tokens, token)


async def test_a_pod_on_its_way_out_vouches_for_a_minute_more(
    tokens: ServiceAccountTokens, live: Any, clock: Any
) -> None:
    token = await issued(tokens, live, boundObjectRef=POD)
    live.held["root", "Pod", "a", "web"]["metadata"]["deletionTimestamp"] = timestamp(clock.now())
    clock.advance(59)
    assert await tokens(token, "root", ())

    clock.advance(3)

    assert "deleted" in await refused(tokens, token)


async def test_audiences_must_meet(tokens: ServiceAccountTokens, live: Any) -> None:
    token = await issued(tokens, live, audiences=["vault", "db"])

    assert "audience" in await refused(tokens, token)
    found = await tokens(token, "root", ["db", "other"])
    assert found is not None
    assert found.audiences == ("db",)


async def test_another_key_is_refused(tokens: ServiceAccountTokens, live: Any, clock: Any) -> None:
    other = ServiceAccountTokens(key=ec.generate_private_key(ec.SECP256R1()), reader=live, environment=clock)

    assert "signature" in await refused(tokens, await issued(other, live))


async def test_a_former_key_still_verifies(tokens: ServiceAccountTokens, live: Any, clock: Any) -> None:
    token = await issued(tokens, live)
    rotated = ServiceAccountTokens(
        key=ec.generate_private_key(ec.SECP256R1()), reader=live, environment=clock, former_keys=[KEY.public_key()]
    )

    assert await rotated(token, "root", ())
    assert [key["kid"] for key in rotated.jwks()["keys"]] == [key.key_id for key in rotated.keys]


async def test_one_clusters_token_is_no_other_clusters(tokens: ServiceAccountTokens, live: Any) -> None:
    live.put("ServiceAccount", "a", "bot", cluster="c1")
    ours, theirs = await issued(tokens, live), await issued(tokens, live, "c1")

    assert await tokens(theirs, "c1", ())
    assert "another logical cluster" in await refused(tokens, ours, "c1")
    assert "another logical cluster" in await refused(tokens, theirs, "root")


async def test_tokens_of_other_issuers_are_left_to_others(tokens: ServiceAccountTokens) -> None:
    assert await tokens(jwt.sign({"iss": "https://idp"}, KEY, "k"), "root", ()) is None
    assert await tokens("not-a-jwt", "root", ()) is None


async def test_a_signed_token_with_twisted_claims_is_refused(tokens: ServiceAccountTokens, clock: Any) -> None:
    base = {"iss": DEFAULT_ISSUER, "aud": [DEFAULT_ISSUER], "exp": clock.now().timestamp() + 60}
    for private in (None, {}, {"namespace": "a"}, {"namespace": "a", "serviceaccount": {"name": "bot", "uid": "x"}}):
        token = jwt.sign(base | {"sub": "system:serviceaccount:a:bot", "kubernetes.io": private}, KEY, "")
        assert await refused(tokens, token)


async def test_a_legacy_token_lives_while_its_secret_holds_it(tokens: ServiceAccountTokens, live: Any) -> None:
    account = live.held["root", "ServiceAccount", "a", "bot"]
    token = tokens.legacy_token("root", account, "bot-token")
    assert "removed" in await refused(tokens, token)

    live.put("Secret", "a", "bot-token", data={"token": base64.b64encode(token.encode()).decode()})

    found = await tokens(token, "root", ())
    assert found is not None
    assert found.user.name == "system:serviceaccount:a:bot"
    assert "another logical cluster" in await refused(tokens, token, "c1")


@pytest.mark.parametrize("seconds", [599, 1 << 33, "600", True, 600.5])
async def test_bad_durations_are_refused_with_their_field(
    tokens: ServiceAccountTokens, live: Any, seconds: Any
) -> None:
    with pytest.raises(ApiError) as caught:
        await issued(tokens, live, expirationSeconds=seconds)

    assert caught.value.code == 422
    assert caught.value.causes[0].field == "spec.expirationSeconds"


@pytest.mark.parametrize(
    ("ref", "code"),
    [
        ({"kind": "Pod", "apiVersion": "v1", "name": "none"}, 404),
        ({"kind": "Pod", "apiVersion": "v1", "name": "web", "uid": "old"}, 409),
        ({"kind": "Pod", "apiVersion": "v1", "name": "other"}, 400),
        ({"kind": "Deployment", "apiVersion": "apps/v1", "name": "web"}, 400),
    ],
)
async def test_a_token_is_bound_only_to_what_is_there(
    tokens: ServiceAccountTokens, live: Any, ref: dict[str, str], code: int
) -> None:
    live.put("Pod", "a", "other", spec={"serviceAccountName": "somebody"})

    with pytest.raises(ApiError) as caught:
        await issued(tokens, live, boundObjectRef=ref)

    assert caught.value.code == code


def test_the_issuer_is_published(tokens: ServiceAccountTokens) -> None:
    shown = tokens.openid_configuration("root", "https://plane/openid/v1/jwks")

    assert shown["issuer"] == DEFAULT_ISSUER
    assert jwt.from_jwk(tokens.jwks()["keys"][0]) == tokens.keys[0]
