"""One active container of several in a pod: the others stand by frozen, and the first of them goes on when it ends.

The annotation ``node.fleetplane.io/one-active`` lists containers by name, in the order in which they are preferred. One of
them leads and runs; the others are started and frozen at once. When the leader has ended, by itself or because its
liveness probe failed, the lead passes to the first that stands by, and whoever led before is started again as a standby.

All of it is decided here, on the node, from what the runtime says: a container that has exited holds no process, because it
has a process namespace of its own. So the lead never passes while the leader runs or is being started, and nobody goes
on while another of them is seen running. That a leader's first process ended is told before it can be seen; then the
lead passes at once. Who leads is kept in the pod's notes and shown as the condition ``node.fleetplane.io/OneActive``.

The annotation must not be put on pods that share process namespaces; there nobody is ever thawed in another's place.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Final

from fleetplane.node.observed import Lead, Observed, PodNotes
from fleetplane.node.pod import PodView

CONDITION: Final = "node.fleetplane.io/OneActive"


def stands_by(pod: PodView, notes: PodNotes, name: str) -> bool:
    """Whether this container must be frozen because another one leads."""
    return name in pod.one_active and notes.lead is not None and notes.lead.name != name


def may_go_on(pod: PodView, observed: Observed, notes: PodNotes, name: str) -> bool:
    """Whether none of the others is seen running."""
    others = [observed.newest(one) for one in pod.one_active if one != name]
    seen = any(one is not None and one.phase == "running" and not end_was_told(notes, one.id) for one in others)
    return name not in pod.one_active or not seen


def end_was_told(notes: PodNotes, container_id: str) -> bool:
    """Whether this container's end was told, whatever was seen of it last."""
    return notes.lead is not None and bool(container_id) and notes.lead.after == container_id


def ended(pod: PodView, observed: Observed, notes: PodNotes, container_id: str, now: datetime) -> PodNotes | None:
    """The notes when a container's first process ended just now; ``None`` where that passes no lead on."""
    lead = notes.lead
    if lead is None or lead.name not in pod.one_active or not _may_pass(pod, notes):
        return None
    newest = observed.newest(lead.name)
    known = notes.of(lead.name).container_id
    if newest is None or newest.id != container_id or known != container_id:
        return None  # not the leader's, or one that has not come to life yet
    heir = next((one for one in pod.one_active if _waits(one, observed)), None)
    return None if heir is None else replace(notes, lead=Lead(heir, lead.switches + 1, now, None, container_id))


def following(pod: PodView, observed: Observed, notes: PodNotes, now: datetime) -> PodNotes:
    """The notes with whoever leads from now on."""
    if not pod.one_active:
        return notes if notes.lead is None else replace(notes, lead=None)
    lead = notes.lead
    if lead is None or lead.name not in pod.one_active:
        return replace(notes, lead=Lead(_first(pod, observed)))
    if not _may_pass(pod, notes) or not _is_down(lead.name, observed, notes):
        return notes
    heir = next((one for one in pod.one_active if _waits(one, observed)), None)
    if heir is None:
        return notes
    newest = observed.newest(lead.name)
    since = newest.finished_at if newest is not None and newest.finished_at is not None else now
    return replace(notes, lead=Lead(heir, lead.switches + 1, since))


def went_on(notes: PodNotes, name: str, now: datetime) -> PodNotes:
    """The notes with how long the switch took, once the new leader runs."""
    lead = notes.lead
    if lead is None or lead.name != name or lead.ended is None:
        return notes
    took = max(0, round((now - lead.ended).total_seconds() * 1000))
    return replace(notes, lead=replace(lead, ended=None, milliseconds=took))


def told(lead: Lead) -> tuple[bool, str, str]:
    """Status, reason and message of the condition; the message is read by people and by the vehicles operator."""
    took = "" if lead.milliseconds is None else f", the last took {lead.milliseconds} ms"
    return True, "TookOver" if lead.switches else "First", f"{lead.name} is active; {lead.switches} switchovers{took}"


def _first(pod: PodView, observed: Observed) -> str:
    """Where nothing is remembered, whoever runs goes on."""
    states = {one: observed.newest(one) for one in pod.one_active}
    running = [name for name, state in states.items() if state is not None and state.phase == "running"]
    return running[0] if len(running) == 1 else pod.one_active[0]


def _may_pass(pod: PodView, notes: PodNotes) -> bool:
    """Not in a pod that ends, nor where the end of a container proves nothing."""
    return not pod.deleting and notes.failure is None and not pod.shares_processes


def _is_down(name: str, observed: Observed, notes: PodNotes) -> bool:
    """Whether it ended, or could not be started; not while something is being done with it."""
    if name in observed.busy:
        return False
    state = observed.newest(name)
    if state is None or state.phase == "created":
        return notes.of(name).failed_at is not None
    return state.phase == "exited"


def _waits(name: str, observed: Observed) -> bool:
    state = observed.newest(name)
    return state is not None and state.phase == "paused" and name not in observed.busy
