"""RBAC objects that mean nothing are refused by field; references are completed."""

from __future__ import annotations

from typing import Any

import pytest

from fleetplane.apiserver.authorization.defaults import default_objects
from fleetplane.apiserver.authorization.validation import fill_references, validate

Obj = dict[str, Any]
GROUP = "rbac.authorization.k8s.io"
REF = {"apiGroup": GROUP, "kind": "ClusterRole", "name": "r"}
GOOD = {"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}
URLS = {"verbs": ["get"], "nonResourceURLs": ["/x"]}


def role(*rules: Obj, kind: str = "ClusterRole", **more: Any) -> Obj:
    return {"kind": kind, "rules": list(rules), **more}


def binding(*subjects: Obj, kind: str = "ClusterRoleBinding", **ref: str) -> Obj:
    return {"kind": kind, "roleRef": {**REF, **ref}, "subjects": list(subjects)}


def user(**more: str) -> Obj:
    return {"kind": "User", "apiGroup": GROUP, "name": "ann", **more}


@pytest.mark.parametrize(
    ("obj", "field"),
    [
        (role({**GOOD, "verbs": []}), "rules[0].verbs"),
        (role(GOOD, {"verbs": ["get"], "resources": ["pods"]}), "rules[1].apiGroups"),
        (role({"verbs": ["get"], "apiGroups": [""]}), "rules[0].resources"),
        (role({**GOOD, **URLS}), "rules[0].nonResourceURLs"),
        (role(URLS, kind="Role"), "rules[0].nonResourceURLs"),
        (role(aggregationRule={}), "aggregationRule.clusterRoleSelectors"),
        (binding(kind="ClusterRoleBinding", kind_="") | {"roleRef": {**REF, "kind": "Role"}}, "roleRef.kind"),
        (binding(apiGroup="x"), "roleRef.apiGroup"),
        (binding(name=""), "roleRef.name"),
        (binding(name="a/b"), "roleRef.name"),
        (binding(user(name="")), "subjects[0].name"),
        (binding(user(apiGroup="")), "subjects[0].apiGroup"),
        (binding({"kind": "ServiceAccount", "name": "s"}), "subjects[0].namespace"),
        (binding({"kind": "ServiceAccount", "name": "s", "namespace": "n", "apiGroup": GROUP}), "subjects[0].apiGroup"),
        (binding({"kind": "Robot", "name": "s"}), "subjects[0].kind"),
    ],
)  # fmt: skip
def test_what_means_nothing_is_refused(obj: Obj, field: str) -> None:
    assert [one.field for one in validate(obj)] == [field]


def test_what_means_something_is_accepted() -> None:
    assert list(validate(role(GOOD, URLS))) == []
    assert list(validate(binding(user(), kind="RoleBinding"))) == []
    assert list(validate(binding({"kind": "ServiceAccount", "name": "s"}, kind="RoleBinding"))) == []


def test_a_bindings_role_never_changes() -> None:
    assert next(str(one) for one in validate(binding(name="other"), binding())).endswith("cannot change roleRef")
    assert list(validate(binding(user()), binding())) == []


def test_references_are_completed_once() -> None:
    short = {
        "roleRef": {"kind": "Role", "name": "r"},
        "subjects": [{"kind": "User", "name": "u"}, {"kind": "ServiceAccount", "name": "s"}],
    }

    filled = fill_references(short)

    assert filled["roleRef"]["apiGroup"] == GROUP
    assert [one.get("apiGroup") for one in filled["subjects"]] == [GROUP, None]
    assert fill_references(filled) is filled


def test_all_defaults_are_valid() -> None:
    for obj in default_objects():
        assert list(validate(obj)) == []
