from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fleetplane.model.objects import Object
from fleetplane.testing.plane import TestServer

PODS = "/api/v1/namespaces/default/pods"
PRIORITIES = "/apis/scheduling.k8s.io/v1/priorityclasses"
RUNTIMES = "/apis/node.k8s.io/v1/runtimeclasses"
STORAGE = "/apis/storage.k8s.io/v1/storageclasses"
CLAIMS = "/api/v1/namespaces/default/persistentvolumeclaims"
INGRESS_CLASSES = "/apis/networking.k8s.io/v1/ingressclasses"
INGRESSES = "/apis/networking.k8s.io/v1/namespaces/default/ingresses"


def priority(name: str, value: int, **more: Any) -> Object:
    return {"metadata": {"name": name}, "value": value, **more}


# -- priority --------------------------------------------------------------------------------------------------------


async def test_a_class_gives_its_number(api: TestServer, pod: Callable[..., Object]) -> None:
    await api.call("POST", PRIORITIES, priority("high", 1000, preemptionPolicy="Never"))

    _, made = await api.call("POST", PODS, pod(priorityClassName="high"))

    assert (made["spec"]["priority"], made["spec"]["preemptionPolicy"]) == (1000, "Never")


async def test_without_a_class_the_priority_is_zero(api: TestServer, pod: Callable[..., Object]) -> None:
    _, made = await api.call("POST", PODS, pod())

    assert made["spec"]["priority"] == 0
    assert made["spec"]["preemptionPolicy"] == "PreemptLowerPriority"
    assert "priorityClassName" not in made["spec"]


async def test_a_global_default_is_for_pods_that_name_none(api: TestServer, pod: Callable[..., Object]) -> None:
    await api.call("POST", PRIORITIES, priority("usual", 7, globalDefault=True))

    _, made = await api.call("POST", PODS, pod())

    assert (made["spec"]["priority"], made["spec"]["priorityClassName"]) == (7, "usual")


async def test_there_is_one_global_default(api: TestServer) -> None:
    await api.call("POST", PRIORITIES, priority("usual", 7, globalDefault=True))

    code, status = await api.call("POST", PRIORITIES, priority("other", 8, globalDefault=True))

    assert code == 403
    assert status["message"].endswith("PriorityClass usual is already marked as default. Only one default can exist")


async def test_a_class_that_is_missing_and_a_number_of_ones_own_are_refused(
    api: TestServer, pod: Callable[..., Object]
) -> None:
    _, missing = await api.call("POST", PODS, pod(priorityClassName="none"))
    _, own = await api.call("POST", PODS, pod(priority=5))

    assert missing["message"] == 'pods "web" is forbidden: no PriorityClass with name none was found'
    assert own["message"] == (
        'pods "web" is forbidden: the integer value of priority (5) must not be provided in pod spec; '
        "priority admission controller computed 0 from the given PriorityClass name"
    )


# -- tolerations -----------------------------------------------------------------------------------------------------


async def test_pods_leave_lost_nodes_after_five_minutes(api: TestServer, pod: Callable[..., Object]) -> None:
    mine = {"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 9}

    _, made = await api.call("POST", PODS, pod(tolerations=[mine]))

    assert made["spec"]["tolerations"] == [
        mine,
        {
            "effect": "NoExecute",
            "key": "node.kubernetes.io/unreachable",
            "operator": "Exists",
            "tolerationSeconds": 300,
        },
    ]


async def test_who_tolerates_everything_is_left_alone(api: TestServer, pod: Callable[..., Object]) -> None:
    _, made = await api.call("POST", PODS, pod(tolerations=[{"operator": "Exists"}]))

    assert made["spec"]["tolerations"] == [{"operator": "Exists"}]


# -- runtime classes -------------------------------------------------------------------------------------------------


async def test_a_runtime_class_adds_overhead_nodes_and_tolerations(api: TestServer, pod: Callable[..., Object]) -> None:
    taint = {"key": "vm", "operator": "Exists"}
    await api.call(
        "POST",
        RUNTIMES,
        {
            "metadata": {"name": "vm"},
            "handler": "vm",
            "overhead": {"podFixed": {"cpu": "250m"}},
            "scheduling": {"nodeSelector": {"vm": "yes"}, "tolerations": [taint]},
        },
    )

    _, made = await api.call("POST", PODS, pod(runtimeClassName="vm", nodeSelector={"zone": "a"}))

    assert made["spec"]["overhead"] == {"cpu": "250m"}
    assert made["spec"]["nodeSelector"] == {"zone": "a", "vm": "yes"}
    assert taint in made["spec"]["tolerations"]


async def test_what_does_not_go_with_a_runtime_class_is_refused(api: TestServer, pod: Callable[..., Object]) -> None:
    await api.call(
        "POST",
        RUNTIMES,
        {"metadata": {"name": "vm"}, "handler": "vm", "scheduling": {"nodeSelector": {"vm": "yes"}}},
    )

    _, missing = await api.call("POST", PODS, pod(runtimeClassName="none"))
    _, conflict = await api.call("POST", PODS, pod(runtimeClassName="vm", nodeSelector={"vm": "no"}))
    _, overhead = await api.call("POST", PODS, pod(overhead={"cpu": "1"}))

    assert missing["message"].endswith('pod rejected: RuntimeClass "none" not found')
    assert conflict["message"].endswith(
        "conflict: runtimeClass.scheduling.nodeSelector[vm] = yes; pod.spec.nodeSelector[vm] = no"
    )
    assert overhead["message"].endswith(
        "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead"
    )


# -- storage and ingress classes -------------------------------------------------------------------------------------


def storage_class(name: str, *, default: bool = True, **more: Any) -> Object:
    mark = {"storageclass.kubernetes.io/is-default-class": "true"} if default else {}
    return {"metadata": {"name": name, "annotations": mark}, "provisioner": "p", **more}


def claim(**spec: Any) -> Object:
    return {
        "metadata": {"name": "data"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}, **spec},
    }


async def test_a_claim_gets_the_default_storage_class(api: TestServer) -> None:
    await api.call("POST", STORAGE, storage_class("fast"))

    _, made = await api.call("POST", CLAIMS, claim())

    assert made["spec"]["storageClassName"] == "fast"


async def test_a_claim_that_wants_no_class_gets_none(api: TestServer) -> None:
    await api.call("POST", STORAGE, storage_class("fast"))

    _, made = await api.call("POST", CLAIMS, claim(storageClassName=""))

    assert made["spec"]["storageClassName"] == ""


async def test_only_bound_claims_of_classes_that_allow_it_grow(api: TestServer) -> None:
    await api.call("POST", STORAGE, storage_class("fixed"))
    await api.call("POST", CLAIMS, claim())
    growth = {"spec": {"resources": {"requests": {"storage": "2Gi"}}}}
    merge = {"content-type": "application/merge-patch+json"}

    _, unbound = await api.call("PATCH", f"{CLAIMS}/data", growth, headers=merge)
    await api.call("PATCH", f"{CLAIMS}/data/status", {"status": {"phase": "Bound"}}, headers=merge)
    _, fixed = await api.call("PATCH", f"{CLAIMS}/data", growth, headers=merge)
    await api.call("PATCH", f"{STORAGE}/fixed", {"allowVolumeExpansion": True}, headers=merge)
    code, _ = await api.call("PATCH", f"{CLAIMS}/data", growth, headers=merge)

    assert unbound["code"] in (403, 422)
    assert "only dynamically provisioned pvc can be resized" in fixed["message"]
    assert code == 200


async def test_an_ingress_gets_the_default_class(api: TestServer) -> None:
    mark = {"ingressclass.kubernetes.io/is-default-class": "true"}
    await api.call(
        "POST", INGRESS_CLASSES, {"metadata": {"name": "web", "annotations": mark}, "spec": {"controller": "a/b"}}
    )
    backend = {"service": {"name": "s", "port": {"number": 80}}}

    code, made = await api.call("POST", INGRESSES, {"metadata": {"name": "i"}, "spec": {"defaultBackend": backend}})

    assert code == 201
    assert made["spec"]["ingressClassName"] == "web"
