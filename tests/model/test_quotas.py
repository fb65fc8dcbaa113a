from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from fleetplane.model.objects import Object
from fleetplane.model.quotas import increase, measure_of, resources_counted, shown, usage_under

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def pod(*containers: Object, **spec: Any) -> Object:
    named = [{"name": f"c{index}", "resources": one} for index, one in enumerate(containers)]
    return {"metadata": {"name": "p"}, "spec": {"containers": named, **spec}}


def used(group: str, plural: str, obj: Object) -> dict[str, str]:
    return {name: str(amount) for name, amount in measure_of(group, plural).usage(obj, NOW).items()}


def test_a_pod_uses_what_its_containers_ask_for_together() -> None:
    assert used("", "pods", pod({"requests": {"cpu": "1"}, "limits": {"cpu": "2"}}, {"requests": {"cpu": "500m"}})) == {
        "pods": "1",
        "count/pods": "1",
        "cpu": "1500m",
        "requests.cpu": "1500m",
        "limits.cpu": "2",
    }


def test_init_containers_count_by_their_largest_and_those_that_stay_add_up() -> None:
    one, two = {"requests": {"cpu": "1"}}, {"requests": {"cpu": "2"}}
    init = [
        {"name": "stays", "restartPolicy": "Always", "resources": one},
        {"name": "starts", "resources": two},
    ]

    assert used("", "pods", pod(one, initContainers=init))["cpu"] == "3"


def test_overhead_and_amounts_of_the_pod_itself_count() -> None:
    found = used(
        "", "pods", pod({"requests": {"cpu": "1"}}, resources={"requests": {"cpu": "5"}}, overhead={"cpu": "1"})
    )

    assert found["cpu"] == "6"


def test_a_finished_pod_is_only_counted_as_an_object() -> None:
    finished = pod({"requests": {"cpu": "1"}}) | {"status": {"phase": "Succeeded"}}

    assert used("", "pods", finished) == {"count/pods": "1"}


def test_extended_resources_and_huge_pages() -> None:
    found = used("", "pods", pod({"requests": {"example.com/gpu": "2", "hugepages-2Mi": "4Mi"}}))

    assert (found["requests.example.com/gpu"], found["hugepages-2Mi"], found["requests.hugepages-2Mi"]) == (
        "2",
        "4Mi",
        "4Mi",
    )


@pytest.mark.parametrize(
    ("spec", "node_ports", "balancers"),
    [
        ({"type": "ClusterIP", "ports": [{"port": 1}]}, "0", "0"),
        ({"type": "NodePort", "ports": [{"port": 1}, {"port": 2}]}, "2", "0"),
        ({"type": "LoadBalancer", "ports": [{"port": 1}]}, "1", "1"),
        ({"type": "LoadBalancer", "allocateLoadBalancerNodePorts": False, "ports": [{"port": 1}]}, "0", "1"),
    ],
)
def test_services_by_ports_and_balancers(spec: Object, node_ports: str, balancers: str) -> None:
    found = used("", "services", {"metadata": {}, "spec": spec})

    assert (found["services.nodeports"], found["services.loadbalancers"], found["services"]) == (
        node_ports,
        balancers,
        "1",
    )


def test_claims_by_storage_and_class() -> None:
    claim = {"metadata": {}, "spec": {"storageClassName": "gold", "resources": {"requests": {"storage": "2Gi"}}}}

    found = used("", "persistentvolumeclaims", claim)

    assert found["requests.storage"] == found["gold.storageclass.storage.k8s.io/requests.storage"] == "2Gi"
    assert found["gold.storageclass.storage.k8s.io/persistentvolumeclaims"] == "1"


def test_anything_is_counted_by_number() -> None:
    assert used("example.com", "widgets", {}) == {"count/widgets.example.com": "1"}
    assert used("", "secrets", {}) == {"count/secrets": "1", "secrets": "1"}


@pytest.mark.parametrize(
    ("scope", "inside"),
    [
        ({"scopes": ["BestEffort"]}, False),
        ({"scopes": ["NotBestEffort", "NotTerminating"]}, True),
        ({"scopes": ["Terminating"]}, False),
        ({"scopeSelector": {"matchExpressions": [{"scopeName": "PriorityClass", "operator": "In", "values": ["high"]}]}}, True),
        ({"scopeSelector": {"matchExpressions": [{"scopeName": "PriorityClass", "operator": "DoesNotExist"}]}}, False),
        ({"scopes": ["CrossNamespacePodAffinity"]}, False),
    ],
)  # fmt: skip
def test_scopes(scope: Object, inside: bool) -> None:
    quota = {"metadata": {"name": "q"}, "spec": {"hard": {"pods": "1"}, **scope}}

    found = usage_under(quota, measure_of("", "pods"), pod({"requests": {"cpu": "1"}}, priorityClassName="high"), NOW)

    assert bool(found) is inside


def test_what_a_quota_counts_follows_from_its_names() -> None:
    assert resources_counted(["count/widgets.example.com", "secrets", "limits.cpu", "services.nodeports"]) == {
        ("example.com", "widgets"),
        ("", "secrets"),
        ("", "pods"),
        ("", "services"),
    }
    assert resources_counted(["gold.storageclass.storage.k8s.io/requests.storage"]) == {("", "persistentvolumeclaims")}


def test_amounts_are_shown_in_order() -> None:
    usage = measure_of("", "services").usage({"spec": {"type": "NodePort", "ports": [{"port": 1}]}}, NOW)

    assert shown(increase(usage, {})) == "count/services=1,services=1,services.nodeports=1"
