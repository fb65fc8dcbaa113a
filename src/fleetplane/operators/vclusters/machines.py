"""The objects a cluster of pods is made of: a StatefulSet for each node, Services, an access pod. Pure.

Names, labels and the shape of the pods are the original's; what it got wrong is right here: labels of others stay, since
all is applied, not replaced; ports have their nodePort; the access pod has keys and no password.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import orjson

from fleetplane.model.objects import Object
from fleetplane.operators.vclusters.kinds import RESTARTED_AT, NodePod, Vk8s

GPU_TYPE: Final = "scale/node.gpu.type"
STATIC_ADDRESS: Final = "cni.projectcalico.org/ipAddrs"
STORAGE_CLASS: Final = "local-path"
LOCAL: Final = "localhost/"
"""Images of the host's own storage (Podman's name for it): there is no registry to pull them from."""
BACKUP: Final = "vk8s-backup"
BACKUP_SIZE: Final = "10Gi"
ACCESS_KEYS: Final = "{cluster}-access-keys"
"""Secret with ``authorized_keys`` for the access pod; without it nobody gets in."""
_OUR_LABELS: Final = frozenset({"app", "clusterName", "role", "vnode", "sidecar.istio.io/inject"})


def pod_name(node: str) -> str:
    return f"{node}-0"


def access_pod_name(cluster: str) -> str:
    return f"{cluster}-access-pod"


def claim_name(node: str) -> str:
    return f"{BACKUP}-{node}-0"


def children(
    vcluster: Vk8s, addresses: Mapping[str, list[str]], images: Mapping[str, str], *, awake: bool
) -> list[Object]:
    """Everything but the access pod's Secret, which is made when there is a kubeconfig.

    With a pool, nodes without an entry in ``addresses`` still wait for one and are left out.
    """
    nodes = [node for node in vcluster.spec.nodes if node.name in addresses or not vcluster.spec.ip_pool]
    made = [
        stateful_set(vcluster, node, addresses.get(node.name, []), images.get(node.name, node.image), awake)
        for node in nodes
    ]
    if vcluster.spec.ports:
        made.append(_service(vcluster))
    if has_access_pod(vcluster):
        made += [_access_pod(vcluster), _access_service(vcluster)]
    return made


def addresses_of(node_set: Mapping[str, Any]) -> list[str]:
    """The addresses a node was made with; none if the runtime chose."""
    template = ((node_set.get("spec") or {}).get("template") or {}).get("metadata") or {}
    text = (template.get("annotations") or {}).get(STATIC_ADDRESS)
    return [str(one) for one in orjson.loads(text)] if text else []


def has_access_pod(vcluster: Vk8s) -> bool:
    return bool(vcluster.spec.access_pod_image and vcluster.spec.access_pod_port)


def stateful_set(vcluster: Vk8s, node: NodePod, addresses: list[str], image: str, running: bool) -> Object:
    own = {
        "app": "vk8s",
        "clusterName": vcluster.name,
        "role": node.role,
        "sidecar.istio.io/inject": "false",
        "vnode": node.name,
    }
    users = {key: value for key, value in vcluster.labels.items() if key not in _OUR_LABELS}
    noted: dict[str, str] = {}
    if addresses:
        noted[STATIC_ADDRESS] = "[" + ", ".join(f'"{one}"' for one in addresses) + "]"
    if restarted := vcluster.annotations.get(RESTARTED_AT):
        noted[RESTARTED_AT] = restarted
    return {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": {"name": node.name, "labels": users | own},
        "spec": {
            "replicas": 1 if running else 0,
            "serviceName": "",
            "selector": {"matchLabels": {"vnode": node.name}},
            "updateStrategy": {"type": "OnDelete"},
            "template": {
                "metadata": {"labels": own, **({"annotations": noted} if noted else {})},
                "spec": _pod_spec(vcluster, node, image),
            },
            "volumeClaimTemplates": [
                {
                    "metadata": {"name": BACKUP},
                    "spec": {
                        "accessModes": ["ReadWriteOnce"],
                        "resources": {"requests": {"storage": BACKUP_SIZE}},
                        "storageClassName": STORAGE_CLASS,
                    },
                }
            ],
        },
    }


def _pod_spec(vcluster: Vk8s, node: NodePod, image: str) -> Object:
    gpu = vcluster.annotations.get(node.name, "")
    env = [{"name": "KUBE_NODE_TYPE", "value": "INNER"}]
    if gpu:
        env.append({"name": "NVIDIA_VISIBLE_DEVICES", "value": "all"})
    container: Object = {
        "name": pod_name(node.name),
        "image": image,
        "imagePullPolicy": "IfNotPresent" if image.startswith(LOCAL) else "Always",
        "securityContext": {"privileged": True},
        "env": env,
        "lifecycle": {
            "postStart": {"exec": {"command": ["/bin/sh", "-c", "./post-start.sh"]}},
            "preStop": {"exec": {"command": ["/bin/sh", "-c", "[ ! -x ./pre-stop.sh ] || ./pre-stop.sh"]}},
        },
        "volumeMounts": [
            {"name": "lib-modules", "mountPath": "/lib/modules", "readOnly": True},
            {"name": "usr-src", "mountPath": "/usr/src", "readOnly": True},
            {"name": BACKUP, "mountPath": f"/{BACKUP}"},
        ],
    }
    if node.resources:
        container["resources"] = dict(node.resources)
    ports = [
        {"name": f"service-{index}", "containerPort": target_port(port), "protocol": port.get("protocol") or "TCP"}
        for index, port in enumerate(vcluster.spec.ports)
    ]
    if ports:
        container["ports"] = ports
    spec: Object = {
        "containers": [container],
        "volumes": [
            {"name": "lib-modules", "hostPath": {"path": "/lib/modules"}},
            {"name": "usr-src", "hostPath": {"path": "/usr/src"}},
        ],
        "automountServiceAccountToken": False,
    }
    if node.tolerations:
        spec["tolerations"] = [dict(one) for one in node.tolerations]
    if gpu:
        spec["nodeSelector"] = {GPU_TYPE: gpu}
    return spec


def target_port(port: Mapping[str, Any]) -> int:
    """The port of the node that a published port leads to."""
    target = port.get("targetPort")
    return int(target) if target else int(port["port"])


def _service(vcluster: Vk8s) -> Object:
    keys = ("name", "port", "targetPort", "protocol", "nodePort", "appProtocol")
    ports = [{key: port[key] for key in keys if port.get(key)} for port in vcluster.spec.ports]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": vcluster.name, "labels": {"app": "vk8s", "clusterName": vcluster.name}},
        "spec": {"type": "NodePort", "selector": {"clusterName": vcluster.name}, "ports": ports},
    }


def _access_pod(vcluster: Vk8s) -> Object:
    name = access_pod_name(vcluster.name)
    keys = ACCESS_KEYS.format(cluster=vcluster.name)
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"kubectl": vcluster.name}},
        "spec": {
            "automountServiceAccountToken": False,
            "containers": [
                {
                    "name": name,
                    "image": vcluster.spec.access_pod_image,
                    "ports": [{"containerPort": 22, "protocol": "TCP"}],
                    "env": [{"name": "KUBECONFIG", "value": "/etc/vk8s/kubeconfig/value"}],
                    "volumeMounts": [
                        {"name": "kubeconfig", "mountPath": "/etc/vk8s/kubeconfig", "readOnly": True},
                        {"name": "keys", "mountPath": "/etc/vk8s/keys", "readOnly": True},
                    ],
                }
            ],
            "volumes": [
                {"name": "kubeconfig", "secret": {"secretName": f"{vcluster.name}-kubeconfig", "optional": True}},
                {"name": "keys", "secret": {"secretName": keys, "optional": True, "defaultMode": 0o600}},
            ],
        },
    }


def _access_service(vcluster: Vk8s) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": f"{vcluster.name}-access-svc", "labels": {"kubectl": vcluster.name}},
        "spec": {
            "type": "NodePort",
            "selector": {"kubectl": vcluster.name},
            "ports": [
                {
                    "name": "ssh",
                    "port": 22,
                    "targetPort": 22,
                    "protocol": "TCP",
                    "nodePort": vcluster.spec.access_pod_port,
                }
            ],
        },
    }
