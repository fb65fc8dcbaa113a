"""Objects that make pods: what they want, what is there, and which pods."""

from __future__ import annotations

from typing import Any

from fleetplane.interfaces.cli.connection import Session
from fleetplane.interfaces.cli.describing import pods
from fleetplane.interfaces.cli.describing.sheet import Sheet
from fleetplane.interfaces.cli.podselect import PODS, selector_of
from fleetplane.interfaces.cli.readiness import readiness
from fleetplane.model.objects import Object, metadata, name, namespace, owner_references, uid
from fleetplane.model.resources import ResourceType
from fleetplane.model.table import time_since

REPLICA_SETS = ResourceType("apps", "v1", "ReplicaSet", "replicasets")


async def describe(session: Session, sheet: Sheet, obj: Object) -> None:
    spec, status = obj.get("spec") or {}, obj.get("status") or {}
    selector = selector_of(obj)
    sheet.field("Selector", selector)
    sheet.field("Replicas", _replicas(obj, spec, status))
    strategy = spec.get("strategy") or spec.get("updateStrategy") or {}
    sheet.field("Strategy", _strategy(strategy))
    sheet.field("Paused", "yes" if spec.get("paused") else None)
    for key, label in (("completions", "Completions"), ("parallelism", "Parallelism"), ("backoffLimit", "Retries")):
        sheet.field(label, spec.get(key) if obj.get("kind") == "Job" else None)
    sheet.field("Schedule", spec.get("schedule"))
    sheet.field("Service", spec.get("serviceName"))
    template = spec.get("template") or ((spec.get("jobTemplate") or {}).get("spec") or {}).get("template") or {}
    pods.template(session, sheet, template.get("spec") or {}, {})
    pods.scheduling(sheet, template.get("spec") or {})
    if selector:
        await _owned(session, sheet, obj, selector)


async def _owned(session: Session, sheet: Sheet, obj: Object, selector: str) -> None:
    now = session.environment.now()
    owners = {uid(obj)}
    if obj.get("kind") == "Deployment":
        sets = [
            one
            async for one in session.client.iterate(REPLICA_SETS, namespace(obj), labels=selector)
            if _is_owned(one, owners)
        ]
        sets.sort(key=_revision, reverse=True)
        owners |= {uid(one) for one in sets}
        rows = []
        for one in sets:
            status = one.get("status") or {}
            count = f"{status.get('readyReplicas') or 0}/{(one.get('spec') or {}).get('replicas', 1)}"
            rows.append(
                [name(one), _revision(one) or "", count, time_since(metadata(one).get("creationTimestamp"), now)]
            )
        sheet.table("Replica sets", ("NAME", "REVISION", "READY", "AGE"), rows)
    found = [
        one async for one in session.client.iterate(PODS, namespace(obj), labels=selector) if _is_owned(one, owners)
    ]
    table = []
    for pod in sorted(found, key=name):
        status = readiness(pod)
        age = time_since(metadata(pod).get("creationTimestamp"), now)
        table.append([name(pod), (pod.get("spec") or {}).get("nodeName"), age, status.why])
    sheet.table("Pods", ("NAME", "NODE", "AGE", "STATE"), table, empty="none")


def _is_owned(obj: Object, owners: set[str]) -> bool:
    return any(owner.uid in owners for owner in owner_references(obj))


def _revision(obj: Object) -> int:
    text = (metadata(obj).get("annotations") or {}).get("deployment.kubernetes.io/revision") or "0"
    return int(text) if text.isdigit() else 0


def _replicas(obj: Object, spec: Object, status: Object) -> str | None:
    kind = obj.get("kind")
    if kind == "DaemonSet":
        wanted = status.get("desiredNumberScheduled") or 0
        parts = [("updated", "updatedNumberScheduled"), ("ready", "numberReady"), ("available", "numberAvailable")]
    elif kind in {"Deployment", "StatefulSet", "ReplicaSet", "ReplicationController"}:
        wanted = spec.get("replicas", 1)
        parts = [("updated", "updatedReplicas"), ("ready", "readyReplicas"), ("available", "availableReplicas")]
    else:
        return None
    shown = [
        f"{status.get(key) or 0} {label}"
        for label, key in parts
        if key in status or key.startswith(("ready", "number"))
    ]
    return f"{wanted} wanted, {', '.join(shown)}"


def _strategy(strategy: Any) -> str:
    kind = str(strategy.get("type") or "")
    rolling = strategy.get("rollingUpdate") or {}
    details = ", ".join(f"{key} {value}" for key, value in sorted(rolling.items()))
    return f"{kind} ({details})" if details else kind
