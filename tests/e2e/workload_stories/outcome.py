"""What a story leaves behind, in a form that two clusters can be compared by.

Only what controllers, the scheduler and people decide: specifications, counts, conditions, owners, events. Names that end
in chance are replaced by what they stand for: a ReplicaSet by its revision, a pod by its owner. Times, identities,
revisions and addresses are left out; so is what kubelets say, which are the same on both sides.
"""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from .clusters import Cluster

Object = dict[str, Any]

KINDS = (
    "deployments.apps,replicasets.apps,statefulsets.apps,daemonsets.apps,jobs.batch,cronjobs.batch,pods,"
    "replicationcontrollers,endpoints,endpointslices.discovery.k8s.io,persistentvolumeclaims,"
    "poddisruptionbudgets.policy,resourcequotas,configmaps,services"
)
QUIET_SECONDS = 1.0
PATIENCE = 30.0
_REVISION = "deployment.kubernetes.io/revision"
_KEPT_LABELS_NOT = {"pod-template-hash", "controller-revision-hash", "controller-uid", "pod-template-generation"}
_TIMED = re.compile(r"-\d{8,10}\b")
_GENERATED = re.compile(r"-[bcdf-hj-np-tv-z2456789]{5,10}(-[bcdf-hj-np-tv-z2456789]{5})?\b")


def outcome(cluster: Cluster) -> Object:
    """The story's namespace once nothing changes any more."""
    before, deadline = _look(cluster), time.monotonic() + PATIENCE
    while True:
        time.sleep(QUIET_SECONDS)
        now = _look(cluster)
        if now == before:
            return now
        if time.monotonic() > deadline:
            raise AssertionError(f"{cluster.name}: {cluster.namespace} did not come to rest: {_changed(before, now)}")
        before = now


def _changed(before: Object, now: Object) -> list[str]:
    return [name for name in before | now if before.get(name) != now.get(name)]


def _look(cluster: Cluster) -> Object:
    items = cluster.get(KINDS)["items"]
    names = _Names(items)
    found: dict[str, list[Object]] = {}
    for obj in items:
        if not _is_everywhere(obj):
            found.setdefault(f"{obj['kind']} {names.of(obj)}", []).append(_shown(obj, names))
    made: Object = {}
    for title, same in found.items():
        same.sort(key=repr)
        made[title] = same[0] if len(same) == 1 and not title.startswith("Pod ") else same
    made["Events"] = _events(cluster, names)
    return made


class _Names:
    """What an object is called whatever chance called it."""

    def __init__(self, items: list[Object]) -> None:
        self._known: dict[str, str] = {}
        for obj in items:
            self._known[f"{obj['kind']}/{obj['metadata']['name']}"] = _own_name(obj)

    def of(self, obj: Object) -> str:
        return self.named(obj["kind"], obj["metadata"]["name"])

    def named(self, kind: str, name: str) -> str:
        return self._known.get(f"{kind}/{name}") or _GENERATED.sub("-*", name)


def _own_name(obj: Object) -> str:
    meta = obj["metadata"]
    owner = next(iter(meta.get("ownerReferences") or ()), None)
    if obj["kind"] == "ReplicaSet" and owner is not None:
        return f"{owner['name']}@{(meta.get('annotations') or {}).get(_REVISION)}"
    if obj["kind"] == "Pod" and owner is not None and owner["kind"] == "Job" and _TIMED.search(owner["name"]):
        return f"{_TIMED.sub('-<time>', owner['name'])}-*"
    if obj["kind"] == "Pod" and owner is not None and owner["kind"] == "StatefulSet":
        return str(meta["name"])
    if owner is not None and owner["kind"] == "CronJob":
        return f"{owner['name']}-<time>"  # 1.20 counts the seconds since 1970, later releases the minutes
    if (obj["kind"] in {"EndpointSlice", "Job"} and owner is not None) or meta.get("generateName"):
        return f"{_GENERATED.sub('', meta['name'])}-*"
    return _GENERATED.sub("-*", meta["name"]) if obj["kind"] == "ReplicaSet" else str(meta["name"])


def _is_everywhere(obj: Object) -> bool:
    return bool(obj["metadata"]["name"] == "kube-root-ca.crt")


def _shown(obj: Object, names: _Names) -> Object:
    meta = obj["metadata"]
    owners = [(one["kind"], names.named(one["kind"], one["name"])) for one in meta.get("ownerReferences") or ()]
    shown: Object = {
        "owners": owners,
        "labels": {
            key: _TIMED.sub("-<time>", value)
            for key, value in (meta.get("labels") or {}).items()
            if key not in _KEPT_LABELS_NOT
        },
        "finalizers": sorted(meta.get("finalizers") or ()),
        "deleting": "deletionTimestamp" in meta,
        "seen": (obj.get("status") or {}).get("observedGeneration") in {None, meta.get("generation")},
    }
    show = _BY_KIND.get(obj["kind"])
    return {**shown, **(show(obj) if show else _content(obj))}


def _content(obj: Object) -> Object:
    return {key: obj[key] for key in ("data", "spec", "status") if key in obj}


def _counts(obj: Object) -> Object:
    """Specification in short; the numbers and conditions of the status."""
    spec, status = obj.get("spec") or {}, obj.get("status") or {}
    template = (spec.get("template") or {}).get("spec") or {}
    numbers = {
        key: value
        for key, value in status.items()
        if isinstance(value, int) and value and key not in {"observedGeneration", "collisionCount"}
    }
    conditions = _conditions(status)
    if conditions.get("Failed", ("", ""))[1] == "DeadlineExceeded":
        numbers.pop(
            "failed", None
        )  # 1.20 forgets the pods it ended when its first write of the status meets a conflict
    return {
        "replicas": spec.get("replicas"),
        "images": [one["image"] for one in template.get("containers") or ()],
        "annotations": {
            key: value
            for key, value in (obj["metadata"].get("annotations") or {}).items()
            if "kubernetes.io/" in key and "last-applied" not in key
        },
        "status": numbers,
        "conditions": conditions,
    }


def _conditions(status: Mapping[str, Any]) -> dict[str, Any]:
    return {one["type"]: (one["status"], one.get("reason")) for one in status.get("conditions") or ()}


def _pod(obj: Object) -> Object:
    spec, status = obj["spec"], obj.get("status") or {}
    states = {
        one["name"]: next(((key, (value or {}).get("reason")) for key, value in one["state"].items()), None)
        for one in status.get("containerStatuses") or ()
    }
    return {
        "images": [one["image"] for one in spec["containers"]],
        "placed": bool(spec.get("nodeName")),
        "priority": (spec.get("priority"), spec.get("priorityClassName")),
        "hostname": (spec.get("hostname"), spec.get("subdomain")),
        "restarts": spec.get("restartPolicy"),
        "phase": (status.get("phase"), status.get("reason")),
        "class": status.get("qosClass"),
        "states": states,
        "claims": sorted(
            one["persistentVolumeClaim"]["claimName"]
            for one in spec.get("volumes") or ()
            if "persistentVolumeClaim" in one
        ),
        "tolerations": sorted((one.get("key", ""), one.get("effect", "")) for one in spec.get("tolerations") or ()),
        "unschedulable": [
            one.get("message")
            for one in status.get("conditions") or ()
            if one["type"] == "PodScheduled" and one["status"] == "False"
        ],
    }


def _endpoints(obj: Object) -> Object:
    return {
        "subsets": [
            (
                len(one.get("addresses") or ()),
                len(one.get("notReadyAddresses") or ()),
                [(port.get("name"), port["port"], port["protocol"]) for port in one.get("ports") or ()],
            )
            for one in obj.get("subsets") or ()
        ]
    }


def _slice(obj: Object) -> Object:
    return {
        "type": obj["addressType"],
        "ready": sorted(bool(one["conditions"].get("ready")) for one in obj.get("endpoints") or ()),
        "ports": [(port.get("name"), port.get("port"), port.get("protocol")) for port in obj.get("ports") or ()],
    }


def _service(obj: Object) -> Object:
    return {"type": obj["spec"]["type"], "ports": len(obj["spec"]["ports"])}


def _claim(obj: Object) -> Object:
    return {"volume": obj["spec"].get("volumeName"), "phase": (obj.get("status") or {}).get("phase")}


def _budget(obj: Object) -> Object:
    status = obj.get("status") or {}
    return {key: status.get(key) for key in ("currentHealthy", "desiredHealthy", "disruptionsAllowed", "expectedPods")}


def _quota(obj: Object) -> Object:
    status = obj.get("status") or {}
    return {"hard": status.get("hard"), "used": status.get("used")}


def _cron(obj: Object) -> Object:
    status = obj.get("status") or {}
    return {"active": len(status.get("active") or ()), "scheduled": "lastScheduleTime" in status}


_BY_KIND: dict[str, Callable[[Object], Object]] = {
    "Deployment": _counts,
    "ReplicaSet": _counts,
    "ReplicationController": _counts,
    "StatefulSet": _counts,
    "DaemonSet": _counts,
    "Job": _counts,
    "CronJob": _cron,
    "Pod": _pod,
    "Endpoints": _endpoints,
    "EndpointSlice": _slice,
    "Service": _service,
    "PersistentVolumeClaim": _claim,
    "PodDisruptionBudget": _budget,
    "ResourceQuota": _quota,
}


def _events(cluster: Cluster, names: _Names) -> list[str]:
    """Of what kind what was said, once each; pods' own events come from the nodes, which are the same."""
    said: Counter[str] = Counter()
    for one in cluster.get("events")["items"]:
        source = (one.get("source") or {}).get("component") or one.get("reportingComponent") or ""
        if source in {"kubelet", "simulated"}:
            continue
        about = one["involvedObject"]
        said[f"{about['kind']} {one['type']} {one['reason']}"] += 1
    return sorted(said)
