"""What may be asked of the API, and what is filled in: the admission contract.

A plug-in is declared once, as data and one function, and served twice: in-process by our API server, as an HTTPS
webhook for any other Kubernetes. So it may know the request and a reader, and nothing else.

Order: mutating plug-ins by ``order``, then remote webhooks, mutating ones again if the object changed, then validation.
A plug-in must never decide uniqueness or quota from what it reads: reads may be stale, claims belong to the store.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from fleetplane.model.errors import ApiError, FieldError, forbidden, invalid
from fleetplane.model.objects import Object
from fleetplane.model.resources import ResourceRef, ResourceType, resource_of
from fleetplane.model.user import UserInfo

Operation = Literal["CREATE", "UPDATE", "DELETE", "CONNECT"]
Phase = Literal["mutate", "validate"]
FailurePolicy = Literal["Fail", "Ignore"]


@dataclass(frozen=True, slots=True)
class AdmissionRequest:
    """One write, before it is committed.

    ``new`` is the object to be (``None`` for DELETE, the options object for CONNECT), ``old`` the stored one (``None``
    for CREATE). Neither may be changed: a mutating plug-in answers with a copy. ``options`` are the CreateOptions,
    UpdateOptions or DeleteOptions as sent. ``cluster`` is the logical cluster's name.
    """

    operation: Operation
    resource: ResourceType
    user: UserInfo
    new: Object | None = None
    old: Object | None = None
    namespace: str = ""
    name: str = ""
    subresource: str = ""
    dry_run: bool = False
    options: Object = field(default_factory=dict)
    cluster: str = "root"
    uid: str = ""

    @property
    def object(self) -> Object:
        """The object the request is about: the new one, for a deletion the old one."""
        return self.new if self.new is not None else self.old or {}

    def with_new(self, new: Object) -> AdmissionRequest:
        """The request for another object; ``dataclasses.replace`` takes a multiple of the time, on every write."""
        return AdmissionRequest(
            self.operation,
            self.resource,
            self.user,
            new,
            self.old,
            self.namespace,
            self.name,
            self.subresource,
            self.dry_run,
            self.options,
            self.cluster,
            self.uid,
        )


class Claim(Protocol):
    """Something a plug-in took in advance for a write, in the store: used up with it, given back without it."""

    def keep(self) -> None:
        """The write is committed."""

    async def give_back(self) -> None:
        """The write does not happen. Must not raise."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What a plug-in says. ``object`` replaces the new object (``None``: unchanged); a ``denial`` ends the request.

    ``claim`` is for validating plug-ins inside the server only: a webhook is never told how a write ended.
    """

    object: Object | None = None
    warnings: tuple[str, ...] = ()
    denial: ApiError | None = None
    audit_annotations: tuple[tuple[str, str], ...] = ()
    claim: Claim | None = None

    @property
    def allowed(self) -> bool:
        return self.denial is None


ALLOWED = Decision()


def changed(obj: Object, *warnings: str) -> Decision:
    """Allow, with ``obj`` in the place of the request's new object."""
    return Decision(object=obj, warnings=warnings)


def allowed(*warnings: str) -> Decision:
    return Decision(warnings=warnings)


def denied(message: str, *, request: AdmissionRequest | None = None) -> Decision:
    """Refuse with 403. With ``request`` the message names the object, as the API server's own refusals do."""
    if request is None:
        return Decision(denial=ApiError(403, message))
    resource = request.resource
    return Decision(denial=forbidden(message, group=resource.group, resource=resource.plural, name=request.name))


def refused(request: AdmissionRequest, errors: Sequence[FieldError]) -> Decision:
    """Refuse with 422 for what is wrong with fields; no errors, no refusal."""
    if not errors:
        return ALLOWED
    return Decision(denial=invalid(request.resource.kind, request.name, errors, group=request.resource.group))


class Reader(Protocol):
    """What admission may read, in the cluster of the request. What it sees may be a moment old."""

    async def get(self, resource: ResourceRef, name: str, namespace: str | None = None) -> Object | None:
        """The object, ``None`` when there is none."""

    async def list(
        self, resource: ResourceRef, namespace: str | None = None, *, labels: str | None = None
    ) -> Sequence[Object]: ...


@dataclass(frozen=True, slots=True)
class AdmissionRule:
    """Which writes a plug-in sees. ``*`` in any list matches all.

    ``resources`` are ``ResourceType``s or typed kinds (any version of them matches), or names such as ``pods`` and
    ``deployments.apps``. ``subresources``: the empty string is the object itself.
    """

    resources: Sequence[ResourceRef | str]
    operations: Sequence[Operation | Literal["*"]] = ("CREATE", "UPDATE")
    subresources: Sequence[str] = ("",)

    def matches(self, operation: Operation, resource: ResourceType, subresource: str) -> bool:
        if not ("*" in self.operations or operation in self.operations):
            return False
        if not ("*" in self.subresources or subresource in self.subresources):
            return False
        return any(qualified_name(one) in {"*", resource.qualified} for one in self.resources)


def qualified_name(resource: ResourceRef | str) -> str:
    return resource if isinstance(resource, str) else resource_of(resource).qualified


Admit = Callable[[AdmissionRequest, Reader], Awaitable[Decision | None]]
"""``None`` is ``ALLOWED``. Raising ``ApiError`` is a denial, raising anything else a failure (see failure policy)."""


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """How a plug-in is served where the API server is not ours, so that a webhook is asked no more than it must be.

    ``served`` is false for what makes sense in our server only. ``namespaces`` is a label selector: others are never
    asked about, as the plug-in would let them pass anyway.
    """

    served: bool = True
    namespaces: Object | None = None


@dataclass(frozen=True, slots=True)
class AdmissionPlugin:
    """One declared admission step.

    ``order`` sorts plug-ins within a phase (then the name does). ``failure_policy`` says what an unexpected exception
    or an overrun ``timeout`` (seconds; 0 for what never waits for anybody) means. ``name`` must be a DNS subdomain: it
    is the webhook's name elsewhere. ``reads`` are the kinds it gets for most requests: our server then keeps them at hand,
    so that ``Reader.get`` costs a look into memory. What it got of these is shared, and must not be changed.
    """

    name: str
    phase: Phase
    rules: Sequence[AdmissionRule]
    admit: Admit
    order: int = 0
    failure_policy: FailurePolicy = "Fail"
    timeout: float = 10.0
    elsewhere: Elsewhere = Elsewhere()
    reads: Sequence[ResourceRef] = ()

    def matches(self, operation: Operation, resource: ResourceType, subresource: str = "") -> bool:
        return any(rule.matches(operation, resource, subresource) for rule in self.rules)


def validating(
    name: str,
    rules: Sequence[AdmissionRule],
    check: Callable[[AdmissionRequest], Iterable[FieldError]],
    *,
    order: int = 0,
) -> AdmissionPlugin:
    """A plug-in from a pure function that names what is wrong."""

    async def admit(request: AdmissionRequest, _reader: Reader) -> Decision:
        return refused(request, list(check(request)))

    return AdmissionPlugin(name, "validate", rules, admit, order=order)


def mutating(
    name: str,
    rules: Sequence[AdmissionRule],
    fill: Callable[[AdmissionRequest], Object],
    *,
    order: int = 0,
) -> AdmissionPlugin:
    """A plug-in from a pure function that returns the object as it should be (the same one when nothing is missing)."""

    async def admit(request: AdmissionRequest, _reader: Reader) -> Decision:
        filled = fill(request)
        return ALLOWED if filled is request.new else changed(filled)

    return AdmissionPlugin(name, "mutate", rules, admit, order=order)


async def decide(plugin: AdmissionPlugin, request: AdmissionRequest, reader: Reader) -> Decision:
    """Run one plug-in; its exceptions become what its contract says they mean."""
    try:
        if not plugin.timeout:
            return await plugin.admit(request, reader) or ALLOWED
        async with asyncio.timeout(plugin.timeout):
            return await plugin.admit(request, reader) or ALLOWED
    except ApiError as error:
        return Decision(denial=error)
    except Exception as error:
        why = f"took longer than {plugin.timeout:g} s" if isinstance(error, TimeoutError) else f"failed: {error}"
        if plugin.failure_policy == "Ignore":
            return allowed(f"admission plug-in {plugin.name} {why}; the request was let through")
        return Decision(denial=ApiError(500, f"admission plug-in {plugin.name} {why}", reason="InternalError"))
