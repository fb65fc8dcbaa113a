"""Whether an object is ready, and in plain words why not: a pure function of the object, kind by kind.

Kinds we know are judged by their own status; any other by its conditions, as most operators write them. What has no
conditions at all is ready when it is there. ``apply --wait``, ``rollout status`` and ``why`` all ask here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from fleetplane.model.objects import Object, generation, is_deleting


@dataclass(frozen=True, slots=True)
class Readiness:
    """``why`` says what is missing, or what is fine. ``failed`` means that waiting will not help."""

    ready: bool
    why: str
    failed: bool = False


def readiness(obj: Object) -> Readiness:
    if is_deleting(obj):
        return Readiness(False, "is being deleted")
    judge = _JUDGES.get((_group(obj), str(obj.get("kind"))))
    status = _mapping(obj.get("status"))
    observed = status.get("observedGeneration")
    if judge is not _pod and isinstance(observed, int) and observed < generation(obj):
        return Readiness(False, "its controller has not seen the last change yet")
    return judge(obj, _mapping(obj.get("spec")), status) if judge else _by_conditions(obj)


def _deployment(obj: Object, spec: Object, status: Object) -> Readiness:
    if spec.get("paused"):
        return Readiness(False, "its roll-out is paused")
    progressing = condition(obj, "Progressing")
    if progressing is not None and progressing.get("reason") == "ProgressDeadlineExceeded":
        return Readiness(False, "made no progress within its deadline", failed=True)
    unseen = _unseen(obj, status)
    if unseen:
        return unseen
    wanted = _count(spec, "replicas", 1)
    updated, available, total = (_count(status, key) for key in ("updatedReplicas", "availableReplicas", "replicas"))
    if updated < wanted:
        return Readiness(False, f"{updated} of {wanted} replicas are updated")
    if total > updated:
        return Readiness(False, f"{total - updated} old replicas are still there")
    if available < updated:
        return Readiness(False, f"{available} of {updated} updated replicas are available")
    return Readiness(True, f"{available} of {wanted} replicas are available")


def _stateful_set(obj: Object, spec: Object, status: Object) -> Readiness:
    unseen = _unseen(obj, status)
    if unseen:
        return unseen
    wanted = _count(spec, "replicas", 1)
    ready = _count(status, "readyReplicas")
    if ready < wanted:
        return Readiness(False, f"{ready} of {wanted} replicas are ready")
    strategy = _mapping(spec.get("updateStrategy"))
    if strategy.get("type") != "OnDelete" and status.get("updateRevision") != status.get("currentRevision"):
        partition = _count(_mapping(strategy.get("rollingUpdate")), "partition")
        updated, due = _count(status, "updatedReplicas"), wanted - partition
        if updated < due:
            return Readiness(False, f"{updated} of {due} replicas are updated")
    return Readiness(True, f"{ready} of {wanted} replicas are ready")


def _daemon_set(obj: Object, spec: Object, status: Object) -> Readiness:
    unseen = _unseen(obj, status)
    if unseen:
        return unseen
    wanted, updated = _count(status, "desiredNumberScheduled"), _count(status, "updatedNumberScheduled")
    available = _count(status, "numberAvailable")
    on_delete = _mapping(spec.get("updateStrategy")).get("type") == "OnDelete"
    if updated < wanted and not on_delete:
        return Readiness(False, f"{updated} of {wanted} nodes run the updated pod")
    if available < wanted:
        return Readiness(False, f"on {available} of {wanted} nodes the pod is available")
    return Readiness(True, f"available on all {wanted} nodes")


def _replica_set(obj: Object, spec: Object, status: Object) -> Readiness:
    failure = condition(obj, "ReplicaFailure")
    if failure is not None and failure.get("status") == "True":
        return Readiness(False, f"cannot create pods: {failure.get('message') or failure.get('reason')}")
    wanted, ready = _count(spec, "replicas", 1), _count(status, "readyReplicas")
    return Readiness(ready >= wanted, f"{ready} of {wanted} replicas are ready")


def _job(obj: Object, spec: Object, status: Object) -> Readiness:
    for kind in ("Failed", "FailureTarget"):
        found = condition(obj, kind)
        if found is not None and found.get("status") == "True":
            return Readiness(False, f"failed: {found.get('message') or found.get('reason')}", failed=True)
    done, wanted = _count(status, "succeeded"), _count(spec, "completions", 1)
    finished = condition(obj, "Complete")
    if finished is not None and finished.get("status") == "True":
        return Readiness(True, f"{done} of {wanted} completions are done")
    if spec.get("suspend"):
        return Readiness(False, "is suspended")
    return Readiness(False, f"{done} of {wanted} completions are done")


def _pod(obj: Object, spec: Object, status: Object) -> Readiness:
    phase = status.get("phase")
    if phase == "Succeeded":
        return Readiness(True, "has finished")
    if phase == "Failed":
        return Readiness(
            False, f"failed: {status.get('message') or status.get('reason') or _ended(status)}", failed=True
        )
    found = condition(obj, "Ready")
    if found is not None and found.get("status") == "True":
        return Readiness(True, "is ready")
    return Readiness(False, pod_trouble(spec, status))


def pod_trouble(spec: Object, status: Object) -> str:
    """The one thing that keeps a pod from being ready, the earliest in its life first."""
    scheduled = _find(status.get("conditions"), "PodScheduled")
    if scheduled.get("status") == "False":
        return f"cannot be placed on a node: {scheduled.get('message') or scheduled.get('reason')}"
    if not spec.get("nodeName"):
        return "waits to be placed on a node"
    containers = [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]
    for one in containers:
        trouble = container_trouble(one)
        if trouble:
            return f"container {one.get('name')} {trouble}"
    gates = [
        gate.get("conditionType")
        for gate in spec.get("readinessGates") or []
        if _find(status.get("conditions"), str(gate.get("conditionType"))).get("status") != "True"
    ]
    if gates:
        return f"its readiness gates are not met: {', '.join(map(str, gates))}"
    if not containers:
        return f"node {spec.get('nodeName')} has not started it yet"
    return "its node has not reported it ready yet"


def container_trouble(status: Mapping[str, Any]) -> str:
    """What is wrong with a container; empty when it runs and is ready, or ended well."""
    state = _mapping(status.get("state"))
    restarts = int(status.get("restartCount") or 0)
    last = _mapping(_mapping(status.get("lastState")).get("terminated"))
    if waiting := _mapping(state.get("waiting")):
        reason = str(waiting.get("reason") or "is waiting to start")
        told = f": {waiting['message']}" if waiting.get("message") else ""
        if last and reason == "CrashLoopBackOff":
            return f"keeps ending ({_exit(last)}) and was restarted {_times(restarts)}"
        if reason in {"ContainerCreating", "PodInitializing"}:
            return "is being started"
        return f"cannot start: {reason}{told}" if waiting.get("reason") else f"{reason}{told}"
    if ended := _mapping(state.get("terminated")):
        return "" if ended.get("exitCode") == 0 else f"ended ({_exit(ended)})"
    if state.get("running") and status.get("ready") is False:
        again = f"; it was restarted {_times(restarts)}, last because it ended ({_exit(last)})" if last else ""
        return f"runs but is not ready{again}"
    return ""


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


def _exit(ended: Mapping[str, Any]) -> str:
    code = f"exit code {ended.get('exitCode')}"
    reason = ended.get("reason")
    return f"{reason}, {code}" if reason and reason not in {"Error", "Completed"} else code


def _ended(status: Object) -> str:
    for one in status.get("containerStatuses") or []:
        ended = _mapping(_mapping(one.get("state")).get("terminated"))
        if ended and ended.get("exitCode"):
            return f"container {one.get('name')} ended ({_exit(ended)})"
    return "its containers ended"


def _claim(obj: Object, spec: Object, status: Object) -> Readiness:
    phase = status.get("phase") or "Pending"
    return Readiness(phase == "Bound", f"is {phase}", failed=phase == "Lost")


def _namespace(obj: Object, spec: Object, status: Object) -> Readiness:
    phase = status.get("phase") or "Active"
    return Readiness(phase == "Active", f"is {phase}")


def _service(obj: Object, spec: Object, status: Object) -> Readiness:
    if spec.get("type") == "LoadBalancer" and not _mapping(status.get("loadBalancer")).get("ingress"):
        return Readiness(False, "has no address from a load balancer yet")
    return Readiness(True, "is there")


def _one_condition(kind: str) -> Callable[[Object, Object, Object], Readiness]:
    def judge(obj: Object, spec: Object, status: Object) -> Readiness:
        return _said(kind, condition(obj, kind))

    return judge


_EARLY_PHASES: Final = ("Pending", "Creating", "Provisioning", "Initializing", "Progressing", "Unknown", "Terminating")
_BAD_PHASES: Final = ("Failed", "Error")
_GOOD: Final = ("Ready", "Available", "Succeeded", "Complete", "Established", "Healthy", "Programmed", "Accepted")


def _by_conditions(obj: Object) -> Readiness:
    for kind in ("Stalled", "Failed"):
        bad = condition(obj, kind)
        if bad is not None and bad.get("status") == "True":
            return Readiness(False, f"is {kind.lower()}: {_reason(bad)}", failed=True)
    reconciling = condition(obj, "Reconciling")
    if reconciling is not None and reconciling.get("status") == "True":
        return Readiness(False, f"is being worked on: {_reason(reconciling)}")
    for kind in _GOOD:
        found = condition(obj, kind)
        if found is not None:
            return _said(kind, found)
    phase = _mapping(obj.get("status")).get("phase")
    if phase in _BAD_PHASES:
        return Readiness(False, f"is {phase}", failed=True)
    return Readiness(phase not in _EARLY_PHASES, f"is {phase}" if isinstance(phase, str) else "is there")


def _said(kind: str, found: Object | None) -> Readiness:
    if found is None:
        return Readiness(False, f"has not reported the condition {kind} yet")
    if found.get("status") == "True":
        return Readiness(True, f"is {kind.lower()}")
    return Readiness(False, f"is not {kind.lower()}: {_reason(found)}")


def _reason(found: Mapping[str, Any]) -> str:
    return str(found.get("message") or found.get("reason") or "no reason is given")


def _unseen(obj: Object, status: Object) -> Readiness | None:
    if "observedGeneration" in status or not generation(obj):
        return None
    return Readiness(False, "its controller has not looked at it yet")


def _count(where: Object, key: str, default: int = 0) -> int:
    found = where.get(key)
    return found if isinstance(found, int) else default


def _mapping(value: Any) -> Object:
    return value if isinstance(value, dict) else {}


def _find(conditions: Any, kind: str) -> Object:
    found = conditions if isinstance(conditions, list) else []
    return next((one for one in found if isinstance(one, dict) and one.get("type") == kind), {})


def condition(obj: Object, kind: str) -> Object | None:
    """The condition of this type; of an object that anybody may have written, so its shape is not relied upon."""
    return _find(_mapping(obj.get("status")).get("conditions"), kind) or None


def _group(obj: Object) -> str:
    return str(obj.get("apiVersion") or "").rpartition("/")[0]


_JUDGES: Final[Mapping[tuple[str, str], Callable[[Object, Object, Object], Readiness]]] = {
    ("apps", "Deployment"): _deployment,
    ("apps", "StatefulSet"): _stateful_set,
    ("apps", "DaemonSet"): _daemon_set,
    ("apps", "ReplicaSet"): _replica_set,
    ("", "ReplicationController"): _replica_set,
    ("batch", "Job"): _job,
    ("", "Pod"): _pod,
    ("", "PersistentVolumeClaim"): _claim,
    ("", "Namespace"): _namespace,
    ("", "Service"): _service,
    ("", "Node"): _one_condition("Ready"),
    ("apiextensions.k8s.io", "CustomResourceDefinition"): _one_condition("Established"),
    ("apiregistration.k8s.io", "APIService"): _one_condition("Available"),
}
