"""Which requests a webhook or a policy is about: rules, equivalent versions, selectors of namespaces and objects.

``find`` depends on nothing but the kind of request, so its answer is kept; ``selects`` looks at the objects.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from fleetplane.apiserver.registry import Registry, Served
from fleetplane.model.admission import AdmissionRequest
from fleetplane.model.objects import labels
from fleetplane.model.selectors import LabelSelector

_EVERYTHING: Final = LabelSelector()


@dataclass(frozen=True, slots=True)
class Rule:
    """``RuleWithOperations``, with the ``resourceNames`` policies add. ``*`` matches all."""

    operations: frozenset[str]
    groups: frozenset[str]
    versions: frozenset[str]
    resources: tuple[tuple[str, str], ...]
    scope: str = "*"
    names: frozenset[str] = frozenset()

    def matches(self, operation: str, served: Served, subresource: str) -> bool:
        """Whether a kind of request is meant, whatever the name of its object."""
        resource = served.type
        if not _has(self.operations, operation) or not _has(self.groups, resource.group):
            return False
        if not _has(self.versions, resource.version):
            return False
        namespaced = resource.namespaced
        if (self.scope == "Namespaced" and not namespaced) or (self.scope == "Cluster" and namespaced):
            return False
        return any(
            (wanted in ("*", resource.plural)) and (part in ("*", subresource)) for wanted, part in self.resources
        )


def _has(values: frozenset[str], one: str) -> bool:
    return "*" in values or one in values


def read_rule(rule: Mapping[str, Any]) -> Rule:
    return Rule(
        frozenset(rule.get("operations") or ()),
        frozenset(rule.get("apiGroups") or ()),
        frozenset(rule.get("apiVersions") or ()),
        tuple(_split(one) for one in rule.get("resources") or ()),
        str(rule.get("scope") or "*"),
        frozenset(rule.get("resourceNames") or ()),
    )


def _split(resource: str) -> tuple[str, str]:
    plural, _, subresource = resource.partition("/")
    return plural, subresource


@dataclass(frozen=True, slots=True)
class Matching:
    """``MatchResources``, or the same fields of a webhook. Without ``rules`` every request is meant."""

    rules: tuple[Rule, ...] = ()
    excluded: tuple[Rule, ...] = ()
    equivalent: bool = True
    namespaces: LabelSelector = _EVERYTHING
    objects: LabelSelector = _EVERYTHING
    every_rule: bool = False

    def find(self, registry: Registry, cluster: str, operation: str, served: Served, subresource: str) -> Meant | None:
        """What the rules say of a kind of request; None when they do not mean it."""
        excluded = _matching(self.excluded, operation, served, subresource)
        for other in equivalents(registry, cluster, served) if self.excluded and self.equivalent else ():
            excluded += _matching(self.excluded, operation, other, subresource)
        if any(not rule.names for rule in excluded):
            return None
        without = frozenset(name for rule in excluded for name in rule.names)
        if self.every_rule and not self.rules:
            return Meant(served, None, without)
        candidates = [served, *(equivalents(registry, cluster, served) if self.equivalent else ())]
        for candidate in candidates:
            rules = _matching(self.rules, operation, candidate, subresource)
            if rules:
                names = None
                if all(rule.names for rule in rules):
                    names = frozenset(name for rule in rules for name in rule.names)
                return Meant(candidate, names, without)
        return None

    def selects(self, request: AdmissionRequest, namespace_labels: Mapping[str, str] | None) -> bool:
        """Whether the selectors let the request pass; ``namespace_labels`` is None outside namespaces."""
        if namespace_labels is not None and not self.namespaces.matches(namespace_labels):
            return False
        if self.objects.is_everything:
            return True
        found = [labels(one) for one in (request.new, request.old) if one is not None]
        return any(self.objects.matches(one) for one in found)


@dataclass(frozen=True, slots=True)
class Meant:
    """``served`` is the version the rules are about: the request's own, else an equivalent one.

    ``names`` limits which objects are meant (None: all of them), ``without`` takes some out.
    """

    served: Served
    names: frozenset[str] | None
    without: frozenset[str]

    def includes(self, name: str) -> bool:
        return (self.names is None or name in self.names) and name not in self.without


def _matching(rules: Sequence[Rule], operation: str, served: Served, subresource: str) -> list[Rule]:
    return [rule for rule in rules if rule.matches(operation, served, subresource)]


def read_matching(
    source: Mapping[str, Any] | None, *, rules: str = "resourceRules", every_rule: bool = False
) -> Matching:
    """From ``MatchResources``; of a webhook with ``rules="rules"``. Raises ValueError for a bad selector."""
    if source is None:
        return Matching(every_rule=True)
    return Matching(
        tuple(read_rule(one) for one in source.get(rules) or ()),
        tuple(read_rule(one) for one in source.get("excludeResourceRules") or ()),
        source.get("matchPolicy", "Equivalent") != "Exact",
        LabelSelector.from_object(source.get("namespaceSelector") or {}),
        LabelSelector.from_object(source.get("objectSelector") or {}),
        every_rule,
    )


def equivalents(registry: Registry, cluster: str, served: Served) -> list[Served]:
    """The other versions (and groups) in which the same objects are served."""
    storage = (served.storage.group, served.storage.plural)
    return [
        one
        for one in registry.all(cluster)
        if one is not served
        and (one.storage.group, one.storage.plural) == storage
        and (one.type.group, one.type.version) != (served.type.group, served.type.version)
    ]
