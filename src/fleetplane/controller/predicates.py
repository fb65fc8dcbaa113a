"""Which changes are worth a reconcile.

A predicate looks at one difference and says whether to wake the object. It only saves work: reconcile must be right
without it. Combine with ``all_of``, ``any_of``, ``not_``.
"""

from __future__ import annotations

from collections.abc import Callable

from fleetplane.client.informer import Change
from fleetplane.client.snapshot import Snapshot
from fleetplane.model.selectors import LabelSelector

Predicate = Callable[[Change], bool]


def any_change(_change: Change) -> bool:
    return True


def generation_changed(change: Change) -> bool:
    """What the spec says changed, or deletion began: not status, not metadata. As controller-runtime's."""
    old, new = change.old, change.new
    if change.event != "MODIFIED" or old is None:
        return True
    return old.generation != new.generation or old.is_deleting != new.is_deleting


def content_changed(change: Change) -> bool:
    """Anything but status changed, as far as the object can tell. The default for a controller's own resource.

    Kinds that do not count generations (ConfigMaps, Nodes) wake on every change.
    """
    old, new = change.old, change.new
    if change.event != "MODIFIED" or old is None or not new.generation:
        return True
    before, after = old.meta, new.meta
    return (
        before.generation != after.generation
        or before.deletion_timestamp != after.deletion_timestamp
        or before.labels != after.labels
        or before.annotations != after.annotations
        or before.finalizers != after.finalizers
        or before.owner_references != after.owner_references
    )


def labels_changed(change: Change) -> bool:
    return change.old is None or change.old.labels != change.new.labels or change.event == "DELETED"


def annotations_changed(change: Change) -> bool:
    return change.old is None or change.old.annotations != change.new.annotations or change.event == "DELETED"


def created_or_deleted(change: Change) -> bool:
    return change.event != "MODIFIED"


def matching_labels(selector: str) -> Predicate:
    """Objects that match a label selector, and those that just stopped to."""
    parsed = LabelSelector.parse(selector)
    return _either(lambda snapshot: parsed.matches(snapshot.labels))


def in_namespaces(*namespaces: str) -> Predicate:
    return lambda change: change.new.key.namespace in namespaces


def matching(test: Callable[[Snapshot], bool]) -> Predicate:
    """Objects for which ``test`` holds, and those for which it just stopped to."""
    return _either(test)


def all_of(*predicates: Predicate) -> Predicate:
    return lambda change: all(one(change) for one in predicates)


def any_of(*predicates: Predicate) -> Predicate:
    return lambda change: any(one(change) for one in predicates)


def not_(predicate: Predicate) -> Predicate:
    return lambda change: not predicate(change)


def _either(test: Callable[[Snapshot], bool]) -> Predicate:
    return lambda change: test(change.new) or (change.old is not None and test(change.old))
