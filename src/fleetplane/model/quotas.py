"""What a ResourceQuota counts: how much of it an object uses, and which quotas an object falls under.

Pure functions on objects in their storage version, shared by whoever claims usage and whoever recounts it, so that the
two never disagree. Follows the quota evaluators of Kubernetes: pods are counted by what they ask for until they have
ended, services by ports and load balancers, claims by storage and class, everything by number (``count/<resource>``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from fleetplane.model.environment import parse_timestamp
from fleetplane.model.objects import Object
from fleetplane.model.pod_resources import Amounts, container_amounts, is_best_effort, parsed, pod_limits, pod_requests
from fleetplane.model.quantity import ZERO, Quantity

ONE: Final = Quantity.of(1)
STORAGE_CLASS: Final = ".storageclass.storage.k8s.io/"
_COUNTED_BY_OLD_NAME: Final = frozenset({"configmaps", "resourcequotas", "replicationcontrollers", "secrets"})
_COMPUTE: Final = ("cpu", "memory", "ephemeral-storage")
_POD_RESOURCES: Final = frozenset(
    {"pods", "count/pods", *_COMPUTE, *(f"requests.{one}" for one in _COMPUTE), *(f"limits.{one}" for one in _COMPUTE)}
)
_MUST_BE_TOLD: Final = frozenset({"cpu", "memory", "requests.cpu", "requests.memory", "limits.cpu", "limits.memory"})
_SERVICE_RESOURCES: Final = frozenset({"services", "count/services", "services.nodeports", "services.loadbalancers"})
_CLAIM_RESOURCES: Final = frozenset({"persistentvolumeclaims", "requests.storage"})


def _no_scope(_requirement: Mapping[str, Any], _obj: Mapping[str, Any]) -> bool:
    return False


def _nothing_missing(_required: Iterable[str], _obj: Mapping[str, Any]) -> list[str]:
    return []


@dataclass(frozen=True, slots=True)
class Measure:
    """How objects of one resource are counted.

    ``usage(obj, now)`` is what one uses; ``counts(name)`` whether a quota on ``name`` is about this resource;
    ``in_scope(requirement, obj)`` whether an object is in the scope of a ``ScopedResourceSelectorRequirement``;
    ``missing(names, obj)`` what an object fails to tell when quotas on ``names`` hold, in words; ``only_number`` is
    set where every object uses the same.
    """

    usage: Callable[[Mapping[str, Any], datetime], Amounts]
    counts: Callable[[str], bool]
    in_scope: Callable[[Mapping[str, Any], Mapping[str, Any]], bool] = _no_scope
    missing: Callable[[Iterable[str], Mapping[str, Any]], list[str]] = _nothing_missing
    only_number: bool = False


def measure_of(group: str, plural: str) -> Measure:
    """How the objects of a resource are counted; every resource is, at least by number."""
    found = _MEASURES.get((group, plural))
    if found is not None:
        return found
    names = {count_name(group, plural)}
    if not group and plural in _COUNTED_BY_OLD_NAME:
        names.add(plural)
    usage = dict.fromkeys(names, ONE)
    return Measure(lambda _obj, _now: dict(usage), names.__contains__, only_number=True)


def count_name(group: str, plural: str) -> str:
    return f"count/{plural}.{group}" if group else f"count/{plural}"


def resources_counted(names: Iterable[str]) -> set[tuple[str, str]]:
    """The (group, plural) whose objects quotas on these names count."""
    found: set[tuple[str, str]] = set()
    for name in names:
        if name.startswith("count/"):
            plural, _, group = name.removeprefix("count/").partition(".")
            found.add((group, plural))
        elif name in _COUNTED_BY_OLD_NAME:
            found.add(("", name))
        else:
            found |= {key for key, measure in _MEASURES.items() if measure.counts(name)}
    return found


def scope_requirements(quota: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The scopes of a quota, all of which an object must be in."""
    spec = quota.get("spec") or {}
    for scope in spec.get("scopes") or ():
        yield {"scopeName": scope, "operator": "Exists"}
    yield from (spec.get("scopeSelector") or {}).get("matchExpressions") or ()


def in_scopes(quota: Mapping[str, Any], measure: Measure, obj: Mapping[str, Any]) -> bool:
    return all(measure.in_scope(one, obj) for one in scope_requirements(quota))


def usage_under(quota: Mapping[str, Any], measure: Measure, obj: Mapping[str, Any], now: datetime) -> Amounts:
    """What an object uses of the resources a quota limits; nothing when it is out of scope."""
    hard = (quota.get("spec") or {}).get("hard") or {}
    if not any(measure.counts(name) for name in hard) or not in_scopes(quota, measure, obj):
        return {}
    return {name: amount for name, amount in measure.usage(obj, now).items() if name in hard}


# -- pods ------------------------------------------------------------------------------------------------------------


def _pod_usage(pod: Mapping[str, Any], now: datetime) -> Amounts:
    found: Amounts = {"count/pods": ONE}
    if has_ended(pod, now):
        return found
    return found | _compute(pod_requests(pod), pod_limits(pod)) | {"pods": ONE}


def has_ended(pod: Mapping[str, Any], now: datetime) -> bool:
    """Whether a pod no longer counts: finished, or being deleted for longer than it was given."""
    if (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed"):
        return True
    metadata = pod["metadata"]
    deleted, grace = metadata.get("deletionTimestamp"), metadata.get("deletionGracePeriodSeconds")
    if not deleted or grace is None:
        return False
    return now > parse_timestamp(deleted) + timedelta(seconds=grace)


def _compute(requests: Amounts, limits: Amounts) -> Amounts:
    found: Amounts = {}
    for name, amount in requests.items():
        if name in _COMPUTE or name.startswith("hugepages-"):
            found[name] = amount
            found[f"requests.{name}"] = amount
        elif _is_extended(name):
            found[f"requests.{name}"] = amount
    for name, amount in limits.items():
        if name in _COMPUTE:
            found[f"limits.{name}"] = amount
    return found


def _is_extended(name: str) -> bool:
    return "/" in name and "kubernetes.io/" not in name and not name.startswith("requests.")


def _counts_for_pods(name: str) -> bool:
    if name in _POD_RESOURCES or name.startswith(("hugepages-", "requests.hugepages-")):
        return True
    return name.startswith("requests.") and _is_extended(name.removeprefix("requests.")) and STORAGE_CLASS not in name


def _missing_of_pod(required: Iterable[str], pod: Mapping[str, Any]) -> list[str]:
    """A pod must say what each container asks of CPU and memory where these are limited, or say it for the whole."""
    wanted = _MUST_BE_TOLD & set(required)
    if not wanted:
        return []
    spec = pod.get("spec") or {}
    told_for_all = set(_compute(container_amounts(spec, "requests"), container_amounts(spec, "limits")))
    missing: dict[str, set[str]] = {}
    for container in (*(spec.get("containers") or ()), *(spec.get("initContainers") or ())):
        told = _compute(container_amounts(container, "requests"), container_amounts(container, "limits"))
        for name in wanted - told.keys() - told_for_all:
            missing.setdefault(name, set()).add(str(container.get("name")))
    return [f"{name} for: {','.join(sorted(missing[name]))}" for name in sorted(missing)]


def _pod_in_scope(requirement: Mapping[str, Any], pod: Mapping[str, Any]) -> bool:
    spec = pod.get("spec") or {}
    match requirement.get("scopeName"):
        case "Terminating":
            return _has_deadline(spec)
        case "NotTerminating":
            return not _has_deadline(spec)
        case "BestEffort":
            return is_best_effort(pod)
        case "NotBestEffort":
            return not is_best_effort(pod)
        case "PriorityClass":
            name = spec.get("priorityClassName")
            return _selected(requirement, [name] if name else [])
        case "CrossNamespacePodAffinity":
            return any(_reaches_out(term) for term in _affinity_terms(spec))
    return False


def _has_deadline(spec: Mapping[str, Any]) -> bool:
    return (spec.get("activeDeadlineSeconds") or -1) >= 0


def _affinity_terms(spec: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    affinity = spec.get("affinity") or {}
    for kind in ("podAffinity", "podAntiAffinity"):
        rules = affinity.get(kind) or {}
        yield from rules.get("requiredDuringSchedulingIgnoredDuringExecution") or ()
        for weighted in rules.get("preferredDuringSchedulingIgnoredDuringExecution") or ():
            yield weighted.get("podAffinityTerm") or {}


def _reaches_out(term: Mapping[str, Any]) -> bool:
    return bool(term.get("namespaces")) or term.get("namespaceSelector") is not None


def _selected(requirement: Mapping[str, Any], values: Sequence[str]) -> bool:
    wanted = requirement.get("values") or ()
    match requirement.get("operator"):
        case "In":
            return any(value in wanted for value in values)
        case "NotIn":
            return not any(value in wanted for value in values)
        case "Exists":
            return bool(values)
        case "DoesNotExist":
            return not values
    return False


# -- services and claims ---------------------------------------------------------------------------------------------


def _service_usage(service: Mapping[str, Any], _now: datetime) -> Amounts:
    spec = service.get("spec") or {}
    ports = spec.get("ports") or ()
    kind = spec.get("type")
    node_ports = len(ports) if kind in ("NodePort", "LoadBalancer") else 0
    if kind == "LoadBalancer" and spec.get("allocateLoadBalancerNodePorts") is False:
        node_ports = sum(1 for port in ports if port.get("nodePort"))
    return {
        "services": ONE,
        "count/services": ONE,
        "services.nodeports": Quantity.of(node_ports),
        "services.loadbalancers": ONE if kind == "LoadBalancer" else ZERO,
    }


def _claim_usage(claim: Mapping[str, Any], _now: datetime) -> Amounts:
    spec = claim.get("spec") or {}
    found: Amounts = {"persistentvolumeclaims": ONE, "count/persistentvolumeclaims": ONE}
    annotations = claim["metadata"].get("annotations") or {}
    storage_class = annotations.get("volume.beta.kubernetes.io/storage-class") or spec.get("storageClassName")
    if storage_class:
        found[f"{storage_class}{STORAGE_CLASS}persistentvolumeclaims"] = ONE
    storage = parsed((spec.get("resources") or {}).get("requests")).get("storage")
    if storage is not None:
        whole = Quantity.of(storage.value(), storage.format)
        found["requests.storage"] = whole
        if storage_class:
            found[f"{storage_class}{STORAGE_CLASS}requests.storage"] = whole
    return found


def _counts_for_claims(name: str) -> bool:
    if name in _CLAIM_RESOURCES or name == "count/persistentvolumeclaims":
        return True
    _, found, what = name.partition(STORAGE_CLASS)
    return bool(found) and what in _CLAIM_RESOURCES


def _claim_in_scope(requirement: Mapping[str, Any], claim: Mapping[str, Any]) -> bool:
    if requirement.get("scopeName") != "VolumeAttributesClass":
        return False
    spec, status = claim.get("spec") or {}, claim.get("status") or {}
    classes = [
        spec.get("volumeAttributesClassName"),
        status.get("currentVolumeAttributesClassName"),
        (status.get("modifyVolumeStatus") or {}).get("targetVolumeAttributesClassName"),
    ]
    return _selected(requirement, [one for one in classes if one])


_MEASURES: Final[Mapping[tuple[str, str], Measure]] = {
    ("", "pods"): Measure(_pod_usage, _counts_for_pods, _pod_in_scope, _missing_of_pod),
    ("", "services"): Measure(_service_usage, _SERVICE_RESOURCES.__contains__),
    ("", "persistentvolumeclaims"): Measure(_claim_usage, _counts_for_claims, _claim_in_scope),
}


# -- arithmetic ------------------------------------------------------------------------------------------------------


def increase(new: Mapping[str, Quantity], old: Mapping[str, Quantity]) -> Amounts:
    """How much more of each resource ``new`` is than ``old``; what is no more is left out."""
    more = {name: amount - old.get(name, ZERO) for name, amount in new.items()}
    return {name: amount for name, amount in more.items() if amount > ZERO}


def shown(amounts: Mapping[str, Quantity]) -> str:
    """``cpu=1,pods=2``, as quota messages have it."""
    return ",".join(f"{name}={amounts[name]}" for name in sorted(amounts))


def as_object(amounts: Mapping[str, Quantity]) -> Object:
    return {name: str(amounts[name]) for name in sorted(amounts)}
