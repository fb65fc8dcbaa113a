"""Making it so within one pod: the containers of a VehPod under its deployment policy (see ``arrangement``).

What must be quick is the node's: it freezes standbys, lets one go on, starts a watcher first. Here is what needs an
overview: votes and who is restarted for them, what a watcher asked for, and what of it the node is told to hold back.
What is held is computed anew from what was decided and which container runs, so nothing is held longer than it must.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from fleetplane.controller import Condition, Context, Manager
from fleetplane.model import objects
from fleetplane.model.builtin.types import NODES
from fleetplane.model.objects import Object, is_deleting, metadata
from fleetplane.operators.vehicles import monitoring, plan
from fleetplane.operators.vehicles.arrangement import HELD, Arranged
from fleetplane.operators.vehicles.kinds import VehPod
from fleetplane.operators.vehicles.limits import Profile
from fleetplane.operators.vehicles.monitors import Monitors, Watched, Watcher
from fleetplane.operators.vehicles.redundancy import MONITORING, N_MODULAR, PASSIVE
from fleetplane.operators.vehicles.voting import Rounds, is_undecided, read_output

OUTPUT: Final = "output.vehicles.fleetplane.io/"
"""Prefix of the annotations by which the containers of a pod vote, each followed by its name."""
LEADS: Final = "node.fleetplane.io/OneActive"
REDUNDANT: Final = "Redundant"
_OURS: Final = "+fleetplane"
_TOLD: Final = re.compile(r"^(\S{1,63}) is active; (\d{1,9}) switchovers(?:, the last took (\d{1,9}) ms)?$")


class Lead(NamedTuple):
    """What the node says of the container that leads."""

    name: str = ""
    switches: int = 0
    milliseconds: int | None = None


class Within(NamedTuple):
    """What is to be done about a pod's containers. ``again``: when to look anew, in seconds.

    ``held``: containers that the node holds back. ``replace``: the pod must be made anew, because its node would not hold
    anything back. ``stays_away``: and must not be made again for now.
    """

    held: tuple[str, ...] = ()
    votes: Object | None = None
    watched: Watched | None = None
    monitor: Object | None = None
    replace: bool = False
    stays_away: bool = False
    again: float | None = None


def container_of(pod: Mapping[str, Any] | None, name: str) -> Mapping[str, Any]:
    """The status of a pod's container; empty where there is none."""
    status = (pod or {}).get("status") or {}
    both = [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]
    return next((one for one in both if one.get("name") == name), {})


def running_id(pod: Mapping[str, Any] | None, name: str) -> str:
    """The id of the container that runs; empty where none does."""
    found = container_of(pod, name)
    return str(found.get("containerID") or name) if "running" in (found.get("state") or {}) else ""


def lead_of(pod: Mapping[str, Any] | None) -> Lead:
    for one in ((pod or {}).get("status") or {}).get("conditions") or ():
        if one.get("type") == LEADS and (found := _TOLD.match(str(one.get("message") or ""))):
            return Lead(found[1], int(found[2]), int(found[3]) if found[3] else None)
    return Lead()


class Containers:
    """For the controller of VehPods."""

    def __init__(self, manager: Manager, monitors: Monitors) -> None:
        self._nodes = manager.informer(NODES)
        self._monitors = monitors
        self._rounds = Rounds(manager.environment.monotonic)

    def forget(self, uid: str) -> None:
        self._rounds.forget(uid)

    async def look(
        self, context: Context[VehPod], app: VehPod, profile: Profile, arranged: Arranged, pod: Object | None
    ) -> Within | None:
        """What to do now; ``None`` while the watcher's interface cannot be served. Raises plan.Refused."""
        if arranged.policy == N_MODULAR:
            found = self._count(context, app, arranged, pod)
        elif arranged.policy == MONITORING:
            watched = await self._watch(context, app, profile, arranged, pod)
            if watched is None:
                return None
            found = watched
        else:
            return Within()
        node = (pod or {}).get("spec", {}).get("nodeName")
        if not found.held or not node or self._holds(context, str(node)):
            return found
        held_on = found.watched is not None and bool(found.watched.held)
        lost = found.watched is None or found.watched.pulse != monitoring.STARTING
        return found._replace(replace=held_on or lost, stays_away=held_on)

    def _holds(self, context: Context[Any], node: str) -> bool:
        """Whether the node honours what it is told to hold back: another's kubelet does not."""
        found = self._nodes.get(node, cluster=context.request.cluster) or {}
        version = ((found.get("status") or {}).get("nodeInfo") or {}).get("kubeletVersion") or ""
        return str(version).endswith(_OURS)

    # -- votes

    def _count(self, context: Context[VehPod], app: VehPod, arranged: Arranged, pod: Object | None) -> Within:
        notes = objects.annotations(pod or {})
        said = {
            name: found
            for name in arranged.members
            if (found := read_output(notes.get(OUTPUT + name))) is not None and running_id(pod, name)
        }
        rules, before = app.spec.voting, dict(app.status.votes or {})
        members, timeout = arranged.members, rules.timeout_seconds
        votes = self._rounds.look(app.uid, before, said, members, tolerance=rules.tolerance, timeout=timeout)
        if votes is None:
            return Within()
        going = {name: one for name, one in (before.get("replacing") or {}).items() if running_id(pod, name) == one}
        if not votes.get("open"):
            for name, count in list((votes.get("strikes") or {}).items()):
                if count >= rules.disagree_limit and (runs := running_id(pod, name)):
                    text = f"container {name} disagreed {count} times in a row and is started anew"
                    context.event("Dissenter", text, warning=True)
                    going[name] = runs
                    votes = {**votes, "strikes": {**votes["strikes"], name: 0}}
        # A merge patch keeps what it does not name.
        gone: Object = dict.fromkeys(set(before.get("replacing") or {}) - set(going))
        votes = {**votes, "replacing": {**gone, **going}}
        return Within(tuple(sorted(going)), votes, again=timeout if votes.get("open") else None)

    # -- a watcher

    async def _watch(
        self, context: Context[VehPod], app: VehPod, profile: Profile, arranged: Arranged, pod: Object | None
    ) -> Within | None:
        notes = {plan.OWNER: f"VehPod/{app.namespace}/{app.name}"}
        mine = {plan.APP_TYPE_LABEL: profile.name, **plan.unit_labels(app)}
        wanted = monitoring.monitor_of(app.name, profile.namespace, mine, notes)
        found = await self._monitors.prepare(context, wanted, [app.name])
        if found is None:
            return None
        runs = running_id(pod, arranged.watcher)
        ready = bool(runs and container_of(pod, arranged.watcher).get("ready"))
        targets = {name: running_id(pod, name) for name in arranged.members}
        primaries = [_primary(app.name, name, pod) for name in arranged.members]
        spec = app.spec.object.get("monitoring") or {}
        watched = await self._monitors.look(context, found, spec, Watcher(runs, ready), targets, primaries)
        held = set(watched.held)
        if watched.restarting:
            held.add(watched.restarting)
        if watched.pulse != monitoring.ALIVE:
            safe, speaks = app.spec.watcher_loss == "SafeState", monitoring.window_of(spec) > 0
            # Whoever has run before goes on; a first start waits until the watcher was heard of.
            new = [name for name in arranged.members if not container_of(pod, name).get("containerID")]
            held.update(arranged.members if safe else new if speaks else ())
        if watched.pulse == monitoring.LOST and app.spec.watcher_loss != "Degrade":
            held.add(arranged.watcher)  # until it has ended: then it is another one, and starts
        return Within(tuple(sorted(held)), watched=watched, monitor=wanted, again=watched.again)

    # -- what is told

    def report(
        self, context: Context[VehPod], app: VehPod, arranged: Arranged, within: Within, pod: Object | None
    ) -> tuple[Object, list[Condition]]:
        """Status fields and conditions."""
        lead = lead_of(pod)
        instances, healthy = [], 0
        for name in [*filter(None, [arranged.watcher]), *arranged.members]:
            one = _instance(arranged, within, lead, name, pod)
            healthy += one["state"] in {"Running", "Standby"}
            instances.append(one)
        total = len(instances)
        phase, message = _phase(app, arranged, within, lead, instances, healthy, pod)
        status: Object = {
            "phase": phase,
            "instances": instances,
            "monitor": None if within.watched is None else within.watched.summary(),
        }
        if within.votes is not None:
            status["votes"] = within.votes
        if arranged.policy == PASSIVE and lead.name:
            if lead.switches > app.status.switchovers:
                context.event("Switchover", f"container {lead.name} takes over", warning=True)
            status["switchovers"] = lead.switches
            if lead.milliseconds is not None:
                status["lastSwitchMs"] = lead.milliseconds
                for one in instances:
                    if one["name"] == lead.name:
                        one["lastSwitchMs"] = lead.milliseconds
        redundant = healthy >= min(2, total)
        told = Condition(REDUNDANT, redundant, "Redundant" if redundant else "NotRedundant", message)
        return status, [told, Condition("Ready", phase == "Running", phase, message)]


def _instance(arranged: Arranged, within: Within, lead: Lead, name: str, pod: Object | None) -> Object:
    found = container_of(pod, name)
    roles = {PASSIVE: "active" if name == lead.name else "passive", N_MODULAR: "voter", MONITORING: "primary"}
    role = "watcher" if name == arranged.watcher else roles.get(arranged.policy, "active")
    made: Object = {
        "name": name,
        "role": role,
        "state": _state(found, held=name in within.held, waits=role == "passive"),
        "restarts": int(found.get("restartCount") or 0),
    }
    if node := ((pod or {}).get("spec") or {}).get("nodeName"):
        made["node"] = node
    if within.watched is not None:
        made |= within.watched.verdicts.get(name, {})
    return made


def _state(found: Mapping[str, Any], *, held: bool, waits: bool) -> str:
    if "running" not in (found.get("state") or {}):
        return "Stopped" if held else "Starting"
    if held:
        return "Stopping"
    if waits:
        return "Standby"
    return "Running" if found.get("ready") else "Starting"


def _phase(
    app: VehPod,
    arranged: Arranged,
    within: Within,
    lead: Lead,
    instances: list[Object],
    healthy: int,
    pod: Object | None,
) -> tuple[str, str]:
    total, message = len(instances), f"{healthy} of {len(instances)} healthy"
    usual = plan.phase_of(pod)
    if within.stays_away:
        return "SafeState", "stopped: its node cannot stop single containers"
    if pod is None or usual in {"Terminating", "Failed", "Succeeded", "Admitted"}:
        return usual, message
    phase = "Running" if healthy == total else "Degraded" if healthy else "Starting"
    if arranged.policy == PASSIVE:
        runs = any(one["name"] == lead.name and one["state"] == "Running" for one in instances)
        standbys = sum(one["state"] == "Standby" for one in instances)
        phase = "Running" if runs and standbys else "Degraded" if runs else "Starting"
        message = f"{'one active' if runs else 'none active'}, {standbys} standing by"
    if is_undecided(within.votes) or (within.votes and healthy * 2 <= total):
        phase = "SafeState"
    if within.watched is not None:
        phase = within.watched.phase(phase, app.spec.watcher_loss)
    return phase, message


def _primary(pod_name: str, name: str, pod: Object | None) -> Object:
    """What the watcher is told of a primary."""
    found = container_of(pod, name)
    made: Object = {"name": name, "pod": pod_name, "restarts": int(found.get("restartCount") or 0)}
    if found:
        made["state"] = _state(found, held=False, waits=False)
    if node := ((pod or {}).get("spec") or {}).get("nodeName"):
        made["node"] = node
    return made


def with_held(pod: Object, held: tuple[str, ...]) -> Object:
    """The pod with what its node holds back."""
    if not held:
        return pod
    meta = pod["metadata"]
    return {**pod, "metadata": {**meta, "annotations": {**meta["annotations"], HELD: ",".join(held)}}}


def hold_patch(pod: Object, held: tuple[str, ...]) -> Object | None:
    """For a pod that is not made what it should be before its next start: what is held takes effect all the same."""
    known = objects.annotations(pod).get(HELD) or ""
    if known == ",".join(held) or is_deleting(pod):
        return None
    return {"metadata": {"uid": metadata(pod)["uid"], "annotations": {HELD: ",".join(held) or None}}}


__all__ = ["Containers", "Within", "hold_patch", "with_held"]
