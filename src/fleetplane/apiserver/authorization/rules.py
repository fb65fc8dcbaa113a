"""What one RBAC policy rule says: whether it allows a request, whether it covers another rule, how it is shown.

These functions are the definition (https://kubernetes.io/docs/reference/access-authn-authz/rbac/). The index in
``rbac.py`` is the fast way to the same answers, and the tests compare the two.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fleetplane.model.objects import Object


@dataclass(frozen=True, slots=True)
class Rule:
    """A PolicyRule. For resources: groups x resources x verbs (x names); for URLs: paths x verbs."""

    verbs: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    resources: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    urls: tuple[str, ...] = ()

    @classmethod
    def from_object(cls, data: Mapping[str, Any]) -> Rule:
        return cls(
            _strings(data.get("verbs")),
            _strings(data.get("apiGroups")),
            _strings(data.get("resources")),
            _strings(data.get("resourceNames")),
            _strings(data.get("nonResourceURLs")),
        )

    def to_object(self) -> Object:
        fields = {
            "verbs": self.verbs,
            "apiGroups": self.groups,
            "resources": self.resources,
            "resourceNames": self.names,
            "nonResourceURLs": self.urls,
        }
        return {key: list(values) for key, values in fields.items() if values}

    def __str__(self) -> str:
        """The one-line form of escalation messages: ``{APIGroups:[""], Resources:["pods"], Verbs:["get"]}``."""
        fields = {
            "APIGroups": self.groups,
            "Resources": self.resources,
            "NonResourceURLs": self.urls,
            "ResourceNames": self.names,
            "Verbs": self.verbs,
        }
        shown = (f"{k}:[{' '.join(json.dumps(v, ensure_ascii=False) for v in vs)}]" for k, vs in fields.items() if vs)
        return "{" + ", ".join(shown) + "}"


def _strings(value: Any) -> tuple[str, ...]:
    return tuple(one for one in value if isinstance(one, str)) if isinstance(value, list) else ()


def rules_of(role: Mapping[str, Any]) -> tuple[Rule, ...]:
    """The rules of a Role or ClusterRole object; malformed ones grant nothing."""
    found = role.get("rules")
    return tuple(Rule.from_object(one) for one in found if isinstance(one, dict)) if isinstance(found, list) else ()


def allows_resource(rule: Rule, verb: str, group: str, resource: str, subresource: str, name: str) -> bool:
    return (
        ("*" in rule.verbs or verb in rule.verbs)
        and ("*" in rule.groups or group in rule.groups)
        and _matches_resource(rule, resource, subresource)
        and (not rule.names or name in rule.names)
    )


def _matches_resource(rule: Rule, resource: str, subresource: str) -> bool:
    if "*" in rule.resources:
        return True
    if not subresource:
        return resource in rule.resources
    return f"{resource}/{subresource}" in rule.resources or f"*/{subresource}" in rule.resources


def allows_path(rule: Rule, verb: str, path: str) -> bool:
    return ("*" in rule.verbs or verb in rule.verbs) and any(_matches_url(url, path) for url in rule.urls)


def _matches_url(url: str, path: str) -> bool:
    return url in ("*", path) or (url.endswith("*") and path.startswith(url.rstrip("*")))


# --- covering -------------------------------------------------------------------------------------------------------


def uncovered(owned: Sequence[Rule], wanted: Iterable[Rule]) -> list[Rule]:
    """What ``wanted`` grants beyond ``owned``, taken apart to single grants; empty when all is covered."""
    return [atom for rule in wanted for atom in atoms(rule) if not any(_covers(owner, atom) for owner in owned)]


def atoms(rule: Rule) -> list[Rule]:
    """The same grants, one verb on one resource (of one name), or one verb on one URL, each."""
    found = [
        Rule((verb,), (group,), (resource,), (name,) if name is not None else ())
        for group in rule.groups
        for resource in rule.resources
        for verb in rule.verbs
        for name in (rule.names or (None,))
    ]
    found += [Rule(verbs=(verb,), urls=(url,)) for url in rule.urls for verb in rule.verbs]
    return found


def _covers(owner: Rule, atom: Rule) -> bool:
    if "*" not in owner.verbs and atom.verbs[0] not in owner.verbs:
        return False
    if atom.urls:
        return any(_covers_url(url, atom.urls[0]) for url in owner.urls)
    return (
        ("*" in owner.groups or atom.groups[0] in owner.groups)
        and _covers_resource(owner.resources, atom.resources[0])
        and (not owner.names or (bool(atom.names) and atom.names[0] in owner.names))
    )


def _covers_resource(owned: tuple[str, ...], wanted: str) -> bool:
    if "*" in owned or wanted in owned:
        return True
    _, slash, subresource = wanted.partition("/")
    return bool(slash) and f"*/{subresource}" in owned


def _covers_url(owned: str, wanted: str) -> bool:
    return owned == wanted or (owned.endswith("*") and wanted.startswith(owned.rstrip("*")))


def compact(rules: Iterable[Rule]) -> list[Rule]:
    """Rules for one resource that differ only in verbs become one; the order of first appearance is kept."""
    merged: dict[object, Rule] = {}
    for index, rule in enumerate(rules):
        simple = len(rule.groups) == 1 and len(rule.resources) == 1 and len(rule.names) <= 1 and not rule.urls
        key: object = (rule.groups, rule.resources, rule.names) if simple else index
        before = merged.get(key)
        merged[key] = (
            rule if before is None else Rule(before.verbs + rule.verbs, rule.groups, rule.resources, rule.names)
        )
    return list(merged.values())
