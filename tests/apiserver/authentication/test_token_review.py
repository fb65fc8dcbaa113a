"""TokenReview tells who a token is, for the audiences asked about, and why one is nobody."""

from __future__ import annotations

from typing import Any

import pytest

from fleetplane.apiserver.authentication.chain import Authenticator
from fleetplane.apiserver.authentication.service_account import DEFAULT_ISSUER, ServiceAccountTokens
from fleetplane.apiserver.authentication.token_review import review_token
from fleetplane.apiserver.pki import Pki
from fleetplane.model.errors import ApiError


@pytest.fixture
def accounts(pki: Pki, live: Any, clock: Any) -> ServiceAccountTokens:
    return ServiceAccountTokens(key=pki.service_account_key, reader=live, environment=clock)


@pytest.fixture
def chain(pki: Pki, clock: Any, accounts: ServiceAccountTokens) -> Authenticator:
    return Authenticator(pki, clock, [accounts], audiences_of=accounts.audiences_of)


async def status(chain: Authenticator, token: str, *audiences: str) -> dict[str, Any]:
    review = {"spec": {"token": token, "audiences": list(audiences)}}
    return dict((await review_token(review, chain))["status"])


async def test_a_good_token_is_somebody(chain: Authenticator, accounts: ServiceAccountTokens, live: Any) -> None:
    account = live.put("ServiceAccount", "a", "bot")
    token = (await accounts.issue_token("root", account, {"spec": {"audiences": ["vault"]}}))["status"]["token"]

    found = await status(chain, token, "vault", "other")

    assert found["authenticated"]
    assert found["user"]["username"] == "system:serviceaccount:a:bot"
    assert "system:authenticated" in found["user"]["groups"]
    assert found["audiences"] == ["vault"]


async def test_a_bad_token_is_nobody_and_told_why(
    chain: Authenticator, accounts: ServiceAccountTokens, live: Any
) -> None:
    account = live.put("ServiceAccount", "a", "bot")
    token = (await accounts.issue_token("root", account, {"spec": {"audiences": ["vault"]}}))["status"]["token"]

    found = await status(chain, token)

    assert found == {"user": {}, "error": "[invalid bearer token, the token is meant for another audience]"}
    assert "error" in await status(chain, "rubbish")


async def test_the_admins_token_is_for_this_api(chain: Authenticator, pki: Pki) -> None:
    assert (await status(chain, pki.admin_token))["audiences"] == [DEFAULT_ISSUER]
    assert (await status(chain, pki.admin_token, DEFAULT_ISSUER, "x"))["audiences"] == [DEFAULT_ISSUER]
    assert "error" in await status(chain, pki.admin_token, "vault")


async def test_a_review_without_a_token_is_a_mistake(chain: Authenticator) -> None:
    with pytest.raises(ApiError) as caught:
        await review_token({"spec": {}}, chain)
    assert caught.value.code == 400
