"""The volume maker for planes of their own: directories on the node that runs the pod.

Good for a machine, a vehicle, a test; the data lives and dies with the node. The node makes the directory when the
volume is first mounted. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from fleetplane.model.objects import Object, name, namespace, uid
from fleetplane.workloads.volumes.matching import PROVISIONED_BY, class_of

PROVISIONER: Final = "fleetplane.io/host-path"
DEFAULT_ROOT: Final = "/var/lib/fleetplane/volumes"


def volume_name(claim: Mapping[str, Any]) -> str:
    return f"pvc-{uid(claim)}"


def make(claim: Mapping[str, Any], storage_class: Mapping[str, Any], node: Mapping[str, Any] | None) -> Object:
    """The volume for a claim, reserved for it. ``node`` is the one it will be on; None for any."""
    made_name = volume_name(claim)
    root = str((storage_class.get("parameters") or {}).get("path") or DEFAULT_ROOT).rstrip("/")
    spec: Object = {
        "capacity": {"storage": claim["spec"]["resources"]["requests"]["storage"]},
        "accessModes": list(claim["spec"].get("accessModes") or ["ReadWriteOnce"]),
        "persistentVolumeReclaimPolicy": str(storage_class.get("reclaimPolicy") or "Delete"),
        "storageClassName": class_of(claim),
        "volumeMode": str(claim["spec"].get("volumeMode") or "Filesystem"),
        "hostPath": {"path": f"{root}/{made_name}", "type": "DirectoryOrCreate"},
        "claimRef": {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "namespace": namespace(claim),
            "name": name(claim),
            "uid": uid(claim),
        },
    }
    if storage_class.get("mountOptions"):
        spec["mountOptions"] = list(storage_class["mountOptions"])
    if node is not None:
        expression = {"key": "kubernetes.io/hostname", "operator": "In", "values": [_hostname(node)]}
        spec["nodeAffinity"] = {"required": {"nodeSelectorTerms": [{"matchExpressions": [expression]}]}}
    meta = {"name": made_name, "annotations": {PROVISIONED_BY: PROVISIONER}}
    return {"apiVersion": "v1", "kind": "PersistentVolume", "metadata": meta, "spec": spec}


def _hostname(node: Mapping[str, Any]) -> str:
    found = (node["metadata"].get("labels") or {}).get("kubernetes.io/hostname")
    return str(found or name(node))
