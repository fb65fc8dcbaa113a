"""ConfigMaps, Secrets, Namespaces, Nodes, Events, volumes and claims, quotas."""

from __future__ import annotations

import copy
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from fleetplane.apiserver.kinds import BEHAVIOURS
from fleetplane.model.table import render_table

Object = dict[str, Any]
Create = Callable[[Object], tuple[Object, list[str]]]
Update = Callable[..., tuple[Object, list[str]]]
Stored = Callable[[Object], Object]

NOW = datetime(2026, 1, 1, 1, tzinfo=UTC)


def core(kind: str, **fields: Any) -> Object:
    return {"apiVersion": "v1", "kind": kind, "metadata": {"name": "a", "namespace": "n"}} | fields


def printed(obj: Object) -> dict[str, Any]:
    group = obj["apiVersion"].rpartition("/")[0]
    table = render_table(BEHAVIOURS[(group, obj["kind"])].columns, [obj], NOW)
    names = [column["name"] for column in table["columnDefinitions"]]
    return dict(zip(names, table["rows"][0]["cells"], strict=True))


def test_plain_text_of_a_secret_is_kept_encoded(stored: Stored) -> None:
    made = stored(core("Secret", stringData={"a": "b"}, data={"a": "eA==", "c": "ZA=="}))

    assert made["data"] == {"a": "Yg==", "c": "ZA=="}
    assert "stringData" not in made
    assert made["type"] == "Opaque"


def test_an_immutable_config_map_stays_as_it_is(stored: Stored, update: Update) -> None:
    old = stored(core("ConfigMap", data={"a": "b"}, immutable=True))
    loosened = core("ConfigMap", data={"a": "b"})
    changed = core("ConfigMap", data={"a": "c"}, immutable=True)

    assert update(loosened, old)[1] == ["immutable: Forbidden: field is immutable when `immutable` is set"]
    assert update(changed, old)[1] == ["data: Forbidden: field is immutable when `immutable` is set"]
    labelled = copy.deepcopy(old) | {"metadata": {"name": "a", "labels": {"x": "y"}}}
    assert update(labelled, old)[1] == []


@pytest.mark.parametrize(
    ("obj", "problem"),
    [
        (core("ConfigMap", data={"a b": ""}), "data[a b]: Invalid value"),
        (core("ConfigMap", data={"a": ""}, binaryData={"a": "AA=="}), "duplicate of key present in binaryData"),
        (core("ConfigMap", data={"a": "x" * (1 << 20) + "y"}), "Too long: may not be more than 1048576 bytes"),
        (core("Secret", data={"a": "!"}), "data[a]: Invalid value"),
        (core("Secret", type="kubernetes.io/tls", data={"tls.crt": "YQ=="}), "data[tls.key]: Required value"),
        (
            core("Secret", type="kubernetes.io/dockerconfigjson", data={".dockerconfigjson": "YQ=="}),
            "<secret contents redacted>",
        ),
        (core("Node", spec={"taints": [{"key": "a", "effect": "Now"}]}), "spec.taints[0].effect: Unsupported value"),
        (core("Event", involvedObject={"namespace": "other"}), "does not match event.namespace"),
        (core("Event", eventTime="2026-01-01T00:00:00.000000Z"), "reportingController: Required value"),
        (core("Endpoints", subsets=[{"addresses": [{"ip": "::1"}]}]), "may not be in the loopback range"),
        (core("PersistentVolume", spec={"accessModes": ["ReadWriteOnce"], "hostPath": {"path": "/"}}), "spec.capacity"),
        (
            core("PersistentVolumeClaim", spec={"accessModes": ["ReadWriteOnce"]}),
            "spec.resources[storage]: Required value",
        ),
        (core("ResourceQuota", spec={"hard": {"pods": "1.5"}}), "must be an integer"),
        (
            core("LimitRange", spec={"limits": [{"type": "Container", "min": {"cpu": "2"}, "max": {"cpu": "1"}}]}),
            "min value 2",
        ),
    ],
)
def test_what_cannot_be_is_refused(create: Create, obj: Object, problem: str) -> None:
    _, problems = create(obj)

    assert any(problem in one for one in problems), problems


def test_a_secret_never_changes_its_type(stored: Stored, update: Update) -> None:
    old = stored(core("Secret"))

    assert update(core("Secret", type="other"), old)[1] == ['type: Invalid value: "other": field is immutable']
    assert update(core("Secret"), old) == (old, [])


def test_a_namespace_is_labelled_with_its_name_and_held_by_its_finalizer(stored: Stored) -> None:
    made = stored(core("Namespace"))

    assert made["metadata"]["labels"] == {"kubernetes.io/metadata.name": "a"}
    assert made["spec"] == {"finalizers": ["kubernetes"]}
    assert made["status"] == {"phase": "Active"}


def test_only_finalizing_takes_a_namespaces_finalizer_away(stored: Stored, update: Update) -> None:
    old = stored(core("Namespace"))
    new = copy.deepcopy(old)
    new["spec"] = {}

    assert update(new, old)[0]["spec"] == {"finalizers": ["kubernetes"]}
    assert update(new, old, "finalize")[0]["spec"] == {}


def test_a_node_registers_with_its_status(stored: Stored) -> None:
    made = stored(core("Node", status={"capacity": {"cpu": "4000m"}}))

    assert made["status"]["allocatable"] == {"cpu": "4"}
    assert BEHAVIOURS[("", "Node")].status_on_create


def test_a_nodes_network_does_not_change(stored: Stored, update: Update) -> None:
    old = stored(core("Node", spec={"podCIDR": "fd00::/64"}))

    assert old["spec"]["podCIDRs"] == ["fd00::/64"]
    _, problems = update(core("Node", spec={"podCIDR": "fd01::/64"}), old)
    assert problems == ['spec.podCIDRs: Forbidden: node updates may not change podCIDR except from "" to valid']


@pytest.mark.parametrize(
    ("node", "status", "roles"),
    [
        ({}, "Unknown", "<none>"),
        ({"status": {"conditions": [{"type": "Ready", "status": "True"}]}}, "Ready", "<none>"),
        ({"status": {"conditions": [{"type": "Ready", "status": "Unknown"}]}}, "NotReady", "<none>"),
        (
            {
                "metadata": {"labels": {"node-role.kubernetes.io/edge": "", "kubernetes.io/role": "car"}},
                "spec": {"unschedulable": True},
            },
            "Unknown,SchedulingDisabled",
            "car,edge",
        ),
    ],
)
def test_how_a_node_is_printed(node: Object, status: str, roles: str) -> None:
    found = printed(core("Node") | node)

    assert (found["Status"], found["Roles"]) == (status, roles)


def test_how_an_event_is_printed() -> None:
    event = core(
        "Event",
        involvedObject={"kind": "Pod", "name": "web"},
        reason="Killing",
        type="Normal",
        message=" stopped\n",
        firstTimestamp="2026-01-01T00:00:00Z",
        lastTimestamp="2026-01-01T00:58:00Z",
        count=3,
        source={"component": "agent", "host": "car-1"},
    )
    found = printed(event)

    assert (found["Last Seen"], found["First Seen"], found["Count"]) == ("2m", "60m", 3)
    assert (found["Object"], found["Source"], found["Message"]) == ("pod/web", "agent, car-1", "stopped")


def test_a_series_counts_its_first_event_too() -> None:
    event = core("Event", series={"count": 4, "lastObservedTime": "2026-01-01T00:59:30.000000Z"})

    assert (printed(event)["Count"], printed(event)["Last Seen"]) == (5, "30s")


def claim(**spec: Any) -> Object:
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}} | spec
    return core("PersistentVolumeClaim", spec=spec)


def test_a_claim_grows_only_while_bound(stored: Stored, update: Update) -> None:
    old = stored(claim(volumeName="v"))
    larger = claim(volumeName="v", resources={"requests": {"storage": "2Gi"}})
    smaller = claim(volumeName="v", resources={"requests": {"storage": "1Mi"}})

    assert any("spec is immutable" in one for one in update(larger, old)[1])
    old["status"]["phase"] = "Bound"
    assert update(larger, old)[1] == []
    assert any("can not be less than" in one for one in update(smaller, old)[1])


def test_a_claim_is_bound_once(stored: Stored, update: Update) -> None:
    old = stored(claim())

    assert update(claim(volumeName="v"), old)[1] == []
    assert update(claim(volumeName="w"), stored(claim(volumeName="v")))[1] != []


def test_how_a_claim_is_printed() -> None:
    waiting, bound = claim(), claim(volumeName="v", volumeMode="Filesystem")
    bound["status"] = {
        "phase": "Bound",
        "capacity": {"storage": "1Gi"},
        "accessModes": ["ReadWriteMany", "ReadWriteOnce"],
    }

    assert printed(waiting)["Capacity"] == ""
    assert (printed(bound)["Capacity"], printed(bound)["Access Modes"]) == ("1Gi", "RWO,RWX")


def test_the_source_of_a_volume_does_not_change(stored: Stored, update: Update) -> None:
    spec = {"accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"}, "hostPath": {"path": "/a"}}
    old = stored(core("PersistentVolume", spec=spec))
    new = core("PersistentVolume", spec=spec | {"hostPath": {"path": "/b"}})

    assert update(new, old)[1] == [
        "spec.persistentvolumesource: Forbidden: spec.persistentvolumesource is immutable after creation"
    ]


def test_what_a_container_gets_follows_from_its_limits(stored: Stored) -> None:
    made = stored(
        core("LimitRange", spec={"limits": [{"type": "Container", "max": {"cpu": "2"}, "min": {"memory": "1Mi"}}]})
    )

    assert made["spec"]["limits"][0]["default"] == {"cpu": "2"}
    assert made["spec"]["limits"][0]["defaultRequest"] == {"cpu": "2", "memory": "1Mi"}


def test_how_a_quota_is_printed() -> None:
    status = {"hard": {"pods": "5", "limits.cpu": "2", "cpu": "1"}, "used": {"pods": "3"}}
    found = printed(core("ResourceQuota", status=status))

    assert (found["Request"], found["Limit"]) == ("cpu: 0/1, pods: 3/5", "limits.cpu: 0/2")


def test_every_kind_prints_an_object_that_says_nothing() -> None:
    for (group, kind), behaviour in BEHAVIOURS.items():
        obj = {"apiVersion": f"{group}/v1" if group else "v1", "kind": kind, "metadata": {"name": "a"}}
        assert len(render_table(behaviour.columns, [obj, {}], NOW)["rows"]) == 2


def test_every_kind_carries_each_of_its_indexed_fields() -> None:
    for behaviour in BEHAVIOURS.values():
        assert {name for name, _ in behaviour.terms({})} == behaviour.indexed_fields
        assert all(read({}) is not None for read in behaviour.fields.values())
