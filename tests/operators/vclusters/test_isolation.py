"""Nothing crosses from one virtual cluster to another, or to the host: reads, watches, webhooks, references, noise."""

from __future__ import annotations

import asyncio
import base64

import orjson
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from tests.operators.vclusters.stage import Stage, staged

from fleetplane.model.builtin.types import CONFIG_MAPS, PODS, SECRETS
from fleetplane.model.objects import Object
from fleetplane.operators.vclusters.kinds import LOGICAL_CLUSTERS
from fleetplane.store.sqlite import SqliteStore
from fleetplane.testing import SimulatedEnvironment, run_virtually, running_server


async def two(stage: Stage) -> tuple[Object, Object]:
    await stage.make("one")
    await stage.make("two")
    return await stage.kubeconfig("one"), await stage.kubeconfig("two")


@staged()
async def test_every_verb_of_a_guest_ends_at_its_own_door(stage: Stage) -> None:
    config, _ = await two(stage)
    await stage.client.in_cluster("two").create(SECRETS, {"metadata": {"name": "key"}}, "default")
    own = config["clusters"][0]["cluster"]
    path = "/api/v1/namespaces/default/secrets"
    requests = [
        ("GET", path),
        ("GET", f"{path}/key"),
        ("POST", path),
        ("PUT", f"{path}/key"),
        ("PATCH", f"{path}/key"),
        ("DELETE", f"{path}/key"),
        ("DELETE", path),
        ("GET", "/openapi/v3"),
        ("GET", "/apis"),
        ("GET", "/metrics"),
        ("POST", "/apis/fleetplane.io/v1alpha1/logicalclusters/two/credentials"),
    ]

    for cluster in ("two", "root", "*"):
        own["server"] = f"https://host/clusters/{cluster}"
        for method, where in requests:
            answer = await stage.with_kubeconfig(config, method, where, b"{}")
            assert answer.status == 401, (cluster, method, where)

    assert await stage.find(SECRETS, "key", cluster="two")


@staged()
async def test_a_guest_makes_no_clusters_and_no_credentials(stage: Stage) -> None:
    config, _ = await two(stage)

    path = "/apis/fleetplane.io/v1alpha1/logicalclusters"
    made = await stage.with_kubeconfig(config, "POST", path, b'{"metadata":{"name":"three"}}')
    asked = await stage.with_kubeconfig(config, "POST", f"{path}/two/credentials", b"{}")

    assert made.status == 403
    assert asked.status == 404


@staged()
async def test_a_guest_lists_its_own_objects_only(stage: Stage) -> None:
    config, _ = await two(stage)
    for cluster in ("one", "two", "root"):
        await stage.client.in_cluster(cluster).create(CONFIG_MAPS, {"metadata": {"name": f"of-{cluster}"}}, "default")

    answer = await stage.with_kubeconfig(config, "GET", "/api/v1/configmaps")

    names = {one["metadata"]["name"] for one in orjson.loads(answer.body)["items"]}
    assert "of-one" in names
    assert not names & {"of-two", "of-root"}


@staged()
async def test_a_guests_watch_sees_its_own_changes_only(stage: Stage) -> None:
    await two(stage)
    seen: list[str] = []

    async def watch() -> None:
        async for event in stage.client.in_cluster("one").watch(CONFIG_MAPS, "default"):
            seen.append(event.object["metadata"]["name"])

    watching = asyncio.ensure_future(watch())
    await asyncio.sleep(1)
    for cluster in ("two", "root", "one"):
        await stage.client.in_cluster(cluster).create(CONFIG_MAPS, {"metadata": {"name": f"of-{cluster}"}}, "default")
    await asyncio.sleep(1)
    watching.cancel()

    assert "of-one" in seen
    assert not {"of-two", "of-root"} & set(seen)


@staged()
async def test_a_guests_webhook_is_asked_about_its_own_objects_only(stage: Stage) -> None:
    await two(stage)
    hook = {
        "metadata": {"name": "refuse"},
        "webhooks": [
            {
                "name": "refuse.example.com",
                "clientConfig": {"url": "https://127.0.0.1:1/never"},
                "rules": [
                    {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["configmaps"]}
                ],
                "failurePolicy": "Fail",
                "sideEffects": "None",
                "admissionReviewVersions": ["v1"],
                "timeoutSeconds": 1,
            }
        ],
    }
    path = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations"
    code, _ = await stage.server.call("POST", f"/clusters/one{path}", hook)
    assert code == 201

    codes = {}
    for cluster in ("one", "two", "root"):
        body = {"metadata": {"name": "a"}}
        codes[cluster], _ = await stage.server.call(
            "POST", f"/clusters/{cluster}/api/v1/namespaces/default/configmaps", body
        )

    assert codes["one"] >= 400
    assert (codes["two"], codes["root"]) == (201, 201)


@staged()
async def test_an_owner_in_another_cluster_owns_nothing_here(stage: Stage) -> None:
    """Deleting an object never takes along one of another cluster that names its uid."""
    await two(stage)
    owner = await stage.client.in_cluster("one").create(CONFIG_MAPS, {"metadata": {"name": "owner"}}, "default")
    mine = await stage.client.in_cluster("two").create(CONFIG_MAPS, {"metadata": {"name": "owner"}}, "default")
    reference = {"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": mine["metadata"]["uid"]}
    await stage.client.in_cluster("two").create(
        CONFIG_MAPS, {"metadata": {"name": "child", "ownerReferences": [reference]}}, "default"
    )

    await stage.client.in_cluster("one").delete(CONFIG_MAPS, "owner", "default", uid=owner["metadata"]["uid"])
    await asyncio.sleep(60)

    assert await stage.find(CONFIG_MAPS, "child", cluster="two")


@staged()
async def test_the_same_kind_can_mean_different_things_in_two_clusters(stage: Stage) -> None:
    await two(stage)

    def definition(kind: str) -> Object:
        schema = {"type": "object", "properties": {"spec": {"type": "object", "properties": {"a": {"type": kind}}}}}
        version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
        names = {"plural": "widgets", "kind": "Widget"}
        spec = {"group": "example.com", "scope": "Namespaced", "names": names, "versions": [version]}
        return {"metadata": {"name": "widgets.example.com"}, "spec": spec}

    crds = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    await stage.server.call("POST", f"/clusters/one{crds}", definition("string"))
    await stage.server.call("POST", f"/clusters/two{crds}", definition("integer"))

    body = {"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": "w"}, "spec": {"a": "text"}}
    path = "/apis/example.com/v1/namespaces/default/widgets"
    one, _ = await stage.server.call("POST", f"/clusters/one{path}", body)
    two_, _ = await stage.server.call("POST", f"/clusters/two{path}", body)

    assert (one, two_) == (201, 422)


def test_a_noisy_guest_expires_nobody_elses_watch() -> None:
    """The host's memory of changes is far smaller than the noise; the quiet guest resumes where it was all the same."""

    async def story() -> None:
        world = SimulatedEnvironment(0)
        store = await SqliteStore.open(":memory:", environment=world, watch_window=50, watcher_limit=100)
        async with running_server(environment=world, store=store) as server:
            client = server.client()
            for name in ("quiet", "noisy"):
                await client.create(LOGICAL_CLUSTERS, {"metadata": {"name": name}})
            while (await server.call("GET", "/clusters/noisy/api/v1/namespaces/default"))[0] != 200:
                await asyncio.sleep(0.01)
            quiet, noisy = client.in_cluster("quiet"), client.in_cluster("noisy")
            start = (await quiet.list(CONFIG_MAPS, "default")).resource_version
            open_watch: list[str] = []

            async def watch() -> None:
                async for event in quiet.watch(CONFIG_MAPS, "default", resource_version=start):
                    open_watch.append(event.object["metadata"]["name"])

            watching = asyncio.ensure_future(watch())
            await asyncio.sleep(0.1)
            for number in range(600):
                await noisy.create(CONFIG_MAPS, {"metadata": {"name": f"noise-{number}"}}, "default")
            await quiet.create(CONFIG_MAPS, {"metadata": {"name": "signal"}}, "default")
            await asyncio.sleep(1)

            assert not watching.done()
            assert open_watch == ["signal"]
            async for event in quiet.watch(CONFIG_MAPS, "default", resource_version=start):
                assert event.object["metadata"]["name"] == "signal"
                break
            watching.cancel()

    run_virtually(story())


@staged()
async def test_a_guests_token_is_good_at_its_own_door_only(stage: Stage) -> None:
    await two(stage)
    path = "/api/v1/namespaces/default/serviceaccounts/default/token"

    async def token() -> str:
        _, made = await stage.server.call("POST", f"/clusters/one{path}", {"spec": {}})
        return str((made.get("status") or {}).get("token") or "")

    headers = {"authorization": f"Bearer {await stage.until(token)}"}

    codes = {
        cluster: (await stage.server.call("GET", f"/clusters/{cluster}/apis", user=None, headers=headers))[0]
        for cluster in ("one", "two", "root", "*")
    }

    assert codes == {"one": 200, "two": 401, "root": 401, "*": 401}


@staged()
async def test_an_administrator_who_impersonates_anybody_is_still_a_guest(stage: Stage) -> None:
    config, _ = await two(stage)
    server = config["clusters"][0]["cluster"]["server"]
    for user, group in (("system:apiserver", "system:masters"), ("kubernetes-admin", "system:masters")):
        headers = {"impersonate-user": user, "impersonate-group": group}
        for cluster, code in (("one", 200), ("two", 401), ("root", 401), ("*", 401)):
            config["clusters"][0]["cluster"]["server"] = server.rpartition("/")[0] + f"/{cluster}"
            answer = await stage.with_kubeconfig(config, "GET", "/api/v1/secrets", headers=headers)
            assert answer.status == code, (user, cluster, answer.body)


@staged()
async def test_a_certificate_that_a_guest_approves_opens_nothing_else(stage: Stage) -> None:
    config, _ = await two(stage)
    key = ec.generate_private_key(ec.SECP256R1())
    names = [
        x509.NameAttribute(NameOID.COMMON_NAME, "root"),
        x509.NameAttribute(NameOID.ORGANIZATION_NAME, "system:nodes"),
    ]
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name(names)).sign(key, hashes.SHA256())
    pem = base64.b64encode(request.public_bytes(serialization.Encoding.PEM)).decode()
    spec = {"request": pem, "signerName": "kubernetes.io/kube-apiserver-client", "usages": ["client auth"]}
    path = "/apis/certificates.k8s.io/v1/certificatesigningrequests"
    made = await stage.with_kubeconfig(
        config, "POST", path, orjson.dumps({"metadata": {"name": "sneak"}, "spec": spec})
    )
    assert made.status == 201, made.body
    approval = orjson.loads(made.body)
    condition = {"type": "Approved", "status": "True", "reason": "Mine", "message": "m"}
    approval["status"] = {"conditions": [condition]}
    approved = await stage.with_kubeconfig(config, "PUT", f"{path}/sneak/approval", orjson.dumps(approval))
    assert approved.status == 200, approved.body

    async def signed() -> str:
        found = orjson.loads((await stage.with_kubeconfig(config, "GET", f"{path}/sneak")).body)
        return str((found.get("status") or {}).get("certificate") or "")

    certificate = await stage.until(signed)
    config["users"][0]["user"]["client-certificate-data"] = certificate
    codes = {}
    for cluster in ("one", "two", "root", "*"):
        config["clusters"][0]["cluster"]["server"] = f"https://host/clusters/{cluster}"
        codes[cluster] = (await stage.with_kubeconfig(config, "GET", "/api/v1/namespaces")).status
    assert codes == {"one": 403, "two": 401, "root": 401, "*": 401}


@staged()
async def test_a_pod_cannot_name_a_secret_of_the_host_or_of_another_guest(stage: Stage) -> None:
    await two(stage)
    await stage.client.create(SECRETS, {"metadata": {"name": "of-host"}, "stringData": {"a": "b"}}, "default")
    await stage.client.in_cluster("two").create(
        SECRETS, {"metadata": {"name": "key"}, "stringData": {"a": "b"}}, "default"
    )
    await stage.until(lambda: account(stage, "two"))
    await stage.client.in_cluster("two").create(PODS, pod_with("key"), "default")
    await stage.until(lambda: stage.find(SECRETS, "key-x-default-x-two"))
    await stage.until(lambda: account(stage, "one"))

    for number, name in enumerate(("of-host", "key-x-default-x-two", "key")):
        await stage.client.in_cluster("one").create(PODS, pod_with(name, f"thief-{number}"), "default")
    await asyncio.sleep(20)

    copies = [
        one
        for one in (await stage.client.list(PODS, "default")).items
        if one["metadata"]["annotations"]["vk8s.sktelecom.com/guest"].startswith("one/")
    ]
    named = {
        volume["secret"]["secretName"] for copy in copies for volume in copy["spec"]["volumes"] if "secret" in volume
    }
    existing = {one["metadata"]["name"] for one in (await stage.client.list(SECRETS, "default")).items}
    assert len(copies) == 3
    assert not named & existing


def pod_with(secret: str, name: str = "web") -> Object:
    return {
        "metadata": {"name": name},
        "spec": {
            "containers": [{"name": "main", "image": "web:1"}],
            "volumes": [{"name": "v", "secret": {"secretName": secret}}],
        },
    }


async def account(stage: Stage, cluster: str) -> bool:
    path = f"/clusters/{cluster}/api/v1/namespaces/default/serviceaccounts/default"
    return (await stage.server.call("GET", path))[0] == 200


@staged()
async def test_a_guest_that_binds_a_pod_to_a_hosts_node_itself_runs_nothing_there(stage: Stage) -> None:
    await two(stage)
    await stage.until(lambda: account(stage, "one"))
    bound = pod_with("none")
    bound["spec"] |= {"nodeName": "sim-0", "hostNetwork": True, "volumes": []}
    bound["spec"]["containers"][0]["securityContext"] = {"privileged": True}

    await stage.client.in_cluster("one").create(PODS, bound, "default")
    await asyncio.sleep(30)

    found = await stage.find(PODS, "web", cluster="one")
    assert (found.get("status") or {}).get("phase") != "Running"
    assert (await stage.client.list(PODS, "default")).items == []


@staged()
async def test_a_watch_resumed_at_anothers_revision_tells_nothing_of_it(stage: Stage) -> None:
    await two(stage)
    start = (await stage.client.in_cluster("one").list(CONFIG_MAPS, "default")).resource_version
    for number in range(20):
        await stage.client.in_cluster("two").create(CONFIG_MAPS, {"metadata": {"name": f"secret-{number}"}}, "default")
    seen: list[str] = []

    async def watch() -> None:
        async for event in stage.client.in_cluster("one").watch(CONFIG_MAPS, "default", resource_version=start):
            seen.append(event.object["metadata"].get("name", ""))

    watching = asyncio.ensure_future(watch())
    await asyncio.sleep(1)
    await stage.client.in_cluster("one").create(CONFIG_MAPS, {"metadata": {"name": "mine"}}, "default")
    await asyncio.sleep(1)
    watching.cancel()

    assert [name for name in seen if name] == ["mine"]
