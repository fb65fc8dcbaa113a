"""Which volume fits which claim. Pure. The scheduler asks the same questions per node."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from fleetplane.model.objects import Object, is_deleting, labels, name, namespace, uid
from fleetplane.model.objects import annotations as annotations_of
from fleetplane.model.quantity import ZERO, Quantity
from fleetplane.model.selectors import LabelSelector
from fleetplane.workloads.scheduler.terms import matches_any, node_terms

BOUND_BY_US: Final = "pv.kubernetes.io/bound-by-controller"
BIND_COMPLETED: Final = "pv.kubernetes.io/bind-completed"
PROVISIONED_BY: Final = "pv.kubernetes.io/provisioned-by"
STORAGE_PROVISIONER: Final = "volume.kubernetes.io/storage-provisioner"
SELECTED_NODE: Final = "volume.kubernetes.io/selected-node"
_OLD_CLASS: Final = "volume.beta.kubernetes.io/storage-class"
NO_PROVISIONER: Final = "kubernetes.io/no-provisioner"


def class_of(obj: Mapping[str, Any]) -> str:
    """The storage class of a claim or volume; empty for none."""
    old = annotations_of(obj).get(_OLD_CLASS)
    return old if old is not None else str((obj.get("spec") or {}).get("storageClassName") or "")


def is_delayed(storage_class: Mapping[str, Any] | None) -> bool:
    """Claims of this class wait until a pod that uses them has a node."""
    return storage_class is not None and storage_class.get("volumeBindingMode") == "WaitForFirstConsumer"


def is_bound(claim: Mapping[str, Any]) -> bool:
    return bool((claim.get("spec") or {}).get("volumeName")) and BIND_COMPLETED in annotations_of(claim)


def claim_reference(claim: Mapping[str, Any]) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "namespace": namespace(claim),
        "name": name(claim),
        "uid": uid(claim),
        "resourceVersion": str((claim.get("metadata") or {}).get("resourceVersion") or ""),
    }


def claimed_by(volume: Mapping[str, Any], claim: Mapping[str, Any]) -> bool:
    """Whether the volume is reserved for this claim: by name, and by uid where one is given."""
    reference = (volume.get("spec") or {}).get("claimRef") or {}
    same = (reference.get("namespace"), reference.get("name")) == (namespace(claim), name(claim))
    return same and reference.get("uid") in {None, "", uid(claim)}


def _size(written: Any) -> Quantity:
    try:
        return Quantity.parse(written) if written is not None else ZERO
    except ValueError:
        return ZERO


def capacity(volume: Mapping[str, Any]) -> Quantity:
    return _size(((volume.get("spec") or {}).get("capacity") or {}).get("storage"))


def wanted_size(claim: Mapping[str, Any]) -> Quantity:
    requests = ((claim.get("spec") or {}).get("resources") or {}).get("requests") or {}
    return _size(requests.get("storage"))


def fits(volume: Mapping[str, Any], claim: Mapping[str, Any]) -> bool:
    """Size, class, access modes, volume mode and selector; not whether it is free."""
    have, want = volume.get("spec") or {}, claim.get("spec") or {}
    if is_deleting(volume) or capacity(volume) < wanted_size(claim) or class_of(volume) != class_of(claim):
        return False
    if not set(want.get("accessModes") or ()) <= set(have.get("accessModes") or ()):
        return False
    if (have.get("volumeMode") or "Filesystem") != (want.get("volumeMode") or "Filesystem"):
        return False
    if (have.get("volumeAttributesClassName") or "") != (want.get("volumeAttributesClassName") or ""):
        return False
    selector = want.get("selector")
    try:
        return selector is None or LabelSelector.from_object(selector).matches(labels(volume))
    except ValueError:
        return False


def best(volumes: Iterable[Object], claim: Mapping[str, Any], *, only_reserved: bool = False) -> Object | None:
    """The volume reserved for the claim, else the smallest free one that fits."""
    found: Object | None = None
    for volume in volumes:
        reference = (volume.get("spec") or {}).get("claimRef")
        if reference:
            if claimed_by(volume, claim) and fits(volume, claim):
                return volume
            continue
        if only_reserved or (volume.get("status") or {}).get("phase") not in {None, "Available", "Pending"}:
            continue
        if fits(volume, claim):
            smaller = found is None or (capacity(volume), name(volume)) < (capacity(found), name(found))
            found = volume if smaller else found
    return found


def reachable_from(volume: Mapping[str, Any], node_name: str, node_labels: Mapping[str, str]) -> bool:
    """Whether a node lies within the volume's node affinity."""
    required = ((volume.get("spec") or {}).get("nodeAffinity") or {}).get("required")
    if required is None:
        return True
    return matches_any(node_terms(required.get("nodeSelectorTerms") or ()), node_name, node_labels)


def allowed_on(storage_class: Mapping[str, Any], node_labels: Mapping[str, str]) -> bool:
    """Whether the class makes volumes for a node (``allowedTopologies``)."""
    topologies = storage_class.get("allowedTopologies") or ()
    return not topologies or any(
        all(
            node_labels.get(one.get("key")) in (one.get("values") or ()) for one in t.get("matchLabelExpressions") or ()
        )
        for t in topologies
    )
