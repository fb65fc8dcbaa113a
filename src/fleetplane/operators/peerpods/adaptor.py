"""The adaptor: the DaemonSet that turns sandboxes into VMs, what it needs to know, and its runtime class. Pure.

Capacity never waits for any of it. What is missing or contradictory is named, so that it can be said in a condition.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from fleetplane.model.objects import Object, metadata
from fleetplane.operators.peerpods.kinds import DEFAULT_CONFIG_MAP, DEFAULT_SECRET, GROUP, RUNTIME_CLASS
from fleetplane.operators.peerpods.plan import selector_of

DAEMON_SET: Final = "peerpodconfig-ctrl-caa-daemon"
IMAGE: Final = "quay.io/confidential-containers/cloud-api-adaptor"
CLOUD_PROVIDER: Final = "CLOUD_PROVIDER"
SETTINGS_HASH: Final = f"{GROUP}/settings"
"""On the adaptor's pods: a digest of what they were started with, so that a change of it replaces them."""
MANAGED_BY: Final = "app.kubernetes.io/managed-by"

PROVIDERS: Final = frozenset(
    {"aws", "azure", "gcp", "ibmcloud", "ibmcloud-powervs", "libvirt", "alibabacloud", "byom", "docker", "vsphere"}
)
"""What the adaptor has known over its generations."""
WITHOUT_ADAPTOR: Final = frozenset({"qemu"})
"""Providers whose VMs nodes of ours make themselves: nothing has to be deployed for them."""
REQUIRED: Final[Mapping[str, Sequence[str]]] = {
    "aws": ("PODVM_AMI_ID",),
    "azure": ("AZURE_IMAGE_ID",),
    "gcp": ("PODVM_IMAGE_NAME", "GCP_NETWORK"),
    "alibabacloud": ("VSWITCH_ID",),
    "byom": ("VM_POOL_IPS",),
}
"""Settings without which a provider cannot make a VM."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What ConfigMap and Secret say together. ``problems`` are sentences; ``reason`` is CamelCase, empty when all is well."""

    values: Mapping[str, str]
    reason: str = ""
    problems: tuple[str, ...] = ()

    @property
    def provider(self) -> str:
        return self.values.get(CLOUD_PROVIDER, "")

    @property
    def digest(self) -> str:
        joined = "\0".join(f"{key}={value}" for key, value in sorted(self.values.items()))
        return hashlib.sha256(joined.encode()).hexdigest()[:16]


def names_of(config: Mapping[str, Any]) -> tuple[str, str]:
    """The names of ConfigMap and Secret, in the config's own namespace."""
    spec = config.get("spec") or {}
    return str(spec.get("configMapName") or DEFAULT_CONFIG_MAP), str(spec.get("cloudSecretName") or DEFAULT_SECRET)


def settings_of(
    config: Mapping[str, Any],
    config_map: Mapping[str, Any] | None,
    secret: Mapping[str, Any] | None,
    also_known: Sequence[str] = (),
) -> Settings:
    """Read what the adaptor would read: the Secret first, then the ConfigMap, whose values win."""
    map_name, secret_name = names_of(config)
    missing = []
    if config_map is None:
        missing.append(f"the ConfigMap {map_name} is missing")
    if secret is None:
        missing.append(f"the Secret {secret_name} is missing")
    plain = {str(key): str(value) for key, value in ((config_map or {}).get("data") or {}).items()}
    hidden = _decoded((secret or {}).get("data") or {})
    values = {**hidden, **plain}
    if missing:
        return Settings(values, "Missing", tuple(missing))
    chosen = {one for one in (plain.get(CLOUD_PROVIDER), hidden.get(CLOUD_PROVIDER)) if one}
    if not chosen:
        return Settings(values, "NoProvider", (f"neither {map_name} nor {secret_name} says {CLOUD_PROVIDER}",))
    if len(chosen) > 1:
        shown = " and ".join(sorted(one[:40] for one in chosen))
        return Settings(values, "Contradiction", (f"{map_name} and {secret_name} name different providers: {shown}",))
    provider = chosen.pop()
    if provider not in PROVIDERS and provider not in also_known:
        known = ", ".join(sorted({*PROVIDERS, *also_known}))
        return Settings(values, "UnknownProvider", (f"{CLOUD_PROVIDER} {provider[:40]!r} is none of {known}",))
    lacking = [key for key in REQUIRED.get(provider, ()) if not values.get(key)]
    if lacking:
        return Settings(values, "Incomplete", (f"{provider} also needs {', '.join(lacking)}",))
    return Settings(values)


def _decoded(data: Mapping[str, Any]) -> dict[str, str]:
    found = {}
    for key, value in data.items():
        try:
            found[str(key)] = base64.b64decode(str(value)).decode()
        except (binascii.Error, UnicodeDecodeError):
            continue  # a file, not a setting
    return found


def daemon_set(config: Mapping[str, Any], name: str, image: str, digest: str, not_on: Sequence[str] = ()) -> Object:
    """The adaptor on the config's nodes, save those that another config has."""
    map_name, secret_name = names_of(config)
    pod_labels = {"name": name, "app": "cloud-api-adaptor"}
    pod: Object = {
        "hostNetwork": True,
        "dnsPolicy": "ClusterFirstWithHostNet",
        "nodeSelector": dict(selector_of(config)),
        "containers": [_container(image, map_name, secret_name)],
        "volumes": [
            _optional_secret("auth-json-volume", "auth-json-secret"),
            _optional_secret("ssh", "ssh-key-secret"),
            {"name": "pods-dir", "hostPath": {"path": "/run/peerpod", "type": "DirectoryOrCreate"}},
            {"name": "netns", "hostPath": {"path": "/run/netns", "type": "DirectoryOrCreate"}},
        ],
    }
    if not_on:
        fields = [{"key": "metadata.name", "operator": "NotIn", "values": [one]} for one in sorted(not_on)]
        required = {"nodeSelectorTerms": [{"matchFields": fields}]}
        pod["affinity"] = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": required}}
    return {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {"name": name, "namespace": metadata(config)["namespace"], "labels": pod_labels},
        "spec": {
            "selector": {"matchLabels": {"name": name}},
            "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1}},
            "template": {
                "metadata": {"labels": pod_labels, "annotations": {SETTINGS_HASH: digest}},
                "spec": pod,
            },
        },
    }


def _container(image: str, map_name: str, secret_name: str) -> Object:
    def from_field(name: str, path: str) -> Object:
        return {"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}}

    return {
        "name": "caa-pod",
        "image": image,
        "imagePullPolicy": "Always",
        "command": ["/usr/local/bin/entrypoint.sh"],
        "securityContext": {"privileged": True, "runAsUser": 0},
        # A node's capacity is this operator's business: an adaptor that advertises its own would fight it.
        "env": [
            from_field("POD_UID", "metadata.uid"),
            from_field("NODE_NAME", "spec.nodeName"),
            {"name": "PEERPODS_LIMIT_PER_NODE", "value": "-1"},
        ],
        "envFrom": [{"secretRef": {"name": secret_name}}, {"configMapRef": {"name": map_name}}],
        "volumeMounts": [
            {"name": "auth-json-volume", "mountPath": "/root/containers/", "readOnly": True},
            {"name": "ssh", "mountPath": "/root/.ssh", "readOnly": True},
            {"name": "pods-dir", "mountPath": "/run/peerpod"},
            {"name": "netns", "mountPath": "/run/netns", "mountPropagation": "HostToContainer"},
        ],
    }


def _optional_secret(volume: str, name: str) -> Object:
    return {"name": volume, "secret": {"secretName": name, "defaultMode": 0o600, "optional": True}}


def runtime_class() -> Object:
    """What pods name to become peer pods."""
    return {
        "apiVersion": "node.k8s.io/v1",
        "kind": "RuntimeClass",
        "metadata": {"name": RUNTIME_CLASS, "labels": {MANAGED_BY: GROUP}},
        "handler": RUNTIME_CLASS,
    }


def is_ours(obj: Mapping[str, Any]) -> bool:
    """Whether this operator made the runtime class; one of somebody else is left alone."""
    return (metadata(obj).get("labels") or {}).get(MANAGED_BY) == GROUP
