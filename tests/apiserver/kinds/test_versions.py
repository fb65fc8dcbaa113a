from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from fleetplane.apiserver import kinds
from fleetplane.apiserver.kinds import BEHAVIOURS
from fleetplane.model.builtin import catalog
from fleetplane.model.table import render_table

Object = dict[str, Any]

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def written(obj: Object, stored_group: str) -> tuple[Object, list[str]]:
    behaviour = BEHAVIOURS[(stored_group, obj["kind"])]
    behaviour.default(obj)
    behaviour.prepare_create(obj)
    return obj, [str(error) for error in behaviour.validate(obj, None)]


def test_all_kinds_of_many_versions_are_known() -> None:
    many = {(one.stored_as[0], one.type.kind) for one in catalog() if not one.is_storage_version}

    assert many == kinds._MANY_VERSIONS


def test_an_event_of_the_newer_group_keeps_its_form() -> None:
    event = {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {"name": "e", "namespace": "default"},
        "regarding": {"kind": "Pod", "name": "p", "namespace": "default"},
        "reportingController": "example.com/c",
        "reportingInstance": "i",
        "action": "Start",
        "reason": "Started",
        "type": "Normal",
        "eventTime": "2025-12-31T23:59:00.000000Z",
    }
    made, problems = written(dict(event), "")

    assert problems == []
    assert made["regarding"] == event["regarding"]
    table = render_table(BEHAVIOURS[("", "Event")].columns, [made], NOW)
    assert table["rows"][0]["cells"][:4] == ["60s", "Normal", "Started", "pod/p"]


def test_an_old_ingress_is_checked_as_a_new_one() -> None:
    def old(**spec: Any) -> Object:
        return {"apiVersion": "networking.k8s.io/v1beta1", "kind": "Ingress", "metadata": {"name": "i"}, "spec": spec}

    made, problems = written(old(backend={"serviceName": "s", "servicePort": 80}), "networking.k8s.io")
    _, refused = written(old(), "networking.k8s.io")

    assert problems == []
    assert made["spec"]["backend"] == {"serviceName": "s", "servicePort": 80}
    assert refused != []


def test_an_old_autoscaler_gets_its_one_target() -> None:
    spec = {"maxReplicas": 3, "scaleTargetRef": {"kind": "Deployment", "name": "d"}}
    made, problems = written(
        {"apiVersion": "autoscaling/v1", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "h"}, "spec": spec},
        "autoscaling",
    )

    assert problems == []
    assert made["apiVersion"] == "autoscaling/v1"
    assert (made["spec"]["targetCPUUtilizationPercentage"], made["spec"]["minReplicas"]) == (80, 1)
    assert "metrics" not in made["spec"]


def test_the_stored_object_may_be_in_another_version(update: Callable[..., Any]) -> None:
    spec = {"controller": "example.com/c"}
    new = {"apiVersion": "networking.k8s.io/v1beta1", "kind": "IngressClass", "metadata": {"name": "c"}, "spec": spec}
    old = new | {"apiVersion": "networking.k8s.io/v1"}

    assert update(new, old)[1] == []
