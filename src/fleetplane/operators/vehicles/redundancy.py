"""Deployment policies: which instances there are, who is active, what to do when one fails.

Pure: ``instances_of`` says what should exist, ``decide`` what to do next about who is active. The safety of
PassiveRedundant rests on four things, each of which holds on its own whatever else crashes:

1. Every instance is made frozen (the node pauses it) and is thawed at most once; it never goes back. A failed active is
   deleted, and what takes its place is a new standby.
2. Who may be thawed is one field, ``status.active`` (a pod's uid), changed by compare-and-swap on the object's version.
3. That field moves on only when the pod it named has verifiably stopped: its node says that every container ended and
   none will be started again (``restartPolicy`` is ``Never``), or the pod is gone and its node is not out of reach.
4. Thawing carries the pod's uid and version, so a late thaw of a pod that lost its turn fails.

Asking the control plane takes time that a brake may not have. So where a standby waits on the active's own node, it is
named the active's successor: first in ``status.successor``, by compare-and-swap, then in an annotation of the active pod.
From then on the node thaws it by itself as soon as it sees the active end (condition ``node.fleetplane.io/Promoted``), and
nobody else is chosen until that successor has verifiably stopped too: the node decides, the control plane follows.

A node out of reach is where detection ends: without the word of the node nobody knows. Then the field moves only when the
administrator says that the node is off (the taint ``node.kubernetes.io/out-of-service``, or the Node is deleted), or when
the node is known to stop its actives by itself (annotation ``node.fleetplane.io/self-fencing-seconds``) and that time has
passed since it was last heard of. It is better to have no active for a while than two.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple

from fleetplane.model.environment import parse_timestamp
from fleetplane.model.objects import Object
from fleetplane.operators.vehicles.limits import Profile, Violation, pod_violations

PASSIVE: Final = "PassiveRedundant"
ACTIVE: Final = "ActiveRedundant"
N_MODULAR: Final = "NModularRedundant"
MONITORING: Final = "Monitoring"
_POLICIES: Final = {one.lower(): one for one in (PASSIVE, ACTIVE, N_MODULAR, MONITORING)} | {
    "nmodulerredundant": N_MODULAR
}
BLOCKS: Final = {
    PASSIVE: "passiveRedundant",
    ACTIVE: "activeRedundant",
    N_MODULAR: "nModularRedundant",
    MONITORING: "monitoring",
}
PAUSED: Final = "node.fleetplane.io/paused"
SELF_FENCING: Final = "node.fleetplane.io/self-fencing-seconds"
GROUP: Final = "node.fleetplane.io/group"
"""Annotation for the node: of the pods of one group at most one may be active."""
SUCCESSOR: Final = "node.fleetplane.io/successor"
PROMOTED: Final = "node.fleetplane.io/Promoted"
FREEZES: Final = "node.fleetplane.io/freezes"
"""Label of nodes that honour the annotation ``paused``."""
OUT_OF_SERVICE: Final = "node.kubernetes.io/out-of-service"
WATCHER: Final = "watcher"
_MILLISECONDS: Final = re.compile(r"\b(\d{1,9}) ms\b")


class Planned(NamedTuple):
    """One instance that should exist; ``spec`` is its pod spec before anything is injected."""

    suffix: str
    role: str
    spec: Object


def policy_of(text: str) -> str | None:
    """The policy meant, whatever its spelling; empty for none, ``None`` for a word that is no policy."""
    word = text.replace("-", "").replace("_", "").lower()
    return _POLICIES.get(word) if word else ""


def instances_of(spec: Mapping[str, Any]) -> list[Planned]:
    """What should exist. The spec has passed ``arrangement_violations``."""
    policy = policy_of(str(spec.get("deploymentPolicy") or "")) or ""
    base: Object = spec.get("podSpec") or {}
    block: Mapping[str, Any] = spec.get(BLOCKS.get(policy, "")) or {}
    if policy == MONITORING:
        primaries = [_with(base, one) for one in block.get("primaryContainer") or ()]
        watcher = _with(base, block.get("watcherContainer") or {})
        return [
            Planned(WATCHER, WATCHER, watcher),
            *(Planned(f"p{number}", "primary", one) for number, one in enumerate(primaries)),
        ]
    if policy == PASSIVE and block:
        specs = [_with(base, block["activeContainer"]), _with(base, block["passiveContainer"])]
    elif policy == ACTIVE and block:
        specs = [_with(base, one) for one in block["activeRedundantContainers"]]
    elif policy == N_MODULAR and block:
        specs = [_with(base, one) for one in block["nModularContainers"]]
    else:
        least = {PASSIVE: 2, ACTIVE: 2, N_MODULAR: 3}.get(policy, 1)
        specs = [copy.deepcopy(base) for _ in range(int(spec.get("replicas") or least))]
    role = {PASSIVE: "passive", ACTIVE: "active", N_MODULAR: "voter"}.get(policy, "replica")
    if policy == PASSIVE:
        for one in specs:
            one["restartPolicy"] = "Never"  # an end is an end: only then is a dead active known to stay dead
            # Without a grace whoever deletes it (a user, preemption) takes it away before its node has stopped it.
            grace = one.get("terminationGracePeriodSeconds")
            one["terminationGracePeriodSeconds"] = 30 if grace is None else max(1, int(grace))
    return [Planned(chr(ord("a") + number), role, one) for number, one in enumerate(specs)]


def _with(base: Mapping[str, Any], container: Mapping[str, Any]) -> Object:
    return {**copy.deepcopy(dict(base)), "containers": [copy.deepcopy(dict(container))]}


def arrangement_violations(profile: Profile, spec: Mapping[str, Any]) -> Iterator[Violation]:
    policy = policy_of(str(spec.get("deploymentPolicy") or ""))
    if policy is None:
        words = ", ".join(sorted(set(_POLICIES.values())))
        yield Violation("policy", "spec.deploymentPolicy", f"{spec.get('deploymentPolicy')} is none of {words}")
        return
    block, replicas = spec.get(BLOCKS.get(policy, "")), int(spec.get("replicas") or 0)
    if policy == MONITORING and not block:
        yield Violation("policy-structure", "spec.monitoring", "is required by the policy Monitoring")
        return
    if not block and not (spec.get("podSpec") or {}).get("containers"):
        yield Violation("containers", "spec.podSpec.containers", "needs at least one container")
        return
    planned = instances_of(spec)
    if policy == N_MODULAR and len(planned) % 2 == 0:
        yield Violation("policy-structure", "spec.replicas", f"{len(planned)} voters may tie; give an odd number")
    if not block and policy in {PASSIVE, ACTIVE, N_MODULAR} and 0 < replicas < (3 if policy == N_MODULAR else 2):
        yield Violation("policy-structure", "spec.replicas", f"{replicas} is too few for {policy}")
    if block:
        for one in planned:
            yield from pod_violations(profile, one.spec, f"spec.{BLOCKS[policy]}({one.suffix})")


# -- who is active


class Seen(NamedTuple):
    """An instance's pod as it was observed. ``stopped``: nothing of it runs or will run, by its node's own word.

    ``promoted``: its node has let it go on in place of the active, whatever ``paused`` (what was asked for) says.
    """

    suffix: str
    uid: str
    version: str
    paused: bool
    stopped: bool
    failing: bool
    deleting: bool
    ready: bool
    promoted: bool = False
    node: str = ""

    @property
    def runs(self) -> bool:
        return (not self.paused or self.promoted) and not self.stopped

    @property
    def well(self) -> bool:
        return not (self.stopped or self.failing or self.deleting)


class Decision(NamedTuple):
    """What to do now, in this order; each step is looked at again before the next one is taken.

    ``fence``: uids to delete. ``claim``: the uid ``status.active`` should become. ``thaw``: the uid to thaw.
    """

    fence: tuple[str, ...] = ()
    claim: str | None = None
    thaw: str | None = None


def decide(active: str, seen: Sequence[Seen], *, gone_is_safe: bool, successor: str = "") -> Decision:
    """The next step of PassiveRedundant.

    Args:
        active: ``status.active``, empty before the first one.
        seen: Every instance that exists.
        gone_is_safe: Whether the absence of the active's pod proves that it stopped (see the module); its successor is
            on the same node, so this is true of it too.
        successor: ``status.successor``: nobody else is claimed until it has stopped.
    """
    holder = next((one for one in seen if one.uid == active), None)
    others = [one for one in seen if one.uid != active]
    heir = next((one for one in others if one.uid == successor), None)
    taken_over = heir is not None and heir.promoted and not heir.stopped
    if taken_over and heir is not None:
        others = [one for one in others if one is not heir]
    # What is thawed without holding the claim was thawed by a turn that is over, or by a stranger's hand.
    fence = [one.uid for one in others if not one.deleting and (one.runs or one.stopped or one.failing)]
    runs_unclaimed = any(one.runs for one in others)
    if taken_over and heir is not None:
        # Its node thawed it because it saw the holder end: that is the node's word for both.
        return Decision(tuple(fence), claim=None if runs_unclaimed else heir.uid)
    if holder is not None and not holder.stopped:
        if (holder.failing or runs_unclaimed) and not holder.deleting:
            # Two that run: neither is known to be right. Both end and a standby begins.
            return Decision((*fence, holder.uid) if holder.failing else tuple(fence))
        thaw = holder.uid if holder.paused and not holder.deleting and not runs_unclaimed else None
        return Decision(tuple(fence), thaw=thaw)
    if holder is None and active and not gone_is_safe:
        return Decision(tuple(fence))
    if runs_unclaimed or (successor and heir is None and not gone_is_safe):
        return Decision(tuple(fence))
    named = heir is not None and not heir.stopped
    standby = _best([one for one in others if one.paused and one.well and (one is heir or not named)])
    if named and standby is None:
        return Decision(tuple(fence))  # its node may thaw it until it has stopped
    if holder is not None and not holder.deleting and standby is None:
        fence.append(holder.uid)  # make room for a new standby in its place
    return Decision(tuple(fence), claim=standby.uid if standby is not None else None)


def successor_of(active: str, seen: Sequence[Seen], successor: str, *, gone_is_safe: bool) -> str:
    """Who should be named the active's successor: the one that is, as long as it may still be thawed by its node."""
    holder = next((one for one in seen if one.uid == active), None)
    heir = next((one for one in seen if one.uid == successor), None)
    if successor and (not gone_is_safe if heir is None else not heir.stopped):
        return successor
    if holder is None or not holder.well or holder.paused or not holder.node:
        return ""
    waiting = [one for one in seen if one.uid != active and one.paused and one.ready and one.well]
    found = _best([one for one in waiting if one.node == holder.node and not one.promoted])
    return found.uid if found is not None else ""


def _best(standbys: Sequence[Seen]) -> Seen | None:
    """The warmest: ready before not, then by name."""
    return min(standbys, key=lambda one: (not one.ready, one.suffix), default=None)


def seen_of(suffix: str, pod: Mapping[str, Any], node: Mapping[str, Any] | None, now: datetime) -> Seen:
    """What a pod's object says, in the light of its node."""
    meta, status = pod.get("metadata") or {}, pod.get("status") or {}
    known_stopped = has_stopped(pod)
    placed = bool((pod.get("spec") or {}).get("nodeName"))
    lost = placed and is_lost(node)
    return Seen(
        suffix,
        str(meta.get("uid")),
        str(meta.get("resourceVersion")),
        (meta.get("annotations") or {}).get(PAUSED) == "true",
        known_stopped or (lost and is_fenced(node, now)),
        lost or status.get("phase") in {"Failed", "Succeeded"} or _ended(pod),
        bool(meta.get("deletionTimestamp")),
        _holds(status, "Ready"),
        _holds(status, PROMOTED),
        str((pod.get("spec") or {}).get("nodeName") or ""),
    )


def _holds(status: Mapping[str, Any], condition: str) -> bool:
    return any(one.get("type") == condition and one.get("status") == "True" for one in status.get("conditions") or ())


def switch_milliseconds(pod: Mapping[str, Any]) -> int | None:
    """How long its node took to let it go on, as the node measured it."""
    for one in (pod.get("status") or {}).get("conditions") or ():
        if one.get("type") == PROMOTED and (found := _MILLISECONDS.search(str(one.get("message") or ""))):
            return int(found[1])
    return None


def has_stopped(pod: Mapping[str, Any]) -> bool:
    """Whether its node says that all of it ended and nothing is started again."""
    status, spec = pod.get("status") or {}, pod.get("spec") or {}
    if spec.get("restartPolicy") != "Never" or status.get("phase") not in {"Failed", "Succeeded"}:
        return False
    told = {one.get("name"): one.get("state") or {} for one in status.get("containerStatuses") or ()}
    return bool(told) and all("terminated" in told.get(one.get("name"), {}) for one in spec.get("containers") or ())


def _ended(pod: Mapping[str, Any]) -> bool:
    """A container of the pod ended: with ``restartPolicy: Never`` the instance is over though others of it may run."""
    statuses = (pod.get("status") or {}).get("containerStatuses") or ()
    return any("terminated" in (one.get("state") or {}) for one in statuses)


def is_lost(node: Mapping[str, Any] | None) -> bool:
    """Whether the node cannot be asked: it is gone, or does not report."""
    if node is None:
        return True
    ready = _ready(node)
    return ready is not None and ready.get("status") == "Unknown"


def is_fenced(node: Mapping[str, Any] | None, now: datetime) -> bool:
    """Whether what ran on a lost node is known to have stopped."""
    if node is None:
        return True  # an administrator (or the cloud) removed it
    taints = (node.get("spec") or {}).get("taints") or ()
    if any(one.get("key") == OUT_OF_SERVICE for one in taints):
        return True
    text = ((node.get("metadata") or {}).get("annotations") or {}).get(SELF_FENCING)
    ready = _ready(node)
    if text is None or ready is None or ready.get("status") != "Unknown":
        return False
    try:
        seconds, since = float(text), parse_timestamp(str(ready.get("lastTransitionTime")))
    except ValueError:
        return False
    return now >= since + timedelta(seconds=seconds)


def _ready(node: Mapping[str, Any]) -> Mapping[str, Any] | None:
    conditions: Sequence[Mapping[str, Any]] = (node.get("status") or {}).get("conditions") or ()
    return next((one for one in conditions if one.get("type") == "Ready"), None)


def where_it_freezes(spec: Object) -> Object:
    """The pod spec, only for nodes that freeze pods: elsewhere a standby would be a second active."""
    return {**spec, "nodeSelector": {**(spec.get("nodeSelector") or {}), FREEZES: "true"}}


def spread(spec: Object, labels: Mapping[str, str], placement: str, *, must: bool) -> Object:
    """The pod spec with its placement: instances apart (``must``: or not at all), or together on one node."""
    if placement == "Any":
        return spec
    term = {"labelSelector": {"matchLabels": dict(labels)}, "topologyKey": "kubernetes.io/hostname"}
    affinity = copy.deepcopy(spec.get("affinity") or {})
    if placement == "SameNode":
        rules = affinity.setdefault("podAffinity", {})
        rules["requiredDuringSchedulingIgnoredDuringExecution"] = [
            *(rules.get("requiredDuringSchedulingIgnoredDuringExecution") or ()),
            term,
        ]
        return {**spec, "affinity": affinity}
    rules = affinity.setdefault("podAntiAffinity", {})
    key = ("required" if must else "preferred") + "DuringSchedulingIgnoredDuringExecution"
    rules[key] = [*(rules.get(key) or ()), term if must else {"weight": 100, "podAffinityTerm": term}]
    return {**spec, "affinity": affinity}
