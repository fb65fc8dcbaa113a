from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

from fleetplane.apiserver.kinds.services import SERVICES
from fleetplane.model.table import render_table

Object = dict[str, Any]
Create = Callable[[Object], tuple[Object, list[str]]]
Update = Callable[..., tuple[Object, list[str]]]
Stored = Callable[[Object], Object]


def service(**spec: Any) -> Object:
    spec = {"ports": [{"port": 80}]} | spec
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"}, "spec": spec}


def allocated(made: Object, address: str = "10.0.0.1") -> Object:
    """As the server keeps it once an address was handed out."""
    made["spec"] |= {
        "clusterIP": address,
        "clusterIPs": [address],
        "ipFamilies": ["IPv4"],
        "ipFamilyPolicy": "SingleStack",
    }
    return made


def test_a_service_gets_its_defaults(stored: Stored) -> None:
    assert stored(service(selector={"a": "b"}))["spec"] == {
        "internalTrafficPolicy": "Cluster",
        "ports": [{"port": 80, "protocol": "TCP", "targetPort": 80}],
        "selector": {"a": "b"},
        "sessionAffinity": "None",
        "type": "ClusterIP",
    }


def test_a_load_balancer_gets_more(stored: Stored) -> None:
    spec = stored(service(type="LoadBalancer"))["spec"]

    assert (spec["externalTrafficPolicy"], spec["allocateLoadBalancerNodePorts"]) == ("Cluster", True)


def test_affinity_lasts_three_hours_unless_told(stored: Stored) -> None:
    spec = stored(service(sessionAffinity="ClientIP"))["spec"]

    assert spec["sessionAffinityConfig"] == {"clientIP": {"timeoutSeconds": 10800}}


def test_two_families_mean_dual_stack(stored: Stored) -> None:
    assert stored(service(ipFamilies=["IPv6", "IPv4"]))["spec"]["ipFamilyPolicy"] == "RequireDualStack"
    dual = stored(service(ipFamilyPolicy="RequireDualStack", ipFamilies=["IPv6"]))
    assert dual["spec"]["ipFamilies"] == ["IPv6", "IPv4"]


@pytest.mark.parametrize(
    ("spec", "problem"),
    [
        ({"ports": []}, "spec.ports: Required value"),
        ({"ports": [{"port": 1}, {"port": 2}]}, "spec.ports[0].name: Required value"),
        ({"ports": [{"port": 1, "name": "a"}, {"port": 1, "name": "b"}]}, "spec.ports[1]: Duplicate value"),
        ({"ports": [{"port": 80, "nodePort": 30000}]}, "may not be used when `type` is 'ClusterIP'"),
        ({"type": "Cloud"}, 'spec.type: Unsupported value: "Cloud"'),
        ({"type": "NodePort", "clusterIP": "None"}, "may not be set to 'None' for NodePort services"),
        ({"type": "ExternalName"}, "spec.externalName: Required value"),
        ({"clusterIPs": ["10.0.0.1"]}, "must be empty when `clusterIP` is not specified"),
        ({"clusterIP": "10.0.0.1", "ipFamilies": ["IPv6"]}, "expected an IPv6 value as indicated by `ipFamilies[0]`"),
        ({"loadBalancerSourceRanges": ["10.0.0.0/8"]}, "may only be used when `type` is 'LoadBalancer'"),
        ({"externalTrafficPolicy": "Local"}, "may only be set for externally-accessible services"),
        ({"externalIPs": ["home"]}, "spec.externalIPs[0]: Invalid value"),
    ],
)
def test_a_service_that_cannot_be_is_refused(create: Create, spec: Object, problem: str) -> None:
    _, problems = create(service(**spec))

    assert any(problem in one for one in problems), problems


def test_what_was_handed_out_stays_when_a_client_does_not_repeat_it(stored: Stored, update: Update) -> None:
    old = allocated(stored(service(type="NodePort")))
    old["spec"]["ports"][0]["nodePort"] = 30123
    made, problems = update(service(type="NodePort"), old)

    assert problems == []
    assert (made["spec"]["clusterIP"], made["spec"]["ports"][0]["nodePort"]) == ("10.0.0.1", 30123)


def test_an_address_does_not_change(stored: Stored, update: Update) -> None:
    old = allocated(stored(service()))

    _, problems = update(service(clusterIP="10.0.0.2"), old)

    assert any("spec.clusterIPs[0]" in one and "may not change once set" in one for one in problems)


def test_fields_of_the_former_type_fall_away(stored: Stored, update: Update) -> None:
    old = allocated(stored(service(type="LoadBalancer")))
    old["spec"]["ports"][0]["nodePort"] = 30123
    new = copy.deepcopy(old)
    new["spec"]["type"] = "ClusterIP"
    made, problems = update(new, old)

    assert problems == []
    assert "externalTrafficPolicy" not in made["spec"]
    assert "allocateLoadBalancerNodePorts" not in made["spec"]
    assert "nodePort" not in made["spec"]["ports"][0]


def test_becoming_a_name_gives_the_address_back(stored: Stored, update: Update) -> None:
    old = allocated(stored(service()))
    new = copy.deepcopy(old)
    new["spec"] |= {"type": "ExternalName", "externalName": "example.com"}
    made, problems = update(new, old)

    assert problems == []
    assert not {"clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"} & made["spec"].keys()


def row(obj: Object) -> list[Any]:
    from datetime import UTC, datetime

    cells: list[Any] = render_table(SERVICES.columns, [obj], datetime(2026, 1, 1, tzinfo=UTC))["rows"][0]["cells"]
    return cells


@pytest.mark.parametrize(
    ("spec", "status", "shown"),
    [
        ({"clusterIP": "10.0.0.1"}, {}, ["ClusterIP", "10.0.0.1", "<none>", "80/TCP"]),
        ({"clusterIP": "None", "ports": []}, {}, ["ClusterIP", "None", "<none>", "<none>"]),
        ({"type": "LoadBalancer"}, {}, ["LoadBalancer", "<none>", "<pending>", "80/TCP"]),
        (
            {"type": "LoadBalancer", "externalIPs": ["1.1.1.1"]},
            {"loadBalancer": {"ingress": [{"ip": "2.2.2.2"}, {"hostname": "lb"}]}},
            ["LoadBalancer", "<none>", "2.2.2.2,lb,1.1.1.1", "80/TCP"],
        ),
        ({"type": "ExternalName", "externalName": "a.b", "ports": []}, {}, ["ExternalName", "<none>", "a.b", "<none>"]),
    ],
)
def test_how_a_service_is_printed(stored: Stored, spec: Object, status: Object, shown: list[str]) -> None:
    obj = service(**spec)
    SERVICES.default(obj)
    obj["status"] = status

    assert row(obj)[1:5] == shown
