"""The short way to write an operator: a function of one object.

::

    async def reconcile(context: Context[Greeting], greeting: Greeting) -> None:
        await context.apply_children([config_map_of(greeting)])
        await context.set_status({"said": greeting.spec.times}, Condition("Ready", True, "Said"))

    controller_for(manager, Greeting, reconcile, owns=[CONFIG_MAPS])

What it adds to a bare ``Controller`` is what every operator does: fetch the object, run its finalizer, tie children to
it, write status when it changed, and say on the object itself when reconciling failed for good.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Generic, TypeVar, cast, overload

from fleetplane.client.protocol import Client
from fleetplane.controller.children import Children, ChildrenResult, Owner
from fleetplane.controller.conditions import Condition, with_conditions
from fleetplane.controller.controller import HOURS, Controller, Request, Result, Watch
from fleetplane.controller.errors import Permanent
from fleetplane.controller.finalizers import add_finalizer, remove_finalizer
from fleetplane.controller.manager import Manager
from fleetplane.controller.predicates import Predicate, any_change, content_changed
from fleetplane.controller.status import update_status
from fleetplane.model.errors import ApiError
from fleetplane.model.kind import Kind
from fleetplane.model.objects import Object, finalizers, generation, is_deleting
from fleetplane.model.resources import ResourceRef, ResourceType, resource_of

K = TypeVar("K")
T = TypeVar("T", bound=Kind)

READY: Final = "Ready"


@dataclass
class Context(Generic[K]):
    """One reconcile of one object.

    ``client`` goes to the object's cluster, and what it writes the informers know at once. ``object`` is the plain data,
    immutable by convention.
    """

    request: Request
    object: Object
    client: Client
    manager: Manager
    _resource: ResourceRef
    _children: Children

    def now(self) -> datetime:
        return self.manager.environment.now()

    @property
    def owner(self) -> Owner:
        return Owner.of(self.object, self.request.cluster)

    async def apply_children(self, desired: Iterable[Object], *, prune: bool = True) -> ChildrenResult:
        """Make these the object's children, and with ``prune`` no others. Writes nothing when they are already."""
        return await self._children.apply(self.client, self.owner, desired, prune=prune)

    async def delete_children(self) -> bool:
        """Delete them all; true when none is left. For clean-up of children the garbage collector does not know."""
        return await self._children.delete(self.client, self.owner)

    def children(self) -> list[Object]:
        """The children as the cache has them."""
        return [snapshot.object for _, snapshot in self._children.find(self.owner)]

    async def set_status(self, status: Object | None = None, *conditions: Condition) -> None:
        """Make these status fields and conditions hold; others stay. Writes only what differs.

        Conditions carry the generation they speak of; so does ``observedGeneration`` of the status, where the kind has it.
        """
        self.object = await update_status(
            self.client, self._resource, self.object, lambda current: self._status(current, status or {}, conditions)
        )

    def event(self, reason: str, message: str, *, warning: bool = False) -> None:
        """Tell people something about the object."""
        self.manager.events.event(self.object, "Warning" if warning else "Normal", reason, message)

    def _status(self, current: Object, status: Object, conditions: Sequence[Condition]) -> Object:
        wanted = dict(status)
        counted = generation(self.object)
        if counted and _has_observed_generation(self._resource):
            wanted.setdefault("observedGeneration", counted)
        if conditions:
            wanted["conditions"] = with_conditions(
                current.get("conditions"), conditions, now=self.now(), generation=counted
            )
        return wanted


ReconcileObject = Callable[[Context[K], K], Awaitable[Result | None]]


@overload
def controller_for(
    manager: Manager,
    kind: type[T],
    reconcile: Callable[[Context[T], T], Awaitable[Result | None]],
    *,
    name: str = "",
    owns: Sequence[ResourceRef] = (),
    watches: Sequence[Watch] = (),
    finalizer: str = "",
    cleanup: Callable[[Context[T], T], Awaitable[Result | None]] | None = None,
    predicate: Predicate = content_changed,
    owns_predicate: Predicate = any_change,
    max_concurrent: int = 4,
    resync: float | None = 10 * HOURS,
    timeout: float = 300.0,
) -> Controller: ...
@overload
def controller_for(
    manager: Manager,
    kind: ResourceType,
    reconcile: Callable[[Context[Object], Object], Awaitable[Result | None]],
    *,
    name: str = "",
    owns: Sequence[ResourceRef] = (),
    watches: Sequence[Watch] = (),
    finalizer: str = "",
    cleanup: Callable[[Context[Object], Object], Awaitable[Result | None]] | None = None,
    predicate: Predicate = content_changed,
    owns_predicate: Predicate = any_change,
    max_concurrent: int = 4,
    resync: float | None = 10 * HOURS,
    timeout: float = 300.0,
) -> Controller: ...
def controller_for(
    manager: Manager,
    kind: Any,
    reconcile: Callable[[Context[Any], Any], Awaitable[Result | None]],
    *,
    name: str = "",
    owns: Sequence[ResourceRef] = (),
    watches: Sequence[Watch] = (),
    finalizer: str = "",
    cleanup: Callable[[Context[Any], Any], Awaitable[Result | None]] | None = None,
    predicate: Predicate = content_changed,
    owns_predicate: Predicate = any_change,
    max_concurrent: int = 4,
    resync: float | None = 10 * HOURS,
    timeout: float = 300.0,
) -> Controller:
    """A controller from a function of one object.

    Args:
        kind: A typed kind (``reconcile`` gets views of it) or a resource type (it gets plain data).
        name: By default the resource's qualified name.
        owns: What the object's children may be; they wake it.
        finalizer: Put on every object before it is reconciled, so that ``cleanup`` runs before it is gone.
        cleanup: Called while the object is being deleted, until it returns ``None``: then the finalizer is taken off.
            Raising or returning a ``Result`` means it is not done.

    The rest is as in ``Controller``.
    """
    if bool(finalizer) != (cleanup is not None):
        raise ValueError("a finalizer needs a cleanup, and a cleanup a finalizer")
    resource = resource_of(kind)
    controller_name = name or resource.qualified
    view = _viewer(kind)
    primary = manager.informer(kind)
    children = Children([manager.informer(child) for child in owns], manager=manager.name)

    def context_of(request: Request, obj: Object) -> Context[Any]:
        return Context(request, obj, manager.client.in_cluster(request.cluster), manager, kind, children)

    async def reconcile_request(request: Request) -> Result | None:
        obj = primary.get_key(request)
        if obj is None:
            return None
        context = context_of(request, obj)
        if is_deleting(obj):
            if cleanup is None or finalizer not in finalizers(obj):
                return None
            unfinished = await cleanup(context, view(obj))
            if unfinished is None:
                await remove_finalizer(context.client, kind, context.object, finalizer)
            return unfinished
        if finalizer and finalizer not in finalizers(obj):
            context.object = await add_finalizer(context.client, kind, obj, finalizer)
        return await reconcile(context, view(context.object))

    async def on_permanent(request: Request, error: Permanent) -> None:
        obj = primary.get_key(request)
        if obj is None:
            return
        context = context_of(request, obj)
        context.event(error.reason, error.message, warning=True)
        try:
            await context.set_status(None, Condition(READY, False, error.reason, error.message))
        except ApiError as refused:
            if refused.code != 404:  # deleted meanwhile, or a kind without status
                raise

    return Controller(
        name=controller_name,
        resource=kind,
        reconcile=reconcile_request,
        owns=owns,
        watches=watches,
        predicate=predicate,
        owns_predicate=owns_predicate,
        max_concurrent=max_concurrent,
        resync=resync,
        timeout=timeout,
        on_permanent=on_permanent,
    )


def _viewer(kind: Any) -> Callable[[Object], Any]:
    if isinstance(kind, ResourceType):
        return lambda obj: obj
    return cast(Callable[[Object], Any], kind.view)


def _has_observed_generation(kind: Any) -> bool:
    if not (isinstance(kind, type) and issubclass(kind, Kind)) or "status" not in kind.attributes:
        return False
    status = kind.attributes["status"].view
    return status is not None and "observed_generation" in status.attributes
