"""RBAC as an index in memory: fed by events, asked without waiting.

Per logical cluster it keeps roles and bindings as compiled values, and under all clusters one shared read-only layer of
default objects; an object stored under the same name hides the default. What a subject may do in a namespace is
gathered once into ``Permissions`` and remembered until any role or binding of the cluster changes, so a check is a few
dictionary look-ups however many bindings exist.

Aggregated ClusterRoles are computed here from their selectors: what counts is the set of roles, never a copy of their
rules that a controller may not have written yet.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from fleetplane.apiserver.authorization.attributes import NO_OPINION, Attributes, Decision, Verdict
from fleetplane.apiserver.authorization.rules import Rule, allows_path, allows_resource, rules_of
from fleetplane.apiserver.reader import ObjectReader
from fleetplane.model import objects
from fleetplane.model.objects import Object
from fleetplane.model.resources import ResourceType
from fleetplane.model.selectors import LabelSelector
from fleetplane.model.user import SERVICE_ACCOUNT_PREFIX, UserInfo

GROUP: Final = "rbac.authorization.k8s.io"
ROLES: Final = ResourceType(GROUP, "v1", "Role", "roles")
ROLE_BINDINGS: Final = ResourceType(GROUP, "v1", "RoleBinding", "rolebindings")
CLUSTER_ROLES: Final = ResourceType(GROUP, "v1", "ClusterRole", "clusterroles", namespaced=False)
CLUSTER_ROLE_BINDINGS: Final = ResourceType(GROUP, "v1", "ClusterRoleBinding", "clusterrolebindings", namespaced=False)
RESOURCES: Final = (ROLES, ROLE_BINDINGS, CLUSTER_ROLES, CLUSTER_ROLE_BINDINGS)

_REMEMBERED_SUBJECTS: Final = 2048
_REMEMBERED_ANSWERS: Final = 512

Name = tuple[str, str]
"""(namespace, name); the namespace is empty for the cluster-scoped kinds."""


@dataclass(frozen=True, slots=True)
class Role:
    rules: tuple[Rule, ...]
    labels: Mapping[str, str]
    selectors: tuple[LabelSelector, ...] = ()
    """Label selectors of an aggregation rule; when there are any, ``rules`` is what somebody once wrote."""
    revision: int = 0


@dataclass(frozen=True, slots=True)
class Binding:
    """``subjects`` are in index form: ``User``/``Group`` and a name, ServiceAccounts as the user they are."""

    key: Name
    role: Name | None
    role_kind: str
    role_name: str
    subjects: tuple[tuple[str, str], ...]
    shown: tuple[str, ...]
    """The subjects as reasons show them, in the same order. (``role`` is None where no such reference can hold.)"""
    revision: int = 0


class Grant(NamedTuple):
    """A rule and where it comes from."""

    rule: Rule
    source: str


@dataclass(slots=True)
class Permissions:
    """All a subject may do in one namespace (or, with none, in the cluster): cluster-wide grants first.

    ``problems`` tells what could not be resolved, such as a binding to a role that does not exist.
    """

    grants: tuple[Grant, ...]
    problems: tuple[str, ...]
    _answers: dict[tuple[str, ...], tuple[str | None, tuple[Grant, ...]]] = field(default_factory=dict)

    def why(self, a: Attributes) -> str | None:
        """Where the permission comes from; None when there is none."""
        key = (a.verb, a.group, a.resource, a.subresource) if a.resource else (a.verb, a.path)
        answer = self._answers.get(key)
        if answer is None:
            answer = self._answer(a)
            if len(self._answers) >= _REMEMBERED_ANSWERS:
                self._answers.clear()
            self._answers[key] = answer
        source, named = answer
        if source is None and named:
            source = next((grant.source for grant in named if a.name in grant.rule.names), None)
        return source

    def _answer(self, a: Attributes) -> tuple[str | None, tuple[Grant, ...]]:
        """The first grant for any name, and those for certain names only."""
        if not a.resource:
            return next((g.source for g in self.grants if allows_path(g.rule, a.verb, a.path)), None), ()
        named: list[Grant] = []
        for grant in self.grants:
            rule = grant.rule
            name = rule.names[0] if rule.names else ""
            if allows_resource(rule, a.verb, a.group, a.resource, a.subresource, name):
                if not rule.names:
                    return grant.source, ()
                named.append(grant)
        return None, tuple(named)


class _Layer:
    """The roles and bindings of one logical cluster, or the defaults of all."""

    def __init__(self) -> None:
        self.roles: dict[Name, Role] = {}
        self.bindings: dict[Name, Binding] = {}
        self.by_subject: dict[tuple[str, str], dict[Name, Binding]] = {}
        self.remembered: OrderedDict[tuple[str, tuple[str, ...], str], Permissions] = OrderedDict()
        self.aggregated: dict[str, tuple[Rule, ...]] = {}

    def changed(self) -> None:
        self.remembered.clear()
        self.aggregated.clear()

    def put_role(self, key: Name, role: Role) -> None:
        before = self.roles.get(key)
        if before is None or before.revision <= role.revision:
            self.roles[key] = role
            self.changed()

    def put_binding(self, binding: Binding) -> None:
        before = self.bindings.get(binding.key)
        if before is not None and before.revision > binding.revision:
            return
        self.drop_binding(binding.key)
        self.bindings[binding.key] = binding
        for subject in binding.subjects:
            self.by_subject.setdefault(subject, {})[binding.key] = binding
        self.changed()

    def drop_binding(self, key: Name) -> None:
        binding = self.bindings.pop(key, None)
        if binding is None:
            return
        for subject in binding.subjects:
            held = self.by_subject.get(subject)
            if held is not None:
                held.pop(key, None)
                if not held:
                    del self.by_subject[subject]
        self.changed()

    def drop_role(self, key: Name) -> None:
        if self.roles.pop(key, None) is not None:
            self.changed()


class RbacIndex:
    """Answers ``authorize``; is told about roles and bindings with ``load`` and ``apply_event``.

    ``defaults`` are the role and binding objects every cluster has (``defaults.default_objects()``).
    """

    def __init__(self, defaults: Iterable[Object] = ()) -> None:
        self._defaults = _Layer()
        self._clusters: dict[str, _Layer] = {}
        for obj in defaults:
            _put(self._defaults, obj)

    # --- what it is told --------------------------------------------------------------------------------------------

    async def load(self, reader: ObjectReader, cluster: str = "root") -> None:
        """Read all roles and bindings of a cluster; events that are already included may be applied again."""
        for resource in RESOURCES:
            for obj in await reader.list(cluster, resource):
                self.apply_event(cluster, {"kind": resource.kind, **obj}, deleted=False)

    def apply_event(self, cluster: str, obj: Object, deleted: bool) -> None:
        """One change, in watch order. Objects of other kinds are ignored; older versions never replace newer ones."""
        if obj.get("kind") not in _KINDS:
            return
        layer = self._clusters.setdefault(cluster, _Layer())
        if not deleted:
            _put(layer, obj)
            return
        key = (objects.namespace(obj), objects.name(obj))
        if obj["kind"] in {"Role", "ClusterRole"}:
            layer.drop_role(key)
        else:
            layer.drop_binding(key)

    def reset(self, kind: str) -> None:
        """Forget every stored object of one kind, in all clusters: its follower starts over. Defaults stay."""
        for layer in self._clusters.values():
            if kind in {"Role", "ClusterRole"}:
                for key in [key for key in layer.roles if bool(key[0]) is (kind == "Role")]:
                    layer.drop_role(key)
            else:
                for key in [key for key in layer.bindings if bool(key[0]) is (kind == "RoleBinding")]:
                    layer.drop_binding(key)

    def drop_cluster(self, cluster: str) -> None:
        self._clusters.pop(cluster, None)

    # --- what it answers --------------------------------------------------------------------------------------------

    def authorize(self, attributes: Attributes) -> Decision:
        a = attributes
        permissions = self.permissions(a.cluster, a.user, a.namespace if a.resource else "")
        source = permissions.why(a)
        if source is not None:
            return Decision(Verdict.ALLOW, source)
        if permissions.problems:
            return Decision(Verdict.NO_OPINION, "RBAC: " + _aggregate(permissions.problems))
        return NO_OPINION

    def permissions(self, cluster: str, user: UserInfo, namespace: str = "") -> Permissions:
        """All grants of a user that hold in the namespace, the cluster-wide ones included."""
        layer = self._layer(cluster)
        key = (user.name, user.groups, namespace)
        found = layer.remembered.get(key)
        if found is None:
            found = self._gather(layer, user, namespace)
            layer.remembered[key] = found
            if len(layer.remembered) > _REMEMBERED_SUBJECTS:
                layer.remembered.popitem(last=False)
        return found

    def role_rules(self, cluster: str, kind: str, namespace: str, name: str) -> tuple[Rule, ...] | None:
        """The effective rules of a Role or ClusterRole (aggregation computed); None when it does not exist."""
        layer = self._layer(cluster)
        key = (namespace if kind == "Role" else "", name)
        if kind not in {"Role", "ClusterRole"} or (kind == "Role" and not namespace):
            return None
        role = layer.roles.get(key) or self._defaults.roles.get(key)
        if role is None:
            return None
        return self._aggregate(layer, name, role) if role.selectors else role.rules

    def effective(self, cluster: str, cluster_role: Object) -> Object:
        """The ClusterRole as readers are shown it: with the rules that its aggregation rule gathers."""
        if not _selectors(cluster_role):
            return cluster_role
        rules = self.role_rules(cluster, "ClusterRole", "", objects.name(cluster_role)) or ()
        return {**cluster_role, "rules": [rule.to_object() for rule in rules]}

    # --- how --------------------------------------------------------------------------------------------------------

    def _layer(self, cluster: str) -> _Layer:
        return self._clusters.get(cluster) or self._clusters.setdefault(cluster, _Layer())

    def _bindings_of(self, layer: _Layer, user: UserInfo, namespace: str) -> list[Binding]:
        found: dict[Name, Binding] = {}
        scopes = ("", namespace)
        for subject in (("User", user.name), *(("Group", group) for group in user.groups)):
            for key, binding in self._defaults.by_subject.get(subject, {}).items():
                if key[0] in scopes and key not in layer.bindings:
                    found[key] = binding
            for key, binding in layer.by_subject.get(subject, {}).items():
                if key[0] in scopes:
                    found[key] = binding
        return [found[key] for key in sorted(found)]

    def _gather(self, layer: _Layer, user: UserInfo, namespace: str) -> Permissions:
        grants: list[Grant] = []
        problems: list[str] = []
        subjects = {("User", user.name), *(("Group", group) for group in user.groups)}
        for binding in self._bindings_of(layer, user, namespace):
            role = None
            if binding.role is not None:
                role = layer.roles.get(binding.role) or self._defaults.roles.get(binding.role)
            if role is None:
                problems.append(f'{binding.role_kind.lower()}.{GROUP} "{binding.role_name}" not found')
                continue
            rules = self._aggregate(layer, binding.role_name, role) if role.selectors else role.rules
            via = next(shown for one, shown in zip(binding.subjects, binding.shown, strict=True) if one in subjects)
            source = f"RBAC: allowed by {_described(binding)} to {via}"
            grants += [Grant(rule, source) for rule in rules]
        return Permissions(tuple(grants), tuple(problems))

    def _aggregate(self, layer: _Layer, name: str, role: Role) -> tuple[Rule, ...]:
        """All rules of the ClusterRoles that a selector matches, themselves aggregated ones included, once each."""
        known = layer.aggregated.get(name)
        if known is not None:
            return known
        rules: dict[Rule, None] = {}
        visited = {name}
        waiting = [role]
        while waiting:
            selectors = waiting.pop(0).selectors
            for key, other in sorted(self._cluster_roles(layer)):
                if key[1] in visited or not any(selector.matches(other.labels) for selector in selectors):
                    continue
                visited.add(key[1])
                if other.selectors:
                    waiting.append(other)
                else:
                    rules.update(dict.fromkeys(other.rules))
        layer.aggregated[name] = result = tuple(rules)
        return result

    def _cluster_roles(self, layer: _Layer) -> Iterator[tuple[Name, Role]]:
        for key, role in self._defaults.roles.items():
            if not key[0] and key not in layer.roles:
                yield key, role
        for key, role in layer.roles.items():
            if not key[0]:
                yield key, role


_KINDS: Final = frozenset(resource.kind for resource in RESOURCES)


def _put(layer: _Layer, obj: Object) -> None:
    key = (objects.namespace(obj), objects.name(obj))
    revision = objects.resource_version(obj)
    number = int(revision) if revision.isdecimal() else 0
    if obj["kind"] in {"Role", "ClusterRole"}:
        layer.put_role(key, Role(rules_of(obj), objects.labels(obj), _selectors(obj), number))
    else:
        layer.put_binding(_binding(key, obj, number))


def _binding(key: Name, obj: Object, revision: int) -> Binding:
    ref = obj.get("roleRef") or {}
    kind, name = str(ref.get("kind") or ""), str(ref.get("name") or "")
    subjects: dict[tuple[str, str], str] = {}
    for subject in obj.get("subjects") or ():
        compiled = _subject(subject, key[0])
        if compiled is not None:
            subjects.setdefault(compiled[0], compiled[1])
    role: Name | None = None
    if kind == "ClusterRole":
        role = ("", name)
    elif kind == "Role" and key[0]:
        role = (key[0], name)
    return Binding(key, role, kind, name, tuple(subjects), tuple(subjects.values()), revision)


def _subject(subject: Mapping[str, Any], namespace: str) -> tuple[tuple[str, str], str] | None:
    kind, name = str(subject.get("kind") or ""), str(subject.get("name") or "")
    if kind in {"User", "Group"}:
        return (kind, name), f"{kind} {json.dumps(name, ensure_ascii=False)}"
    home = str(subject.get("namespace") or "") or namespace
    if kind != "ServiceAccount" or not home:
        return None
    return ("User", f"{SERVICE_ACCOUNT_PREFIX}{home}:{name}"), f'{kind} "{name}/{home}"'


def _described(binding: Binding) -> str:
    namespace, name = binding.key
    shown = f'RoleBinding "{name}/{namespace}"' if namespace else f'ClusterRoleBinding "{name}"'
    return f'{shown} of {binding.role_kind} "{binding.role_name}"'


def _aggregate(problems: tuple[str, ...]) -> str:
    unique = list(dict.fromkeys(problems))
    return unique[0] if len(unique) == 1 else "[" + ", ".join(unique) + "]"


def _selectors(role: Mapping[str, Any]) -> tuple[LabelSelector, ...]:
    """What an aggregation rule gathers; a selector that cannot be parsed gathers nothing."""
    rule = role.get("aggregationRule")
    listed = rule.get("clusterRoleSelectors") if isinstance(rule, dict) else None
    found: list[LabelSelector] = []
    for one in listed if isinstance(listed, list) else ():
        with suppress(ValueError):
            found.append(LabelSelector.from_object(one))
    return tuple(found)
