from __future__ import annotations

from typing import Any

import orjson
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.workloads import made
from tests.workloads.deployment.test_reconcile import is_complete, web
from tests.workloads.stage import Object, Stage, play

from fleetplane.model.builtin.types import ENDPOINT_SLICES, ENDPOINTS, SERVICES
from fleetplane.workloads.endpoints import legacy, slices
from fleetplane.workloads.endpoints.backends import Backend, backend


def service(**spec: Any) -> Object:
    ports = [{"name": "http", "port": 80, "targetPort": 8080, "protocol": "TCP"}]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "web", "namespace": "default", "uid": "svc", "labels": {"team": "a"}},
        "spec": {"selector": {"app": "web"}, "clusterIP": "10.96.0.7", "ports": ports, **spec},
    }


def seen(name: str, ip: str = "10.0.0.1", **pod: Any) -> Backend:
    one = made.pod(name, podIP=ip, podIPs=[{"ip": ip}], **pod)
    one["spec"]["containers"] = [{"ports": [{"name": "web", "containerPort": 9090}]}]
    found = backend(orjson.dumps(one), {"n1": "zone-a"})
    assert found is not None
    return found


def test_an_endpoint_tells_where_and_how_a_pod_serves():
    (one,) = slices.plan(service(), [seen("a")], []).create
    assert one["addressType"] == "IPv4"
    assert one["ports"] == [{"name": "http", "port": 8080, "protocol": "TCP"}]
    assert one["endpoints"] == [
        {
            "addresses": ["10.0.0.1"],
            "conditions": {"ready": True, "serving": True, "terminating": False},
            "targetRef": {"kind": "Pod", "namespace": "default", "name": "a", "uid": "uid-a"},
            "nodeName": "n1",
            "zone": "zone-a",
        }
    ]
    assert one["metadata"]["labels"] == {
        "team": "a",
        "kubernetes.io/service-name": "web",
        "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
    }


@given(st.lists(st.sets(st.integers(0, 400), max_size=300), min_size=1, max_size=4))
@settings(max_examples=30, deadline=None)
def test_slices_hold_exactly_the_pods_and_never_too_many(rounds):
    existing: dict[str, Object] = {}
    for pods in rounds:
        backends = [seen(f"p{n}", ip=f"10.0.{n // 250}.{n % 250 + 1}") for n in sorted(pods)]
        before = {name: orjson.dumps(one) for name, one in existing.items()}
        plan = slices.plan(service(), backends, list(existing.values()))
        for one in plan.delete:
            del existing[one["metadata"]["name"]]
        for one in plan.update:
            assert orjson.dumps(one) != before[one["metadata"]["name"]]
            existing[one["metadata"]["name"]] = one
        for one in plan.create:
            name = f"web-{len(existing)}-{len(before)}-{id(one)}"
            one["metadata"]["name"] = name
            existing[name] = one
        found = [end["targetRef"]["name"] for one in existing.values() for end in one["endpoints"]]
        assert sorted(found) == sorted(f"p{n}" for n in pods)
        assert all(len(one["endpoints"]) <= 100 for one in existing.values())
        assert existing, "a Service without pods keeps an empty slice"
        again = slices.plan(service(), backends, list(existing.values()))
        assert (again.create, again.update, again.delete) == ([], [], [])


def test_a_named_port_is_looked_up_in_each_pod():
    named = service(ports=[{"port": 80, "targetPort": "web"}])
    (one,) = slices.plan(named, [seen("a")], []).create
    assert one["ports"] == [{"name": "", "port": 9090, "protocol": "TCP"}]


def test_both_families_are_published_where_the_service_has_both():
    dual = service(ipFamilies=["IPv6", "IPv4"])
    pod = made.pod("a", podIP="fd00::1", podIPs=[{"ip": "fd00::1"}, {"ip": "10.0.0.1"}])
    found = backend(orjson.dumps(pod), {})
    assert found is not None
    made_slices = slices.plan(dual, [found], []).create
    assert {one["addressType"]: one["endpoints"][0]["addresses"] for one in made_slices} == {
        "IPv6": ["fd00::1"],
        "IPv4": ["10.0.0.1"],
    }


def test_terminating_and_unready_pods_are_shown_but_not_ready():
    pods = [seen("going", deleting=True), seen("cold", ip="10.0.0.2", ready=False)]
    (one,) = slices.plan(service(), pods, []).create
    assert [end["conditions"]["ready"] for end in one["endpoints"]] == [False, False]
    (public,) = slices.plan(service(publishNotReadyAddresses=True), pods, []).create
    assert [end["conditions"]["ready"] for end in public["endpoints"]] == [True, True]


def test_a_pod_without_address_or_at_its_end_is_no_backend():
    assert backend(orjson.dumps(made.pod("a")), {}) is None
    assert backend(orjson.dumps(made.pod("a", phase="Succeeded", podIP="10.0.0.1")), {}) is None


def test_endpoints_sort_ready_from_not_ready():
    found = legacy.endpoints(service(), [seen("a"), seen("b", ip="10.0.0.2", ready=False)])
    (subset,) = found["subsets"]
    assert [one["ip"] for one in subset["addresses"]] == ["10.0.0.1"]
    assert [one["ip"] for one in subset["notReadyAddresses"]] == ["10.0.0.2"]
    assert subset["ports"] == [{"name": "http", "port": 8080, "protocol": "TCP"}]


def test_more_than_a_thousand_addresses_are_cut():
    pods = [seen(f"p{n}", ip=f"10.0.{n // 250}.{n % 250 + 1}") for n in range(1002)]
    found = legacy.endpoints(service(), pods)
    assert len(found["subsets"][0]["addresses"]) == 1000
    assert found["metadata"]["annotations"] == {"endpoints.kubernetes.io/over-capacity": "truncated"}


def test_a_service_follows_its_pods_and_takes_its_endpoints_with_it():
    async def story(stage: Stage) -> None:
        from fleetplane.model.builtin.types import DEPLOYMENTS

        await stage.create(SERVICES, service())
        await stage.create(DEPLOYMENTS, web(3))
        await stage.until(lambda: is_complete(stage, 3))

        def ready() -> int:
            found = [end for one in stage.all(ENDPOINT_SLICES) for end in one["endpoints"]]
            return sum(end["conditions"]["ready"] for end in found)

        await stage.until(lambda: ready() == 3, seconds=10)
        (old,) = stage.all(ENDPOINTS)
        assert len(old["subsets"][0]["addresses"]) == 3
        await stage.client.patch(DEPLOYMENTS, "web", {"spec": {"replicas": 1}}, "default")
        await stage.until(lambda: ready() == 1, seconds=10)
        await stage.quiet()
        before = stage.write_count()
        await stage.crash()
        await stage.start()
        await stage.quiet(600)
        assert stage.write_count() == before
        await stage.client.delete(SERVICES, "web", "default")
        await stage.until(lambda: not stage.all(ENDPOINTS) and not stage.all(ENDPOINT_SLICES), seconds=60)

    play(story)
