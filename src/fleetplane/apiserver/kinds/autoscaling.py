"""HorizontalPodAutoscalers, in their stored form (``autoscaling/v2``)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from fleetplane.apiserver.kinds.access import entries, fill, made, number, section, text
from fleetplane.apiserver.kinds.behaviour import KindBehaviour
from fleetplane.apiserver.kinds.checks import (
    Errors,
    collected,
    in_range,
    named,
    parsed_quantity,
    required,
    spec_of,
    supported,
)
from fleetplane.apiserver.kinds.columns import NONE, UNSET, at_most, text_column
from fleetplane.model import names
from fleetplane.model.errors import FieldError
from fleetplane.model.objects import Object
from fleetplane.model.table import AGE, NAME, UNKNOWN

_SOURCES: Final = {
    "ContainerResource": "containerResource",
    "External": "external",
    "Object": "object",
    "Pods": "pods",
    "Resource": "resource",
}
_MAX_WINDOW: Final = 3600
_MAX_PERIOD: Final = 1800


def _default(autoscaler: Object) -> None:
    spec = made(autoscaler, "spec")
    fill(spec, minReplicas=1)
    if not spec.get("metrics"):
        target = {"type": "Utilization", "averageUtilization": 80}
        spec["metrics"] = [{"type": "Resource", "resource": {"name": "cpu", "target": target}}]
    behavior = spec.get("behavior")
    if not isinstance(behavior, dict):
        return
    up, down = made(behavior, "scaleUp"), made(behavior, "scaleDown")
    fill(up, selectPolicy="Max", stabilizationWindowSeconds=0)
    fill(down, selectPolicy="Max")
    fill(
        up,
        policies=[
            {"type": "Pods", "value": 4, "periodSeconds": 15},
            {"type": "Percent", "value": 100, "periodSeconds": 15},
        ],
    )
    fill(down, policies=[{"type": "Percent", "value": 100, "periodSeconds": 15}])


def _validate(autoscaler: Object, old: Object | None) -> Errors:
    spec = spec_of(autoscaler)
    least, most = spec.get("minReplicas"), number(spec, "maxReplicas")
    if least is not None and least < 1 and not (least == 0 and _scales_on_demand(spec)):
        yield FieldError.invalid("spec.minReplicas", least, "must be greater than or equal to 1")
    if most < 1:
        yield FieldError.invalid("spec.maxReplicas", most, "must be greater than 0")
    if least is not None and most < least:
        yield FieldError.invalid("spec.maxReplicas", most, "must be greater than or equal to `minReplicas`")
    yield from _reference(section(spec, "scaleTargetRef"), "spec.scaleTargetRef")
    for index, metric in enumerate(spec.get("metrics") or ()):
        yield from _metric(metric, f"spec.metrics[{index}]")
    for direction in ("scaleUp", "scaleDown"):
        rules = section(spec, "behavior").get(direction)
        if rules is not None:
            yield from _rules(rules, f"spec.behavior.{direction}")


def _scales_on_demand(spec: Object) -> bool:
    return any(metric.get("type") in ("Object", "External") for metric in spec.get("metrics") or ())


def _reference(reference: Object, path: str) -> Errors:
    for key in ("kind", "name"):
        value = text(reference, key)
        if value:
            yield from named(names.path_segment, value, f"{path}.{key}")
        else:
            yield FieldError.required(f"{path}.{key}")


def _metric(metric: Object, path: str) -> Errors:
    kind = text(metric, "type")
    if not kind:
        yield FieldError.required(f"{path}.type", "must specify a metric source type")
        return
    if kind not in _SOURCES:
        yield FieldError.not_supported(f"{path}.type", kind, sorted(_SOURCES))
        return
    key = _SOURCES[kind]
    for other in sorted(_SOURCES.values()):
        if other != key and metric.get(other) is not None:
            yield FieldError.forbidden(f"{path}.{other}", "must populate the given metric source only")
    source, here = metric.get(key), f"{path}.{key}"
    if source is None:
        yield FieldError.required(here, "must populate information for the given metric source")
        return
    if kind in ("Resource", "ContainerResource"):
        yield from required(source.get("name"), f"{here}.name", "must specify a resource name")
    if kind == "ContainerResource":
        yield from required(source.get("container"), f"{here}.container", "must specify a container")
    if kind in ("Pods", "Object", "External"):
        yield from required(section(source, "metric").get("name"), f"{here}.metric.name", "must specify a metric name")
    if kind == "Object":
        yield from _reference(section(source, "describedObject"), f"{here}.describedObject")
    yield from _target(section(source, "target"), kind, f"{here}.target")


def _target(target: Object, kind: str, path: str) -> Errors:
    told = text(target, "type")
    if not told:
        yield FieldError.required(f"{path}.type", "must specify a metric target type")
    elif told not in ("Utilization", "Value", "AverageValue"):
        detail = "must be either Utilization, Value, or AverageValue"
        yield FieldError.invalid(f"{path}.type", told, detail)
    for key in ("value", "averageValue"):
        found = parsed_quantity(target[key]) if target.get(key) is not None else None
        if found is not None and found.nanos <= 0:
            yield FieldError.invalid(f"{path}.{key}", target[key], "must be positive")
    utilization, value, average = (target.get(key) for key in ("averageUtilization", "value", "averageValue"))
    if utilization is not None and utilization < 1:
        yield FieldError.invalid(f"{path}.averageUtilization", utilization, "must be greater than 0")
    if kind in ("Resource", "ContainerResource"):
        if utilization is None and average is None:
            detail = "must set either a target raw value or a target utilization"
            yield FieldError.required(f"{path}.averageUtilization", detail)
        elif utilization is not None and average is not None:
            detail = "may not set both a target raw value and a target utilization"
            yield FieldError.forbidden(f"{path}.averageValue", detail)
    elif kind == "Pods":
        if average is None:
            yield FieldError.required(f"{path}.averageValue", "must specify a positive target averageValue")
    elif value is None and average is None:
        yield FieldError.required(f"{path}.averageValue", "must set either a target value or averageValue")
    elif kind == "External" and value is not None and average is not None:
        detail = "may not set both a target value for metric and a per-pod target"
        yield FieldError.forbidden(f"{path}.value", detail)


def _rules(rules: Object, path: str) -> Errors:
    yield from in_range(rules.get("stabilizationWindowSeconds"), 0, _MAX_WINDOW, f"{path}.stabilizationWindowSeconds")
    if rules.get("selectPolicy") is not None:
        yield from supported(rules["selectPolicy"], ("Disabled", "Max", "Min"), f"{path}.selectPolicy")
    policies = rules.get("policies") or ()
    if not policies:
        yield FieldError.required(f"{path}.policies", "must specify at least one Policy")
    for index, policy in enumerate(policies):
        here = f"{path}.policies[{index}]"
        yield from supported(text(policy, "type"), ("Percent", "Pods"), f"{here}.type")
        for key in ("value", "periodSeconds"):
            if number(policy, key) <= 0:
                yield FieldError.invalid(f"{here}.{key}", number(policy, key), "must be greater than zero")
        if number(policy, "periodSeconds") > _MAX_PERIOD:
            detail = f"must be less than or equal to {_MAX_PERIOD}"
            yield FieldError.invalid(f"{here}.periodSeconds", policy["periodSeconds"], detail)


def _targets(autoscaler: Mapping[str, Any]) -> str:
    metrics = entries(section(autoscaler, "spec"), "metrics")
    current = entries(section(autoscaler, "status"), "currentMetrics")
    if not metrics:
        return NONE
    shown = [_shown(metric, current[place] if place < len(current) else {}) for place, metric in enumerate(metrics)]
    return at_most(shown, 2, ", ")


def _shown(metric: Object, current: Object) -> str:
    kind = text(metric, "type")
    key = _SOURCES.get(kind)
    if key is None:
        return "<unknown type>"
    target, status = section(metric, key, "target"), section(current, key, "current")
    per_pod = target.get("averageValue") is not None
    if kind in ("Resource", "ContainerResource"):
        if per_pod:
            shown = f"{status.get('averageValue', UNKNOWN)}/{target['averageValue']}"
        else:
            used, wanted = status.get("averageUtilization"), target.get("averageUtilization")
            shown = f"{UNKNOWN if used is None else f'{used}%'}/{'<auto>' if wanted is None else f'{wanted}%'}"
        return f"{text(section(metric, key), 'name')}: {shown}"
    if kind == "Pods":
        return f"{status.get('averageValue', UNKNOWN)}/{target.get('averageValue', '0')}"
    if per_pod:
        return f"{status.get('averageValue', UNKNOWN)}/{target['averageValue']} (avg)"
    return f"{status.get('value', UNKNOWN)}/{target.get('value', '0')}"


def _scaled(autoscaler: Mapping[str, Any]) -> str:
    reference = section(autoscaler, "spec", "scaleTargetRef")
    return f"{text(reference, 'kind')}/{text(reference, 'name')}"


def _least(autoscaler: Mapping[str, Any]) -> str:
    found = section(autoscaler, "spec").get("minReplicas")
    return UNSET if found is None else str(found)


HORIZONTAL_POD_AUTOSCALERS: Final = KindBehaviour(
    default=_default,
    validate=collected(_validate),
    columns=(
        NAME,
        text_column("Reference", "What it scales.", _scaled),
        text_column("Targets", "What is measured, and what is wanted.", _targets),
        text_column("MinPods", "Fewest pods.", _least),
        text_column("MaxPods", "Most pods.", lambda obj: number(section(obj, "spec"), "maxReplicas")),
        text_column("Replicas", "Pods there are.", lambda obj: number(section(obj, "status"), "currentReplicas")),
        AGE,
    ),
)
