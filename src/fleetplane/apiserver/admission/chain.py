"""The order in which admission plug-ins see a request.

Mutating plug-ins by order, then webhooks (which are plug-ins of a late order), the mutating ones once more when a
webhook changed the object, then validation. Which plug-ins care for a resource is found once per resource.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from fleetplane.apiserver import metadata as meta
from fleetplane.apiserver import validation
from fleetplane.apiserver.admission.dispatching import Dispatcher, Memory
from fleetplane.apiserver.call import Call
from fleetplane.model import errors
from fleetplane.model.admission import AdmissionPlugin, AdmissionRequest, Claim, Decision, Phase, Reader, decide
from fleetplane.model.objects import Object
from fleetplane.model.schema import prune

WEBHOOK_ORDER = 10_000
"""Plug-ins from here on may call out of the process; what they change is shown to the others again."""


def own(plugins: Iterable[AdmissionPlugin]) -> list[AdmissionPlugin]:
    """The server's own plug-ins, without a watch on the time they take: they wait for nothing but the store."""
    return [replace(one, timeout=0) for one in plugins]


ReaderFor = Callable[[str, AdmissionPlugin], Reader]
"""What a plug-in reads with in one logical cluster, by id."""


class AdmissionChain:
    """All plug-ins of a server, and those it asks outside of itself (``dispatchers``: policies, then webhooks)."""

    def __init__(
        self, plugins: Sequence[AdmissionPlugin], reader_for: ReaderFor, dispatchers: Sequence[Dispatcher] = ()
    ) -> None:
        self._plugins = sorted(plugins, key=lambda one: (one.order, one.name))
        self._reader_for = reader_for
        self._dispatchers = tuple(dispatchers)
        self._concerned: dict[tuple[Phase, str, str, str], tuple[AdmissionPlugin, ...]] = {}

    def _find(self, phase: Phase, request: AdmissionRequest) -> tuple[AdmissionPlugin, ...]:
        key = (phase, request.operation, request.resource.qualified, request.subresource)
        found = self._concerned.get(key)
        if found is None:
            found = self._concerned[key] = tuple(
                one
                for one in self._plugins
                if one.phase == phase and one.matches(request.operation, request.resource, request.subresource)
            )
        return found

    async def mutate(self, call: Call, request: AdmissionRequest) -> Object:
        """The new object as the plug-ins want it. Raises the ApiError of the first refusal."""
        plugins = self._find("mutate", request)
        if request.operation == "CREATE" and _is_named_by_us(request):
            request = replace(request, name="")  # as in Kubernetes, where the name is made after mutation
        called_out = False
        for plugin in plugins:
            before = request.new
            request = await self._ask(plugin, call, request)
            called_out = called_out or (plugin.order >= WEBHOOK_ORDER and request.new is not before)
        memory = Memory()
        request, changed = await self._dispatch(call, request, memory)
        if called_out or changed:
            for plugin in plugins:
                if plugin.order < WEBHOOK_ORDER:
                    request = await self._ask(plugin, call, request)
        if changed:
            memory.again = True
            request, _ = await self._dispatch(call, request, memory)
        return request.new if request.new is not None else {}

    async def _dispatch(self, call: Call, request: AdmissionRequest, memory: Memory) -> tuple[AdmissionRequest, bool]:
        """(the request as others want it, whether that is another object)."""
        before = request.new
        for dispatcher in self._dispatchers:
            request = await dispatcher.mutate(call, request, memory)
        if request.new is before or request.new is None:
            return request, False
        return replace(request, new=settled(call, request.new, before)), True

    async def validate(self, call: Call, request: AdmissionRequest) -> Claims:
        """What plug-ins claimed for the write, to be entered around its commit. Raises the ApiError of the first refusal."""
        if request.operation in ("DELETE", "CONNECT"):  # nothing is to be changed, but mutating webhooks may refuse
            await self._dispatch(call, request, Memory())
        claims: list[Claim] = []
        asked = False
        try:
            for plugin in self._find("validate", request):
                if plugin.order >= WEBHOOK_ORDER and not asked:
                    asked = True
                    await self._ask_others(call, request)
                decision = await self._decide(plugin, call, request)
                if decision.claim is not None:
                    claims.append(decision.claim)
            if not asked:
                await self._ask_others(call, request)
        except BaseException:
            await Claims(claims).give_back()
            raise
        return Claims(claims) if claims else NO_CLAIMS

    async def _ask_others(self, call: Call, request: AdmissionRequest) -> None:
        for dispatcher in self._dispatchers:
            await dispatcher.validate(call, request)

    async def _ask(self, plugin: AdmissionPlugin, call: Call, request: AdmissionRequest) -> AdmissionRequest:
        decision = await self._decide(plugin, call, request)
        return request if decision.object is None else request.with_new(decision.object)

    async def _decide(self, plugin: AdmissionPlugin, call: Call, request: AdmissionRequest) -> Decision:
        decision: Decision = await decide(plugin, request, self._reader_for(call.key_cluster, plugin))
        for warning in decision.warnings:
            call.warn(warning)
        for key, value in decision.audit_annotations:
            call.annotate(key, value)
        if decision.denial is not None:
            raise decision.denial
        return decision


def _is_named_by_us(request: AdmissionRequest) -> bool:
    metadata = (request.new or {}).get("metadata") or {}
    generate = metadata.get("generateName")
    return bool(generate) and request.name != generate and request.name.startswith(str(generate))


def settled(call: Call, obj: Object, before: Object | None) -> Object:
    """An object that somebody outside has changed, as if it had come in a request.

    It is pruned and gets its defaults; and where only the status may be written, or all but the status, the rest is as
    it was ``before``.
    """
    if call.target.subresource == "status" and before is not None:
        obj = {**before, "metadata": obj["metadata"], **{key: obj[key] for key in ("status",) if key in obj}}
    elif call.served.behaviour.status_subresource and "status" in call.served.subresources:
        kept = {"status": before["status"]} if before is not None and "status" in before else {}
        obj = {**{key: value for key, value in obj.items() if key != "status"}, **kept}
    if not call.served.custom:
        obj = meta.drop_nulls(obj)
    if shape := meta.check_shape(obj):
        raise errors.internal(f"an admission webhook or policy made {shape[0]}")
    if call.served.schema is not None:
        prune(call.served.schema, obj)
    validation.fill_defaults(call, obj)
    return obj


class Claims:
    """``async with claims:`` around a commit: kept when it succeeds, given back when it does not."""

    __slots__ = ("_claims",)

    def __init__(self, claims: Sequence[Claim] = ()) -> None:
        self._claims = claims

    async def __aenter__(self) -> None:
        """Nothing to do: they are taken already."""

    async def __aexit__(self, kind: type[BaseException] | None, _error: object, _traceback: object) -> None:
        if kind is not None:
            await self.give_back()
            return
        for claim in self._claims:
            claim.keep()

    async def give_back(self) -> None:
        for claim in self._claims:
            await claim.give_back()


NO_CLAIMS = Claims()
