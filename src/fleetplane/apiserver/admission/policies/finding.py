"""Which policies, through which bindings, a kind of request meets."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from fleetplane.apiserver.admission.matching import Matching, Meant, read_matching
from fleetplane.apiserver.admission.views import View
from fleetplane.apiserver.admission.webhooks.hooks import EXEMPT
from fleetplane.apiserver.registry import Registry, Served
from fleetplane.model.objects import Object, name

if TYPE_CHECKING:
    from fleetplane.apiserver.admission.policies.compiled import Compiled

log = logging.getLogger(__name__)


@dataclass(eq=False, slots=True)
class Policy:
    """A policy as it stands; its expressions are compiled when it is first met."""

    name: str
    spec: Mapping[str, Any]
    matching: Matching
    mutating: bool
    _compiled: Compiled | None = field(default=None)

    @property
    def ignores_failure(self) -> bool:
        return self.spec.get("failurePolicy") == "Ignore"

    @property
    def reinvoked(self) -> bool:
        return self.spec.get("reinvocationPolicy") == "IfNeeded"

    def compiled(self) -> Compiled:
        if self._compiled is None:
            from fleetplane.apiserver.admission.policies.compiled import compile_policy  # noqa: PLC0415 - loads CEL

            self._compiled = compile_policy(self.spec, mutating=self.mutating)
        return self._compiled


@dataclass(eq=False, slots=True)
class Binding:
    name: str
    spec: Mapping[str, Any]
    matching: Matching

    @property
    def actions(self) -> Sequence[str]:
        return self.spec.get("validationActions") or ()


@dataclass(frozen=True, slots=True)
class Bound:
    """A policy a kind of request meets: what its rules meant, and its bindings with what theirs did."""

    policy: Policy
    meant: Meant
    bindings: tuple[tuple[Binding, Meant], ...]


class PolicyFinder:
    """Over the views of one kind of policy and of its bindings."""

    def __init__(self, policies: View, bindings: View, registry: Registry, *, mutating: bool) -> None:
        self._policies = policies
        self._bindings = bindings
        self._registry = registry
        self._mutating = mutating
        self._generations = (-1, -1, -1)
        self._read: dict[str, list[tuple[Policy, list[Binding]]]] = {}
        self._found: dict[tuple[str, str, str, str, str, str], tuple[Bound, ...]] = {}

    def find(self, cluster: str, operation: str, served: Served, subresource: str) -> tuple[Bound, ...]:
        """In the order of the policies' names."""
        if not self._bindings.all(cluster):
            return ()
        resource = served.type
        if resource.group == "admissionregistration.k8s.io" and resource.plural in EXEMPT:
            return ()
        generations = (self._policies.generation, self._bindings.generation, self._registry.generation)
        if generations != self._generations:
            self._generations = generations
            self._read.clear()
            self._found.clear()
        key = (cluster, operation, resource.group, resource.version, resource.plural, subresource)
        found = self._found.get(key)
        if found is None:
            found = self._found[key] = tuple(self._meet(cluster, operation, served, subresource))
        return found

    def _meet(self, cluster: str, operation: str, served: Served, subresource: str) -> list[Bound]:
        made = []
        for policy, bindings in self._pairs(cluster):
            meant = policy.matching.find(self._registry, cluster, operation, served, subresource)
            if meant is None:
                continue
            bound = [
                (binding, also)
                for binding in bindings
                if (also := binding.matching.find(self._registry, cluster, operation, served, subresource)) is not None
            ]
            if bound:
                made.append(Bound(policy, meant, tuple(bound)))
        return made

    def _pairs(self, cluster: str) -> list[tuple[Policy, list[Binding]]]:
        found = self._read.get(cluster)
        if found is None:
            bindings: dict[str, list[Binding]] = {}
            for raw in self._bindings.all(cluster):
                spec = raw.get("spec") or {}
                matching = _matching(raw, spec.get("matchResources"), every_rule=True)
                if matching is not None:
                    bindings.setdefault(str(spec.get("policyName")), []).append(Binding(name(raw), spec, matching))
            found = self._read[cluster] = []
            for raw in self._policies.all(cluster):
                bound = bindings.get(name(raw))
                spec = raw.get("spec") or {}
                matching = _matching(raw, spec.get("matchConstraints") or {}, every_rule=False)
                if bound and matching is not None:
                    found.append((Policy(name(raw), spec, matching, self._mutating), bound))
        return found


def _matching(raw: Object, source: Mapping[str, Any] | None, *, every_rule: bool) -> Matching | None:
    try:
        return read_matching(source, every_rule=every_rule)
    except ValueError as error:
        log.warning("%s %s cannot be used: %s", raw.get("kind"), name(raw), error)
        return None
