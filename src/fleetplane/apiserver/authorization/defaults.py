"""The default RBAC objects: one shared read-only layer under every logical cluster.

They are not stored. The server lists and gets them beside stored objects; one stored under the same name hides the
default, and deleting it brings the default back.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from functools import cache
from typing import Final

from fleetplane.apiserver.authorization import default_roles as tables
from fleetplane.apiserver.authorization.rbac import RbacIndex
from fleetplane.model.objects import Object

_API_VERSION: Final = "rbac.authorization.k8s.io/v1"
_CONTROLLER: Final = "system:controller:"
_UIDS: Final = uuid.UUID("6f3f1c1e-2d0b-5a3e-9d54-3a1c5f0e7b21")
"""Uids of default objects are derived from kind and name: the same everywhere, and no row to keep them in."""

_SHORT: Final = {
    "read": ("get", "list", "watch"),
    "write": ("create", "update", "patch", "delete", "deletecollection"),
}


@cache
def default_objects() -> tuple[Object, ...]:
    """All default ClusterRoles, ClusterRoleBindings, Roles and RoleBindings. Readers must not change them.

    Aggregated roles show what they gather of the defaults; with a cluster's own roles ``RbacIndex.effective`` tells.
    They carry a uid, but no resourceVersion and no creationTimestamp: whoever serves them knows those.
    """
    found = [
        *_roles(tables.CLUSTER_ROLES, "ClusterRole", ""),
        *_roles(tables.CONTROLLER_ROLES, "ClusterRole", _CONTROLLER),
        *_roles(tables.NAMESPACED_ROLES, "Role", ""),
    ]
    for line in tables.CLUSTER_BINDINGS.strip().splitlines():
        name, *subjects = line.split()
        found.append(_binding("ClusterRoleBinding", name, "ClusterRole", name, subjects))
    for line in tables.CONTROLLER_ROLES.strip().splitlines():
        if not line.startswith(" "):
            role = _CONTROLLER + line
            found.append(
                _binding("ClusterRoleBinding", role, "ClusterRole", role, [f"ServiceAccount=kube-system/{line}"])
            )
    for line in tables.NAMESPACED_BINDINGS.strip().splitlines():
        name, role, *subjects = line.split()
        found.append(_binding("RoleBinding", name, "Role", role, subjects))
    gathered = RbacIndex(found)
    return tuple(gathered.effective("", one) if one["kind"] == "ClusterRole" else one for one in found)


def _roles(table: str, kind: str, prefix: str) -> Iterator[Object]:
    role: Object = {}
    for line in table.strip().splitlines():
        if line.startswith(" "):
            role.setdefault("rules", []).append(_rule(line.split()))
            continue
        if role:
            yield role
        name, *marks = line.split()
        role = _object(kind, prefix + name)
        for mark in marks:
            label = f"rbac.authorization.k8s.io/aggregate-to-{mark[1:]}"
            if mark[0] == "+":
                role["metadata"]["labels"][label] = "true"
            else:
                role["aggregationRule"] = {"clusterRoleSelectors": [{"matchLabels": {label: "true"}}]}
    yield role


def _rule(words: list[str]) -> Object:
    if words == ["events"]:
        words = ["create,patch,update", "-,events.k8s.io", "events"]
    verbs = sorted(v for word in words[0].split(",") for v in _SHORT.get(word, (word,)))
    if words[1] == "url":
        return {"verbs": verbs, "nonResourceURLs": sorted(words[2].split(","))}
    rule: Object = {
        "verbs": verbs,
        "apiGroups": sorted("" if group == "-" else group for group in words[1].split(",")),
        "resources": sorted(words[2].split(",")),
    }
    if len(words) > 3:
        rule["resourceNames"] = sorted(words[4].split(","))
    return rule


def _binding(kind: str, name: str, role_kind: str, role: str, subjects: list[str]) -> Object:
    obj = _object(kind, name)
    obj["roleRef"] = {"apiGroup": "rbac.authorization.k8s.io", "kind": role_kind, "name": role}
    if subjects:
        obj["subjects"] = [_subject(subject) for subject in subjects]
    return obj


def _subject(text: str) -> Object:
    kind, _, name = text.partition("=")
    if kind == "ServiceAccount":
        namespace, _, name = name.partition("/")
        return {"kind": kind, "namespace": namespace, "name": name}
    return {"kind": kind, "apiGroup": "rbac.authorization.k8s.io", "name": name}


def _object(kind: str, full_name: str) -> Object:
    namespace, slash, name = full_name.partition("/")
    if not slash:
        namespace, name = "", full_name
    metadata: Object = {
        "name": name,
        "uid": str(uuid.uuid5(_UIDS, f"{kind}/{full_name}")),
        "labels": {"kubernetes.io/bootstrapping": "rbac-defaults"},
        "annotations": {"rbac.authorization.kubernetes.io/autoupdate": "true"},
    }
    if namespace:
        metadata["namespace"] = namespace
    return {"apiVersion": _API_VERSION, "kind": kind, "metadata": metadata}
