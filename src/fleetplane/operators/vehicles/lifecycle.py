"""Making it so: signals in, rules fire, applications start, stop, change.

One engine serves all rules of the operator. A source's reconcile lasts as long as the source: it feeds the engine and ends
when the object changes. A rule that fires is put into its own controller's queue, so that what it does is retried, counted
and shown like everything else; what fired and is not yet done is remembered until it is.

Where two rules that both hold want different things of one application, the one of higher priority has its way and the
other says that it was overruled.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Hashable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final, NamedTuple

import orjson

from fleetplane.client.informer import Change
from fleetplane.client.snapshot import ObjectKey, Snapshot
from fleetplane.controller import (
    Condition,
    Context,
    Controller,
    Manager,
    Permanent,
    Request,
    Result,
    Watch,
    controller_for,
)
from fleetplane.model import objects
from fleetplane.model.builtin.types import CONFIG_MAPS, SECRETS
from fleetplane.model.environment import timestamp
from fleetplane.model.errors import ApiError
from fleetplane.model.objects import Object
from fleetplane.model.resources import ResourceRef
from fleetplane.operators.vehicles.kinds import AppType, LifecycleManagingRule, VehDeployment, VehPod, VehSignalSource
from fleetplane.operators.vehicles.kuksa import Kuksa
from fleetplane.operators.vehicles.limits import canonical
from fleetplane.operators.vehicles.package_signing import RULE, is_signed_class
from fleetplane.operators.vehicles.plan import PREFIX
from fleetplane.operators.vehicles.rules import Engine, RuleError, defined_by, named_by, rule_of
from fleetplane.operators.vehicles.signals import Drive, Mqtt, Sample, SignalSource, SourceFailure, tls_context

PREVIOUS: Final = PREFIX + "previous-spec"
"""Annotation of a workload: its spec before the last update by a rule, for rollback."""
RULES: Final = "vehicle-rules"
ACTIONS: Final = ("start", "stop", "update", "delete", "rollback")
_KINDS: Final[Mapping[str, ResourceRef]] = {"VehPod": VehPod, "VehDeployment": VehDeployment}
_LOOK: Final = 0.5
_AGAIN: Final = 5.0
_EVER: Final = 10.0**9


class Target(NamedTuple):
    kind: str
    name: str


def targets_of(spec: Mapping[str, Any]) -> list[Target]:
    """Raises RuleError."""
    made = []
    for one in spec.get("target") or ():
        if isinstance(one, Mapping):
            target = Target(str(one.get("kind") or "VehPod"), str(one.get("name") or ""))
        else:
            kind, _, name = str(one).rpartition("/")
            target = Target(kind or "VehPod", name)
        if target.kind not in _KINDS or not target.name:
            raise RuleError(f"target {one!r} is neither VehPod/name nor VehDeployment/name")
        made.append(target)
    return made


def action_of(spec: Mapping[str, Any]) -> str:
    """Raises RuleError."""
    action = str(spec.get("action") or "").lower()
    if action not in ACTIONS:
        raise RuleError(f"action {spec.get('action')!r} is none of {', '.join(ACTIONS)}")
    if action == "update" and not spec.get("update"):
        raise RuleError("the action update needs the field update: a merge patch of the targets' spec")
    return action


class Lifecycle:
    """The controllers of rules and of signal sources, around one engine."""

    def __init__(self, manager: Manager) -> None:
        self._manager = manager
        self._rules = manager.informer(LifecycleManagingRule)
        self._sources = manager.informer(VehSignalSource)
        self._config_maps = manager.informer(CONFIG_MAPS)
        self._engine = Engine()
        self._pending: dict[Hashable, int] = {}
        self._rules.add_handler(self._rule_changed)

    def _rule_changed(self, change: Change) -> None:
        if change.event == "DELETED":
            self._forget(change.new.key)

    def controllers(self) -> list[Controller]:
        rules = controller_for(
            self._manager,
            LifecycleManagingRule,
            self.reconcile_rule,
            name=RULES,
            watches=[Watch(LifecycleManagingRule, self._named_elsewhere)],
        )
        sources = controller_for(
            self._manager,
            VehSignalSource,
            self.reconcile_source,
            name="vehicle-signals",
            max_concurrent=64,
            timeout=_EVER,
        )
        return [rules, sources]

    def _named_elsewhere(self, snapshot: Snapshot) -> Iterable[Request]:
        """Rules that combine what this one defines."""
        key, defined = snapshot.key, defined_by(snapshot.object.get("spec") or {})
        for one in self._rules.list(key.namespace, cluster=key.cluster):
            called, spec = objects.name(one), one.get("spec") or {}
            if called != key.name and (named_by(spec) - defined_by(spec)) & defined:
                yield Request(key.cluster, key.namespace, called)

    # -- signals

    async def reconcile_source(self, context: Context[VehSignalSource], source: VehSignalSource) -> Result | None:
        """Lasts as long as the source is as it is."""
        try:
            made = await self._open(context, source)
        except SourceFailure as error:
            raise Permanent(str(error), reason="NoSource") from None
        playing = asyncio.ensure_future(self._play(context, made))
        try:
            while not playing.done() and self._is_current(context.request, source):
                due = self._engine.due_at
                now = self._now()
                wait = _LOOK if due is None else min(_LOOK, max(due - now, 0.001))
                await asyncio.wait([playing], timeout=wait)
                self._fired(self._engine.tick(self._now()))
            if not playing.done():
                return None  # changed or deleted: the queue already knows
            try:
                count = playing.result()
            except SourceFailure as error:
                await context.set_status({"phase": "Failed", "message": str(error)})
                return Result(requeue_after=_AGAIN)
            await context.set_status({"phase": "Ended", "message": "", "samples": count})
            await self._outlive()
            return None
        finally:
            playing.cancel()
            with suppress(asyncio.CancelledError, SourceFailure):
                await playing

    async def _outlive(self) -> None:
        """Debounces and holds that the last samples began still come to their end."""
        while (due := self._engine.due_at) is not None:
            await asyncio.sleep(min(max(due - self._now(), 0.001), _LOOK))
            self._fired(self._engine.tick(self._now()))

    async def _play(self, context: Context[Any], source: SignalSource) -> int:
        count = 0
        await context.set_status({"phase": "Playing", "message": ""})
        stream = source.samples()
        async for sample in stream:
            count += 1
            self._sample(sample)
            if count % 1000 == 0:
                await asyncio.sleep(0)
        return count

    def _sample(self, sample: Sample) -> None:
        now = self._now()
        self._fired(self._engine.feed(sample.topic, sample.value, now))

    def _fired(self, keys: Iterable[Hashable]) -> None:
        for key in keys:
            self._pending[key] = self._pending.get(key, 0) + 1
            if isinstance(key, ObjectKey):
                self._manager.runner(RULES).enqueue(key)

    def _now(self) -> float:
        return self._manager.environment.monotonic()

    def _is_current(self, request: Request, source: VehSignalSource) -> bool:
        found = self._sources.get_key(request)
        return found is not None and objects.generation(found) == source.generation and not objects.is_deleting(found)

    async def _open(self, context: Context[Any], source: VehSignalSource) -> SignalSource:
        spec, request = source.spec, context.request
        if (drive := spec.recorded_drive) is not None:
            found = self._config_maps.get_key(ObjectKey(request.cluster, request.namespace, drive.config_map))
            text = ((found or {}).get("data") or {}).get(drive.key)
            if text is None:
                raise SourceFailure(f"there is no key {drive.key} in ConfigMap {drive.config_map}")
            return Drive(str(text), drive.speed, drive.loop)
        if (mqtt := spec.mqtt) is not None:
            secret = await self._secret(context, mqtt.password_secret)
            known = await self._secret(context, mqtt.tls_secret)
            context_of_tls = None
            if mqtt.tls or known:
                context_of_tls = tls_context(*(known.get(key, "") for key in ("ca.crt", "tls.crt", "tls.key")))
            return Mqtt(
                mqtt.host,
                mqtt.port,
                mqtt.topics,
                f"fleetplane-{source.uid[:8]}",
                mqtt.username or secret.get("username", ""),
                secret.get("password", ""),
                context_of_tls,
            )
        if (kuksa := spec.kuksa) is not None:
            token = (await self._secret(context, kuksa.token_secret)).get("token", "")
            root = (await self._secret(context, kuksa.tls_secret)).get("ca.crt", "")
            if kuksa.tls_secret and not root:
                raise SourceFailure(f"Secret {kuksa.tls_secret} has no key ca.crt")
            return Kuksa(kuksa.host, kuksa.signals, kuksa.port, root.encode(), token.strip())
        raise SourceFailure("the source names neither recordedDrive nor mqtt nor kuksa")

    async def _secret(self, context: Context[Any], name: str) -> dict[str, str]:
        """The files of a Secret; none where none is named."""
        if not name:
            return {}
        try:
            secret = await context.client.get(SECRETS, name, context.request.namespace)
            found = secret.get("data") or {}
            return {key: base64.b64decode(value).decode() for key, value in found.items()}
        except ApiError as error:
            raise SourceFailure(f"Secret {name} cannot be read: {error.message}") from None
        except ValueError:
            raise SourceFailure(f"Secret {name} holds something that is no text") from None

    # -- rules

    async def reconcile_rule(
        self, context: Context[LifecycleManagingRule], rule: LifecycleManagingRule
    ) -> Result | None:
        key, spec = context.request, rule.spec.object
        if rule.is_deleting:
            self._forget(key)
            return None
        try:
            compiled = rule_of(spec, self._elsewhere(key))
            action, targets = action_of(spec), targets_of(spec)
        except RuleError as error:
            self._forget(key)
            await context.set_status({"phase": "Waiting" if named_by(spec) - defined_by(spec) else "Invalid"})
            raise Permanent(str(error), reason="InvalidRule") from None
        fired = rule.status.fired
        if not compiled.units and not fired:
            self._pending.setdefault(key, 1)  # without a condition it holds at once
        self._engine.set(key, compiled, fired=fired)
        if waiting := self._pending.get(key, 0):
            outcome = await self._act(context, rule, action, targets)
            left = self._pending.get(key, 0) - waiting
            if left > 0:
                self._pending[key] = left
            else:
                self._pending.pop(key, None)
            fired += 1
            context.event("Fired", f"{action}: {outcome}")
            await context.set_status({"lastFired": timestamp(context.now()), "lastOutcome": outcome, "fired": fired})
        done = compiled.once and fired > 0
        await context.set_status(
            {"phase": "Done" if done else "Watching", "fired": fired}, Condition("Ready", True, "Watching")
        )
        return None

    def _forget(self, key: Hashable) -> None:
        self._engine.remove(key)
        self._pending.pop(key, None)

    def _elsewhere(self, key: Request) -> dict[str, Mapping[str, Any]]:
        """Conditions that other rules of the namespace define: a name is a reference handle."""
        found: dict[str, Mapping[str, Any]] = {}
        for one in self._rules.list(key.namespace, cluster=key.cluster):
            spec = one.get("spec") or {}
            for condition in [spec.get("condition"), *(spec.get("conditionDefinitions") or ())]:
                if condition and condition.get("conditionName"):
                    found.setdefault(str(condition["conditionName"]), condition)
        return found

    def _overruled(self, key: Request, rule: LifecycleManagingRule, action: str, target: Target) -> str:
        """The name of a rule of higher priority that holds and wants something else of the target."""
        for one in self._rules.list(key.namespace, cluster=key.cluster):
            other = LifecycleManagingRule.view(one)
            other_key = ObjectKey(key.cluster, key.namespace, other.name)
            if other_key == key or other.spec.priority >= rule.spec.priority or not self._engine.holds(other_key):
                continue
            try:
                wants = target in targets_of(other.spec.object) and action_of(other.spec.object) != action
            except RuleError:
                continue
            if wants:
                return other.name
        return ""

    async def _act(
        self, context: Context[Any], rule: LifecycleManagingRule, action: str, targets: Sequence[Target]
    ) -> str:
        told = []
        for target in targets:
            if by := self._overruled(context.request, rule, action, target):
                told.append(f"{target.kind}/{target.name} overruled by {by}")
                continue
            try:
                await self._act_on(context, rule.spec.object, action, target)
            except ApiError as error:
                if error.code >= 500 or error.code in {409, 429}:
                    raise
                told.append(f"{target.kind}/{target.name} {error.message}")
            else:
                told.append(f"{target.kind}/{target.name} done")
        return "; ".join(told)

    async def _act_on(self, context: Context[Any], spec: Mapping[str, Any], action: str, target: Target) -> None:
        client, namespace, resource = context.client, context.request.namespace, _KINDS[target.kind]
        if action in {"start", "stop"}:
            state = "Running" if action == "start" else "Stopped"
            await client.patch(resource, target.name, {"spec": {"state": state}}, namespace)
        elif action == "delete":
            await client.delete(resource, target.name, namespace)
        elif action == "update":
            obj = await client.get(resource, target.name, namespace)
            await _may_change(context, obj, spec["update"])
            await client.patch(resource, target.name, update_patch(obj, spec["update"]), namespace)
        else:
            obj = await client.get(resource, target.name, namespace)
            patch = rollback_patch(obj)
            if patch is None:
                raise ApiError(404, "has no earlier form to go back to")
            await _may_change(context, obj, patch["spec"])
            await client.patch(resource, target.name, patch, namespace)


async def _may_change(context: Context[Any], obj: Object, change: Mapping[str, Any]) -> None:
    """Raises ApiError where only what is signed may run: nobody signed what a rule would make of it."""
    for spec in (obj.get("spec") or {}, change):
        if not (app_type := canonical(str(spec.get("appType") or ""))):
            continue
        try:
            found = await context.client.get(AppType, app_type)
        except ApiError as error:
            if error.code != 404:
                raise
            continue
        if is_signed_class(found):
            raise ApiError(403, f"is not changed: only signed applications run as {app_type} (rule {RULE})")


def update_patch(obj: Object, change: Mapping[str, Any]) -> Object:
    """The merge patch that makes the change and remembers what was."""
    meta = objects.metadata(obj)
    spec = orjson.dumps(obj.get("spec"), option=orjson.OPT_SORT_KEYS).decode()
    return {
        "metadata": {"resourceVersion": meta.get("resourceVersion"), "annotations": {PREVIOUS: spec}},
        "spec": dict(change),
    }


def rollback_patch(obj: Object) -> Object | None:
    """The merge patch back to what was, and forward again by another rollback."""
    text = objects.annotations(obj).get(PREVIOUS)
    if not text:
        return None
    before, now = orjson.loads(text), obj.get("spec") or {}
    spec: Object = {**{key: None for key in now if key not in before}, **before}
    kept = orjson.dumps(now, option=orjson.OPT_SORT_KEYS).decode()
    version = objects.metadata(obj).get("resourceVersion")
    return {"metadata": {"resourceVersion": version, "annotations": {PREVIOUS: kept}}, "spec": _exactly(now, spec)}


def _exactly(now: Any, wanted: Any) -> Any:
    """A merge patch from one mapping to another: what is no longer there is removed, at every depth."""
    if not isinstance(now, dict) or not isinstance(wanted, dict):
        return wanted
    removed = {key: None for key in now if key not in wanted}
    return {**removed, **{key: _exactly(now.get(key), value) for key, value in wanted.items()}}
