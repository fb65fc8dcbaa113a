"""What objects count as, in a quota's terms. Pure.

Amounts are whole numbers inside (thousandths for cpu) and quantities only at the end. Names and scopes are those of
``core/v1`` ResourceQuota.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from fleetplane.model.objects import Object
from fleetplane.model.quantity import Format, Quantity
from fleetplane.workloads.scheduler.shape import Amounts, add, amounts, pod_requests

_BINARY: Final = ("memory", "storage", "ephemeral-storage", "hugepages-")
_STORAGE_CLASS: Final = ".storageclass.storage.k8s.io/"


def written(resource: str, amount: int) -> str:
    """The amount as a quantity, in the format people expect of the resource."""
    plain = resource.removeprefix("requests.").removeprefix("limits.")
    if plain == "cpu":
        return str(Quantity.of_milli(amount))
    is_binary = plain.startswith(_BINARY) or plain.endswith("/requests.storage")
    return str(Quantity.of(amount, Format.BINARY_SI if is_binary else Format.DECIMAL_SI))


def pod_use(pod: Mapping[str, Any]) -> Amounts:
    """Everything a pod counts as; nothing once it has ended."""
    if (pod.get("status") or {}).get("phase") in {"Succeeded", "Failed"}:
        return {}
    spec = pod.get("spec") or {}
    found: Amounts = {"pods": 1, "count/pods": 1}
    for resource, amount in pod_requests(spec).items():
        found[f"requests.{resource}"] = amount
        if resource in {"cpu", "memory", "ephemeral-storage"}:
            found[resource] = amount
    for resource, amount in pod_limits(spec).items():
        found[f"limits.{resource}"] = amount
    return found


def pod_limits(spec: Mapping[str, Any]) -> Amounts:
    """As ``pod_requests``, of limits."""

    def swapped(container: Mapping[str, Any]) -> Object:
        limits = (container.get("resources") or {}).get("limits")
        return {**container, "resources": {"requests": limits}}

    turned: Object = {"overhead": spec.get("overhead")}
    for field in ("containers", "initContainers"):
        turned[field] = [swapped(one) for one in spec.get(field) or ()]
    found = pod_requests(turned)
    return found | amounts((spec.get("resources") or {}).get("limits"))


def claim_use(claim: Mapping[str, Any]) -> Amounts:
    spec = claim.get("spec") or {}
    storage = amounts((spec.get("resources") or {}).get("requests")).get("storage", 0)
    found = {"persistentvolumeclaims": 1, "count/persistentvolumeclaims": 1, "requests.storage": storage}
    if name := spec.get("storageClassName"):
        found[f"{name}{_STORAGE_CLASS}requests.storage"] = storage
        found[f"{name}{_STORAGE_CLASS}persistentvolumeclaims"] = 1
    return found


def service_use(service: Mapping[str, Any]) -> Amounts:
    spec = service.get("spec") or {}
    found = {"services": 1, "count/services": 1}
    kind = spec.get("type")
    ports = len(spec.get("ports") or ())
    if kind == "NodePort":
        found["services.nodeports"] = ports
    elif kind == "LoadBalancer":
        found["services.loadbalancers"] = 1
        allocates = spec.get("allocateLoadBalancerNodePorts")
        if allocates is None or allocates:
            found["services.nodeports"] = ports
    return found


# scopes


def is_best_effort(pod: Mapping[str, Any]) -> bool:
    spec = pod.get("spec") or {}
    everything = (spec, *(spec.get("containers") or ()), *(spec.get("initContainers") or ()))
    return not any(
        amounts((one.get("resources") or {}).get(part)) for one in everything for part in ("requests", "limits")
    )


def _has_deadline(pod: Mapping[str, Any]) -> bool:
    return (pod.get("spec") or {}).get("activeDeadlineSeconds") is not None


def _crosses_namespaces(pod: Mapping[str, Any]) -> bool:
    affinity = (pod.get("spec") or {}).get("affinity") or {}
    for field in ("podAffinity", "podAntiAffinity"):
        terms = affinity.get(field) or {}
        required = terms.get("requiredDuringSchedulingIgnoredDuringExecution") or ()
        preferred = terms.get("preferredDuringSchedulingIgnoredDuringExecution") or ()
        for one in (*required, *(each.get("podAffinityTerm") or {} for each in preferred)):
            if one.get("namespaces") or one.get("namespaceSelector") is not None:
                return True
    return False


_SCOPES: Final[Mapping[str, Callable[[Mapping[str, Any]], bool]]] = {
    "BestEffort": is_best_effort,
    "NotBestEffort": lambda pod: not is_best_effort(pod),
    "Terminating": _has_deadline,
    "NotTerminating": lambda pod: not _has_deadline(pod),
    "CrossNamespacePodAffinity": _crosses_namespaces,
    "PriorityClass": lambda pod: bool((pod.get("spec") or {}).get("priorityClassName")),
}


def has_scopes(quota: Mapping[str, Any]) -> bool:
    spec = quota.get("spec") or {}
    return bool(spec.get("scopes") or (spec.get("scopeSelector") or {}).get("matchExpressions"))


def counts_for(quota: Mapping[str, Any], pod: Mapping[str, Any]) -> bool:
    """Whether the pod lies within all of the quota's scopes."""
    spec = quota.get("spec") or {}
    for scope in spec.get("scopes") or ():
        if not _SCOPES.get(scope, _never)(pod):
            return False
    wanted = (spec.get("scopeSelector") or {}).get("matchExpressions") or ()
    return all(_matches(one, pod) for one in wanted)


def _never(_: Mapping[str, Any]) -> bool:
    return False


def _matches(requirement: Mapping[str, Any], pod: Mapping[str, Any]) -> bool:
    scope, operator = str(requirement.get("scopeName") or ""), requirement.get("operator")
    if scope != "PriorityClass":
        inside = _SCOPES.get(scope, _never)(pod)
        return inside if operator == "Exists" else False
    value = str((pod.get("spec") or {}).get("priorityClassName") or "")
    values = requirement.get("values") or ()
    match operator:
        case "Exists":
            return bool(value)
        case "DoesNotExist":
            return not value
        case "In":
            return value in values
        case "NotIn":
            return value not in values
    return False


def total(uses: Iterable[Amounts]) -> Amounts:
    found: Amounts = {}
    for one in uses:
        add(found, one)
    return found


def status(quota: Mapping[str, Any], used: Mapping[str, int]) -> Object:
    """``hard`` as wanted, and ``used`` for exactly those resources."""
    hard = (quota.get("spec") or {}).get("hard") or {}
    return {"hard": dict(hard), "used": {name: written(name, used.get(name, 0)) for name in hard}}
