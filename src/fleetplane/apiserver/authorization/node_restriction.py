"""NodeRestriction: what a node may write of the objects it may touch at all (KEP-279).

Authorization decides by name; this admission plug-in looks inside: a node changes its own Node object but not its taints
nor labels that others rely on, the status of pods that are bound to it, and asks for tokens only for such pods.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from fleetplane.apiserver.authorization.node import LEASE_NAMESPACE, MIRROR_ANNOTATION, node_of
from fleetplane.apiserver.authorization.pod_references import references
from fleetplane.model import errors, objects
from fleetplane.model.admission import (
    ALLOWED,
    AdmissionPlugin,
    AdmissionRequest,
    AdmissionRule,
    Decision,
    Reader,
    denied,
)
from fleetplane.model.errors import ApiError
from fleetplane.model.objects import Object
from fleetplane.model.resources import ResourceType

NAME: Final = "noderestriction.fleetplane.io"

_PODS: Final = ResourceType("", "v1", "Pod", "pods")
_NODES: Final = ResourceType("", "v1", "Node", "nodes", namespaced=False)
_RESTRICTED: Final = "node-restriction.kubernetes.io"
_OWN_LABELS: Final = frozenset(
    {
        "kubernetes.io/hostname",
        "kubernetes.io/os",
        "kubernetes.io/arch",
        "beta.kubernetes.io/os",
        "beta.kubernetes.io/arch",
        "beta.kubernetes.io/instance-type",
        "node.kubernetes.io/instance-type",
        "node.kubernetes.io/windows-build",
        "failure-domain.beta.kubernetes.io/region",
        "failure-domain.beta.kubernetes.io/zone",
        "topology.kubernetes.io/region",
        "topology.kubernetes.io/zone",
    }
)
_OWN_DOMAINS: Final = ("kubelet.kubernetes.io", "node.kubernetes.io")


def node_restriction() -> AdmissionPlugin:
    """The plug-in; it has no opinion about anybody who is not a node."""
    resources = (
        "pods",
        "nodes",
        "persistentvolumeclaims",
        "serviceaccounts",
        "leases.coordination.k8s.io",
        "csinodes.storage.k8s.io",
    )
    rule = AdmissionRule(resources, ("CREATE", "UPDATE", "DELETE"), ("*",))
    return AdmissionPlugin(NAME, "validate", (rule,), admit)


async def admit(request: AdmissionRequest, reader: Reader) -> Decision:
    node = node_of(request.user)
    if node is None:
        return ALLOWED
    objection: str | ApiError | None
    if not node:
        objection = f'could not determine node from user "{request.user.name}"'
    else:
        objection = await _objection(node, request, reader)
    if objection is None:
        return ALLOWED
    return Decision(denial=objection) if isinstance(objection, ApiError) else denied(objection, request=request)


async def _objection(node: str, request: AdmissionRequest, reader: Reader) -> str | ApiError | None:
    match request.resource.qualified, request.subresource:
        case "pods", "":
            return await _pod(node, request, reader)
        case "pods", "status":
            return _pod_status(node, request)
        case "pods", "eviction":
            return await _eviction(node, request, reader)
        case "pods", other:
            return f"unexpected pod subresource \"{other}\", only 'status' and 'eviction' are allowed"
        case "nodes", _:
            return _node(node, request)
        case "persistentvolumeclaims", "status":
            return _claim_status(node, request)
        case "persistentvolumeclaims", _:
            return "may only update PVC status"
        case "serviceaccounts", "token":
            return await _token(node, request, reader)
        case "leases.coordination.k8s.io", _:
            if request.namespace != LEASE_NAMESPACE:
                return f'can only access leases in the "{LEASE_NAMESPACE}" system namespace'
            return _same_name(node, request, "can only access node lease with the same name as the requesting node")
        case "csinodes.storage.k8s.io", _:
            return _same_name(node, request, "can only access CSINode with the same name as the requesting node")
    return None


def _same_name(node: str, request: AdmissionRequest, objection: str) -> str | None:
    name = request.name or objects.name(request.object)
    return None if name == node else objection


def _node_name(pod: Object | None) -> str:
    return str(((pod or {}).get("spec") or {}).get("nodeName") or "")


# --- pods -----------------------------------------------------------------------------------------------------------


async def _pod(node: str, request: AdmissionRequest, reader: Reader) -> str | ApiError | None:
    if request.operation == "CREATE":
        return await _mirror_pod(node, request.object, reader)
    if request.operation != "DELETE":
        return f'unexpected operation "{request.operation}", node "{node}" can only create and delete mirror pods'
    pod = request.old or await reader.get(_PODS, request.name, request.namespace)
    if pod is None:
        return errors.not_found("pods", request.name)
    return None if _node_name(pod) == node else f'node "{node}" can only delete pods with spec.nodeName set to itself'


async def _mirror_pod(node: str, pod: Object, reader: Reader) -> str | ApiError | None:
    """A mirror pod shows what runs on a node without the API server; it must not give the node any rights."""
    if MIRROR_ANNOTATION not in objects.annotations(pod):
        return f'pod does not have "{MIRROR_ANNOTATION}" annotation, node "{node}" can only create mirror pods'
    if _node_name(pod) != node:
        return f'node "{node}" can only create pods with spec.nodeName set to itself'
    owners = objects.owner_references(pod)
    if len(owners) > 1:
        return f'node "{node}" can only create pods with a single owner reference set to itself'
    if not owners or (owners[0].api_version, owners[0].kind, owners[0].name) != ("v1", "Node", node):
        return f'node "{node}" can only create pods with an owner reference set to itself'
    if not owners[0].controller:
        return f'node "{node}" can only create pods with a controller owner reference set to itself'
    if owners[0].block_owner_deletion:
        return f'node "{node}" must not set blockOwnerDeletion on an owner reference'
    found = await reader.get(_NODES, node)
    if found is None:
        return errors.not_found("nodes", node)
    if objects.uid(found) != owners[0].uid:
        return f"node {node} UID mismatch: expected {owners[0].uid} got {objects.uid(found)}"
    needed = {resource for resource, _ in references(pod)}
    for resource, shown in (("serviceaccounts", "a service account"), *((one, one) for one in sorted(needed))):
        if resource in needed:
            return f'node "{node}" can not create pods that reference {shown}'
    return None


def _pod_status(node: str, request: AdmissionRequest) -> str | None:
    if request.operation != "UPDATE":
        return f'unexpected operation "{request.operation}"'
    if _node_name(request.old) != node:
        return f'node "{node}" can only update pod status for pods with spec.nodeName set to itself'  # noqa: S608
    if objects.labels(request.old or {}) != objects.labels(request.object):
        return f'node "{node}" cannot update labels through pod status'
    if _claim_statuses(request.old) != _claim_statuses(request.new):
        return f'node "{node}" cannot update resource claim statuses'
    return None


def _claim_statuses(pod: Object | None) -> Any:
    return ((pod or {}).get("status") or {}).get("resourceClaimStatuses")


async def _eviction(node: str, request: AdmissionRequest, reader: Reader) -> str | ApiError | None:
    if request.operation != "CREATE":
        return f"unexpected operation {request.operation}"
    name = request.name or objects.name(request.object)
    if not name:
        return "could not determine pod from request data"
    pod = await reader.get(_PODS, name, request.namespace)
    if pod is None:
        return errors.not_found("pods", name)
    return None if _node_name(pod) == node else f"node {node} can only evict pods with spec.nodeName set to itself"


async def _token(node: str, request: AdmissionRequest, reader: Reader) -> str | ApiError | None:
    if request.operation != "CREATE":
        return None
    ref = (request.object.get("spec") or {}).get("boundObjectRef") or {}
    if ref.get("apiVersion") != "v1" or ref.get("kind") != "Pod" or not ref.get("name"):
        return "node requested token not bound to a pod"
    if not ref.get("uid"):
        return "node requested token with a pod binding without a uid"
    pod = await reader.get(_PODS, str(ref["name"]), request.namespace)
    if pod is None:
        return errors.not_found("pods", str(ref["name"]))
    if objects.uid(pod) != ref["uid"]:
        return (
            f"the UID in the bound object reference ({ref['uid']}) does not match the UID in record "
            f"({objects.uid(pod)}). The object might have been deleted and then recreated"
        )
    return None if _node_name(pod) == node else "node requested token bound to a pod scheduled on a different node"


# --- nodes and claims -----------------------------------------------------------------------------------------------


def _node(node: str, request: AdmissionRequest) -> str | None:
    name = request.name or objects.name(request.object)
    if name != node:
        return f'node "{node}" is not allowed to modify node "{name}"'
    if request.operation == "CREATE":
        forbidden = forbidden_labels(objects.labels(request.object), {})
        if forbidden:
            return f'node "{node}" is not allowed to set the following labels: {", ".join(forbidden)}'
        if objects.owner_references(request.object):
            return f'node "{node}" is not allowed to set owner references'
    if request.operation == "UPDATE":
        old, new = request.old or {}, request.object
        if ((old.get("spec") or {}).get("taints") or []) != ((new.get("spec") or {}).get("taints") or []):
            return f'node "{node}" is not allowed to modify taints'
        forbidden = forbidden_labels(objects.labels(new), objects.labels(old))
        if forbidden:
            return f"is not allowed to modify labels: {', '.join(forbidden)}"
        if objects.owner_references(new) != objects.owner_references(old):
            return f'node "{node}" is not allowed to modify owner references'
    return None


def forbidden_labels(new: Mapping[str, str], old: Mapping[str, str]) -> list[str]:
    """The changed labels that are not a node's to change, sorted."""
    changed = {key for key in (*new, *old) if new.get(key) != old.get(key)}
    return sorted(key for key in changed if not _may_set(key))


def _may_set(label: str) -> bool:
    domain, slash, _ = label.partition("/")
    if not slash:
        return True
    if _is_in(domain, (_RESTRICTED,)):
        return False
    if not _is_in(domain, ("kubernetes.io", "k8s.io")):
        return True
    return label in _OWN_LABELS or _is_in(domain, _OWN_DOMAINS)


def _is_in(domain: str, parents: Iterable[str]) -> bool:
    return any(domain == one or domain.endswith("." + one) for one in parents)


def _claim_status(node: str, request: AdmissionRequest) -> str | None:
    if request.operation != "UPDATE":
        return f'unexpected operation "{request.operation}"'
    if _without_reported(request.old or {}) != _without_reported(request.object):
        return f'node "{node}" is not allowed to update fields other than status.capacity and status.conditions'
    return None


def _without_reported(claim: Object) -> Object:
    """A claim without what a node reports about it."""
    metadata = {k: v for k, v in objects.metadata(claim).items() if k not in {"resourceVersion", "managedFields"}}
    reported = {"capacity", "conditions", "allocatedResources", "allocatedResourceStatuses", "modifyVolumeStatus"}
    status = {k: v for k, v in (claim.get("status") or {}).items() if k not in reported}
    return {**claim, "metadata": metadata, "status": status}
