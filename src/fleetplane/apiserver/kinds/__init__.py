"""What is particular about each built-in kind; a module per group, the large ones by kind.

``BEHAVIOURS`` is all of it. Behaviours work on the storage version; other versions are converted first. Whatever a kind
does itself, its objects are brought into canonical form before and after its defaults, so that every rule sees an object
as Kubernetes would have kept it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from fleetplane.apiserver.kinds.behaviour import GENERIC, KindBehaviour, SubresourceRules
from fleetplane.apiserver.kinds.canonical import canonicalise
from fleetplane.apiserver.kinds.catalogue import KINDS
from fleetplane.model.objects import Object


def _canonical(behaviour: KindBehaviour) -> KindBehaviour:
    own = behaviour.default

    def default(obj: Object) -> None:
        canonicalise(obj)
        own(obj)

    return replace(behaviour, default=default)


BEHAVIOURS: Final[Mapping[tuple[str, str], KindBehaviour]] = {kind: _canonical(found) for kind, found in KINDS.items()}
"""(group of storage, kind) -> behaviour, for every built-in kind; others are served as ``GENERIC`` says."""

__all__ = ["BEHAVIOURS", "GENERIC", "KindBehaviour", "SubresourceRules", "canonicalise"]
