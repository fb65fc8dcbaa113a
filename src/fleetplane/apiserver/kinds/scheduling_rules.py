"""Rules for where a pod may run: affinity, tolerations, spreading, node selectors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from fleetplane.apiserver.kinds.checks import Errors, named, positive, supported
from fleetplane.model import names
from fleetplane.model.errors import FieldError
from fleetplane.model.objects import Object
from fleetplane.model.selectors import validate_label_selector

TAINT_EFFECTS: Final = ("NoExecute", "NoSchedule", "PreferNoSchedule")


def tolerations(found: Sequence[Object], path: str) -> Errors:
    for index, toleration in enumerate(found):
        here = f"{path}[{index}]"
        key, operator = toleration.get("key") or "", toleration.get("operator") or ""
        effect, value = toleration.get("effect") or "", toleration.get("value") or ""
        if key:
            yield from named(names.qualified_name, key, f"{here}.key")
        elif operator != "Exists":
            detail = 'operator must be Exists when `key` is empty, which means "match all values and all keys"'
            yield FieldError.invalid(f"{here}.operator", operator, detail)
        if toleration.get("tolerationSeconds") is not None and effect != "NoExecute":
            detail = "effect must be 'NoExecute' when `tolerationSeconds` is set"
            yield FieldError.invalid(f"{here}.effect", effect, detail)
        if operator in ("", "Equal"):
            problems = names.label_value(value)
            if problems:
                yield FieldError.invalid(f"{here}.operator", value, ";".join(problems))
        elif operator == "Exists":
            if value:
                detail = "value must be empty when `operator` is 'Exists'"
                yield FieldError.invalid(f"{here}.operator", toleration, detail)
        elif operator in ("Gt", "Lt"):
            if not value.lstrip("-").isdigit():
                yield FieldError.invalid(
                    f"{here}.value", value, "must be a whole number when `operator` is 'Gt' or 'Lt'"
                )
        else:
            yield FieldError.not_supported(f"{here}.operator", operator, ["Equal", "Exists"])
        if effect:
            yield from supported(effect, TAINT_EFFECTS, f"{here}.effect")


def node_selector_term(term: Mapping[str, Any], path: str) -> Errors:
    for index, requirement in enumerate(term.get("matchExpressions") or ()):
        yield from _node_requirement(requirement, f"{path}.matchExpressions[{index}]")
    for index, requirement in enumerate(term.get("matchFields") or ()):
        here = f"{path}.matchFields[{index}]"
        if requirement.get("operator") in ("In", "NotIn"):
            if len(requirement.get("values") or ()) != 1:
                detail = "must be only one value when `operator` is 'In' or 'NotIn' for node field selector"
                yield FieldError.required(f"{here}.values", detail)
        else:
            yield FieldError.invalid(f"{here}.operator", requirement.get("operator"), "not a valid selector operator")
        if requirement.get("key") != "metadata.name":
            yield FieldError.invalid(f"{here}.key", requirement.get("key"), "not a valid field selector key")


def _node_requirement(requirement: Object, path: str) -> Errors:
    operator, values = requirement.get("operator") or "", requirement.get("values") or ()
    if operator in ("In", "NotIn"):
        if not values:
            yield FieldError.required(f"{path}.values", "must be specified when `operator` is 'In' or 'NotIn'")
    elif operator in ("Exists", "DoesNotExist"):
        if values:
            detail = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'"
            yield FieldError.forbidden(f"{path}.values", detail)
    elif operator in ("Gt", "Lt"):
        if len(values) != 1:
            detail = "must be specified single value when `operator` is 'Lt' or 'Gt'"
            yield FieldError.required(f"{path}.values", detail)
    else:
        yield FieldError.invalid(f"{path}.operator", operator, "not a valid selector operator")
    yield from named(names.label_key, requirement.get("key") or "", f"{path}.key")


def node_selector(found: Mapping[str, Any], path: str) -> Errors:
    terms = found.get("nodeSelectorTerms") or ()
    if not terms:
        yield FieldError.required(f"{path}.nodeSelectorTerms", "must have at least one node selector term")
    for index, term in enumerate(terms):
        yield from node_selector_term(term, f"{path}.nodeSelectorTerms[{index}]")


def affinity(found: Mapping[str, Any], path: str) -> Errors:
    node = found.get("nodeAffinity")
    if node is not None:
        required = node.get("requiredDuringSchedulingIgnoredDuringExecution")
        here = f"{path}.nodeAffinity"
        if required is not None:
            yield from node_selector(required, f"{here}.requiredDuringSchedulingIgnoredDuringExecution")
        for index, term in enumerate(node.get("preferredDuringSchedulingIgnoredDuringExecution") or ()):
            there = f"{here}.preferredDuringSchedulingIgnoredDuringExecution[{index}]"
            yield from _weight(term, there)
            yield from node_selector_term(term.get("preference") or {}, f"{there}.preference")
    for kind in ("podAffinity", "podAntiAffinity"):
        pods = found.get(kind) or {}
        here = f"{path}.{kind}"
        for index, term in enumerate(pods.get("requiredDuringSchedulingIgnoredDuringExecution") or ()):
            yield from _pod_term(term, f"{here}.requiredDuringSchedulingIgnoredDuringExecution[{index}]")
        for index, term in enumerate(pods.get("preferredDuringSchedulingIgnoredDuringExecution") or ()):
            there = f"{here}.preferredDuringSchedulingIgnoredDuringExecution[{index}]"
            yield from _weight(term, there)
            yield from _pod_term(term.get("podAffinityTerm") or {}, f"{there}.podAffinityTerm")


def _weight(term: Object, path: str) -> Errors:
    if not 1 <= (term.get("weight") or 0) <= 100:
        yield FieldError.invalid(f"{path}.weight", term.get("weight"), "must be in the range 1-100")


def _pod_term(term: Object, path: str) -> Errors:
    for key in ("labelSelector", "namespaceSelector"):
        yield from validate_label_selector(term.get(key), f"{path}.{key}")
    for namespace in term.get("namespaces") or ():
        yield from named(names.dns1123_label, namespace, f"{path}.namespace")
    key = term.get("topologyKey") or ""
    if not key:
        yield FieldError.required(f"{path}.topologyKey", "can not be empty")
    else:
        yield from named(names.label_key, key, f"{path}.topologyKey")
    for field in ("matchLabelKeys", "mismatchLabelKeys"):
        yield from _label_keys(term, field, path)


def _label_keys(holder: Object, field: str, path: str) -> Errors:
    keys = holder.get(field) or ()
    if keys and holder.get("labelSelector") is None:
        yield FieldError.forbidden(f"{path}.{field}", "must not be specified when labelSelector is not set")
    for index, key in enumerate(keys):
        yield from named(names.label_key, key, f"{path}.{field}[{index}]")


def spread_constraints(found: Sequence[Object], path: str) -> Errors:
    seen = set()
    for index, constraint in enumerate(found):
        here = f"{path}[{index}]"
        yield from positive(constraint.get("maxSkew") or 0, f"{here}.maxSkew")
        key = constraint.get("topologyKey") or ""
        if not key:
            yield FieldError.required(f"{here}.topologyKey", "can not be empty")
        else:
            yield from named(names.label_key, key, f"{here}.topologyKey")
        action = constraint.get("whenUnsatisfiable") or ""
        yield from supported(action, ("DoNotSchedule", "ScheduleAnyway"), f"{here}.whenUnsatisfiable")
        if (key, action) in seen:
            yield FieldError.duplicate(f"{here}.{{topologyKey, whenUnsatisfiable}}", f"{{{key}, {action}}}")
        seen.add((key, action))
        domains = constraint.get("minDomains")
        if domains is not None:
            yield from positive(domains, f"{here}.minDomains")
            if action != "DoNotSchedule":
                detail = "can only use minDomains if whenUnsatisfiable=DoNotSchedule, not " + action
                yield FieldError.invalid(f"{here}.minDomains", domains, detail)
        for field in ("nodeAffinityPolicy", "nodeTaintsPolicy"):
            if constraint.get(field) is not None:
                yield from supported(constraint[field], ("Honor", "Ignore"), f"{here}.{field}")
        yield from validate_label_selector(constraint.get("labelSelector"), f"{here}.labelSelector")
        yield from _label_keys(constraint, "matchLabelKeys", here)


def taints(found: Sequence[Object], path: str) -> Errors:
    seen = set()
    for index, taint in enumerate(found):
        here = f"{path}[{index}]"
        yield from named(names.qualified_name, taint.get("key") or "", f"{here}.key")
        problems = names.label_value(taint.get("value") or "")
        if problems:
            yield FieldError.invalid(f"{here}.value", taint.get("value"), ";".join(problems))
        effect = taint.get("effect") or ""
        if not effect:
            yield FieldError.required(f"{here}.effect")
        else:
            yield from supported(effect, TAINT_EFFECTS, f"{here}.effect")
        if (taint.get("key"), effect) in seen:
            yield FieldError("FieldValueDuplicate", f"{here}.effect", "taints must be unique by key and effect pair")
        seen.add((taint.get("key"), effect))
