"""HorizontalPodAutoscalers between ``autoscaling/v1`` and ``autoscaling/v2``.

Version 1 knows one metric, the average CPU utilization. All else that version 2 says is kept in four annotations, in
the older shapes Kubernetes puts there, so that a client of either version loses nothing. An annotation that is not JSON
of the expected shape is dropped, as Kubernetes does.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Final

from fleetplane.model.objects import Object

_PREFIX: Final = "autoscaling.alpha.kubernetes.io/"
METRICS: Final = _PREFIX + "metrics"
CURRENT_METRICS: Final = _PREFIX + "current-metrics"
BEHAVIOR: Final = _PREFIX + "behavior"
CONDITIONS: Final = _PREFIX + "conditions"
_ANNOTATIONS: Final = (METRICS, CURRENT_METRICS, BEHAVIOR, CONDITIONS)
_DEFAULT_CPU_UTILIZATION: Final = 80


def to_v2(old: Object) -> Object:
    """The ``autoscaling/v2`` form of a version 1 object; ``apiVersion`` is left to the caller."""
    annotations = dict((old.get("metadata") or {}).get("annotations") or {})
    spec, status = dict(old.get("spec") or {}), dict(old.get("status") or {})

    metrics = _parsed(annotations.get(METRICS), list, lambda found: [_metric_to_v2(one) for one in found]) or []
    target = spec.pop("targetCPUUtilizationPercentage", None)
    if target is not None:
        metrics.append(_cpu_metric(target))
    spec["metrics"] = metrics or [_cpu_metric(_DEFAULT_CPU_UTILIZATION)]
    behavior = _parsed(annotations.get(BEHAVIOR), dict, _lower_keys)
    if behavior:
        spec["behavior"] = behavior

    current = status.pop("currentCPUUtilizationPercentage", None)
    if current is not None:
        status["currentMetrics"] = [
            {"type": "Resource", "resource": {"name": "cpu", "current": {"averageUtilization": current}}}
        ]
    told = _parsed(annotations.get(CURRENT_METRICS), list, lambda found: [_status_to_v2(one) for one in found])
    if told:
        status["currentMetrics"] = told
    conditions = _parsed(annotations.get(CONDITIONS), list, _objects)
    if conditions:
        status["conditions"] = conditions

    result = _with_annotations(old, {k: v for k, v in annotations.items() if k not in _ANNOTATIONS})
    result["spec"] = spec
    if status or "status" in old:
        result["status"] = status
    return result


def from_v2(new: Object) -> Object:
    """The ``autoscaling/v1`` form of a version 2 object; ``apiVersion`` is left to the caller."""
    found = (new.get("metadata") or {}).get("annotations") or {}
    annotations = {k: v for k, v in found.items() if k not in _ANNOTATIONS}
    spec, status = dict(new.get("spec") or {}), dict(new.get("status") or {})

    metrics = spec.pop("metrics", None) or []
    cpu = next((m for m in metrics if _is_cpu(m)), None)
    utilization = _of(cpu, "resource", "target", "averageUtilization")
    if utilization is not None:
        spec["targetCPUUtilizationPercentage"] = utilization
    others = [m for m in metrics if not (_is_cpu(m) and _of(m, "resource", "target", "averageUtilization") is not None)]
    if others:
        annotations[METRICS] = _encoded([_metric_from_v2(one) for one in others])
    behavior = spec.pop("behavior", None)
    if behavior is not None:
        annotations[BEHAVIOR] = _encoded(_behavior_from_v2(behavior))

    current = status.pop("currentMetrics", None) or []
    for one in current:
        used = _of(one, "resource", "current", "averageUtilization")
        if _is_cpu(one) and used is not None:
            status["currentCPUUtilizationPercentage"] = used
    if current:
        annotations[CURRENT_METRICS] = _encoded([_status_from_v2(one) for one in current])
    conditions = status.pop("conditions", None)
    if conditions:
        annotations[CONDITIONS] = _encoded(conditions)

    result = _with_annotations(new, annotations)
    result["spec"] = spec
    if status or "status" in new:
        result["status"] = {"currentReplicas": 0, "desiredReplicas": 0} | status
    return result


def _cpu_metric(utilization: int) -> Object:
    target = {"type": "Utilization", "averageUtilization": utilization}
    return {"type": "Resource", "resource": {"name": "cpu", "target": target}}


def _is_cpu(metric: Object) -> bool:
    return metric.get("type") == "Resource" and _of(metric, "resource", "name") == "cpu"


def _of(value: Any, *path: str) -> Any:
    for key in path:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _with_annotations(obj: Object, annotations: Object) -> Object:
    metadata = {k: v for k, v in (obj.get("metadata") or {}).items() if k != "annotations"}
    return obj | {"metadata": metadata | {"annotations": annotations} if annotations else metadata}


def _encoded(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def _parsed(text: Any, shape: type, read: Callable[[Any], Any]) -> Any:
    """What an annotation holds, or None when it is absent or malformed."""
    if not isinstance(text, str):
        return None
    try:
        found = json.loads(text)
        return read(found) if isinstance(found, shape) else None
    except (ValueError, TypeError, AttributeError, RecursionError):
        return None


def _objects(found: list[Any]) -> list[Object]:
    if not all(isinstance(one, dict) for one in found):
        raise TypeError("a list of objects is needed")
    return found


def _set(**fields: Any) -> Object:
    """The fields that are there."""
    return {key: value for key, value in fields.items() if value is not None}


# The four kinds of metric source in their old shape (as in autoscaling/v2beta1) and in the new one.


def _metric_to_v2(old: Object) -> Object:
    kind = old["type"]
    key = kind[:1].lower() + kind[1:]
    return {"type": kind, key: _SOURCE_TO_V2[kind](old.get(key) or {})} if kind in _SOURCE_TO_V2 else old


def _metric_from_v2(new: Object) -> Object:
    kind = str(new.get("type"))
    key = kind[:1].lower() + kind[1:]
    return {"type": kind, key: _SOURCE_FROM_V2[kind](new.get(key) or {})} if kind in _SOURCE_FROM_V2 else new


def _status_to_v2(old: Object) -> Object:
    kind = old["type"]
    key = kind[:1].lower() + kind[1:]
    return {"type": kind, key: _STATUS_TO_V2[kind](old.get(key) or {})} if kind in _STATUS_TO_V2 else old


def _status_from_v2(new: Object) -> Object:
    kind = str(new.get("type"))
    key = kind[:1].lower() + kind[1:]
    return {"type": kind, key: _STATUS_FROM_V2[kind](new.get(key) or {})} if kind in _STATUS_FROM_V2 else new


def _resource_to_v2(old: Object) -> Object:
    utilization, value = old.get("targetAverageUtilization"), old.get("targetAverageValue")
    kind = "AverageValue" if utilization is None else "Utilization"
    return _set(
        name=old.get("name"),
        container=old.get("container"),
        target=_set(type=kind, averageUtilization=utilization, averageValue=value),
    )


def _resource_from_v2(new: Object) -> Object:
    return _set(
        name=new.get("name"),
        targetAverageUtilization=_of(new, "target", "averageUtilization"),
        targetAverageValue=_of(new, "target", "averageValue"),
        container=new.get("container"),
    )


def _identifier(name: Any, selector: Any) -> Object:
    return _set(name=name or "", selector=selector)


def _pods_to_v2(old: Object) -> Object:
    target = _set(type="AverageValue", averageValue=old.get("targetAverageValue"))
    return {"metric": _identifier(old.get("metricName"), old.get("selector")), "target": target}


def _pods_from_v2(new: Object) -> Object:
    return _set(
        metricName=_of(new, "metric", "name"),
        targetAverageValue=_of(new, "target", "averageValue") or "0",
        selector=_of(new, "metric", "selector"),
    )


def _object_to_v2(old: Object) -> Object:
    average = old.get("averageValue")
    kind = "Value" if average is None else "AverageValue"
    return {
        "describedObject": old.get("target") or {},
        "target": _set(type=kind, value=old.get("targetValue"), averageValue=average),
        "metric": _identifier(old.get("metricName"), old.get("selector")),
    }


def _object_from_v2(new: Object) -> Object:
    return _set(
        target=new.get("describedObject"),
        metricName=_of(new, "metric", "name"),
        targetValue=_of(new, "target", "value") or "0",
        selector=_of(new, "metric", "selector"),
        averageValue=_of(new, "target", "averageValue"),
    )


def _external_to_v2(old: Object) -> Object:
    value = old.get("targetValue")
    kind = "AverageValue" if value is None else "Value"
    return {
        "metric": _identifier(old.get("metricName"), old.get("metricSelector")),
        "target": _set(type=kind, value=value, averageValue=old.get("targetAverageValue")),
    }


def _external_from_v2(new: Object) -> Object:
    return _set(
        metricName=_of(new, "metric", "name"),
        metricSelector=_of(new, "metric", "selector"),
        targetValue=_of(new, "target", "value"),
        targetAverageValue=_of(new, "target", "averageValue"),
    )


def _resource_status_to_v2(old: Object) -> Object:
    current = _set(averageUtilization=old.get("currentAverageUtilization"), averageValue=old.get("currentAverageValue"))
    return _set(name=old.get("name"), container=old.get("container"), current=current)


def _resource_status_from_v2(new: Object) -> Object:
    return _set(
        name=new.get("name"),
        currentAverageUtilization=_of(new, "current", "averageUtilization"),
        currentAverageValue=_of(new, "current", "averageValue") or "0",
        container=new.get("container"),
    )


def _pods_status_to_v2(old: Object) -> Object:
    current = _set(averageValue=old.get("currentAverageValue"))
    return {"metric": _identifier(old.get("metricName"), old.get("selector")), "current": current}


def _pods_status_from_v2(new: Object) -> Object:
    return _set(
        metricName=_of(new, "metric", "name"),
        currentAverageValue=_of(new, "current", "averageValue") or "0",
        selector=_of(new, "metric", "selector"),
    )


def _object_status_to_v2(old: Object) -> Object:
    return {
        "metric": _identifier(old.get("metricName"), old.get("selector")),
        "current": _set(value=old.get("currentValue"), averageValue=old.get("averageValue")),
        "describedObject": old.get("target") or {},
    }


def _object_status_from_v2(new: Object) -> Object:
    return _set(
        target=new.get("describedObject"),
        metricName=_of(new, "metric", "name"),
        currentValue=_of(new, "current", "value") or "0",
        selector=_of(new, "metric", "selector"),
        averageValue=_of(new, "current", "averageValue"),
    )


def _external_status_to_v2(old: Object) -> Object:
    return {
        "metric": _identifier(old.get("metricName"), old.get("metricSelector")),
        "current": _set(value=old.get("currentValue"), averageValue=old.get("currentAverageValue")),
    }


def _external_status_from_v2(new: Object) -> Object:
    return _set(
        metricName=_of(new, "metric", "name"),
        metricSelector=_of(new, "metric", "selector"),
        currentValue=_of(new, "current", "value") or "0",
        currentAverageValue=_of(new, "current", "averageValue"),
    )


_SOURCE_TO_V2: Final = {
    "Resource": _resource_to_v2,
    "ContainerResource": _resource_to_v2,
    "Pods": _pods_to_v2,
    "Object": _object_to_v2,
    "External": _external_to_v2,
}
_SOURCE_FROM_V2: Final = {
    "Resource": _resource_from_v2,
    "ContainerResource": _resource_from_v2,
    "Pods": _pods_from_v2,
    "Object": _object_from_v2,
    "External": _external_from_v2,
}
_STATUS_TO_V2: Final = {
    "Resource": _resource_status_to_v2,
    "ContainerResource": _resource_status_to_v2,
    "Pods": _pods_status_to_v2,
    "Object": _object_status_to_v2,
    "External": _external_status_to_v2,
}
_STATUS_FROM_V2: Final = {
    "Resource": _resource_status_from_v2,
    "ContainerResource": _resource_status_from_v2,
    "Pods": _pods_status_from_v2,
    "Object": _object_status_from_v2,
    "External": _external_status_from_v2,
}


# The behaviour annotation holds Kubernetes' internal type, whose JSON keys begin with capitals.


def _lower_keys(value: Any) -> Any:
    if isinstance(value, dict):
        return {k[:1].lower() + k[1:]: _lower_keys(v) for k, v in value.items() if v is not None}
    return [_lower_keys(one) for one in value] if isinstance(value, list) else value


def _behavior_from_v2(behavior: Object) -> Object:
    return {
        "ScaleUp": _rules_from_v2(behavior.get("scaleUp")),
        "ScaleDown": _rules_from_v2(behavior.get("scaleDown")),
    }


def _rules_from_v2(rules: Object | None) -> Object | None:
    if rules is None:
        return None
    shown = {
        "StabilizationWindowSeconds": rules.get("stabilizationWindowSeconds"),
        "SelectPolicy": rules.get("selectPolicy"),
        "Policies": None
        if rules.get("policies") is None
        else [
            {"Type": one.get("type"), "Value": one.get("value"), "PeriodSeconds": one.get("periodSeconds")}
            for one in rules["policies"]
        ],
    }
    if rules.get("tolerance") is not None:
        shown["Tolerance"] = rules["tolerance"]
    return shown
