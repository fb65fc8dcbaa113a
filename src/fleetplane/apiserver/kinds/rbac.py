"""Roles and bindings. That nobody grants more than he has is the server's to see to, not theirs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from fleetplane.apiserver.kinds.access import entries, fill, made, section, text
from fleetplane.apiserver.kinds.behaviour import KindBehaviour
from fleetplane.apiserver.kinds.checks import Errors, collected, required_name
from fleetplane.apiserver.kinds.columns import text_column
from fleetplane.model import names
from fleetplane.model.errors import FieldError
from fleetplane.model.objects import Object
from fleetplane.model.selectors import validate_label_selector
from fleetplane.model.table import AGE, NAME

GROUP: Final = "rbac.authorization.k8s.io"


def _rules(role: Object, *, namespaced: bool) -> Errors:
    for index, rule in enumerate(role.get("rules") or ()):
        path = f"rules[{index}]"
        if not rule.get("verbs"):
            yield FieldError.required(f"{path}.verbs", "verbs must contain at least one value")
        if rule.get("nonResourceURLs"):
            if namespaced:
                detail = "namespaced rules cannot apply to non-resource URLs"
                yield FieldError.invalid(f"{path}.nonResourceURLs", rule["nonResourceURLs"], detail)
            if rule.get("apiGroups") or rule.get("resources") or rule.get("resourceNames"):
                detail = "rules cannot apply to both regular resources and non-resource URLs"
                yield FieldError.invalid(f"{path}.nonResourceURLs", rule["nonResourceURLs"], detail)
            continue
        if not rule.get("apiGroups"):
            yield FieldError.required(f"{path}.apiGroups", "resource rules must supply at least one api group")
        if not rule.get("resources"):
            yield FieldError.required(f"{path}.resources", "resource rules must supply at least one resource")


def _validate_role(role: Object, old: Object | None) -> Errors:
    yield from _rules(role, namespaced=True)


def _validate_cluster_role(role: Object, old: Object | None) -> Errors:
    yield from _rules(role, namespaced=False)
    aggregation = role.get("aggregationRule")
    if aggregation is not None:
        selectors = aggregation.get("clusterRoleSelectors") or []
        if not selectors:
            detail = "at least one clusterRoleSelector required if aggregationRule is non-nil"
            yield FieldError.required("aggregationRule.clusterRoleSelectors", detail)
        for index, selector in enumerate(selectors):
            yield from validate_label_selector(selector, f"aggregationRule.clusterRoleSelectors[{index}]")


ROLES: Final = KindBehaviour(
    validate=collected(_validate_role), validate_name=names.path_segment, has_generation=False, create_on_update=True
)
CLUSTER_ROLES: Final = KindBehaviour(
    validate=collected(_validate_cluster_role),
    validate_name=names.path_segment,
    has_generation=False,
    create_on_update=True,
)


def _default_binding(binding: Object) -> None:
    reference = made(binding, "roleRef")
    if not reference.get("apiGroup"):
        reference["apiGroup"] = GROUP
    for subject in entries(binding, "subjects"):
        if subject.get("kind") in ("User", "Group"):
            fill(subject, apiGroup=GROUP)


def _subject(subject: Object, path: str, *, namespaced: bool) -> Errors:
    kind, group = text(subject, "kind"), text(subject, "apiGroup")
    if not subject.get("name"):
        yield FieldError.required(f"{path}.name")
    if kind == "ServiceAccount":
        if subject.get("name"):
            yield from required_name(names.dns1123_subdomain, subject["name"], f"{path}.name")
        if group:
            yield FieldError.not_supported(f"{path}.apiGroup", group, [""])
        if not namespaced and not subject.get("namespace"):
            yield FieldError.required(f"{path}.namespace")
    elif kind in ("User", "Group"):
        if group != GROUP:
            yield FieldError.not_supported(f"{path}.apiGroup", group, [GROUP])
    else:
        yield FieldError.not_supported(f"{path}.kind", kind, ["Group", "ServiceAccount", "User"])


def _binding(binding: Object, old: Object | None, *, namespaced: bool) -> Errors:
    reference = binding.get("roleRef") or {}
    if reference.get("apiGroup") != GROUP:
        yield FieldError.not_supported("roleRef.apiGroup", reference.get("apiGroup"), [GROUP])
    kinds = ["ClusterRole", "Role"] if namespaced else ["ClusterRole"]
    if reference.get("kind") not in kinds:
        yield FieldError.not_supported("roleRef.kind", reference.get("kind"), kinds)
    yield from required_name(names.path_segment, text(reference, "name"), "roleRef.name")
    for index, subject in enumerate(binding.get("subjects") or ()):
        yield from _subject(subject, f"subjects[{index}]", namespaced=namespaced)
    if old is not None and reference != old.get("roleRef"):
        yield FieldError.invalid("roleRef", reference, "cannot change roleRef")


def _validate_role_binding(binding: Object, old: Object | None) -> Errors:
    yield from _binding(binding, old, namespaced=True)


def _validate_cluster_role_binding(binding: Object, old: Object | None) -> Errors:
    yield from _binding(binding, old, namespaced=False)


def _role(binding: Mapping[str, Any]) -> str:
    reference = section(binding, "roleRef")
    return f"{text(reference, 'kind')}/{text(reference, 'name')}"


def _subjects(kind: str) -> Any:
    def read(binding: Mapping[str, Any]) -> str:
        found = [one for one in entries(binding, "subjects") if one.get("kind") == kind]
        if kind == "ServiceAccount":
            return ", ".join(f"{text(one, 'namespace')}/{text(one, 'name')}" for one in found)
        return ", ".join(text(one, "name") for one in found)

    return read


_BINDING_COLUMNS: Final = (
    NAME,
    text_column("Role", "The role it grants.", _role),
    AGE,
    text_column("Users", "Users it grants it to.", _subjects("User"), wide=True),
    text_column("Groups", "Groups it grants it to.", _subjects("Group"), wide=True),
    text_column("ServiceAccounts", "Accounts it grants it to.", _subjects("ServiceAccount"), wide=True),
)

ROLE_BINDINGS: Final = KindBehaviour(
    default=_default_binding,
    validate=collected(_validate_role_binding),
    validate_name=names.path_segment,
    columns=_BINDING_COLUMNS,
    has_generation=False,
    create_on_update=True,
)
CLUSTER_ROLE_BINDINGS: Final = KindBehaviour(
    default=_default_binding,
    validate=collected(_validate_cluster_role_binding),
    validate_name=names.path_segment,
    columns=_BINDING_COLUMNS,
    has_generation=False,
    create_on_update=True,
)
