"""Deployment policies within one pod: which of its containers run, stand by, vote or watch.

Pure. The containers come from the policy's block, or are those of the pod spec where there is no block: for
PassiveRedundant the first is preferred. What else the pod spec holds goes on beside them.

What makes it so is the node's: ``one-active`` (one container runs, the others are frozen, and who follows is decided there
at once), ``held-containers`` (a dissenter, or what its watcher wants stopped) and the reservation's ``apart`` (CPUs of its
own for each container). A watcher is a sidecar, so the node starts it, and waits for it, before the primaries.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

from fleetplane.model.objects import Object
from fleetplane.operators.vehicles.limits import Profile, Violation, pod_violations
from fleetplane.operators.vehicles.redundancy import ACTIVE, BLOCKS, MONITORING, N_MODULAR, PASSIVE, policy_of

ONE_ACTIVE: Final = "node.fleetplane.io/one-active"
HELD: Final = "node.fleetplane.io/held-containers"
STARTUP_FAILURES: Final = 30
"""How often a watcher may say that it is not ready yet before it is restarted, where only its readiness is described."""
_LEAST: Final[Mapping[str, int]] = {PASSIVE: 2, ACTIVE: 2, N_MODULAR: 3}
_LISTS: Final[Mapping[str, str]] = {
    ACTIVE: "activeRedundantContainers",
    N_MODULAR: "nModularContainers",
    MONITORING: "primaryContainer",
}


class Arranged(NamedTuple):
    """``spec`` is the whole pod spec, ``members`` the containers that the policy is about, the watcher aside."""

    policy: str
    spec: Object
    members: tuple[str, ...]
    watcher: str = ""

    @property
    def alike(self) -> tuple[str, ...]:
        """Containers that stand for each other: what one of them is given, all are."""
        return () if self.policy == MONITORING else self.members


def arrange(spec: Mapping[str, Any]) -> Arranged | None:
    """How the containers of a VehPod are arranged; ``None`` without a policy. The spec has passed ``violations``."""
    policy = policy_of(str(spec.get("deploymentPolicy") or ""))
    if not policy:
        return None
    pod: Object = copy.deepcopy(dict(spec.get("podSpec") or {}))
    block: Mapping[str, Any] = spec.get(BLOCKS[policy]) or {}
    given = _containers(policy, block)
    members = [str(one.get("name")) for one in given or pod.get("containers") or ()]
    pod["containers"] = [*given, *(pod.get("containers") or ())]
    watcher = ""
    if policy == MONITORING:
        sidecar = _sidecar(block.get("watcherContainer") or {})
        watcher = str(sidecar.get("name"))
        # Last of them: whatever prepares the pod is done before anything is watched.
        pod["initContainers"] = [*(pod.get("initContainers") or ()), sidecar]
    return Arranged(policy, pod, tuple(members), watcher)


def effective(spec: Mapping[str, Any], arranged: Arranged | None) -> Mapping[str, Any]:
    """The VehPod's spec as it is expanded: with all its containers in place."""
    if arranged is None:
        return spec
    made = {**spec, "podSpec": arranged.spec}
    if arranged.policy == ACTIVE:
        made["reservation"] = {**(spec.get("reservation") or {}), "apart": list(arranged.members)}
    return made


def violations(profile: Profile, spec: Mapping[str, Any]) -> Iterator[Violation]:
    """What does not fit the policy, in a VehPod."""
    policy = policy_of(str(spec.get("deploymentPolicy") or ""))
    if policy is None:
        words = ", ".join(sorted(BLOCKS))
        yield Violation("policy", "spec.deploymentPolicy", f"{spec.get('deploymentPolicy')} is none of {words}")
        return
    for other, name in BLOCKS.items():
        if other != policy and spec.get(name):
            shown = f"is for the policy {other}, and the policy is {policy or 'none'}"
            yield Violation("policy-structure", f"spec.{name}", shown)
    if policy == MONITORING and not spec.get(BLOCKS[policy]):
        yield Violation("policy-structure", "spec.monitoring", "is required by the policy Monitoring")
        return
    arranged = arrange(spec)
    if arranged is None:
        return
    where = f"spec.{BLOCKS[policy]}" if spec.get(BLOCKS[policy]) else "spec.podSpec.containers"
    yield from _structure(arranged, where)
    if spec.get(BLOCKS[policy]):
        yield from pod_violations(profile, arranged.spec, "spec.podSpec")


def _structure(arranged: Arranged, where: str) -> Iterator[Violation]:
    policy, pod, count = arranged.policy, arranged.spec, len(arranged.members)
    if count < _LEAST.get(policy, 1):
        yield Violation("policy-structure", where, f"{count} containers are too few for {policy} within a pod")
    elif policy == N_MODULAR and count % 2 == 0:
        yield Violation("policy-structure", where, f"{count} voters may tie; give an odd number")
    names = Counter(str(one.get("name")) for kind in ("initContainers", "containers") for one in pod.get(kind) or ())
    for name in [one for one, times in names.items() if times > 1]:
        yield Violation("policy-structure", where, f"two containers are named {name}")
    if pod.get("restartPolicy") not in {None, "Always"}:
        text = f"{policy} within a pod needs Always: a container that ended is started again"
        yield Violation("policy-structure", "spec.podSpec.restartPolicy", text)
    if policy == PASSIVE and (pod.get("hostPID") or pod.get("shareProcessNamespace")):
        text = "a container that shares its processes may outlive its end, so nobody could take its place"
        yield Violation("policy-structure", "spec.podSpec.shareProcessNamespace", text)


def notes_of(arranged: Arranged) -> Object:
    """What the node is told of the arrangement."""
    return {ONE_ACTIVE: ",".join(arranged.members)} if arranged.policy == PASSIVE else {}


def _containers(policy: str, block: Mapping[str, Any]) -> list[Object]:
    if not block:
        return []
    if policy == PASSIVE:
        return [copy.deepcopy(dict(block[key])) for key in ("activeContainer", "passiveContainer")]
    return [copy.deepcopy(dict(one)) for one in block.get(_LISTS[policy]) or ()]


def _sidecar(container: Mapping[str, Any]) -> Object:
    """An init container that goes on running. It has started up when it is ready, if it says when that is."""
    made: Object = {**copy.deepcopy(dict(container)), "restartPolicy": "Always"}
    if "startupProbe" not in made and (probe := made.get("readinessProbe")):
        failures = max(int(probe.get("failureThreshold") or 0), STARTUP_FAILURES)
        made["startupProbe"] = {**copy.deepcopy(probe), "failureThreshold": failures, "successThreshold": 1}
    return made
