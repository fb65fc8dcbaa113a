"""Degradation modes: lower levels of criticality are shed from a node before higher ones suffer, and come back with care.

An integrator writes a ``VehDegradation``: modes from mild to severe, each with the levels it sheds and the use of the node
at which it is entered and left. A mode is entered when one of its limits has been passed for ``enterSeconds``; at once the
most severe one that holds. It is left, one step at a time, when all of its limits have been undershot for
``leaveSeconds``. Between the two limits nothing changes: that is the hysteresis.

``decide`` is pure. The mode is kept in an annotation of the node: the scheduler plug-in reads it and places nothing there
that was shed, and after a restart the controller goes on from it. Shedding deletes pods, lowest level first, and never one
of a level that is not shed; their workloads wait in the meantime, and say why. Use that is not known changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple

import orjson

from fleetplane.client.snapshot import Snapshot
from fleetplane.controller import Condition, Context, Controller, Manager, Request, Result, Watch, controller_for
from fleetplane.model import objects
from fleetplane.model.builtin.types import NODES, PODS
from fleetplane.model.environment import parse_timestamp, timestamp
from fleetplane.model.errors import ApiError
from fleetplane.model.objects import Object, is_deleting, metadata, name, uid
from fleetplane.model.quantity import Quantity
from fleetplane.operators.vehicles.interference import level_of_pod
from fleetplane.operators.vehicles.kinds import VehDegradation
from fleetplane.operators.vehicles.limits import LEVELS, Violation
from fleetplane.operators.vehicles.plan import LEVEL, PREFIX

MODE: Final = PREFIX + "degradation"
"""Annotation of a node: {"mode": …, "shed": [levels], "since": …}; absent where nothing is shed."""
LOOK_SECONDS: Final = 2.0
RESOURCES: Final = ("cpu", "memory")


class Mode(NamedTuple):
    """Limits are in percent of what the node can give; ``leave`` is below ``enter`` for each resource."""

    name: str
    shed: frozenset[str]
    enter: Mapping[str, float]
    leave: Mapping[str, float]
    conditions: frozenset[str] = frozenset()


class State(NamedTuple):
    """``mode`` is the index of the one that holds, -1 for none. ``above``, ``below``: since when another mode is called for."""

    mode: int = -1
    above: float | None = None
    below: float | None = None


class Seen(NamedTuple):
    """What is known of a node: use in percent by resource, and its conditions that hold (``MemoryPressure`` …)."""

    use: Mapping[str, float]
    conditions: frozenset[str] = frozenset()


def modes_of(spec: Mapping[str, Any]) -> list[Mode]:
    return [
        Mode(
            str(one.get("name")),
            frozenset(one.get("shed") or ()),
            {key: float(value) for key, value in (one.get("enterAbove") or {}).items()},
            {key: float(value) for key, value in (one.get("leaveBelow") or {}).items()},
            frozenset(one.get("conditions") or ()),
        )
        for one in spec.get("modes") or ()
    ]


def degradation_violations(spec: Mapping[str, Any]) -> Iterator[Violation]:
    """Rule ``degradation-order``: the lowest levels go first. Rule ``degradation-hysteresis``: limits lie apart."""
    before: frozenset[str] = frozenset()
    for number, mode in enumerate(modes_of(spec)):
        where = f"spec.modes[{number}]"
        highest = max((LEVELS.index(one) for one in mode.shed if one in LEVELS), default=-1)
        if mode.shed != frozenset(LEVELS[: highest + 1]) or not mode.shed or highest == len(LEVELS) - 1:
            text = "names all levels up to one, the lowest first, and never the highest"
            yield Violation("degradation-order", f"{where}.shed", text)
        elif not before < mode.shed:
            yield Violation("degradation-order", f"{where}.shed", "sheds more than the mode before it")
        before = mode.shed
        if not mode.enter and not mode.conditions:
            yield Violation("degradation-limits", where, "needs enterAbove or conditions")
        for key, limit in mode.enter.items():
            if key not in RESOURCES:
                yield Violation("degradation-limits", f"{where}.enterAbove", f"{key} is neither cpu nor memory")
            elif not 0 < mode.leave.get(key, limit) < limit <= 100:
                text = f"{key} needs a limit in leaveBelow that is lower than that in enterAbove"
                yield Violation("degradation-hysteresis", f"{where}.leaveBelow", text)


def decide(modes: Sequence[Mode], state: State, seen: Seen, now: float, enter: float, leave: float) -> State:
    """The next state. ``enter``, ``leave``: seconds for which it must hold."""
    called = max((number for number, one in enumerate(modes) if _calls(one, seen)), default=-1)
    if called > state.mode:
        above = now if state.above is None else state.above
        return State(called) if now - above >= enter else State(state.mode, above, None)
    if 0 <= state.mode < len(modes) and _may_leave(modes[state.mode], seen):
        below = now if state.below is None else state.below
        return State(state.mode - 1) if now - below >= leave else State(state.mode, None, below)
    return State(min(state.mode, len(modes) - 1))


def _calls(mode: Mode, seen: Seen) -> bool:
    if mode.conditions & seen.conditions:
        return True
    return any(seen.use[key] > limit for key, limit in mode.enter.items() if key in seen.use)


def _may_leave(mode: Mode, seen: Seen) -> bool:
    """What is not known is not low."""
    if mode.conditions & seen.conditions:
        return False
    return all(key in seen.use and seen.use[key] < limit for key, limit in mode.leave.items())


def victims(shed: frozenset[str], pods: Sequence[Object]) -> list[Object]:
    """Vehicle pods of these levels, the lowest level first. Pods that claim no level are not ours to shed."""
    found = [
        one for one in pods if LEVEL in objects.annotations(one) and level_of_pod(one) in shed and not is_deleting(one)
    ]
    return sorted(found, key=lambda one: (LEVELS.index(level_of_pod(one)), name(one)))


def use_of(measured: Mapping[str, Any], node: Mapping[str, Any]) -> dict[str, float]:
    """Percent of what the node can give, of the resources whose use is known."""
    given, found = (node.get("status") or {}).get("allocatable") or {}, {}
    for key in RESOURCES:
        try:
            whole = Quantity.parse(given[key]).milli_value()
            used = Quantity.parse((measured.get("usage") or {})[key]).milli_value()
        except (KeyError, ValueError):
            continue
        if whole > 0:
            found[key] = 100.0 * used / whole
    return found


class Degradation:
    """The controller of VehDegradations."""

    def __init__(self, manager: Manager) -> None:
        self._manager = manager
        self._policies = manager.informer(VehDegradation)
        self._nodes = manager.informer(NODES)
        self._pods = manager.informer(PODS)
        self._states: dict[tuple[str, str], State] = {}

    def controller(self) -> Controller:
        def all_of_them(snapshot: Snapshot) -> list[Request]:
            return [one.key for one in self._policies.snapshots() if one.key.cluster == snapshot.key.cluster]

        return controller_for(
            self._manager,
            VehDegradation,
            self.reconcile,
            watches=[Watch(NODES, all_of_them)],
            finalizer=PREFIX + "degradation",
            cleanup=self.cleanup,
        )

    async def cleanup(self, context: Context[VehDegradation], policy: VehDegradation) -> Result | None:
        """Nothing stays shed for a policy that is gone."""
        for node in self._concerned(context, policy):
            if MODE in objects.annotations(node):
                await self._note(context, node, None)
            self._states.pop((policy.uid, name(node)), None)
        return None

    async def reconcile(self, context: Context[VehDegradation], policy: VehDegradation) -> Result | None:
        modes = modes_of(policy.spec.object)
        measured = await self._measured(context)
        told = []
        for node in self._concerned(context, policy):
            key = (policy.uid, name(node))
            noted = _noted(node)
            known = next((number for number, one in enumerate(modes) if one.name == noted.get("mode")), -1)
            before = self._states.get(key, State(known))
            seen = Seen(use_of(measured.get(name(node)) or {}, node), _holding(node))
            now = self._manager.environment.monotonic()
            after = decide(modes, before, seen, now, policy.spec.enter_seconds, policy.spec.leave_seconds)
            self._states[key] = after
            mode = modes[after.mode] if after.mode >= 0 else None
            if mode is None and noted:
                await self._note(context, node, None)
                context.event("DegradationLeft", f"node {name(node)} is in no degradation mode any more")
            elif mode is not None and (noted.get("mode") != mode.name or set(noted.get("shed") or ()) != mode.shed):
                await self._note(context, node, mode)
                shown = ", ".join(sorted(mode.shed, key=LEVELS.index))
                context.event("Degraded", f"node {name(node)} enters {mode.name} and sheds {shown}", warning=True)
            if mode is not None:
                await self._shed(context, node, mode)
            told.append(_line(node, mode, seen, noted, context.now()))
        degraded = [one["node"] for one in told if one["mode"]]
        await context.set_status(
            {"nodes": told},
            Condition("Degraded", bool(degraded), "Shedding" if degraded else "Normal", ", ".join(degraded)),
        )
        return Result(requeue_after=LOOK_SECONDS)

    def _concerned(self, context: Context[VehDegradation], policy: VehDegradation) -> list[Object]:
        names = policy.spec.nodes
        nodes = self._nodes.list(cluster=context.request.cluster)
        return sorted((one for one in nodes if not names or name(one) in names), key=name)

    async def _measured(self, context: Context[Any]) -> dict[str, Object]:
        """Use by node. Where nothing measures, nothing is known, and conditions of nodes alone decide."""
        try:
            found = orjson.loads(await context.client.raw("GET", "/apis/metrics.k8s.io/v1beta1/nodes"))
        except (ApiError, orjson.JSONDecodeError):
            return {}
        return {name(one): one for one in found.get("items") or ()}

    async def _note(self, context: Context[Any], node: Object, mode: Mode | None) -> None:
        since = timestamp(context.now())
        text = None
        if mode is not None:
            text = orjson.dumps({"mode": mode.name, "shed": sorted(mode.shed), "since": since}).decode()
        await context.client.patch(NODES, name(node), {"metadata": {"annotations": {MODE: text}}})

    async def _shed(self, context: Context[Any], node: Object, mode: Mode) -> None:
        here = [one for one in self._pods.list() if (one.get("spec") or {}).get("nodeName") == name(node)]
        for pod in victims(mode.shed, here):
            meta = metadata(pod)
            try:
                await context.client.delete(PODS, meta["name"], meta["namespace"], uid=uid(pod))
            except ApiError as error:
                if error.code not in {404, 409}:
                    raise


def _noted(node: Mapping[str, Any]) -> Mapping[str, Any]:
    try:
        found = orjson.loads(objects.annotations(node).get(MODE) or "{}")
    except orjson.JSONDecodeError:
        return {}
    return found if isinstance(found, dict) else {}


def shed_here(text: str | None) -> frozenset[str]:
    """The levels a node's annotation sheds. One that cannot be read sheds all that may be shed: it fails closed."""
    if not text:
        return frozenset()
    try:
        return frozenset(str(one) for one in orjson.loads(text)["shed"])
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return frozenset(LEVELS[:-1])


def _holding(node: Mapping[str, Any]) -> frozenset[str]:
    conditions = (node.get("status") or {}).get("conditions") or ()
    return frozenset(str(one.get("type")) for one in conditions if one.get("status") == "True") - {"Ready"}


def _line(node: Object, mode: Mode | None, seen: Seen, noted: Mapping[str, Any], now: datetime) -> Object:
    same = mode is not None and noted.get("mode") == mode.name
    since = str(noted.get("since") or "") if same else timestamp(now) if mode is not None else ""
    try:
        parse_timestamp(since)
    except ValueError:
        since = ""
    # Rounded, so that a status is written when something changes and not whenever something is measured.
    use = {key: int(value // 10 * 10) for key, value in seen.use.items()}
    line: Object = {"node": name(node), "mode": mode.name if mode else "", "use": use}
    return line | ({"since": since, "shed": sorted(mode.shed, key=LEVELS.index)} if mode else {})
