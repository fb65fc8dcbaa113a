"""LimitRanger: what containers get that say nothing, and the least and most that pods and claims may ask for.

Follows the plug-in of that name in Kubernetes, wording included. Defaults are filled in when a pod is created; bounds
also hold when one is resized.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from fleetplane.apiserver.admission.refusals import refuse
from fleetplane.apiserver.admission.views import ClusterId, View
from fleetplane.apiserver.kinds.access import entries, section, text
from fleetplane.model.admission import (
    ALLOWED,
    AdmissionPlugin,
    AdmissionRequest,
    AdmissionRule,
    Decision,
    Reader,
    changed,
)
from fleetplane.model.objects import Object, is_deleting
from fleetplane.model.pod_resources import Amounts, container_amounts, parsed, pod_limits, pod_requests
from fleetplane.model.quantity import Quantity

ANNOTATION: Final = "kubernetes.io/limit-ranger"
_LISTS: Final = (("containers", "container"), ("initContainers", "init container"))


def limit_plugins(limits: View, cluster_id: ClusterId) -> list[AdmissionPlugin]:
    async def fill(request: AdmissionRequest, _reader: Reader) -> Decision:
        found = limits.all(cluster_id(request.cluster), request.namespace)
        pod = request.new
        if not found or pod is None:
            return ALLOWED
        for limit_range in found:
            pod = with_defaults(pod, limit_range)
        return ALLOWED if pod is request.new else changed(pod)

    async def check(request: AdmissionRequest, _reader: Reader) -> Decision:
        found = limits.all(cluster_id(request.cluster), request.namespace)
        if not found or request.new is None or (request.old is not None and is_deleting(request.old)):
            return ALLOWED
        broken = _broken_by_pod if request.resource.plural == "pods" else _broken_by_claim
        for limit_range in found:
            problems = list(dict.fromkeys(broken(entries(section(limit_range, "spec"), "limits"), request.new)))
            if problems:
                return refuse(request, problems[0] if len(problems) == 1 else f"[{', '.join(problems)}]")
        return ALLOWED

    return [
        AdmissionPlugin("limitranger.fleetplane.io", "mutate", [AdmissionRule(["pods"], ["CREATE"])], fill, order=100),
        AdmissionPlugin(
            "limits.limitranger.fleetplane.io",
            "validate",
            [
                AdmissionRule(["pods"], ["CREATE"]),
                AdmissionRule(["pods"], ["UPDATE"], ["resize"]),
                AdmissionRule(["persistentvolumeclaims"]),
            ],
            check,
            order=100,
        ),
    ]


# -- defaults --------------------------------------------------------------------------------------------------------


def with_defaults(pod: Object, limit_range: Mapping[str, Any]) -> Object:
    """The pod with the defaults of one LimitRange; the same one when nothing is missing."""
    requests: Object = {}
    limits: Object = {}
    for item in entries(section(limit_range, "spec"), "limits"):
        if item.get("type") == "Container":
            requests |= item.get("defaultRequest") or {}
            limits |= item.get("default") or {}
    if not requests and not limits:
        return pod
    spec = dict(section(pod, "spec"))
    told: list[str] = []
    for key, word in _LISTS:
        if spec.get(key):
            spec[key] = [_filled(one, requests, limits, word, told) for one in entries(spec, key)]
    if not told:
        return pod
    metadata = dict(pod["metadata"])
    metadata["annotations"] = {
        **(metadata.get("annotations") or {}),
        ANNOTATION: f"LimitRanger plugin set: {'; '.join(told)}",
    }
    return {**pod, "metadata": metadata, "spec": spec}


def _filled(container: Object, requests: Object, limits: Object, word: str, told: list[str]) -> Object:
    resources = section(container, "resources")
    made = dict(resources)
    for key, defaults in (("requests", requests), ("limits", limits)):
        given = section(resources, key)
        missing = {name: amount for name, amount in defaults.items() if name not in given}
        if missing:
            made[key] = {**given, **missing}
            told.append(f"{', '.join(sorted(missing))} {key[:-1]} for {word} {text(container, 'name')}")
    return {**container, "resources": made} if made != resources else container


# -- bounds ----------------------------------------------------------------------------------------------------------


def _broken_by_pod(items: Iterable[Object], pod: Mapping[str, Any]) -> Iterator[str]:
    spec = pod["spec"]
    for item in items:
        if item["type"] == "Container":
            for container in (*(spec.get("containers") or ()), *(spec.get("initContainers") or ())):
                requests, limits = container_amounts(container, "requests"), container_amounts(container, "limits")
                yield from _broken(item, requests, limits)
        elif item["type"] == "Pod":
            yield from _broken(item, pod_requests(pod, overhead=False), pod_limits(pod, overhead=False))


def _broken_by_claim(items: Iterable[Object], claim: Mapping[str, Any]) -> Iterator[str]:
    requests = parsed(((claim["spec"].get("resources")) or {}).get("requests"))
    for item in items:
        if item["type"] != "PersistentVolumeClaim":
            continue
        for name, least in _bounds(item, "min"):
            yield from _too_little(item["type"], name, least, requests.get(name), None)
        for name, most in _bounds(item, "max"):
            request = requests.get(name)
            bound = f"maximum {name} usage per {item['type']} is {most}"
            if request is None:
                yield f"{bound}.  No request is specified"
            elif request > most:
                yield f"{bound}, but request is {request}"


def _bounds(item: Object, key: str) -> list[tuple[str, Quantity]]:
    return sorted(parsed(item.get(key)).items(), key=lambda one: one[0])


def _broken(item: Object, requests: Amounts, limits: Amounts) -> Iterator[str]:
    kind = item["type"]
    for name, least in _bounds(item, "min"):
        yield from _too_little(kind, name, least, requests.get(name), limits.get(name))
    for name, most in _bounds(item, "max"):
        yield from _too_much(kind, name, most, requests.get(name), limits.get(name))
    for name, ratio in _bounds(item, "maxLimitRequestRatio"):
        yield from _too_far_apart(kind, name, ratio, requests.get(name), limits.get(name))


def _too_little(
    kind: str, name: str, least: Quantity, request: Quantity | None, limit: Quantity | None
) -> Iterator[str]:
    bound = f"minimum {name} usage per {kind} is {least}"
    if request is None:
        yield f"{bound}.  No request is specified"
    elif request < least:
        yield f"{bound}, but request is {request}"
    elif limit is not None and limit < least:
        yield f"{bound}, but limit is {limit}"


def _too_much(kind: str, name: str, most: Quantity, request: Quantity | None, limit: Quantity | None) -> Iterator[str]:
    bound = f"maximum {name} usage per {kind} is {most}"
    if limit is None:
        yield f"{bound}.  No limit is specified"
    elif limit > most:
        yield f"{bound}, but limit is {limit}"
    elif request is not None and request > most:
        yield f"{bound}, but request is {request}"


def _too_far_apart(
    kind: str, name: str, ratio: Quantity, request: Quantity | None, limit: Quantity | None
) -> Iterator[str]:
    bound = f"{name} max limit to request ratio per {kind} is {ratio}"
    if not request:
        yield f"{bound}, but no request is specified or request is 0"
    elif not limit:
        yield f"{bound}, but no limit is specified or limit is 0"
    elif limit.nanos * 10**9 > ratio.nanos * request.nanos:
        yield f"{bound}, but provided ratio is {limit.nanos / request.nanos:f}"
