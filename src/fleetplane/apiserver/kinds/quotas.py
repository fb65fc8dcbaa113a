"""ResourceQuotas and LimitRanges: how much a namespace and what is in it may ask for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from fleetplane.apiserver.kinds.access import entries, made, section, text
from fleetplane.apiserver.kinds.behaviour import KindBehaviour
from fleetplane.apiserver.kinds.checks import Errors, collected, named, parsed_quantity, spec_of, status_of
from fleetplane.apiserver.kinds.columns import text_column
from fleetplane.apiserver.kinds.resource_rules import is_extended, quantity_of, resource_list
from fleetplane.model import names
from fleetplane.model.errors import FieldError
from fleetplane.model.objects import Object
from fleetplane.model.quantity import Quantity
from fleetplane.model.table import AGE, NAME

_QUOTA_RESOURCES: Final = frozenset(
    {
        "configmaps",
        "cpu",
        "ephemeral-storage",
        "limits.cpu",
        "limits.ephemeral-storage",
        "limits.memory",
        "memory",
        "persistentvolumeclaims",
        "pods",
        "replicationcontrollers",
        "requests.cpu",
        "requests.ephemeral-storage",
        "requests.memory",
        "requests.storage",
        "resourcequotas",
        "secrets",
        "services",
        "services.loadbalancers",
        "services.nodeports",
    }
)
_SCOPES: Final = (
    "BestEffort",
    "CrossNamespacePodAffinity",
    "NotBestEffort",
    "NotTerminating",
    "PriorityClass",
    "Terminating",
    "VolumeAttributesClass",
)
_EXCLUSIVE: Final = (("BestEffort", "NotBestEffort"), ("Terminating", "NotTerminating"))


def _validate_quota(quota: Object, old: Object | None) -> Errors:
    spec = spec_of(quota)
    for name, value in (spec.get("hard") or {}).items():
        path = f"spec.hard[{name}]"
        yield from named(names.qualified_name, name, path)
        plain = "/" not in name and not name.startswith(("hugepages-", "requests.hugepages-", "count/"))
        if plain and name not in _QUOTA_RESOURCES:
            yield FieldError.invalid(path, name, "must be a standard resource for quota")
        yield from quantity_of(name, value, path)
    scopes = spec.get("scopes") or []
    for scope in scopes:
        if scope not in _SCOPES:
            yield FieldError.invalid("spec.scopes", scopes, "unsupported scope")
    for one, other in _EXCLUSIVE:
        if one in scopes and other in scopes:
            yield FieldError.invalid("spec.scopes", scopes, "conflicting scopes")
    yield from _scope_selector(spec.get("scopeSelector") or {})
    if old is not None and sorted(scopes) != sorted(spec_of(old).get("scopes") or []):
        yield FieldError.invalid("spec.scopes", scopes, "field is immutable")


def _scope_selector(selector: Mapping[str, Any]) -> Errors:
    for index, requirement in enumerate(selector.get("matchExpressions") or ()):
        path = f"spec.scopeSelector.matchExpressions[{index}]"
        scope, operator = text(requirement, "scopeName"), text(requirement, "operator")
        values = requirement.get("values") or []
        if scope not in _SCOPES:
            yield FieldError.invalid(f"{path}.scopeName", scope, "unsupported scope")
        if scope not in ("PriorityClass", "VolumeAttributesClass") and operator != "Exists":
            detail = "must be 'Exist' when scope is any of ResourceQuotaScopeTerminating and its kin"
            yield FieldError.invalid(f"{path}.operator", operator, detail)
        if operator in ("In", "NotIn"):
            if not values:
                detail = "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector"
                yield FieldError.required(f"{path}.values", detail)
        elif operator in ("Exists", "DoesNotExist"):
            if values:
                detail = "must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector"
                yield FieldError.invalid(f"{path}.values", values, detail)
        else:
            yield FieldError.invalid(f"{path}.operator", operator, "not a valid selector operator")


def _validate_quota_status(quota: Object, old: Object | None) -> Errors:
    status = status_of(quota)
    for key in ("hard", "used"):
        yield from resource_list(status.get(key) or {}, f"status.{key}")


def _used(quota: Mapping[str, Any], *, limits: bool) -> str:
    hard, used = section(quota, "status", "hard"), section(quota, "status", "used")
    return ", ".join(
        f"{name}: {used.get(name, '0')}/{hard[name]}" for name in sorted(hard) if name.startswith("limits.") is limits
    )


RESOURCE_QUOTAS: Final = KindBehaviour(
    validate=collected(_validate_quota),
    validate_status=collected(_validate_quota_status),
    columns=(
        NAME,
        text_column("Request", "Used and allowed, of requests and counts.", lambda obj: _used(obj, limits=False)),
        text_column("Limit", "Used and allowed, of limits.", lambda obj: _used(obj, limits=True)),
        AGE,
    ),
    has_generation=False,
)


def _default_limits(limit_range: Object) -> None:
    """What a container gets by default follows from the most and least it may have."""
    for item in entries(section(limit_range, "spec"), "limits"):
        if item.get("type") != "Container":
            continue
        for source, target in (("max", "default"), ("default", "defaultRequest"), ("min", "defaultRequest")):
            found = item.get(source)
            if isinstance(found, dict) and found:
                for name, value in found.items():
                    made(item, target).setdefault(name, value)


def _validate_limits(limit_range: Object, old: Object | None) -> Errors:
    seen: set[str] = set()
    for index, item in enumerate(spec_of(limit_range).get("limits") or ()):
        path = f"spec.limits[{index}]"
        kind = text(item, "type")
        if kind not in ("Pod", "Container", "PersistentVolumeClaim") and "/" not in kind:
            detail = "must be a standard limit type or fully qualified"
            yield FieldError.invalid(f"{path}.type", kind, detail)
        if kind in seen:
            yield FieldError.duplicate(f"{path}.type", kind)
        seen.add(kind)
        yield from _limit_item(item, kind, path)


def _limit_item(item: Object, kind: str, path: str) -> Errors:
    kinds = ("max", "min", "default", "defaultRequest", "maxLimitRequestRatio")
    for key in kinds:
        if kind == "Pod" and key.startswith("default") and item.get(key):
            yield FieldError.forbidden(f"{path}.{key}", "may not be specified when `type` is 'Pod'")
        yield from resource_list(item.get(key) or {}, f"{path}.{key}")
    if kind == "PersistentVolumeClaim" and "storage" not in {**(item.get("min") or {}), **(item.get("max") or {})}:
        detail = "either minimum or maximum storage value is required, but neither was provided"
        yield FieldError.required(f"{path}.limits", detail)
    for name in sorted({name for key in kinds for name in item.get(key) or {}}):
        found = {key: parsed_quantity((item.get(key) or {}).get(name, "")) for key in kinds}
        yield from _ordered(found, name, path)


def _ordered(found: Mapping[str, Quantity | None], name: str, path: str) -> Errors:
    """min <= defaultRequest <= default <= max, wherever two of them are told."""
    least, most, default, request = (found[key] for key in ("min", "max", "default", "defaultRequest"))
    for low, low_word, high, high_word, field in (
        (least, "min value", most, "max value", "min"),
        (least, "min value", request, "default request value", "defaultRequest"),
        (request, "default request value", most, "max value", "defaultRequest"),
        (request, "default request value", default, "default limit value", "defaultRequest"),
        (least, "min value", default, "default value", "default"),
        (default, "default value", most, "max value", "default"),
    ):
        if low is not None and high is not None and low > high:
            detail = f"{low_word} {low} is greater than {high_word} {high}"
            yield FieldError.invalid(f"{path}.{field}[{name}]", str(low), detail)
    ratio = found["maxLimitRequestRatio"]
    if ratio is not None and ratio < Quantity.of(1):
        detail = f"ratio {ratio} is less than 1"
        yield FieldError.invalid(f"{path}.maxLimitRequestRatio[{name}]", str(ratio), detail)
    if is_extended(name) and default is not None and request is not None and default != request:
        detail = f"default value {default} must equal to defaultRequest value {request} in {name}"
        yield FieldError.invalid(f"{path}.defaultRequest[{name}]", str(request), detail)


LIMIT_RANGES: Final = KindBehaviour(
    default=_default_limits,
    validate=collected(_validate_limits),
    has_generation=False,
    create_on_update=True,
)
