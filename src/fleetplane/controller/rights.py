"""The least rights that let an operator work, read off its declarations.

A controller reads what it reconciles, owns and watches; writes the status and finalizers of the first and the whole of
the second; and tells people with Events. Everything else an operator needs it says itself (``Operator.rules``).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from fleetplane.controller.controller import Controller
from fleetplane.controller.leader import LeaderElection
from fleetplane.model.objects import Object
from fleetplane.model.resources import ResourceRef, resource_of

READ = ("get", "list", "watch")
CHILDREN = (*READ, "create", "patch", "delete")


def rules_for(controllers: Iterable[Controller], extra: Sequence[Object] = ()) -> list[Object]:
    """The rules of a ClusterRole, merged and in a stable order."""
    wanted: dict[tuple[str, str], set[str]] = {}

    def need(resource: ResourceRef, verbs: Iterable[str], subresource: str = "") -> None:
        kind = resource_of(resource)
        name = f"{kind.plural}/{subresource}" if subresource else kind.plural
        wanted.setdefault((kind.group, name), set()).update(verbs)

    for controller in controllers:
        need(controller.resource, (*READ, "patch"))
        need(controller.resource, ("patch",), "status")
        need(controller.resource, ("update",), "finalizers")  # for blockOwnerDeletion
        for owned in controller.owns:
            need(owned, CHILDREN)
        for watch in controller.watches:
            need(watch.resource, READ)
    wanted.setdefault(("", "events"), set()).update({"create", "patch"})
    merged: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for (group, name), verbs in sorted(wanted.items()):
        merged.setdefault((group, tuple(sorted(verbs))), []).append(name)
    rules: list[Object] = [
        {"apiGroups": [group], "resources": names, "verbs": list(verbs)} for (group, verbs), names in merged.items()
    ]
    return [*rules, *extra]


def merged(rules: Iterable[Object]) -> list[Object]:
    """The same rights in as few rules as they take, in a stable order: what several operators need, for one account."""
    wanted: dict[tuple[str, str, tuple[str, ...]], set[str]] = {}
    for rule in rules:
        names = tuple(sorted(rule.get("resourceNames") or ()))
        for group in rule["apiGroups"]:
            for resource in rule["resources"]:
                wanted.setdefault((group, resource, names), set()).update(rule["verbs"])
    for (group, resource, names), verbs in wanted.items():
        if names:  # what all objects allow needs no names
            verbs -= wanted.get((group, resource, ()), set())
    together: dict[tuple[str, tuple[str, ...], tuple[str, ...]], list[str]] = {}
    for (group, resource, names), verbs in sorted(wanted.items()):
        if verbs:
            together.setdefault((group, names, tuple(sorted(verbs))), []).append(resource)
    return [
        {"apiGroups": [group], "resources": resources}
        | ({"resourceNames": list(names)} if names else {})
        | {"verbs": list(verbs)}
        for (group, names, verbs), resources in together.items()
    ]


def election_rules(election: LeaderElection) -> list[Object]:
    """The rules of a Role in the lease's namespace. Only creating cannot be narrowed to the name."""
    return [
        {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["create"]},
        {
            "apiGroups": ["coordination.k8s.io"],
            "resources": ["leases"],
            "resourceNames": [election.name],
            "verbs": ["get", "list", "watch", "update"],
        },
    ]
