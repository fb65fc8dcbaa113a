"""What the plan is told of a cluster of pods: objects of the host read into the plan's own terms, and records kept. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from fleetplane.model.environment import parse_timestamp, timestamp
from fleetplane.model.objects import Object, is_deleting, labels, uid
from fleetplane.model.quantity import Quantity
from fleetplane.operators.vclusters import plan
from fleetplane.operators.vclusters.kinds import NETWORK, RESTARTED_AT, STOPPED, NodePod, Vk8s
from fleetplane.operators.vclusters.plan import NodeWanted, Observed, PodSeen, Record, Step, Wanted
from fleetplane.operators.vclusters.steps import reservation


def is_stopped(vcluster: Vk8s) -> bool:
    """Its nodes must not run: somebody paused it, or it sleeps."""
    return STOPPED in vcluster.annotations or bool(vcluster.status.asleep_since)


def wanted_of(vcluster: Vk8s, reservations: Mapping[str, str | None]) -> Wanted:
    kubeflow = vcluster.spec.kubeflow
    network = vcluster.annotations.get(NETWORK)
    return Wanted(
        name=vcluster.name,
        nodes=tuple(
            NodeWanted(node.name, node.role, node.image, reservations.get(node.name)) for node in vcluster.spec.nodes
        ),
        kubeflow=bool(kubeflow is not None and kubeflow.version),
        generation=vcluster.generation,
        request=vcluster.annotations.get(RESTARTED_AT, "")[:256],
        paused=is_stopped(vcluster),
        asleep=STOPPED not in vcluster.annotations,
        network=network is not None and network != "false",
        deleting=vcluster.is_deleting,
    )


def reservation_of(node: NodePod, host: Mapping[str, Any] | None) -> str | None:
    """What the node's kubelet has to keep back of its host; None while the host is not known."""
    capacity = ((host or {}).get("status") or {}).get("capacity") or {}
    if "cpu" not in capacity or "memory" not in capacity:
        return None
    return reservation(_milli(capacity), _milli((node.resources or {}).get("limits") or {}))


def _milli(values: Mapping[str, Any]) -> dict[str, int]:
    keys = ("cpu", "memory", "ephemeral-storage")
    return {key: Quantity.parse(str(values[key])).milli_value() for key in keys if key in values}


def setup_of(node: str, wanted: Wanted, seen: Observed) -> str:
    """The original's word for how far a node is."""
    chain = [one for steps in plan.chains(wanted) for one in steps if one.node == node]
    if any(plan.is_failed(one, wanted, seen) for one in chain):
        return "Failed"
    return "Success" if chain and all(plan.is_done(one, wanted, seen) for one in chain) else ""


def pod_seen(pod: Object | None, owner: Object | None) -> PodSeen:
    """The original's reading of a pod: its first container's state, in its words."""
    if pod is None:
        return PodSeen("Not Found")
    spec, status = pod.get("spec") or {}, pod.get("status") or {}
    update = ((owner or {}).get("status") or {}).get("updateRevision")
    revision = labels(pod).get("controller-revision-hash")
    common: dict[str, Any] = {
        "uid": uid(pod),
        "host": str(spec.get("nodeName") or ""),
        "address": str(status.get("podIP") or ""),
        "image": str(next((one.get("image") for one in spec.get("containers") or ()), "") or ""),
        "stale": bool(update and revision and update != revision),
    }
    if is_deleting(pod):
        return PodSeen("Terminating", "pod is being deleted", **common)
    state = next((one.get("state") or {} for one in status.get("containerStatuses") or ()), {})
    if "running" in state:
        return PodSeen("Running", **common)
    for key, word in (("waiting", "Waiting"), ("terminated", "Terminating")):
        if key in state:
            return PodSeen(word, str((state[key] or {}).get("reason") or ""), **common)
    return PodSeen(str(status.get("phase") or "Pending"), **common)


def not_yet(obj: Mapping[str, Any]) -> Object:
    """For what is told before the whole is looked at: the status goes on speaking of the generation it spoke of."""
    return {"observedGeneration": int((obj.get("status") or {}).get("observedGeneration") or 0)}


def records_of(obj: Mapping[str, Any]) -> dict[Step, Record]:
    status = obj.get("status") or {}
    found = {Step(key): record_of(value) for key, value in (status.get("steps") or {}).items()}
    for node, known in (status.get("vnodeKubernetesSetupStatuses") or {}).items():
        found |= {Step(key, node): record_of(value) for key, value in (known.get("steps") or {}).items()}
    return found


def record_of(value: Mapping[str, Any]) -> Record:
    started = value.get("startedAt")
    return Record(
        str(value.get("state") or ""),
        int(value.get("attempt") or 0),
        parse_timestamp(started).timestamp() if started else 0.0,
        str(value.get("pod") or ""),
        int(value.get("generation") or 0),
        str(value.get("error") or ""),
        str(value.get("request") or ""),
        str(value.get("inputs") or ""),
    )


def record_object(record: Record) -> Object:
    return {
        "state": record.state,
        "attempt": record.attempt,
        "startedAt": timestamp(datetime.fromtimestamp(record.started, UTC)),
        "pod": record.pod,
        "generation": record.generation,
        "error": record.error,
        "request": record.request,
        "inputs": record.inputs,
    }


def status_of(records: Mapping[Step, Record]) -> Object:
    """The part of a status that keeps these records."""
    nodes: Object = {}
    cluster: Object = {}
    for step, record in records.items():
        shown = record_object(record)
        if step.node == plan.CLUSTER:
            cluster[step.name] = shown
        else:
            nodes.setdefault(step.node, {}).setdefault("steps", {})[step.name] = shown
    status: Object = {"vnodeKubernetesSetupStatuses": nodes} if nodes else {}
    return status | ({"steps": cluster} if cluster else {})
