"""Logical clusters: an API of its own for the price of its objects, and nothing of it left afterwards."""

from __future__ import annotations

import asyncio
import base64
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from fleetplane.apiserver.http import Request
from fleetplane.model.objects import Object
from fleetplane.model.user import UserInfo
from fleetplane.testing.plane import TestServer

CLUSTERS = "/apis/fleetplane.io/v1alpha1/logicalclusters"


async def opened(api: TestServer, name: str) -> Object:
    code, made = await api.call("POST", CLUSTERS, {"metadata": {"name": name}})
    assert code == 201, made
    async with asyncio.timeout(5):
        while True:
            _, found = await api.call("GET", f"{CLUSTERS}/{name}")
            if (found.get("status") or {}).get("phase") == "Ready":
                return found
            await asyncio.sleep(0.001)


async def closed(api: TestServer, name: str) -> None:
    await api.call("DELETE", f"{CLUSTERS}/{name}")
    async with asyncio.timeout(5):
        while (await api.call("GET", f"{CLUSTERS}/{name}"))[0] != 404:
            await asyncio.sleep(0.001)


async def names(api: TestServer, path: str) -> list[str]:
    _, found = await api.call("GET", path)
    return [one["metadata"]["name"] for one in found["items"]]


async def test_a_new_cluster_has_its_default_namespaces(api: TestServer) -> None:
    cluster = await opened(api, "one")

    assert cluster["status"]["path"] == "/clusters/one"
    assert await names(api, "/clusters/one/api/v1/namespaces") == ["default", "kube-public", "kube-system"]


async def test_a_cluster_and_its_namespaces_come_into_being_together(api: TestServer) -> None:
    code, made = await api.call("POST", CLUSTERS, {"metadata": {"name": "one"}})

    assert (code, made["status"]) == (201, {"phase": "Ready", "path": "/clusters/one"})
    assert await names(api, "/clusters/one/api/v1/namespaces") == ["default", "kube-public", "kube-system"]


async def test_of_many_who_make_a_cluster_of_one_name_one_succeeds_and_the_name_is_free_again_afterwards(
    api: TestServer,
) -> None:
    body = {"metadata": {"name": "one"}}

    codes = [code for code, _ in await asyncio.gather(*(api.call("POST", CLUSTERS, body) for _ in range(8)))]

    assert sorted(codes) == [201, *[409] * 7]
    await closed(api, "one")
    assert (await api.call("POST", CLUSTERS, body))[0] == 201
    assert await names(api, "/clusters/one/api/v1/namespaces") == ["default", "kube-public", "kube-system"]


async def test_objects_of_one_cluster_are_not_seen_in_another(api: TestServer) -> None:
    await opened(api, "one")
    await opened(api, "two")
    body = {"metadata": {"name": "a"}}

    await api.call("POST", "/clusters/one/api/v1/namespaces/default/configmaps", body)

    assert await names(api, "/clusters/one/api/v1/configmaps") == ["a"]
    assert await names(api, "/clusters/two/api/v1/configmaps") == []
    assert await names(api, "/api/v1/configmaps") == []


async def test_a_cluster_that_does_not_exist_is_404(api: TestServer) -> None:
    code, status = await api.call("GET", "/clusters/none/api/v1/namespaces")

    assert (code, status["message"]) == (404, 'logicalclusters.fleetplane.io "none" not found')


async def test_a_deleted_cluster_takes_its_objects_along(api: TestServer) -> None:
    await opened(api, "one")
    await api.call("POST", "/clusters/one/api/v1/namespaces/default/configmaps", {"metadata": {"name": "a"}})

    await closed(api, "one")

    assert (await api.call("GET", "/clusters/one/api/v1/configmaps"))[0] == 404
    assert await names(api, "/clusters/*/api/v1/configmaps") == []


async def test_a_name_used_again_brings_nothing_back(api: TestServer) -> None:
    await opened(api, "one")
    await api.call("POST", "/clusters/one/api/v1/namespaces/default/configmaps", {"metadata": {"name": "a"}})
    await closed(api, "one")

    await opened(api, "one")

    assert await names(api, "/clusters/one/api/v1/configmaps") == []


async def test_only_the_root_cluster_makes_clusters(api: TestServer) -> None:
    await opened(api, "one")

    code, _ = await api.call("POST", f"/clusters/one{CLUSTERS}", {"metadata": {"name": "two"}})

    assert code == 403


async def test_custom_kinds_belong_to_the_cluster_that_defines_them(api: TestServer) -> None:
    await opened(api, "one")
    definition = {
        "metadata": {"name": "widgets.example.com"},
        "spec": {
            "group": "example.com",
            "scope": "Namespaced",
            "names": {"plural": "widgets", "kind": "Widget"},
            "versions": [
                {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": {"type": "object"}}}
            ],
        },
    }

    code, _ = await api.call("POST", "/clusters/one/apis/apiextensions.k8s.io/v1/customresourcedefinitions", definition)

    assert code == 201
    assert (await api.call("GET", "/clusters/one/apis/example.com/v1/widgets"))[0] == 200
    assert (await api.call("GET", "/apis/example.com/v1/widgets"))[0] == 404


# -- credentials


def signing_request(name: str = "anybody") -> tuple[ec.EllipticCurvePrivateKey, str]:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    made = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
    return key, base64.b64encode(made.public_bytes(serialization.Encoding.PEM)).decode()


async def certificate(api: TestServer, cluster: str, **spec: object) -> x509.Certificate:
    body = {"spec": {"request": signing_request()[1], **spec}}
    code, answer = await api.call("POST", f"{CLUSTERS}/{cluster}/credentials", body)
    assert code == 201, answer
    return x509.load_pem_x509_certificate(base64.b64decode(answer["status"]["certificate"]))


async def as_holder(api: TestServer, cert: x509.Certificate, path: str) -> int:
    """The answer to a GET over a connection that showed the certificate."""
    der = cert.public_bytes(serialization.Encoding.DER)
    return (await api.server.handle(Request("GET", path, {}, {}, {}, b"", der, "test", None))).status


async def test_credentials_open_their_own_cluster_and_no_other(api: TestServer) -> None:
    await opened(api, "one")
    await opened(api, "two")

    cert = await certificate(api, "one")

    assert await as_holder(api, cert, "/clusters/one/api/v1/secrets") == 200
    for other in ("/clusters/two/api/v1/secrets", "/clusters/root/api/v1/secrets", "/clusters/*/api/v1/secrets"):
        assert await as_holder(api, cert, other) == 401


async def test_credentials_of_a_dead_cluster_mean_nothing_to_its_successor(api: TestServer) -> None:
    await opened(api, "one")
    cert = await certificate(api, "one")
    await closed(api, "one")

    await opened(api, "one")

    assert await as_holder(api, cert, "/clusters/one/api/v1/secrets") == 401


async def test_a_name_is_free_as_soon_as_its_cluster_has_gone(api: TestServer) -> None:
    """Also while the server's own view of its clusters is a moment behind."""
    uids = set()
    for _ in range(30):
        uids.add((await opened(api, "one"))["metadata"]["uid"])
        await closed(api, "one")

    assert len(uids) == 30


async def test_credentials_last_as_long_as_asked_for(api: TestServer) -> None:
    await opened(api, "one")

    cert = await certificate(api, "one", expirationSeconds=3600)

    left = cert.not_valid_after_utc - datetime.now(UTC)
    assert timedelta(minutes=59) < left <= timedelta(minutes=60)


async def test_only_who_may_create_credentials_gets_them(api: TestServer) -> None:
    await opened(api, "one")
    body = {"spec": {"request": signing_request()[1]}}

    code, _ = await api.call("POST", f"{CLUSTERS}/one/credentials", body, user=UserInfo("mallory"))

    assert code == 403


async def test_a_request_that_is_none_is_refused_by_its_field(api: TestServer) -> None:
    await opened(api, "one")

    code, status = await api.call("POST", f"{CLUSTERS}/one/credentials", {"spec": {"request": "AAAA"}})

    assert (code, status["details"]["causes"][0]["field"]) == (422, "spec.request")


async def test_no_cluster_can_have_the_namespace_of_the_operators_accounts(api: TestServer) -> None:
    await opened(api, "one")

    code, _ = await api.call("POST", "/clusters/one/api/v1/namespaces", {"metadata": {"name": "fleetplane-system"}})

    assert code == 403


async def test_a_cluster_on_the_hosts_nodes_says_so_inside(api: TestServer) -> None:
    await api.call("POST", CLUSTERS, {"metadata": {"name": "guest"}, "spec": {"dataPlane": "Host"}})
    async with asyncio.timeout(5):
        while (await api.call("GET", "/clusters/guest/api/v1/namespaces/kube-system"))[0] != 200:
            await asyncio.sleep(0.001)

    _, found = await api.call("GET", "/clusters/guest/api/v1/namespaces/kube-system")

    assert found["metadata"]["labels"]["fleetplane.io/data-plane"] == "host"


# -- pods reach the API without a path


async def account_token(api: TestServer, cluster: str) -> str:
    accounts = f"/clusters/{cluster}/api/v1/namespaces/default/serviceaccounts"
    await api.call("POST", accounts, {"metadata": {"name": "app"}})
    binding = {
        "metadata": {"name": "app"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"},
        "subjects": [{"kind": "ServiceAccount", "name": "app", "namespace": "default"}],
    }
    await api.call("POST", f"/clusters/{cluster}/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", binding)
    _, answer = await api.call("POST", f"{accounts}/app/token", {"spec": {}})
    return str(answer["status"]["token"])


async def test_a_token_without_a_path_leads_to_its_own_cluster(api: TestServer) -> None:
    await opened(api, "one")
    await api.call("POST", "/clusters/one/api/v1/namespaces/default/configmaps", {"metadata": {"name": "mine"}})
    await api.call("POST", "/api/v1/namespaces/default/configmaps", {"metadata": {"name": "the-hosts"}})
    headers = {"authorization": f"Bearer {await account_token(api, 'one')}"}

    code, found = await api.call("GET", "/api/v1/configmaps", user=None, headers=headers)

    assert (code, [one["metadata"]["name"] for one in found["items"]]) == (200, ["mine"])


async def test_a_token_of_one_cluster_opens_no_other(api: TestServer) -> None:
    await opened(api, "one")
    await opened(api, "two")
    headers = {"authorization": f"Bearer {await account_token(api, 'one')}"}

    for cluster in ("root", "two", "*"):
        code, _ = await api.call("GET", f"/clusters/{cluster}/api/v1/configmaps", user=None, headers=headers)
        assert code == 401, cluster


async def test_a_token_of_a_dead_cluster_leads_nowhere(api: TestServer) -> None:
    await opened(api, "one")
    headers = {"authorization": f"Bearer {await account_token(api, 'one')}"}
    await closed(api, "one")

    assert (await api.call("GET", "/api/v1/configmaps", user=None, headers=headers))[0] == 401
