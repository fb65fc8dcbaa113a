"""A node reaches what its own pods need, and a stolen node reaches nothing more."""

from __future__ import annotations

from typing import Any

import pytest

from fleetplane.apiserver.authorization.attributes import Attributes
from fleetplane.apiserver.authorization.defaults import default_objects
from fleetplane.apiserver.authorization.node import NodeAuthorizer, NodeIndex
from fleetplane.apiserver.authorization.rules import rules_of
from fleetplane.model.selectors import FieldRequirement
from fleetplane.model.user import UserInfo

Obj = dict[str, Any]
RULES = rules_of(next(o for o in default_objects() if o["metadata"]["name"] == "system:node"))
N1 = UserInfo("system:node:n1", groups=("system:nodes", "system:authenticated"))

SPEC: Obj = {
    "serviceAccountName": "bot",
    "imagePullSecrets": [{"name": "pull"}],
    "containers": [
        {
            "envFrom": [{"configMapRef": {"name": "env-map"}}, {"secretRef": {"name": "env-secret"}}],
            "env": [
                {"name": "A", "valueFrom": {"secretKeyRef": {"name": "key-secret"}}},
                {"name": "B", "valueFrom": {"configMapKeyRef": {"name": "key-map"}}},
            ],
        }
    ],
    "initContainers": [{"envFrom": [{"secretRef": {"name": "init-secret"}}]}],
    "volumes": [
        {"name": "a", "secret": {"secretName": "volume-secret"}},
        {"name": "b", "configMap": {"name": "volume-map"}},
        {"name": "c", "projected": {"sources": [{"secret": {"name": "projected-secret"}}, {"configMap": {"name": "projected-map"}}]}},
        {"name": "d", "persistentVolumeClaim": {"claimName": "data"}},
        {"name": "e", "ephemeral": {"volumeClaimTemplate": {}}},
        {"name": "f", "csi": {"driver": "x", "nodePublishSecretRef": {"name": "csi-secret"}}},
    ],
    "resourceClaims": [{"name": "gpu", "resourceClaimName": "gpu-1"}],
}  # fmt: skip
NEEDED = [
    *(
        ("", "secrets", f"{one}")
        for one in (
            "pull",
            "env-secret",
            "key-secret",
            "init-secret",
            "volume-secret",
            "projected-secret",
            "csi-secret",
        )
    ),
    *(("", "configmaps", one) for one in ("env-map", "key-map", "volume-map", "projected-map")),
    ("", "persistentvolumeclaims", "data"),
    ("", "persistentvolumeclaims", "web-e"),
    ("resource.k8s.io", "resourceclaims", "gpu-1"),
]


def pod(name: str, node: str = "n1", spec: Obj | None = None, **metadata: Any) -> Obj:
    made = {"nodeName": node, **(SPEC if spec is None else spec)}
    return {"kind": "Pod", "metadata": {"namespace": "a", "name": name, **metadata}, "spec": made}


@pytest.fixture
def index() -> NodeIndex:
    made = NodeIndex()
    made.apply_event("root", pod("web"), deleted=False)
    return made


def may(index: NodeIndex, verb: str, resource: str, name: str = "", *, user: UserInfo = N1, **more: Any) -> bool:
    plural, _, subresource = resource.partition("/")
    more.setdefault("namespace", "a")
    ask = Attributes(user, verb, resource=plural, subresource=subresource, name=name, **more)
    return NodeAuthorizer(index, RULES).authorize(ask).allowed


@pytest.mark.parametrize(("group", "resource", "name"), NEEDED)
def test_a_node_reads_what_its_pods_name(index: NodeIndex, group: str, resource: str, name: str) -> None:
    n2 = UserInfo("system:node:n2", groups=("system:nodes",))

    assert may(index, "get", resource, name, group=group)
    assert not may(index, "get", resource, name, group=group, user=n2)
    assert not may(index, "get", resource, name, group=group, namespace="b")
    assert not may(index, "get", resource, name, group=group, cluster="c1")
    assert not may(index, "delete", resource, name, group=group)


def test_what_no_pod_names_stays_closed(index: NodeIndex) -> None:
    assert not may(index, "get", "secrets", "other")
    assert not may(index, "list", "secrets")
    assert not may(index, "list", "secrets", namespace="")
    assert may(index, "watch", "secrets", "pull")


def test_a_pod_that_leaves_takes_its_rights_along(index: NodeIndex) -> None:
    index.apply_event("root", pod("web"), deleted=True)

    assert not may(index, "get", "secrets", "pull")


def test_two_pods_may_need_the_same_secret(index: NodeIndex) -> None:
    index.apply_event("root", pod("web2"), deleted=False)
    index.apply_event("root", pod("web"), deleted=True)

    assert may(index, "get", "secrets", "pull")


def test_a_mirror_pod_gives_its_node_nothing(index: NodeIndex) -> None:
    spec = {"imagePullSecrets": [{"name": "stolen"}]}
    index.apply_event("root", pod("m", spec=spec, annotations={"kubernetes.io/config.mirror": "x"}), deleted=False)

    assert not may(index, "get", "secrets", "stolen")
    assert may(index, "get", "pods", "m")


def test_volumes_and_their_secrets_come_with_the_claim(index: NodeIndex) -> None:
    volume = {
        "kind": "PersistentVolume", "metadata": {"name": "pv1"},
        "spec": {"claimRef": {"namespace": "a", "name": "data"}, "csi": {"nodeStageSecretRef": {"namespace": "sys", "name": "disk"}}},
    }  # fmt: skip
    index.apply_event("root", volume, deleted=False)
    assert may(index, "get", "persistentvolumes", "pv1", namespace="")
    assert may(index, "get", "secrets", "disk", namespace="sys")
    assert not may(index, "get", "secrets", "disk")

    index.apply_event("root", volume, deleted=True)

    assert not may(index, "get", "persistentvolumes", "pv1", namespace="")
    assert not may(index, "get", "secrets", "disk", namespace="sys")


def test_attachments_belong_to_one_node(index: NodeIndex) -> None:
    index.apply_event(
        "root", {"kind": "VolumeAttachment", "metadata": {"name": "va"}, "spec": {"nodeName": "n1"}}, deleted=False
    )
    storage: dict[str, Any] = {"group": "storage.k8s.io", "namespace": ""}

    assert may(index, "get", "volumeattachments", "va", **storage)
    assert not may(
        index, "get", "volumeattachments", "va", user=UserInfo("system:node:n2", groups=("system:nodes",)), **storage
    )


def test_tokens_are_for_accounts_of_its_pods(index: NodeIndex) -> None:
    assert may(index, "create", "serviceaccounts/token", "bot")
    assert not may(index, "create", "serviceaccounts/token", "admin")
    assert not may(index, "create", "serviceaccounts", "bot")


def test_a_node_keeps_its_own_node_lease_and_csinode(index: NodeIndex) -> None:
    lease: dict[str, Any] = {"group": "coordination.k8s.io", "namespace": "kube-node-lease"}
    assert may(index, "update", "leases", "n1", **lease)
    assert not may(index, "update", "leases", "n2", **lease)
    assert not may(index, "update", "leases", "n1", group="coordination.k8s.io", namespace="a")
    assert may(index, "patch", "nodes/status", "n1", namespace="")
    assert not may(index, "patch", "nodes/status", "n2", namespace="")
    assert not may(index, "delete", "nodes", "n1", namespace="")
    assert may(index, "update", "csinodes", "n1", group="storage.k8s.io", namespace="")
    assert not may(index, "get", "csinodes", "n2", group="storage.k8s.io", namespace="")


def test_lists_must_be_narrowed_to_the_node(index: NodeIndex) -> None:
    mine = (FieldRequirement("spec.nodeName", "n1"),)

    assert may(index, "watch", "pods", namespace="", field_selector=mine)
    assert not may(index, "watch", "pods", namespace="")
    assert not may(index, "list", "pods", namespace="", field_selector=(FieldRequirement("spec.nodeName", "n1", True),))
    assert may(index, "list", "nodes", namespace="", field_selector=(FieldRequirement("metadata.name", "n1"),))
    assert not may(index, "list", "nodes", namespace="")
    assert may(index, "get", "pods", "web")
    assert not may(index, "get", "pods", "elsewhere")


def test_the_rest_of_the_node_role_holds(index: NodeIndex) -> None:
    assert may(index, "list", "services", namespace="")
    assert may(index, "create", "events")
    assert not may(index, "create", "deployments", group="apps")


def test_others_are_no_nodes(index: NodeIndex) -> None:
    for user in (
        UserInfo("system:node:n1"),
        UserInfo("n1", groups=("system:nodes",)),
        UserInfo("system:node:", groups=("system:nodes",)),
    ):
        assert not may(index, "get", "secrets", "pull", user=user)


def test_malformed_pods_do_no_harm(index: NodeIndex) -> None:
    spec: Obj = {"containers": "x", "volumes": [None, {"secret": 3}], "imagePullSecrets": [{"name": {}}]}

    index.apply_event("root", pod("bad", spec=spec), deleted=False)

    assert may(index, "get", "pods", "bad")
