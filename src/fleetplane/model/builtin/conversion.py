"""One object, another served version: the pure functions between versions of the built-in kinds.

Each kind has one hub, the version it is stored in; every other version (a spoke) has a function to the hub and one
from it. Where the structures are the same only ``apiVersion`` changes. What an older version cannot say rides in the
annotations Kubernetes uses for it. Arguments are never changed; unchanged parts are shared with the result.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from fleetplane.model.builtin import autoscaling_conversion as autoscaling
from fleetplane.model.objects import Object

Convert = Callable[[Object], Object]

_ZONE: Final = "topology.kubernetes.io/zone"
_HOSTNAME: Final = "kubernetes.io/hostname"
_EMPTY_SELECTOR_MATCH: Final = "pdb.kubernetes.io/deprecated-v1beta1-empty-selector-match"


class _Spoke(NamedTuple):
    hub: str
    """The API version objects are stored in."""
    to_hub: Convert
    from_hub: Convert


def convert(obj: Object, api_version: str) -> Object:
    """The object in another served version of its kind.

    Returns the object itself when it already has that version. Raises ValueError when the kind is not served in one of
    the two versions.
    """
    kind, current = str(obj.get("kind")), str(obj.get("apiVersion"))
    if current == api_version:
        return obj
    spoke = _SPOKES.get((current, kind))
    if spoke is not None:
        obj = spoke.to_hub(obj) | {"apiVersion": spoke.hub}
        if spoke.hub == api_version:
            return obj
    target = _SPOKES.get((api_version, kind))
    if target is None or target.hub != obj["apiVersion"]:
        raise ValueError(f"there is no conversion of {kind} from {current} to {api_version}")
    return target.from_hub(obj) | {"apiVersion": api_version}


def hub_of(api_version: str, kind: str) -> str | None:
    """The API version a kind is stored in, when it is another than this one."""
    spoke = _SPOKES.get((api_version, kind))
    return spoke.hub if spoke is not None else None


def _same(obj: Object) -> Object:
    return obj


def _renamed(obj: Object, names: Mapping[str, str]) -> Object:
    return {names.get(key, key): value for key, value in obj.items()}


def _inverse(names: Mapping[str, str]) -> Mapping[str, str]:
    return {new: old for old, new in names.items()}


# Events: events.k8s.io renames the fields of the core Event.

_EVENT_FIELDS: Final = {
    "regarding": "involvedObject",
    "note": "message",
    "deprecatedSource": "source",
    "deprecatedFirstTimestamp": "firstTimestamp",
    "deprecatedLastTimestamp": "lastTimestamp",
    "deprecatedCount": "count",
    "reportingController": "reportingComponent",
}


def _event_to_core(event: Object) -> Object:
    result = _renamed(event, _EVENT_FIELDS)
    result.setdefault("involvedObject", {})
    return result


def _event_from_core(event: Object) -> Object:
    result = _renamed(event, _inverse(_EVENT_FIELDS))
    result.setdefault("eventTime", None)
    return result


# Ingress: networking.k8s.io/v1beta1 names a backend by serviceName and servicePort.


def _old_backend(backend: Object) -> Object:
    rest = {k: v for k, v in backend.items() if k != "service"}
    service = backend.get("service")
    if not isinstance(service, dict):
        return rest
    port = service.get("port") or {}
    return rest | {"serviceName": service.get("name", ""), "servicePort": port.get("name") or port.get("number", 0)}


def _new_backend(backend: Object) -> Object:
    rest = {k: v for k, v in backend.items() if k not in ("serviceName", "servicePort")}
    name, port = backend.get("serviceName"), backend.get("servicePort")
    if not name and not port and port != "":
        return rest
    shown: Object = {"name": port} if isinstance(port, str) and port else {"number": port} if port else {}
    return rest | {"service": {"name": name or "", "port": shown}}


def _with_paths(rule: Any, change: Callable[[Object], Object]) -> Any:
    http = rule.get("http") if isinstance(rule, dict) else None
    if not isinstance(http, dict) or not isinstance(http.get("paths"), list):
        return rule
    return rule | {"http": http | {"paths": [change(path) for path in http["paths"]]}}


def _new_path(path: Object) -> Object:
    result = {"pathType": "ImplementationSpecific"} | path
    return result | {"backend": _new_backend(path["backend"])} if isinstance(path.get("backend"), dict) else result


def _old_path(path: Object) -> Object:
    return path | {"backend": _old_backend(path["backend"])} if isinstance(path.get("backend"), dict) else path


def _ingress_to_v1(ingress: Object) -> Object:
    spec = ingress.get("spec")
    if not isinstance(spec, dict):
        return ingress
    spec = dict(spec)
    if isinstance(spec.get("backend"), dict):
        spec["defaultBackend"] = _new_backend(spec.pop("backend"))
    if isinstance(spec.get("rules"), list):
        spec["rules"] = [_with_paths(rule, _new_path) for rule in spec["rules"]]
    return ingress | {"spec": spec}


def _ingress_from_v1(ingress: Object) -> Object:
    spec = ingress.get("spec")
    if not isinstance(spec, dict):
        return ingress
    spec = dict(spec)
    if isinstance(spec.get("defaultBackend"), dict):
        spec["backend"] = _old_backend(spec.pop("defaultBackend"))
    if isinstance(spec.get("rules"), list):
        spec["rules"] = [_with_paths(rule, _old_path) for rule in spec["rules"]]
    return ingress | {"spec": spec}


# EndpointSlices: discovery.k8s.io/v1beta1 tells zone and node in a map of topology labels.


def _endpoint_to_v1(endpoint: Object) -> Object:
    result = {k: v for k, v in endpoint.items() if k != "topology"}
    topology = dict(endpoint.get("topology") or {})
    if _ZONE in topology:
        result["zone"] = topology.pop(_ZONE)
    if _HOSTNAME in topology and topology[_HOSTNAME] == endpoint.get("nodeName"):
        del topology[_HOSTNAME]
    return result | {"deprecatedTopology": topology} if topology else result


def _endpoint_from_v1(endpoint: Object) -> Object:
    result = {k: v for k, v in endpoint.items() if k not in ("zone", "deprecatedTopology")}
    topology = dict(endpoint.get("deprecatedTopology") or {})
    if endpoint.get("zone") is not None:
        topology[_ZONE] = endpoint["zone"]
    if endpoint.get("nodeName") is not None:
        topology[_HOSTNAME] = endpoint["nodeName"]
    return result | {"topology": topology} if topology else result


def _each_endpoint(change: Convert) -> Convert:
    def changed(endpoint_slice: Object) -> Object:
        endpoints = endpoint_slice.get("endpoints")
        if not isinstance(endpoints, list):
            return endpoint_slice
        return endpoint_slice | {"endpoints": [change(one) for one in endpoints]}

    return changed


# PodDisruptionBudgets: an empty selector selected nothing in v1beta1 and selects everything in v1.


def _empty_selector_match(operator: str) -> Object:
    return {"matchExpressions": [{"key": _EMPTY_SELECTOR_MATCH, "operator": operator}]}


def _budget_to_v1(budget: Object) -> Object:
    spec = budget.get("spec")
    if not isinstance(spec, dict):
        return budget
    selector = spec.get("selector")
    if selector == {}:
        return budget | {"spec": spec | {"selector": _empty_selector_match("Exists")}}
    if selector == _empty_selector_match("DoesNotExist"):
        return budget | {"spec": spec | {"selector": {}}}
    return budget


def _budget_from_v1(budget: Object) -> Object:
    spec = budget.get("spec")
    if not isinstance(spec, dict):
        return budget
    selector = spec.get("selector")
    if selector == {}:
        return budget | {"spec": spec | {"selector": _empty_selector_match("DoesNotExist")}}
    if selector == _empty_selector_match("Exists"):
        return budget | {"spec": spec | {"selector": {}}}
    return budget


_SPOKES: Final[Mapping[tuple[str, str], _Spoke]] = {
    ("events.k8s.io/v1", "Event"): _Spoke("v1", _event_to_core, _event_from_core),
    ("autoscaling/v1", "HorizontalPodAutoscaler"): _Spoke("autoscaling/v2", autoscaling.to_v2, autoscaling.from_v2),
    ("autoscaling/v2beta2", "HorizontalPodAutoscaler"): _Spoke("autoscaling/v2", _same, _same),
    ("batch/v1beta1", "CronJob"): _Spoke("batch/v1", _same, _same),
    ("discovery.k8s.io/v1beta1", "EndpointSlice"): _Spoke(
        "discovery.k8s.io/v1", _each_endpoint(_endpoint_to_v1), _each_endpoint(_endpoint_from_v1)
    ),
    ("networking.k8s.io/v1beta1", "Ingress"): _Spoke("networking.k8s.io/v1", _ingress_to_v1, _ingress_from_v1),
    ("networking.k8s.io/v1beta1", "IngressClass"): _Spoke("networking.k8s.io/v1", _same, _same),
    ("policy/v1beta1", "PodDisruptionBudget"): _Spoke("policy/v1", _budget_to_v1, _budget_from_v1),
    ("policy/v1beta1", "Eviction"): _Spoke("policy/v1", _same, _same),
}
"""(spoke API version, kind) -> how it reaches its hub."""
