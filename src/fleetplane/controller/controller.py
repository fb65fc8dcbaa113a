"""What a controller is, as data: one resource, one function, and what else wakes it.

::

    Controller("greetings", GREETINGS, reconcile, owns=[CONFIG_MAPS])

``reconcile`` is level-triggered: it is told *which* object to look at, never what happened. It reads the state as it is,
makes it as it should be, and can be run again at any time, also when nothing changed: then it must write nothing. It may
be cancelled at any ``await``; whatever it had done by then must be a state from which running again gets to the end.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from fleetplane.client.snapshot import ObjectKey, Snapshot
from fleetplane.controller.errors import Permanent
from fleetplane.controller.predicates import Predicate, any_change, content_changed
from fleetplane.model.resources import ResourceRef

Request = ObjectKey
"""Which object to reconcile: (cluster, namespace, name)."""

HOURS: Final = 3600.0


@dataclass(frozen=True, slots=True)
class Result:
    """Look at the object again in ``requeue_after`` seconds even if nothing wakes it."""

    requeue_after: float | None = None


Reconcile = Callable[[Request], Awaitable[Result | None]]
MapFunction = Callable[[Snapshot], Iterable[Request]]
"""From a watched object to the objects it concerns. Synchronous: it may ask informers, never the server."""


@dataclass(frozen=True, slots=True)
class Watch:
    """Another resource whose changes wake objects of ours. Both the old and the new state of it are mapped."""

    resource: ResourceRef
    map: MapFunction
    predicate: Predicate = any_change
    namespace: str | None = None
    labels: str | None = None
    fields: str | None = None
    everywhere: bool = False


@dataclass(frozen=True, slots=True)
class Controller:
    """One controller.

    Attributes:
        name: Names it in logs and metrics, and is unique in a manager.
        resource: What it reconciles.
        reconcile: See the module.
        owns: Resources whose objects wake their owner (the controller in ``ownerReferences``).
        watches: Resources that wake objects by a mapping of yours.
        predicate: Which changes of the resource itself are worth a reconcile; by default all but status.
        owns_predicate: The same for owned objects; by default all.
        namespace, labels, fields: Narrow what is watched of ``resource``.
        everywhere: Watch ``resource`` in all logical clusters, whatever the manager's own.
        max_concurrent: How many different objects are reconciled at a time.
        resync: Every object is looked at again after this many seconds, at low priority; ``None``: never.
        timeout: A reconcile that takes longer than this many seconds is cancelled and retried.
        needs_leader: Whether it runs only where the manager leads. Readers of local state may say no.
        on_permanent: Told when reconcile raised ``Permanent``, to leave word on the object.
    """

    name: str
    resource: ResourceRef
    reconcile: Reconcile
    owns: Sequence[ResourceRef] = ()
    watches: Sequence[Watch] = ()
    predicate: Predicate = content_changed
    owns_predicate: Predicate = any_change
    namespace: str | None = None
    labels: str | None = None
    fields: str | None = None
    everywhere: bool = False
    max_concurrent: int = 4
    resync: float | None = 10 * HOURS
    timeout: float = 300.0
    needs_leader: bool = True
    on_permanent: Callable[[Request, Permanent], Awaitable[None]] | None = None
