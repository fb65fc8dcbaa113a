"""Nothing crosses from one virtual cluster to another, or to the host: reads, watches, webhooks, references, noise."""

from __future__ import annotations

import asyncio

import orjson
from tests.operators.vclusters.stage import Stage, staged

from fleetplane.model.builtin.types import CONFIG_MAPS, SECRETS
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
