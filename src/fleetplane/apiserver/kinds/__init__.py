"""What is particular about each built-in kind; a module per group, the large ones by kind.

``BEHAVIOURS`` is all of it, and takes objects in any version the kind is served in. Whatever a kind does itself, its
objects are brought into canonical form before its defaults are filled in, so that every rule sees an object as Kubernetes
would have kept it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from fleetplane.apiserver.kinds.behaviour import GENERIC, KindBehaviour, SubresourceRules
from fleetplane.apiserver.kinds.canonical import canonicalise
from fleetplane.apiserver.kinds.catalogue import KINDS
from fleetplane.apiserver.kinds.versions import in_every_version
from fleetplane.model.builtin.types import (
    CRON_JOBS,
    ENDPOINT_SLICES,
    EVENTS,
    HORIZONTAL_POD_AUTOSCALERS,
    INGRESS_CLASSES,
    INGRESSES,
    POD_DISRUPTION_BUDGETS,
)
from fleetplane.model.objects import Object

_MANY_VERSIONS: Final = frozenset(
    (one.group, one.kind)
    for one in (
        CRON_JOBS,
        ENDPOINT_SLICES,
        EVENTS,
        HORIZONTAL_POD_AUTOSCALERS,
        INGRESSES,
        INGRESS_CLASSES,
        POD_DISRUPTION_BUDGETS,
    )
)
"""Kinds that are served in more versions than the one they are stored in; a test compares them with the catalogue."""


def _made(kind: tuple[str, str], behaviour: KindBehaviour) -> KindBehaviour:
    own = behaviour.default

    def default(obj: Object) -> None:
        canonicalise(obj)
        own(obj)

    canonical = replace(behaviour, default=default)
    return in_every_version(canonical) if kind in _MANY_VERSIONS else canonical


BEHAVIOURS: Final[Mapping[tuple[str, str], KindBehaviour]] = {kind: _made(kind, found) for kind, found in KINDS.items()}
"""(group of storage, kind) -> behaviour, for every built-in kind; others are served as ``GENERIC`` says."""

__all__ = ["BEHAVIOURS", "GENERIC", "KindBehaviour", "SubresourceRules", "canonicalise"]
