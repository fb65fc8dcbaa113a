"""Who might adopt an object that nobody owns: what wakes an owner when an orphan appears."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from fleetplane.client.informer import Change, Informer
from fleetplane.client.snapshot import Snapshot
from fleetplane.controller.controller import Request
from fleetplane.model.objects import Object
from fleetplane.model.selectors import LabelSelector

_NAMESPACE: Final = "owners by namespace"

Selector = Callable[[Object], LabelSelector]
"""An owner's selector; raises ValueError for one that cannot be read."""


def by_selector(owner: Object) -> LabelSelector:
    """``spec.selector`` as a ``metav1.LabelSelector``."""
    return LabelSelector.from_object(owner["spec"].get("selector"))


def became_orphan(change: Change) -> bool:
    """It has no controller, and it is new, or has just lost one, or is labelled differently: somebody may want it."""
    new, old = change.new, change.old
    if change.event == "DELETED" or new.is_deleting or _is_owned(new):
        return False
    return old is None or old.labels != new.labels or _is_owned(old)


def _is_owned(one: Snapshot) -> bool:
    return any(owner.controller for owner in one.owners)


class Adopters:
    """Finds owners of one kind, in the orphan's namespace, whose selector matches it."""

    def __init__(self, owners: Informer, selector: Selector = by_selector) -> None:
        self._owners = owners
        self._selector = selector
        owners.add_index(_NAMESPACE, lambda one: [f"{one.key.cluster}/{one.key.namespace}"])

    def of(self, orphan: Snapshot) -> Iterable[Request]:
        if _is_owned(orphan) or orphan.is_deleting:
            return []
        found = self._owners.snapshots_by_index(_NAMESPACE, f"{orphan.key.cluster}/{orphan.key.namespace}")
        return [one.key for one in found if self._matches(one.object, orphan)]

    def _matches(self, owner: Object, orphan: Snapshot) -> bool:
        try:
            return self._selector(owner).matches(orphan.labels)
        except ValueError:
            return False
