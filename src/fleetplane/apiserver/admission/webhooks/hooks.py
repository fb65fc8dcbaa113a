"""Webhooks as they are configured, read once per change of a configuration."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from fleetplane.apiserver.admission.matching import Matching, Meant, read_matching
from fleetplane.apiserver.admission.views import View
from fleetplane.apiserver.registry import Registry, Served
from fleetplane.model.objects import Object, name

if TYPE_CHECKING:
    from fleetplane.apiserver.admission.expressions import Condition

log = logging.getLogger(__name__)

REVIEW_VERSIONS: Final = ("v1", "v1beta1")
EXEMPT: Final = frozenset(
    {
        "mutatingwebhookconfigurations",
        "validatingwebhookconfigurations",
        "validatingadmissionpolicies",
        "validatingadmissionpolicybindings",
        "mutatingadmissionpolicies",
        "mutatingadmissionpolicybindings",
    }
)
"""Of admissionregistration.k8s.io: what is never asked about, so that a broken webhook or policy can be removed."""
_DEFAULT_SECONDS: Final = 10


@dataclass(eq=False, slots=True)
class Hook:
    """One webhook of a configuration."""

    configuration: str
    name: str
    client: Mapping[str, Any]
    matching: Matching
    ignore_failure: bool
    seconds: int
    review: str
    dry_run: bool
    reinvoke: bool
    raw_conditions: tuple[Mapping[str, Any], ...] = ()
    _conditions: tuple[Condition, ...] | None = field(default=None)

    def conditions(self) -> tuple[Condition, ...]:
        if self._conditions is None:
            from fleetplane.apiserver.admission.expressions import compile_conditions  # noqa: PLC0415 - loads CEL

            self._conditions = compile_conditions(self.raw_conditions)
        return self._conditions


def read_hooks(configuration: Object) -> list[Hook]:
    """The webhooks of a configuration; one that cannot be understood is left out and logged."""
    made = []
    for raw in configuration.get("webhooks") or ():
        try:
            made.append(_read(name(configuration), raw))
        except ValueError as error:
            log.warning("webhook %s of %s cannot be used: %s", raw.get("name"), name(configuration), error)
    return made


def _read(configuration: str, raw: Mapping[str, Any]) -> Hook:
    asked = raw.get("admissionReviewVersions") or ()
    review = next((one for one in asked if one in REVIEW_VERSIONS), "v1")
    return Hook(
        configuration,
        str(raw.get("name") or ""),
        raw.get("clientConfig") or {},
        read_matching(raw, rules="rules"),
        raw.get("failurePolicy") == "Ignore",
        int(raw.get("timeoutSeconds") or _DEFAULT_SECONDS),
        review,
        raw.get("sideEffects") in ("None", "NoneOnDryRun"),
        raw.get("reinvocationPolicy") == "IfNeeded",
        tuple(raw.get("matchConditions") or ()),
    )


class HookFinder:
    """Which webhooks of a kind of configuration want to see which kind of request."""

    def __init__(self, view: View, registry: Registry) -> None:
        self._view = view
        self._registry = registry
        self._generations = (-1, -1)
        self._hooks: dict[str, list[Hook]] = {}
        self._found: dict[tuple[str, str, str, str, str, str], tuple[tuple[Hook, Meant], ...]] = {}

    def find(self, cluster: str, operation: str, served: Served, subresource: str) -> tuple[tuple[Hook, Meant], ...]:
        """In the order of configurations by name, and of webhooks in them."""
        configurations = self._view.all(cluster)
        if not configurations:
            return ()
        resource = served.type
        if resource.group == "admissionregistration.k8s.io" and resource.plural in EXEMPT:
            return ()
        generations = (self._view.generation, self._registry.generation)
        if generations != self._generations:
            self._generations = generations
            self._hooks.clear()
            self._found.clear()
        key = (cluster, operation, resource.group, resource.version, resource.plural, subresource)
        found = self._found.get(key)
        if found is None:
            hooks = self._hooks.get(cluster)
            if hooks is None:
                hooks = self._hooks[cluster] = [hook for one in configurations for hook in read_hooks(one)]
            meant = (
                (hook, hook.matching.find(self._registry, cluster, operation, served, subresource)) for hook in hooks
            )
            found = self._found[key] = tuple((hook, one) for hook, one in meant if one is not None)
        return found
