"""Each credential is somebody, in its own logical cluster, or 401; never somebody else."""

from __future__ import annotations

import base64
from datetime import timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID
from multidict import CIMultiDict

from fleetplane.apiserver.authentication.bootstrap import BootstrapTokens
from fleetplane.apiserver.authentication.chain import Authenticator
from fleetplane.apiserver.authentication.headers import impersonation_of
from fleetplane.apiserver.authentication.impersonation import impersonate
from fleetplane.apiserver.authentication.service_account import ServiceAccountTokens
from fleetplane.apiserver.authorization.attributes import NO_OPINION, Attributes, Decision, Verdict
from fleetplane.apiserver.certificates import Credential, Subject, issue, make_authority
from fleetplane.apiserver.http import Request
from fleetplane.apiserver.pki import Pki
from fleetplane.model.environment import timestamp
from fleetplane.model.errors import ApiError
from fleetplane.model.user import UserInfo


@pytest.fixture
def accounts(pki: Pki, live: Any, clock: Any) -> ServiceAccountTokens:
    return ServiceAccountTokens(key=pki.service_account_key, reader=live, environment=clock)


@pytest.fixture
def chain(pki: Pki, live: Any, clock: Any, accounts: ServiceAccountTokens) -> Authenticator:
    return Authenticator(pki, clock, [BootstrapTokens(live, clock), accounts])


def der(credential: Credential) -> bytes:
    return credential.certificate.public_bytes(serialization.Encoding.DER)


def shown(issuer: Credential, clock: Any, subject: Subject, **more: Any) -> bytes:
    key = ec.generate_private_key(ec.SECP256R1()).public_key()
    return issue(issuer, subject, key, clock, **more).public_bytes(serialization.Encoding.DER)


def get(
    path: str = "/api", *, token: str | None = None, headers: Any = None, certificate: bytes | None = None
) -> Request:
    found = headers if headers is not None else {}
    if token is not None:
        found = {**found, "authorization": f"Bearer {token}"}
    return Request("GET", path, headers=found, peer_certificate=certificate)


async def is_refused(chain: Authenticator, request: Request, cluster: str = "root") -> bool:
    with pytest.raises(ApiError) as caught:
        await chain.authenticate(request, cluster)
    return caught.value.code == 401 and caught.value.message == "Unauthorized"


# --- nobody -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/healthz", "/version", "/livez/ping"])
async def test_health_and_version_need_no_credential(chain: Authenticator, path: str) -> None:
    user = await chain.authenticate(get(path))

    assert (user.name, user.groups) == ("system:anonymous", ("system:unauthenticated",))


@pytest.mark.parametrize("path", ["/", "/api", "/livezz", "/versions", "/metrics"])
async def test_everything_else_does(chain: Authenticator, path: str) -> None:
    assert await is_refused(chain, get(path))


async def test_a_bad_credential_is_not_nobody(chain: Authenticator) -> None:
    assert await is_refused(chain, get("/livez", token="rubbish"))
    assert await is_refused(chain, get("/livez", headers={"authorization": "Bearer "}))


# --- certificates -----------------------------------------------------------------------------------------------------


async def test_the_admins_certificate_and_token_are_the_same_person(chain: Authenticator, pki: Pki) -> None:
    by_certificate = await chain.authenticate(get(certificate=der(pki.admin)))
    by_token = await chain.authenticate(get(token=pki.admin_token))

    assert by_certificate == by_token
    assert by_token.name == "kubernetes-admin"
    assert by_token.groups == ("system:masters", "system:authenticated")


async def test_a_certificate_is_good_in_its_own_cluster_only(chain: Authenticator, pki: Pki, clock: Any) -> None:
    ann = get(certificate=shown(pki.authority, clock, Subject("ann", groups=("system:masters",), cluster="c1")))

    assert (await chain.authenticate(ann, "c1")).name == "ann"
    assert await is_refused(chain, ann, "root")
    assert await is_refused(chain, ann, "c2")


async def test_only_the_planes_administrators_cross_into_other_clusters(
    chain: Authenticator, pki: Pki, clock: Any
) -> None:
    bob = get(certificate=shown(pki.authority, clock, Subject("bob", groups=("dev",))))

    assert (await chain.authenticate(get(token=pki.admin_token), "c1")).name == "kubernetes-admin"
    assert (await chain.authenticate(bob)).groups == ("dev", "system:authenticated")
    assert await is_refused(chain, bob, "c1")


async def test_strange_expired_and_serving_certificates_are_nobody(chain: Authenticator, pki: Pki, clock: Any) -> None:
    stranger = make_authority("fleetplane-ca", clock)
    short = shown(pki.authority, clock, Subject("ann"), lifetime=timedelta(hours=1))
    serving = Subject("ann", usages=(ExtendedKeyUsageOID.SERVER_AUTH,))
    assert (await chain.authenticate(get(certificate=short))).name == "ann"

    clock.advance(3601)

    assert await is_refused(chain, get(certificate=short))
    assert await is_refused(chain, get(certificate=shown(stranger, clock, Subject("ann"))))
    assert await is_refused(chain, get(certificate=shown(pki.authority, clock, serving)))
    assert await is_refused(chain, get(certificate=b"\x30\x03abc"))


async def test_a_renewed_looking_authority_of_the_same_name_does_not_count(
    chain: Authenticator, pki: Pki, clock: Any
) -> None:
    impostor = Credential(pki.authority.certificate, ec.generate_private_key(ec.SECP256R1()))

    assert await is_refused(chain, get(certificate=shown(impostor, clock, Subject("ann", groups=("system:masters",)))))


# --- front proxy ------------------------------------------------------------------------------------------------------


async def test_a_front_proxy_speaks_for_users(chain: Authenticator, pki: Pki) -> None:
    headers = CIMultiDict(
        [
            ("x-remote-user", "ann"),
            ("x-remote-group", "dev"),
            ("x-remote-group", "ops"),
            ("x-remote-extra-acme.com%2fproject", "p"),
        ]
    )

    user = await chain.authenticate(get(certificate=der(pki.front_proxy_client), headers=headers))

    assert (user.name, user.groups) == ("ann", ("dev", "ops", "system:authenticated"))
    assert user.extra == {"acme.com/project": ("p",)}


async def test_nobody_else_does(chain: Authenticator, pki: Pki, clock: Any) -> None:
    headers = {"x-remote-user": "root", "x-remote-group": "system:masters"}
    other_name = shown(pki.front_proxy_authority, clock, Subject("proxy"))
    user_certificate = shown(pki.authority, clock, Subject("front-proxy-client"))

    assert await is_refused(chain, get(headers=headers))
    assert await is_refused(chain, get(headers=headers, certificate=other_name))
    assert (await chain.authenticate(get(headers=headers, certificate=user_certificate))).name == "front-proxy-client"
    assert await is_refused(chain, get(certificate=der(pki.front_proxy_client)))


# --- tokens -----------------------------------------------------------------------------------------------------------


async def test_a_token_is_checked_once_and_remembered_for_a_while(
    chain: Authenticator, accounts: ServiceAccountTokens, live: Any, clock: Any
) -> None:
    account = live.put("ServiceAccount", "a", "bot")
    token = (await accounts.issue_token("root", account, {}))["status"]["token"]
    await chain.authenticate(get(token=token))
    reads = live.reads

    await chain.authenticate(get(token=token))
    assert live.reads == reads

    clock.advance(11)
    await chain.authenticate(get(token=token))
    assert live.reads > reads


async def test_a_deletion_event_ends_a_remembered_token_at_once(
    chain: Authenticator, accounts: ServiceAccountTokens, live: Any
) -> None:
    account = live.put("ServiceAccount", "a", "bot")
    token = (await accounts.issue_token("root", account, {}))["status"]["token"]
    await chain.authenticate(get(token=token))

    chain.apply_event("root", live.remove("ServiceAccount", "a", "bot"), deleted=True)

    assert await is_refused(chain, get(token=token))


async def test_a_token_never_outlives_its_expiry_in_memory(
    chain: Authenticator, accounts: ServiceAccountTokens, live: Any, clock: Any
) -> None:
    account = live.put("ServiceAccount", "a", "bot")
    token = (await accounts.issue_token("root", account, {"spec": {"expirationSeconds": 600}}))["status"]["token"]
    clock.advance(595)
    await chain.authenticate(get(token=token))

    clock.advance(6)

    assert await is_refused(chain, get(token=token))


async def test_browsers_may_send_the_token_as_a_websocket_protocol(chain: Authenticator, pki: Pki) -> None:
    encoded = base64.urlsafe_b64encode(pki.admin_token.encode()).rstrip(b"=").decode()
    headers = {"sec-websocket-protocol": f"v5.channel.k8s.io, base64url.bearer.authorization.k8s.io.{encoded}"}

    assert (await chain.authenticate(get(headers=headers))).name == "kubernetes-admin"


def bootstrap_secret(live: Any, **change: str | None) -> None:
    data: dict[str, str | None] = {
        "token-id": "abcdef", "token-secret": "0123456789abcdef", "usage-bootstrap-authentication": "true",
        "auth-extra-groups": "system:bootstrappers:edge",
    }  # fmt: skip
    encoded = {k: base64.b64encode(v.encode()).decode() for k, v in (data | change).items() if v is not None}
    live.put("Secret", "kube-system", "bootstrap-token-abcdef", type="bootstrap.kubernetes.io/token", data=encoded)


BOOTSTRAP = "abcdef.0123456789abcdef"


async def test_a_bootstrap_token_introduces_a_machine(chain: Authenticator, live: Any, clock: Any) -> None:
    bootstrap_secret(live, expiration=timestamp(clock.now() + timedelta(hours=1)))

    user = await chain.authenticate(get(token=BOOTSTRAP))

    assert user.name == "system:bootstrap:abcdef"
    assert user.groups == ("system:bootstrappers", "system:bootstrappers:edge", "system:authenticated")


@pytest.mark.parametrize(
    "change",
    [
        {"token-secret": "x123456789abcdef"},
        {"token-id": "fedcba"},
        {"usage-bootstrap-authentication": None},
        {"usage-bootstrap-authentication": "false"},
        {"auth-extra-groups": "system:masters"},
        {"expiration": "2020-01-01T00:00:00Z"},
        {"expiration": "soon"},
    ],
)
async def test_other_bootstrap_tokens_are_refused(
    chain: Authenticator, live: Any, change: dict[str, str | None]
) -> None:
    bootstrap_secret(live, **change)

    assert await is_refused(chain, get(token=BOOTSTRAP))


async def test_a_bootstrap_token_is_one_clusters(chain: Authenticator, live: Any) -> None:
    bootstrap_secret(live)

    assert await is_refused(chain, get(token=BOOTSTRAP), "c1")


async def test_an_in_process_caller_is_who_it_says(chain: Authenticator) -> None:
    request = get()
    request.in_process_user = UserInfo("system:serviceaccount:kube-system:deployment-controller")

    assert (await chain.authenticate(request, "c1")).name.endswith("deployment-controller")


# --- impersonation ----------------------------------------------------------------------------------------------------


def allow(*parts: tuple[str, str]) -> Any:
    def authorizer(a: Attributes) -> Decision:
        assert (a.verb, a.user.name) == ("impersonate", "admin")
        return Decision(Verdict.ALLOW) if (a.full_resource, a.name) in parts else NO_OPINION

    return authorizer


ADMIN = UserInfo("admin", groups=("system:masters",))


def test_each_part_of_an_impersonation_is_asked_for() -> None:
    headers = CIMultiDict(
        [
            ("Impersonate-User", "ann"),
            ("Impersonate-Group", "dev"),
            ("Impersonate-Extra-Scopes", "x"),
            ("Impersonate-Uid", "7"),
        ]
    )
    wanted = impersonation_of(headers)
    assert wanted is not None
    everything = [("users", "ann"), ("groups", "dev"), ("userextras/scopes", "x"), ("uids", "7")]

    user = impersonate(ADMIN, wanted, allow(*everything), "root")

    assert user == UserInfo("ann", "7", ("dev", "system:authenticated"), {"scopes": ("x",)})
    for missing in everything:
        with pytest.raises(ApiError, match="cannot impersonate"):
            impersonate(ADMIN, wanted, allow(*(one for one in everything if one != missing)), "root")


def test_an_impersonated_service_account_has_its_groups() -> None:
    wanted = impersonation_of({"impersonate-user": "system:serviceaccount:a:bot"})
    assert wanted is not None

    user = impersonate(ADMIN, wanted, allow(("serviceaccounts", "bot")), "root")

    assert user.groups == ("system:serviceaccounts", "system:serviceaccounts:a", "system:authenticated")


def test_impersonated_nobody_is_not_authenticated() -> None:
    wanted = impersonation_of({"impersonate-user": "system:anonymous"})
    assert wanted is not None

    assert impersonate(ADMIN, wanted, allow(("users", "system:anonymous")), "root").groups == (
        "system:unauthenticated",
    )


def test_a_group_alone_is_a_mistake() -> None:
    assert impersonation_of({}) is None
    with pytest.raises(ApiError) as caught:
        impersonation_of({"impersonate-group": "dev"})
    assert caught.value.code == 400
