"""Deployment policies: which instances there are, who is active, what to do when one fails.

Pure: ``instances_of`` says what should exist, ``decide`` what to do next about who is active. The safety of
PassiveRedundant rests on four things, each of which holds on its own whatever else crashes:

1. Every instance is made frozen (the node pauses it) and is thawed at most once; it never goes back. A failed active is
   deleted, and what takes its place is a new standby.
2. Who may be thawed is one field, ``status.active`` (a pod's uid), changed by compare-and-swap on the object's version.
3. That field moves on only when the pod it named has verifiably stopped: its node says that every container ended and
   none will be started again (``restartPolicy`` is ``Never``), or the pod is gone and its node is not out of reach.
4. Thawing carries the pod's uid and version, so a late thaw of a pod that lost its turn fails.

A node out of reach is where detection ends: without the word of the node nobody knows. Then the field moves only when the
administrator says that the node is off (the taint ``node.kubernetes.io/out-of-service``, or the Node is deleted), or when
the node is known to stop its actives by itself (annotation ``node.fleetplane.io/self-fencing-seconds``) and that time has
passed since it was last heard of. It is better to have no active for a while than two.
"""

from __future__ import annotations

import copy
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
_BLOCKS: Final = {
    PASSIVE: "passiveRedundant",
    ACTIVE: "activeRedundant",
    N_MODULAR: "nModularRedundant",
    MONITORING: "monitoring",
}
PAUSED: Final = "node.fleetplane.io/paused"
SELF_FENCING: Final = "node.fleetplane.io/self-fencing-seconds"
OUT_OF_SERVICE: Final = "node.kubernetes.io/out-of-service"
WATCHER: Final = "watcher"


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
    block: Mapping[str, Any] = spec.get(_BLOCKS.get(policy, "")) or {}
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
    return [Planned(chr(ord("a") + number), role, one) for number, one in enumerate(specs)]


def _with(base: Mapping[str, Any], container: Mapping[str, Any]) -> Object:
    return {**copy.deepcopy(dict(base)), "containers": [copy.deepcopy(dict(container))]}


def arrangement_violations(profile: Profile, spec: Mapping[str, Any]) -> Iterator[Violation]:
    policy = policy_of(str(spec.get("deploymentPolicy") or ""))
    if policy is None:
        words = ", ".join(sorted(set(_POLICIES.values())))
        yield Violation("policy", "spec.deploymentPolicy", f"{spec.get('deploymentPolicy')} is none of {words}")
        return
    block, replicas = spec.get(_BLOCKS.get(policy, "")), int(spec.get("replicas") or 0)
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
            yield from pod_violations(profile, one.spec, f"spec.{_BLOCKS[policy]}({one.suffix})")


# -- who is active


class Seen(NamedTuple):
    """An instance's pod as it was observed. ``stopped``: nothing of it runs or will run, by its node's own word."""

    suffix: str
    uid: str
    version: str
    paused: bool
    stopped: bool
    failing: bool
    deleting: bool
    ready: bool


class Decision(NamedTuple):
    """What to do now, in this order; each step is looked at again before the next one is taken.

    ``fence``: uids to delete. ``claim``: the uid ``status.active`` should become. ``thaw``: the uid to thaw.
    """

    fence: tuple[str, ...] = ()
    claim: str | None = None
    thaw: str | None = None


def decide(active: str, seen: Sequence[Seen], *, gone_is_safe: bool) -> Decision:
    """The next step of PassiveRedundant.

    Args:
        active: ``status.active``, empty before the first one.
        seen: Every instance that exists.
        gone_is_safe: Whether the absence of the active's pod proves that it stopped (see the module).
    """
    holder = next((one for one in seen if one.uid == active), None)
    others = [one for one in seen if one.uid != active]
    # What is thawed without holding the claim was thawed by a turn that is over, or by a stranger's hand.
    fence = [one.uid for one in others if not one.deleting and (not one.paused or one.stopped or one.failing)]
    runs_unclaimed = any(not one.paused and not one.stopped for one in others)
    if holder is not None and not holder.stopped:
        if (holder.failing or runs_unclaimed) and not holder.deleting:
            # Two that run: neither is known to be right. Both end and a standby begins.
            return Decision((*fence, holder.uid) if holder.failing else tuple(fence))
        thaw = holder.uid if holder.paused and not holder.deleting and not runs_unclaimed else None
        return Decision(tuple(fence), thaw=thaw)
    if holder is None and active and not gone_is_safe:
        return Decision(tuple(fence))
    if runs_unclaimed:
        return Decision(tuple(fence))
    standby = _best([one for one in others if one.paused and not (one.stopped or one.failing or one.deleting)])
    if holder is not None and not holder.deleting and standby is None:
        fence.append(holder.uid)  # make room for a new standby in its place
    return Decision(tuple(fence), claim=standby.uid if standby is not None else None)


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
        any(one.get("type") == "Ready" and one.get("status") == "True" for one in status.get("conditions") or ()),
    )


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
