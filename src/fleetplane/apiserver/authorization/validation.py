"""What a role or binding must look like, and what is filled in: Kubernetes' defaults and validation of RBAC objects."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from fleetplane.apiserver.authorization.rbac import GROUP
from fleetplane.model.admission import AdmissionPlugin, AdmissionRequest, AdmissionRule, mutating, validating
from fleetplane.model.errors import FieldError
from fleetplane.model.objects import Object
from fleetplane.model.selectors import validate_label_selector

_BINDINGS: Final = ("rolebindings", "clusterrolebindings")
_ROLES: Final = ("roles", "clusterroles")


def role_plugins() -> list[AdmissionPlugin]:
    """The two admission steps: fill in the API groups of references, refuse what means nothing."""

    def rules(plurals: tuple[str, ...]) -> list[AdmissionRule]:
        return [AdmissionRule([f"{plural}.{GROUP}" for plural in plurals])]

    def check(request: AdmissionRequest) -> Iterator[FieldError]:
        return validate(request.object, request.old)

    return [
        mutating(f"references.{GROUP}", rules(_BINDINGS), lambda request: fill_references(request.object)),
        validating(f"rules.{GROUP}", rules((*_ROLES, *_BINDINGS)), check),
    ]


def fill_references(binding: Object) -> Object:
    """A binding with the API groups its references leave out; the same object when nothing is missing."""
    ref, subjects = binding.get("roleRef"), binding.get("subjects")
    filled: Object = {}
    if isinstance(ref, dict) and not ref.get("apiGroup"):
        filled["roleRef"] = {**ref, "apiGroup": GROUP}
    if isinstance(subjects, list):
        complete = [_with_group(one) for one in subjects]
        if complete != subjects:
            filled["subjects"] = complete
    return {**binding, **filled} if filled else binding


def _with_group(subject: Any) -> Any:
    if isinstance(subject, dict) and subject.get("kind") in {"User", "Group"} and not subject.get("apiGroup"):
        return {**subject, "apiGroup": GROUP}
    return subject


def validate(obj: Object, old: Object | None = None) -> Iterator[FieldError]:
    """What is wrong with a Role, ClusterRole, RoleBinding or ClusterRoleBinding that fits its schema."""
    kind = str(obj.get("kind") or "")
    if kind.endswith("Binding"):
        yield from _binding(obj, old, namespaced=kind == "RoleBinding")
        return
    for i, rule in enumerate(obj.get("rules") or ()):
        yield from _rule(rule, f"rules[{i}]", namespaced=kind == "Role")
    aggregation = obj.get("aggregationRule")
    if aggregation is not None:
        yield from _aggregation(aggregation)


def _rule(rule: Mapping[str, Any], path: str, *, namespaced: bool) -> Iterator[FieldError]:
    if not rule.get("verbs"):
        yield FieldError.required(f"{path}.verbs", "verbs must contain at least one value")
    urls = rule.get("nonResourceURLs")
    if urls:
        if namespaced:
            detail = "namespaced rules cannot apply to non-resource URLs"
            yield FieldError.invalid(f"{path}.nonResourceURLs", urls, detail)
        if any(rule.get(key) for key in ("apiGroups", "resources", "resourceNames")):
            detail = "rules cannot apply to both regular resources and non-resource URLs"
            yield FieldError.invalid(f"{path}.nonResourceURLs", urls, detail)
        return
    if not rule.get("apiGroups"):
        yield FieldError.required(f"{path}.apiGroups", "resource rules must supply at least one api group")
    if not rule.get("resources"):
        yield FieldError.required(f"{path}.resources", "resource rules must supply at least one resource")


def _aggregation(aggregation: Mapping[str, Any]) -> Iterator[FieldError]:
    path = "aggregationRule.clusterRoleSelectors"
    selectors = aggregation.get("clusterRoleSelectors")
    if not selectors:
        yield FieldError.required(path, "at least one clusterRoleSelector required if aggregationRule is non-nil")
    for i, selector in enumerate(selectors or ()):
        yield from validate_label_selector(selector, f"{path}[{i}]")


def _binding(obj: Object, old: Object | None, *, namespaced: bool) -> Iterator[FieldError]:
    ref = obj.get("roleRef") or {}
    if old is not None and ref != old.get("roleRef"):
        yield FieldError.invalid("roleRef", ref, "cannot change roleRef")
    if ref.get("apiGroup") != GROUP:
        yield FieldError.not_supported("roleRef.apiGroup", ref.get("apiGroup", ""), [GROUP])
    kinds = ["ClusterRole", "Role"] if namespaced else ["ClusterRole"]
    if ref.get("kind") not in kinds:
        yield FieldError.not_supported("roleRef.kind", ref.get("kind", ""), kinds)
    if not ref.get("name"):
        yield FieldError.required("roleRef.name")
    elif ref["name"] in {".", ".."} or "/" in ref["name"] or "%" in ref["name"]:
        yield FieldError.invalid("roleRef.name", ref["name"], "may not be '.' or '..', nor contain '/' or '%'")
    for i, subject in enumerate(obj.get("subjects") or ()):
        yield from _subject(subject, f"subjects[{i}]", namespaced=namespaced)


def _subject(subject: Mapping[str, Any], path: str, *, namespaced: bool) -> Iterator[FieldError]:
    kind, group = subject.get("kind", ""), subject.get("apiGroup") or ""
    if not subject.get("name"):
        yield FieldError.required(f"{path}.name")
    if kind == "ServiceAccount":
        if group:
            yield FieldError.not_supported(f"{path}.apiGroup", group, [""])
        if not namespaced and not subject.get("namespace"):
            yield FieldError.required(f"{path}.namespace")
    elif kind in {"User", "Group"}:
        if group != GROUP:
            yield FieldError.not_supported(f"{path}.apiGroup", group, [GROUP])
    else:
        yield FieldError.not_supported(f"{path}.kind", kind, ["Group", "ServiceAccount", "User"])
