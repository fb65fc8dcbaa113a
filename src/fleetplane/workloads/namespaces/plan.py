"""What a namespace that is ending says about itself. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from fleetplane.controller.conditions import Condition, with_conditions
from fleetplane.model.objects import Object, is_deleting

FINALIZER: Final = "kubernetes"


@dataclass(slots=True)
class Content:
    """What was found in the namespace.

    ``remaining`` counts objects per qualified resource, ``finalizers`` how many objects wait for each finalizer;
    ``failures`` are refusals while deleting, ``undiscovered`` why resources could not be found out.
    """

    remaining: dict[str, int] = field(default_factory=dict)
    finalizers: dict[str, int] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    undiscovered: str = ""

    @property
    def is_gone(self) -> bool:
        return not self.remaining and not self.failures and not self.undiscovered


def is_ending(namespace: Mapping[str, Any]) -> bool:
    """It is being deleted and its content is still ours to delete."""
    return is_deleting(namespace) and FINALIZER in ((namespace.get("spec") or {}).get("finalizers") or [])


def status(namespace: Mapping[str, Any], content: Content, now: datetime) -> Object:
    """The whole new status."""
    old = namespace.get("status") or {}
    conditions = [_discovery(content), _parsing(), _deletion(content), _remaining(content), _finalizers(content)]
    return {**old, "phase": "Terminating", "conditions": with_conditions(old.get("conditions"), conditions, now=now)}


def _discovery(content: Content) -> Condition:
    if content.undiscovered:
        return Condition("NamespaceDeletionDiscoveryFailure", True, "DiscoveryFailed", content.undiscovered)
    return Condition(
        "NamespaceDeletionDiscoveryFailure", False, "ResourcesDiscovered", "All resources successfully discovered"
    )


def _parsing() -> Condition:
    return Condition(
        "NamespaceDeletionGroupVersionParsingFailure",
        False,
        "ParsedGroupVersions",
        "All legacy kube types successfully parsed",
    )


def _deletion(content: Content) -> Condition:
    if content.failures:
        text = "Failed to delete all resource types, " + f"{len(content.failures)} remaining: "
        return Condition(
            "NamespaceDeletionContentFailure", True, "ContentDeletionFailed", text + ", ".join(content.failures)
        )
    return Condition(
        "NamespaceDeletionContentFailure",
        False,
        "ContentDeleted",
        "All content successfully deleted, may be waiting on finalization",
    )


def _remaining(content: Content) -> Condition:
    if content.remaining:
        found = [f"{resource} has {count} resource instances" for resource, count in sorted(content.remaining.items())]
        text = f"Some resources are remaining: {', '.join(found)}"
        return Condition("NamespaceContentRemaining", True, "SomeResourcesRemain", text)
    return Condition("NamespaceContentRemaining", False, "ContentRemoved", "All content successfully removed")


def _finalizers(content: Content) -> Condition:
    if content.finalizers:
        found = [f"{name} in {count} resource instances" for name, count in sorted(content.finalizers.items())]
        text = f"Some content in the namespace has finalizers remaining: {', '.join(found)}"
        return Condition("NamespaceFinalizersRemaining", True, "SomeFinalizersRemain", text)
    return Condition(
        "NamespaceFinalizersRemaining",
        False,
        "ContentHasNoFinalizers",
        "All content-preserving finalizers finished",
    )
