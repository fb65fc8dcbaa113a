"""DefaultStorageClass and DefaultIngressClass: the class of what names none; and which claims may grow."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from fleetplane.apiserver.admission.refusals import refuse
from fleetplane.apiserver.admission.views import ClusterId, View
from fleetplane.apiserver.kinds.access import section
from fleetplane.model import objects
from fleetplane.model.admission import (
    ALLOWED,
    AdmissionPlugin,
    AdmissionRequest,
    AdmissionRule,
    Decision,
    Reader,
    changed,
)
from fleetplane.model.objects import Object, metadata, name
from fleetplane.model.pod_resources import parsed

DEFAULT_STORAGE: Final = (
    "storageclass.kubernetes.io/is-default-class",
    "storageclass.beta.kubernetes.io/is-default-class",
)
DEFAULT_INGRESS: Final = ("ingressclass.kubernetes.io/is-default-class",)
_OLD_CLAIM_CLASS: Final = "volume.beta.kubernetes.io/storage-class"
_OLD_INGRESS_CLASS: Final = "kubernetes.io/ingress.class"
_CLAIMS: Final = "persistentvolumeclaims"


def default_class(classes: Iterable[Object], marks: Iterable[str]) -> Object | None:
    """Of the classes marked as default the youngest, then the first by name."""
    marked = [one for one in classes if any(objects.annotations(one).get(mark) == "true" for mark in marks)]
    marked.sort(key=name)
    return max(marked, key=lambda one: str(metadata(one).get("creationTimestamp") or ""), default=None)


def default_storage_class(classes: View, cluster_id: ClusterId) -> list[AdmissionPlugin]:
    async def fill(request: AdmissionRequest, _reader: Reader) -> Decision:
        claim = request.new or {}
        spec = section(claim, "spec")
        if spec.get("storageClassName") is not None or _OLD_CLAIM_CLASS in objects.annotations(claim):
            return ALLOWED
        found = default_class(classes.all(cluster_id(request.cluster)), DEFAULT_STORAGE)
        return ALLOWED if found is None else changed({**claim, "spec": {**spec, "storageClassName": name(found)}})

    rules = [AdmissionRule([_CLAIMS], ["CREATE"])]
    return [AdmissionPlugin("defaultstorageclass.fleetplane.io", "mutate", rules, fill, order=170)]


def default_ingress_class(classes: View, cluster_id: ClusterId) -> list[AdmissionPlugin]:
    async def fill(request: AdmissionRequest, _reader: Reader) -> Decision:
        ingress = request.new or {}
        spec = section(ingress, "spec")
        if spec.get("ingressClassName") is not None or objects.annotations(ingress).get(_OLD_INGRESS_CLASS):
            return ALLOWED
        found = default_class(classes.all(cluster_id(request.cluster)), DEFAULT_INGRESS)
        return ALLOWED if found is None else changed({**ingress, "spec": {**spec, "ingressClassName": name(found)}})

    rules = [AdmissionRule(["ingresses.networking.k8s.io"], ["CREATE"])]
    return [AdmissionPlugin("defaultingressclass.fleetplane.io", "mutate", rules, fill, order=200)]


def claim_resizing(classes: View, cluster_id: ClusterId) -> list[AdmissionPlugin]:
    async def check(request: AdmissionRequest, _reader: Reader) -> Decision:
        if request.new is None or request.old is None or not _grows(request.new, request.old):
            return ALLOWED
        if (request.old.get("status") or {}).get("phase") != "Bound":
            return refuse(request, "Only bound persistent volume claims can be expanded")
        wanted = _class_of(request.new)
        found = classes.get(cluster_id(request.cluster), wanted) if wanted == _class_of(request.old) else None
        if found is not None and found.get("allowVolumeExpansion"):
            return ALLOWED
        return refuse(
            request,
            "only dynamically provisioned pvc can be resized and "
            "the storageclass that provisions the pvc must support resize",
        )

    rules = [AdmissionRule([_CLAIMS], ["UPDATE"])]
    return [AdmissionPlugin("persistentvolumeclaimresize.fleetplane.io", "validate", rules, check, order=180)]


def _class_of(claim: Object) -> str:
    return str(objects.annotations(claim).get(_OLD_CLAIM_CLASS) or claim["spec"].get("storageClassName") or "")


def _grows(new: Object, old: Object) -> bool:
    size, before = (parsed((one["spec"].get("resources") or {}).get("requests")).get("storage") for one in (new, old))
    return size is not None and before is not None and size > before
