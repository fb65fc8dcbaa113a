"""What a node may write: looked at field by field."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import pytest

from fleetplane.apiserver.authorization.node_restriction import admit, forbidden_labels, node_restriction
from fleetplane.model.admission import AdmissionRequest
from fleetplane.model.resources import ResourceRef, ResourceType, resource_of
from fleetplane.model.user import UserInfo

Obj = dict[str, Any]
N1 = UserInfo("system:node:n1", groups=("system:nodes",))
POD: Obj = {"metadata": {"name": "web", "uid": "u1", "labels": {"a": "b"}}, "spec": {"nodeName": "n1"}, "status": {}}
NODE: Obj = {"metadata": {"name": "n1", "uid": "nu"}, "spec": {}}
TYPES = {
    "pods": ResourceType("", "v1", "Pod", "pods"),
    "nodes": ResourceType("", "v1", "Node", "nodes", namespaced=False),
    "serviceaccounts": ResourceType("", "v1", "ServiceAccount", "serviceaccounts"),
    "leases": ResourceType("coordination.k8s.io", "v1", "Lease", "leases"),
    "persistentvolumeclaims": ResourceType("", "v1", "PersistentVolumeClaim", "persistentvolumeclaims"),
}


class Live:
    async def get(self, resource: ResourceRef, name: str, namespace: str | None = None) -> Obj | None:
        return {"web": POD, "n1": NODE, "far": {**POD, "spec": {"nodeName": "n2"}}}.get(name)

    async def list(
        self, resource: ResourceRef, namespace: str | None = None, *, labels: str | None = None
    ) -> Sequence[Obj]:
        return []


async def denial(
    resource: str,
    operation: Any,
    new: Obj | None = None,
    old: Obj | None = None,
    *,
    user: UserInfo = N1,
    name: str = "",
    namespace: str = "a",
) -> str:
    plural, _, subresource = resource.partition("/")
    request = AdmissionRequest(operation, TYPES[plural], user, new, old, namespace, name, subresource)
    assert node_restriction().matches(operation, resource_of(TYPES[plural]), subresource)
    decision = await admit(request, Live())
    return decision.denial.message if decision.denial else ""


def changed(obj: Obj, **sections: Obj) -> Obj:
    made = copy.deepcopy(obj)
    for section, change in sections.items():
        made.setdefault(section, {}).update(change)
    return made


async def test_others_are_left_alone() -> None:
    assert await denial("pods", "UPDATE", POD, POD, user=UserInfo("ann")) == ""


async def test_a_nameless_node_writes_nothing() -> None:
    assert "could not determine node" in await denial(
        "pods", "DELETE", None, POD, user=UserInfo("x", groups=("system:nodes",))
    )


async def test_pod_status_of_its_own_pods_only() -> None:
    assert await denial("pods/status", "UPDATE", changed(POD, status={"phase": "Running"}), POD) == ""
    foreign = changed(POD, spec={"nodeName": "n2"})
    assert "spec.nodeName set to itself" in await denial("pods/status", "UPDATE", foreign, foreign)
    assert "labels" in await denial("pods/status", "UPDATE", changed(POD, metadata={"labels": {}}), POD)


async def test_pods_are_deleted_and_evicted_where_they_run() -> None:
    assert await denial("pods", "DELETE", None, POD, name="web") == ""
    assert "only delete pods" in await denial("pods", "DELETE", None, None, name="far")
    assert await denial("pods/eviction", "CREATE", {}, name="web") == ""
    assert "only evict pods" in await denial("pods/eviction", "CREATE", {}, name="far")
    assert '"gone" not found' in await denial("pods/eviction", "CREATE", {}, name="gone")
    assert "unexpected operation" in await denial("pods", "UPDATE", POD, POD)
    assert "unexpected pod subresource" in await denial("pods/binding", "CREATE", {})


OWNER = {"apiVersion": "v1", "kind": "Node", "name": "n1", "uid": "nu", "controller": True}
MIRROR: Obj = {
    "metadata": {"name": "m", "annotations": {"kubernetes.io/config.mirror": "h"}, "ownerReferences": [OWNER]},
    "spec": {"nodeName": "n1"},
}


@pytest.mark.parametrize(
    ("section", "change", "why"),
    [
        ("metadata", {}, ""),
        ("metadata", {"annotations": {}}, "only create mirror pods"),
        ("spec", {"nodeName": "n2"}, "nodeName set to itself"),
        ("metadata", {"ownerReferences": []}, "owner reference set to itself"),
        ("metadata", {"ownerReferences": [OWNER, OWNER]}, "single owner reference"),
        ("metadata", {"ownerReferences": [OWNER | {"controller": False}]}, "controller owner reference"),
        ("metadata", {"ownerReferences": [OWNER | {"blockOwnerDeletion": True}]}, "blockOwnerDeletion"),
        ("metadata", {"ownerReferences": [OWNER | {"uid": "old"}]}, "UID mismatch"),
        ("spec", {"serviceAccountName": "admin"}, "a service account"),
        ("spec", {"imagePullSecrets": [{"name": "s"}]}, "secrets"),
        ("spec", {"volumes": [{"persistentVolumeClaim": {"claimName": "c"}}]}, "persistentvolumeclaims"),
    ],
)
async def test_created_pods_are_harmless_mirrors(section: str, change: Obj, why: str) -> None:
    found = await denial("pods", "CREATE", changed(MIRROR, **{section: change}))

    assert why in found if why else not found


async def test_a_node_changes_itself_but_not_what_others_rely_on() -> None:
    assert await denial("nodes", "UPDATE", changed(NODE, metadata={"labels": {"mine": "x"}}), NODE, name="n1") == ""
    assert 'not allowed to modify node "n2"' in await denial("nodes/status", "UPDATE", NODE, NODE, name="n2")
    assert "taints" in await denial("nodes", "UPDATE", changed(NODE, spec={"taints": [{"key": "k"}]}), NODE, name="n1")
    role = {"labels": {"node-role.kubernetes.io/control-plane": ""}}
    assert "modify labels" in await denial("nodes", "UPDATE", changed(NODE, metadata=role), NODE, name="n1")
    assert "set the following labels" in await denial("nodes", "CREATE", changed(NODE, metadata=role))


def test_labels_that_are_not_a_nodes_to_change() -> None:
    new = {
        "app": "x", "acme.com/zone": "x", "kubernetes.io/hostname": "x", "topology.kubernetes.io/zone": "x",
        "node.kubernetes.io/thing": "x", "sub.kubelet.kubernetes.io/y": "x",
        "node-restriction.kubernetes.io/pool": "x", "a.node-restriction.kubernetes.io/b": "x", "k8s.io/z": "x",
        "kubernetes.io/same": "x",
    }  # fmt: skip

    assert forbidden_labels(new, {"kubernetes.io/same": "x", "k8s.io/removed": "x"}) == [
        "a.node-restriction.kubernetes.io/b", "k8s.io/removed", "k8s.io/z", "node-restriction.kubernetes.io/pool",
    ]  # fmt: skip


async def test_tokens_are_bound_to_a_pod_on_the_node() -> None:
    def wanted(**ref: str) -> Obj:
        return {"spec": {"boundObjectRef": {"apiVersion": "v1", "kind": "Pod", **ref}}}

    assert await denial("serviceaccounts/token", "CREATE", wanted(name="web", uid="u1"), name="bot") == ""
    assert "not bound to a pod" in await denial("serviceaccounts/token", "CREATE", {}, name="bot")
    assert "without a uid" in await denial("serviceaccounts/token", "CREATE", wanted(name="web"), name="bot")
    assert "does not match the UID" in await denial("serviceaccounts/token", "CREATE", wanted(name="web", uid="u0"))
    assert "different node" in await denial("serviceaccounts/token", "CREATE", wanted(name="far", uid="u1"))


async def test_leases_and_claims() -> None:
    lease = {"metadata": {"name": "n1"}}
    assert await denial("leases", "CREATE", lease, namespace="kube-node-lease") == ""
    assert "same name" in await denial("leases", "CREATE", {"metadata": {"name": "n2"}}, namespace="kube-node-lease")
    assert "kube-node-lease" in await denial("leases", "CREATE", lease, namespace="a")
    claim: Obj = {"metadata": {"name": "c"}, "spec": {}, "status": {}}
    assert await denial("persistentvolumeclaims/status", "UPDATE", changed(claim, status={"capacity": {}}), claim) == ""
    assert "other than" in await denial(
        "persistentvolumeclaims/status", "UPDATE", changed(claim, status={"phase": "x"}), claim
    )
    assert "only update PVC status" in await denial("persistentvolumeclaims", "UPDATE", claim, claim)
