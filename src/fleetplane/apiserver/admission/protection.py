"""Marks on new objects that a controller takes away: volumes in use are not removed, new nodes wait until ready."""

from __future__ import annotations

from typing import Final

from fleetplane.apiserver.kinds.access import entries, section
from fleetplane.model.admission import AdmissionPlugin, AdmissionRequest, AdmissionRule, mutating
from fleetplane.model.objects import Object, finalizers, is_condition_true

CLAIM_FINALIZER: Final = "kubernetes.io/pvc-protection"
VOLUME_FINALIZER: Final = "kubernetes.io/pv-protection"
NOT_READY: Final = {"effect": "NoSchedule", "key": "node.kubernetes.io/not-ready"}


def protect_storage() -> AdmissionPlugin:
    """StorageObjectInUseProtection: the finalizers of claims and volumes."""

    def fill(request: AdmissionRequest) -> Object:
        obj = request.new or {}
        wanted = CLAIM_FINALIZER if request.resource.plural == "persistentvolumeclaims" else VOLUME_FINALIZER
        given = finalizers(obj)
        if wanted in given:
            return obj
        return {**obj, "metadata": {**obj["metadata"], "finalizers": [*given, wanted]}}

    rules = [AdmissionRule(["persistentvolumeclaims", "persistentvolumes"], ["CREATE"])]
    return mutating("storageobjectinuseprotection.fleetplane.io", rules, fill, order=180)


def taint_new_nodes() -> AdmissionPlugin:
    """TaintNodesByCondition: no pod is bound to a new node before it is known to be ready.

    A node that says so itself, as it is created, needs no taint that somebody has to take away again.
    """

    def fill(request: AdmissionRequest) -> Object:
        node = request.new or {}
        if is_condition_true(node, "Ready"):
            return node
        spec = section(node, "spec")
        taints = entries(spec, "taints")
        if any(one.get("key") == NOT_READY["key"] and one.get("effect") == NOT_READY["effect"] for one in taints):
            return node
        return {**node, "spec": {**spec, "taints": [*taints, dict(NOT_READY)]}}

    return mutating("taintnodesbycondition.fleetplane.io", [AdmissionRule(["nodes"], ["CREATE"])], fill, order=130)
