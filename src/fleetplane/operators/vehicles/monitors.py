"""Serving the control interface of watchers (see ``monitoring``): their VehMonitors, accounts, heartbeats and requests.

Heartbeats come often and wake nobody: when they came is noted as they pass, and looked at when one would be overdue. What
becomes of a request is written by compare-and-swap before anything is done about it, so each is judged once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from fleetplane.client.informer import Change
from fleetplane.client.snapshot import ObjectKey
from fleetplane.controller import Context, Manager
from fleetplane.controller.status import update_status
from fleetplane.model.builtin.types import ROLE_BINDINGS, ROLES, SERVICE_ACCOUNTS
from fleetplane.model.errors import ApiError
from fleetplane.model.objects import Object, controller_of, is_deleting, metadata, uid
from fleetplane.model.resources import ResourceRef
from fleetplane.operators.vehicles import monitoring, plan
from fleetplane.operators.vehicles.kinds import VehMonitor
from fleetplane.operators.vehicles.limits import Violation

_ACCESS: Final[Mapping[str, ResourceRef]] = {
    "ServiceAccount": SERVICE_ACCOUNTS,
    "Role": ROLES,
    "RoleBinding": ROLE_BINDINGS,
}
_LOOKED_AFTER: Final = 60.0
"""Seconds after which the account and its rights are compared again."""
_MOMENT: Final = 0.01


class Watched(NamedTuple):
    """What is to be done about a workload's primaries. Names are theirs; ``again``: when to look anew, in seconds."""

    name: str
    pulse: monitoring.Pulse
    held: list[str]
    restarting: str
    status: Object
    verdicts: dict[str, Object]
    again: float | None = None

    @property
    def safe(self) -> bool:
        return bool(self.status.get("safe"))

    def phase(self, otherwise: str, on_loss: str) -> str:
        """The workload's phase, where the watcher or its absence decides it."""
        if self.safe or (on_loss == "SafeState" and self.pulse == monitoring.LOST):
            return "SafeState"
        missed = self.pulse == monitoring.LOST or bool(self.held)
        return "Degraded" if missed and otherwise == "Running" else otherwise

    def summary(self) -> Object:
        """``status.monitor`` of the workload."""
        outcome = self.status.get("outcome") or {}
        asked = " ".join(filter(None, [str(outcome.get("action") or ""), str(outcome.get("primary") or "")]))
        return {
            "name": self.name,
            "watcher": self.pulse,
            "request": asked or None,
            "outcome": outcome.get("state"),
            "rule": outcome.get("rule"),
            "stopped": self.held,
        }


class Watcher(NamedTuple):
    """What runs a watcher: the uid of its pod or the id of its container; empty where nothing does."""

    target: str
    ready: bool


class Monitors:
    """For both kinds of workloads. Reads caches; what it writes it writes on the object as the server has it."""

    def __init__(self, manager: Manager) -> None:
        self._manager = manager
        self._monitors = manager.informer(VehMonitor)
        self._monitors.add_handler(self._changed)
        self._beats: dict[ObjectKey, float] = {}
        self._since: dict[ObjectKey, tuple[str, float]] = {}
        self._granted: dict[ObjectKey, tuple[str, float]] = {}

    def _changed(self, change: Change) -> None:
        key = change.new.key
        if change.event == "DELETED":
            for known in (self._beats, self._since, self._granted):
                known.pop(key, None)
        elif change.old is not None and _said(change.old.object, "heartbeat") != _said(change.new.object, "heartbeat"):
            self._beats[key] = self._now()

    def _now(self) -> float:
        return self._manager.environment.monotonic()

    # -- the interface itself

    async def prepare(self, context: Context[Any], wanted: Object, pods: Sequence[str]) -> Object | None:
        """Have the VehMonitor and its watcher's access; ``None`` while it cannot be used yet. Raises plan.Refused."""
        await context.apply_children([wanted], prune=False)
        meta = wanted["metadata"]
        key = ObjectKey(context.request.cluster, meta["namespace"], meta["name"])
        found = self._monitors.get_key(key)
        if found is None or is_deleting(found):
            return None
        access = monitoring.access_of(found, pods)
        digest, looked = self._granted.get(key, ("", 0.0))
        if digest == plan.digest(access) and self._now() - looked < _LOOKED_AFTER:
            return found
        for one in access:
            if not await self._grant(context, one, uid(found)):
                return None
        self._granted[key] = (plan.digest(access), self._now())
        return found

    async def _grant(self, context: Context[Any], wanted: Object, owner: str) -> bool:
        """One of its objects; false while the one of an earlier VehMonitor is still being collected."""
        resource, meta = _ACCESS[str(wanted["kind"])], wanted["metadata"]
        try:
            found = await context.client.get(resource, meta["name"], meta["namespace"])
        except ApiError as error:
            if error.code != 404:
                raise
            await context.client.create(resource, wanted, meta["namespace"])
            return True
        holder = controller_of(found)
        if holder is None or holder.kind != VehMonitor.resource.kind:
            # Whoever uses it already would get the watcher's rights.
            text = f"there is a {wanted['kind']} {meta['name']} that is not the watcher's; rename one of them"
            raise plan.Refused(Violation("name-taken", "metadata.name", text))
        if holder.uid != owner or is_deleting(found):
            return False
        parts = {key: wanted[key] for key in ("rules", "subjects") if key in wanted}
        if any(found.get(key) != value for key, value in parts.items()):
            await context.client.patch(resource, meta["name"], parts, meta["namespace"])
        return True

    async def leave(self, context: Context[Any], keep: tuple[str, str] | None = None) -> None:
        """Delete the workload's VehMonitors but this one (namespace, name)."""
        for one in context.children():
            meta = metadata(one)
            if one.get("kind") != VehMonitor.resource.kind or (meta["namespace"], meta["name"]) == keep:
                continue
            try:
                await context.client.delete(VehMonitor, meta["name"], meta["namespace"], uid=uid(one))
            except ApiError as error:
                if error.code not in {404, 409}:
                    raise

    # -- what is said through it

    async def look(
        self,
        context: Context[Any],
        monitor: Object,
        spec: Mapping[str, Any],
        watcher: Watcher,
        targets: Mapping[str, str],
        primaries: list[Object],
    ) -> Watched:
        """Judge what was asked, and answer. ``spec`` is the workload's ``monitoring``."""
        meta = metadata(monitor)
        key = ObjectKey(context.request.cluster, meta["namespace"], meta["name"])
        window, now = monitoring.window_of(spec), self._now()
        since = self._seen(key, watcher, monitor.get("status") or {}, now)
        beat = self._beats.get(key)
        pulse = monitoring.pulse(ready=watcher.ready, since=since, beat=beat, now=now, window=window)
        request, allowed = _said(monitor, "request"), list(spec.get("allowedActions") or ())

        def change(current: Object) -> Object:
            answer = monitoring.judge(request, allowed, targets, current)
            fields = answer.status if answer is not None else monitoring.finished(current, targets) or {}
            return {
                "watcher": pulse,
                "watchedBy": watcher.target or None,
                "primaries": primaries,
                "allowedActions": allowed,
                "heartbeatSeconds": float(spec.get("heartbeatSeconds") or 0),
                **fields,
            }

        before = (monitor.get("status") or {}).get("outcome") or {}
        after = await update_status(context.client, VehMonitor, monitor, change)
        status: Object = after.get("status") or {}
        _tell(context, before, status.get("outcome") or {})
        again = None
        if window and watcher.ready and pulse != monitoring.LOST:
            again = max(_MOMENT, (since if beat is None else beat) + window - now + _MOMENT)
        held = monitoring.held_of(status, targets)
        verdicts = monitoring.verdicts_of(monitor.get("spec") or {})
        return Watched(str(meta["name"]), pulse, held, monitoring.restarting(status, targets), status, verdicts, again)

    def _seen(self, key: ObjectKey, watcher: Watcher, status: Mapping[str, Any], now: float) -> float:
        """When this watcher was first seen. Another one must prove itself; one known before a restart of ours has."""
        target, since = self._since.get(key, ("", now))
        if key in self._since and target == watcher.target:
            return since
        self._since[key] = (watcher.target, now)
        if status.get("watcher") == monitoring.ALIVE and (status.get("watchedBy") or "") == watcher.target:
            self._beats[key] = now
        else:
            self._beats.pop(key, None)
        return now


def asks(change: Change) -> bool:
    """Whether the operator must look at a VehMonitor: not for every heartbeat of a watcher that is known to be there."""
    if change.event != "MODIFIED" or change.old is None or change.new.is_deleting:
        return True
    old, new = change.old.object, change.new.object
    if (new.get("status") or {}).get("watcher") != monitoring.ALIVE:
        return True
    return any(_said(old, part) != _said(new, part) for part in ("request", "verdicts"))


def _said(monitor: Mapping[str, Any], part: str) -> Any:
    return (monitor.get("spec") or {}).get(part)


def _tell(context: Context[Any], before: Mapping[str, Any], after: Mapping[str, Any]) -> None:
    if after.get("id") in {None, before.get("id")}:
        return
    asked = " ".join(filter(None, [str(after.get("action")), str(after.get("primary") or "")]))
    if after.get("state") == monitoring.REFUSED:
        text = f"the watcher asked for {asked}: {after.get('message')} (rule {after.get('rule')})"
        context.event("WatcherRefused", text, warning=True)
    else:
        context.event("WatcherAsked", f"the watcher asked for {asked}")


__all__ = ["Monitors", "Watched", "Watcher", "asks"]
