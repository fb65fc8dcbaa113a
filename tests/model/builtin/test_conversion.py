from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleetplane.model.builtin import catalog, convert

HPA = "HorizontalPodAutoscaler"


def budget(api_version: str, selector: dict[str, Any]) -> dict[str, Any]:
    return {"apiVersion": api_version, "kind": "PodDisruptionBudget", "metadata": {}, "spec": {"selector": selector}}


def test_an_object_in_the_wanted_version_is_returned_as_it_is() -> None:
    pod = {"apiVersion": "v1", "kind": "Pod"}

    assert convert(pod, "v1") is pod


def test_a_version_that_is_not_served_is_refused() -> None:
    with pytest.raises(ValueError, match="no conversion of Pod from v1 to v2"):
        convert({"apiVersion": "v1", "kind": "Pod"}, "v2")


def test_every_second_version_in_the_catalogue_converts_both_ways() -> None:
    for one in catalog():
        hub = "/".join(part for part in one.stored_as if part)
        empty = {"apiVersion": one.type.api_version, "kind": one.type.kind, "metadata": {}, "spec": {}}
        stored = convert(empty, hub)
        assert stored["apiVersion"] == hub
        assert convert(stored, one.type.api_version)["apiVersion"] == one.type.api_version


def test_an_event_is_renamed_field_by_field() -> None:
    told = {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {"name": "e"},
        "eventTime": "2026-01-01T00:00:00.000000Z",
        "regarding": {"kind": "Pod"},
        "note": "hello",
        "reportingController": "me",
        "deprecatedCount": 2,
    }
    core = convert(told, "v1")

    assert core["involvedObject"] == {"kind": "Pod"}
    assert (core["message"], core["reportingComponent"], core["count"]) == ("hello", "me", 2)
    assert convert(core, "events.k8s.io/v1") == told


def test_a_service_backend_is_flat_in_the_old_ingress() -> None:
    old: dict[str, Any] = {
        "apiVersion": "networking.k8s.io/v1beta1",
        "kind": "Ingress",
        "metadata": {},
        "spec": {
            "backend": {"serviceName": "a", "servicePort": 80},
            "rules": [{"http": {"paths": [{"path": "/", "backend": {"serviceName": "b", "servicePort": "web"}}]}}],
        },
    }
    new = convert(old, "networking.k8s.io/v1")

    assert new["spec"]["defaultBackend"] == {"service": {"name": "a", "port": {"number": 80}}}
    path = new["spec"]["rules"][0]["http"]["paths"][0]
    assert path["backend"] == {"service": {"name": "b", "port": {"name": "web"}}}
    assert path["pathType"] == "ImplementationSpecific"
    back = convert(new, "networking.k8s.io/v1beta1")["spec"]
    assert back["backend"] == old["spec"]["backend"]
    assert back["rules"][0]["http"]["paths"][0]["backend"] == {"serviceName": "b", "servicePort": "web"}


def test_zone_and_node_are_topology_labels_in_the_old_endpoint_slice() -> None:
    new = {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "endpoints": [{"addresses": ["10.0.0.1"], "zone": "z", "nodeName": "n", "deprecatedTopology": {"rack": "1"}}],
    }
    old = convert(new, "discovery.k8s.io/v1beta1")

    assert old["endpoints"][0]["topology"] == {
        "rack": "1",
        "topology.kubernetes.io/zone": "z",
        "kubernetes.io/hostname": "n",
    }
    assert convert(old, "discovery.k8s.io/v1") == new


def test_an_empty_selector_keeps_its_meaning() -> None:
    nothing = convert(budget("policy/v1beta1", {}), "policy/v1")["spec"]["selector"]
    everything = convert(budget("policy/v1", {}), "policy/v1beta1")["spec"]["selector"]

    assert nothing["matchExpressions"][0]["operator"] == "Exists"
    assert everything["matchExpressions"][0]["operator"] == "DoesNotExist"
    assert convert(budget("policy/v1", nothing), "policy/v1beta1")["spec"]["selector"] == {}
    assert convert(budget("policy/v1beta1", everything), "policy/v1")["spec"]["selector"] == {}


def test_cpu_utilization_is_the_one_metric_of_version_1() -> None:
    old = {"apiVersion": "autoscaling/v1", "kind": HPA, "metadata": {}, "spec": {"targetCPUUtilizationPercentage": 70}}
    new = convert(old, "autoscaling/v2")

    target = {"type": "Utilization", "averageUtilization": 70}
    assert new["spec"] == {"metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": target}}]}
    assert convert(new, "autoscaling/v1") == old


def test_version_1_without_a_target_means_eighty_percent() -> None:
    new = convert({"apiVersion": "autoscaling/v1", "kind": HPA, "metadata": {}, "spec": {}}, "autoscaling/v2")

    assert new["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"] == 80


def test_annotations_are_written_in_the_old_shape() -> None:
    metric = {
        "type": "Pods",
        "pods": {"metric": {"name": "rps"}, "target": {"type": "AverageValue", "averageValue": "1k"}},
    }
    new = {"apiVersion": "autoscaling/v2", "kind": HPA, "metadata": {}, "spec": {"metrics": [metric]}}
    old = convert(new, "autoscaling/v1")

    told = json.loads(old["metadata"]["annotations"]["autoscaling.alpha.kubernetes.io/metrics"])
    assert told == [{"type": "Pods", "pods": {"metricName": "rps", "targetAverageValue": "1k"}}]


def test_a_damaged_annotation_is_dropped() -> None:
    old = {
        "apiVersion": "autoscaling/v1",
        "kind": HPA,
        "metadata": {"annotations": {"autoscaling.alpha.kubernetes.io/metrics": "[1, {]", "mine": "kept"}},
        "spec": {"targetCPUUtilizationPercentage": 5},
    }
    new = convert(old, "autoscaling/v2")

    assert new["metadata"]["annotations"] == {"mine": "kept"}
    assert len(new["spec"]["metrics"]) == 1


quantities = st.sampled_from(["1", "500m", "2Gi"])
names = st.sampled_from(["a", "b"])
utilization = st.builds(lambda n: {"type": "Utilization", "averageUtilization": n}, st.integers(1, 100))
average = st.builds(lambda q: {"type": "AverageValue", "averageValue": q}, quantities)
value = st.builds(lambda q: {"type": "Value", "value": q}, quantities)
metric_name = st.builds(lambda n: {"name": n}, names)
metrics = st.one_of(
    st.builds(lambda t: {"type": "Resource", "resource": {"name": "memory", "target": t}}, utilization | average),
    st.builds(
        lambda t: {"type": "ContainerResource", "containerResource": {"name": "cpu", "container": "c", "target": t}},
        utilization,
    ),
    st.builds(lambda m, t: {"type": "Pods", "pods": {"metric": m, "target": t}}, metric_name, average),
    st.builds(
        lambda m, t: {
            "type": "Object",
            "object": {"describedObject": {"kind": "Service", "name": "s"}, "metric": m, "target": t},
        },
        metric_name,
        value,
    ),
    st.builds(lambda m, t: {"type": "External", "external": {"metric": m, "target": t}}, metric_name, value | average),
)
scaling_rules = st.fixed_dictionaries(
    {"selectPolicy": st.just("Max")},
    optional={
        "stabilizationWindowSeconds": st.integers(0, 3600),
        "policies": st.lists(
            st.builds(lambda n: {"type": "Pods", "value": n, "periodSeconds": 15}, st.integers(1, 9)), min_size=1
        ),
    },
)
specs = st.fixed_dictionaries(
    {"maxReplicas": st.integers(1, 9), "metrics": st.lists(metrics, min_size=1, max_size=4)},
    optional={"behavior": st.fixed_dictionaries({"scaleUp": scaling_rules}), "minReplicas": st.just(2)},
)


@settings(max_examples=60, deadline=None)
@given(specs)
def test_version_2_survives_a_visit_to_version_1(spec: dict[str, Any]) -> None:
    new = {"apiVersion": "autoscaling/v2", "kind": HPA, "metadata": {"name": "h"}, "spec": spec}
    before = copy.deepcopy(new)

    assert convert(convert(new, "autoscaling/v1"), "autoscaling/v2") == before
    assert new == before
