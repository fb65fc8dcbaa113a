"""How much of a request the audit log keeps: ``audit.k8s.io/v1`` Policy, first matching rule wins.

Whatever a policy says, requests whose bodies are credentials are never kept beyond their metadata.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final, NamedTuple

from fleetplane.apiserver.authorization.attributes import Attributes

REQUEST_RECEIVED: Final = "RequestReceived"
RESPONSE_STARTED: Final = "ResponseStarted"
RESPONSE_COMPLETE: Final = "ResponseComplete"
PANIC: Final = "Panic"
STAGES: Final = (REQUEST_RECEIVED, RESPONSE_STARTED, RESPONSE_COMPLETE, PANIC)

_CREDENTIALS: Final = frozenset(
    {
        ("", "secrets", ""),
        ("", "serviceaccounts", "token"),
        ("authentication.k8s.io", "tokenreviews", ""),
    }
)


class Level(IntEnum):
    """Each includes those before it."""

    NONE = 0
    METADATA = 1
    REQUEST = 2
    REQUEST_RESPONSE = 3

    @property
    def shown(self) -> str:
        return _SHOWN[self]


_SHOWN: Final = {
    Level.NONE: "None",
    Level.METADATA: "Metadata",
    Level.REQUEST: "Request",
    Level.REQUEST_RESPONSE: "RequestResponse",
}
_LEVELS: Final = {shown: level for level, shown in _SHOWN.items()}


class Keep(NamedTuple):
    """What to keep of a request."""

    level: Level
    omit_stages: frozenset[str] = frozenset()
    omit_managed_fields: bool = True


@dataclass(frozen=True, slots=True)
class GroupResources:
    group: str
    resources: tuple[str, ...]
    names: tuple[str, ...]

    def matches(self, a: Attributes) -> bool:
        if self.group != a.group:
            return False
        if not self.resources:
            return True
        if self.names and a.name not in self.names:
            return False
        full = a.full_resource
        return any(
            one in ("*", full)
            or (bool(a.subresource) and one == f"*/{a.subresource}")
            or (one.endswith("/*") and one[:-2] == a.resource)
            for one in self.resources
        )


@dataclass(frozen=True, slots=True)
class Rule:
    keep: Keep
    users: frozenset[str]
    groups: frozenset[str]
    verbs: frozenset[str]
    namespaces: frozenset[str]
    resources: tuple[GroupResources, ...]
    urls: tuple[str, ...]

    def matches(self, a: Attributes) -> bool:
        if self.users and a.user.name not in self.users:
            return False
        if self.groups and self.groups.isdisjoint(a.user.groups):
            return False
        if self.verbs and a.verb not in self.verbs:
            return False
        if self.namespaces or self.resources:
            if not a.resource or (self.namespaces and a.namespace not in self.namespaces):
                return False
            return not self.resources or any(one.matches(a) for one in self.resources)
        if self.urls:
            return not a.resource and any(_matches_url(url, a.path) for url in self.urls)
        return True


@dataclass(frozen=True, slots=True)
class Policy:
    rules: tuple[Rule, ...]
    omit_stages: frozenset[str] = frozenset()

    def keep(self, attributes: Attributes) -> Keep:
        """What to keep of a request; nothing when no rule matches."""
        for rule in self.rules:
            if rule.matches(attributes):
                found = rule.keep
                if found.level > Level.METADATA and is_credential(attributes):
                    return found._replace(level=Level.METADATA)
                return found
        return Keep(Level.NONE, self.omit_stages)

    @classmethod
    def from_object(cls, data: Mapping[str, Any]) -> Policy:
        """Read a Policy. Raises ValueError that names the field."""
        if data.get("kind") != "Policy" or data.get("apiVersion") != "audit.k8s.io/v1":
            raise ValueError("the audit policy must have kind Policy and apiVersion audit.k8s.io/v1")
        listed = data.get("rules")
        if not isinstance(listed, list) or not listed:
            raise ValueError("the audit policy has no rules; add at least one")
        omit = _stages(data.get("omitStages"), "omitStages")
        omit_managed = data.get("omitManagedFields", True) is not False
        return cls(tuple(_rule(one, f"rules[{i}]", omit, omit_managed) for i, one in enumerate(listed)), omit)


def is_credential(a: Attributes) -> bool:
    return (a.group, a.resource, a.subresource) in _CREDENTIALS


def metadata_of_changes() -> Policy:
    """The policy where none is given: the metadata of everything that changes something, once it is done."""
    quiet = frozenset({REQUEST_RECEIVED})
    nothing = Rule(Keep(Level.NONE), frozenset(), frozenset(), frozenset({"get", "list", "watch"}), *_ANY)
    reviews = (GroupResources("authorization.k8s.io", (), ()), GroupResources("authentication.k8s.io", (), ()))
    events = (GroupResources("", ("events",), ()), GroupResources("events.k8s.io", ("events",), ()))
    leases = (GroupResources("coordination.k8s.io", ("leases",), ()),)
    noise = Rule(Keep(Level.NONE), frozenset(), frozenset(), frozenset(), frozenset(), (*reviews, *events, *leases), ())
    rest = Rule(Keep(Level.METADATA, quiet), frozenset(), frozenset(), frozenset(), *_ANY)
    return Policy((nothing, noise, rest), quiet)


_ANY: Final[tuple[frozenset[str], tuple[GroupResources, ...], tuple[str, ...]]] = (frozenset(), (), ())


def _mapping(data: Any, path: str) -> Mapping[str, Any]:
    if isinstance(data, dict):
        return data
    raise ValueError(f"{path} must be an object")


def _rule(data: Any, path: str, omit: frozenset[str], omit_managed: bool) -> Rule:
    data = _mapping(data, path)
    level = _LEVELS.get(str(data.get("level")))
    if level is None:
        raise ValueError(f"{path}.level must be one of {', '.join(_LEVELS)}")
    urls = _texts(data, "nonResourceURLs", path)
    resources = data.get("resources") or []
    if urls and (resources or data.get("namespaces")):
        raise ValueError(f"{path} cannot name both nonResourceURLs and resources or namespaces")
    stages = omit | _stages(data.get("omitStages"), f"{path}.omitStages")
    managed = data.get("omitManagedFields", omit_managed) is not False
    return Rule(
        Keep(level, stages, managed),
        frozenset(_texts(data, "users", path)),
        frozenset(_texts(data, "userGroups", path)),
        frozenset(_texts(data, "verbs", path)),
        frozenset(_texts(data, "namespaces", path)),
        tuple(_group_resources(one, f"{path}.resources[{i}]") for i, one in enumerate(resources)),
        urls,
    )


def _group_resources(data: Any, path: str) -> GroupResources:
    data = _mapping(data, path)
    resources, names = _texts(data, "resources", path), _texts(data, "resourceNames", path)
    if names and not resources:
        raise ValueError(f"{path}.resources is required where resourceNames are given")
    return GroupResources(str(data.get("group") or ""), resources, names)


def _texts(data: Mapping[str, Any], key: str, path: str) -> tuple[str, ...]:
    found = data.get(key) or []
    if not isinstance(found, list) or not all(isinstance(one, str) for one in found):
        raise ValueError(f"{path}.{key} must be a list of strings")
    return tuple(found)


def _stages(value: Any, path: str) -> frozenset[str]:
    found = frozenset(value or ())
    if not found <= frozenset(STAGES):
        raise ValueError(f"{path} may only hold {', '.join(STAGES)}")
    return found


def _matches_url(url: str, path: str) -> bool:
    return url in ("*", path) or (url.endswith("*") and path.startswith(url.rstrip("*")))
