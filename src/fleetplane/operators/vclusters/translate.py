"""From a guest's pod to the pod that runs for it on the host. Pure.

What may go down is a list, and what is not on it stays up: a guest is not trusted. Refused is whatever reaches around its
pod (host namespaces, host paths and ports, privileges: the baseline of the Pod Security Standards); left out is what means
something else on the host (service account, priority, tolerations of the host's taints, annotations). Names of
ConfigMaps, Secrets and claims become those of the host, label selectors select the guest's pods only, and the downward
API tells the guest's facts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from fleetplane.client.protocol import CLUSTER_ANNOTATION
from fleetplane.model.objects import Object, metadata
from fleetplane.model.pod_security import BASELINE_CAPABILITIES, SAFE_SYSCTLS
from fleetplane.operators.vclusters import names
from fleetplane.operators.vclusters.kinds import GROUP, OWNER_UID

HOST_POD: Final = "fleetplane.io/host-pod"
GUEST_POD: Final = "fleetplane.io/guest-pod"
VIRTUAL_NODE: Final = "fleetplane.io/virtual-node"
FACTS: Final = f"facts.{GROUP}/"
"""Prefix of the annotations from which the downward API reads a guest's facts in volumes."""

_VOLUMES: Final = frozenset(
    {"configMap", "secret", "projected", "emptyDir", "downwardAPI", "persistentVolumeClaim", "ephemeral"}
)
_COPIED: Final = (
    "restartPolicy",
    "terminationGracePeriodSeconds",
    "activeDeadlineSeconds",
    "dnsConfig",
    "dnsPolicy",
    "securityContext",
    "shareProcessNamespace",
    "nodeSelector",
    "runtimeClassName",
    "readinessGates",
    "os",
    "overhead",
    "setHostnameAsFQDN",
)
_CONTAINERS: Final = ("initContainers", "containers")
_KEPT_ANNOTATIONS: Final = ("kubectl.kubernetes.io/default-container",)
_NODE_TAINTS: Final = "node.kubernetes.io/"


class NotAllowed(Exception):
    """The pod may not run on the host; the message says why, in one sentence."""


@dataclass(frozen=True, slots=True)
class Guest:
    """The virtual cluster a pod belongs to, as far as its pods need to know.

    ``services`` are (namespace, name, address, ports) of its Services on the host.
    """

    cluster: str
    cluster_uid: str
    name: str
    namespace: str
    owner_uid: str
    owner: Object = field(default_factory=dict)
    services: Sequence[tuple[str, str, str, Sequence[Mapping[str, Any]]]] = ()

    def host_name(self, name: str, namespace: str) -> str:
        return names.host_name(name, namespace, self.name)


@dataclass(frozen=True, slots=True)
class Token:
    """A ServiceAccount token that a pod wants in a file."""

    key: str
    audience: str
    seconds: int


@dataclass(slots=True)
class Translation:
    """The host's pod, and what it needs beside it: guest's ConfigMaps and Secrets by name, tokens of its account."""

    pod: Object
    config_maps: set[str] = field(default_factory=set)
    secrets: set[str] = field(default_factory=set)
    claims: set[str] = field(default_factory=set)
    tokens: list[Token] = field(default_factory=list)


def marks(guest: Guest, obj: Mapping[str, Any]) -> Object:
    """Metadata that every copy on the host has."""
    meta = metadata(obj)
    return {
        "name": guest.host_name(meta["name"], meta["namespace"]),
        "namespace": guest.namespace,
        "labels": names.host_labels(meta.get("labels") or {}, meta["namespace"], guest.owner_uid),
        "annotations": {
            names.GUEST: f"{guest.cluster}/{meta['namespace']}/{meta['name']}",
            names.GUEST_UID: meta["uid"],
        },
        **({"ownerReferences": [guest.owner]} if guest.owner else {}),
    }


def token_secret(guest: Guest, pod: Mapping[str, Any]) -> str:
    """Name of the Secret on the host that holds a pod's tokens."""
    meta = metadata(pod)
    return guest.host_name(f"{meta['name']}.tokens", meta["namespace"])


def translate(pod: Mapping[str, Any], guest: Guest) -> Translation:
    """The host's pod for a guest's. Raises NotAllowed."""
    spec, meta = pod.get("spec") or {}, metadata(pod)
    problem = next(violations(spec), None)
    if problem is not None:
        raise NotAllowed(problem)
    result = Translation({})
    names_of = _Names(guest, pod, result)
    made = {key: spec[key] for key in _COPIED if key in spec}
    for key in _CONTAINERS:
        if spec.get(key):
            made[key] = [names_of.container(one) for one in spec[key]]
    made["volumes"] = [names_of.volume(one) for one in spec.get("volumes") or ()]
    if spec.get("imagePullSecrets"):
        made["imagePullSecrets"] = [{"name": names_of.secret(one.get("name", ""))} for one in spec["imagePullSecrets"]]
    made |= {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "hostname": (spec.get("hostname") or meta["name"])[:63].rstrip("-.").replace(".", "-"),
        "hostAliases": [*(spec.get("hostAliases") or ()), *_aliases(guest, meta["namespace"])],
        "tolerations": [one for one in spec.get("tolerations") or () if str(one.get("key")).startswith(_NODE_TAINTS)],
    }
    if spec.get("affinity"):
        made["affinity"] = _affinity(spec["affinity"], meta["namespace"], guest.owner_uid)
    if spec.get("topologySpreadConstraints"):
        made["topologySpreadConstraints"] = [
            {
                **one,
                "labelSelector": names.host_selector(
                    one.get("labelSelector") or {}, meta["namespace"], guest.owner_uid
                ),
            }
            for one in spec["topologySpreadConstraints"]
        ]
    marked = marks(guest, pod)
    known = meta.get("annotations") or {}
    marked["annotations"] |= {key: known[key] for key in _KEPT_ANNOTATIONS if key in known}
    marked["annotations"] |= names_of.facts
    marked["annotations"][GUEST_POD] = f"{guest.cluster_uid}/{meta['uid']}"
    result.pod = {"apiVersion": "v1", "kind": "Pod", "metadata": marked, "spec": made}
    return result


def violations(spec: Mapping[str, Any]) -> Iterator[str]:
    """Why a pod may not run on the host: the baseline profile, and what no host of guests can give."""
    for key in ("hostNetwork", "hostPID", "hostIPC"):
        if spec.get(key):
            yield f"spec.{key} is not allowed on the host's nodes"
    for one in spec.get("volumes") or ():
        kinds = set(one) - {"name"}
        if not kinds <= _VOLUMES:
            yield f"volume {one.get('name')} is of a kind that is not allowed: {', '.join(sorted(kinds - _VOLUMES))}"
    context = spec.get("securityContext") or {}
    for sysctl in context.get("sysctls") or ():
        if sysctl.get("name") not in SAFE_SYSCTLS:
            yield f"sysctl {sysctl.get('name')} is not allowed"
    yield from _context_violations("the pod", context)
    for key in _CONTAINERS:
        for container in spec.get(key) or ():
            yield from _container_violations(container)


def _container_violations(container: Mapping[str, Any]) -> Iterator[str]:
    name = f"container {container.get('name')}"
    context = container.get("securityContext") or {}
    if context.get("privileged"):
        yield f"{name} must not be privileged"
    added = set((context.get("capabilities") or {}).get("add") or ()) - BASELINE_CAPABILITIES
    if added:
        yield f"{name} must not add capabilities: {', '.join(sorted(added))}"
    if context.get("procMount") not in {None, "", "Default"}:
        yield f"{name} must not set procMount"
    if container.get("volumeDevices"):
        yield f"{name} must not use volumeDevices"
    if any(port.get("hostPort") for port in container.get("ports") or ()):
        yield f"{name} must not take ports of the host"
    yield from _context_violations(name, context)


def _context_violations(name: str, context: Mapping[str, Any]) -> Iterator[str]:
    for key in ("seccompProfile", "appArmorProfile"):
        if (context.get(key) or {}).get("type") == "Unconfined":
            yield f"{name} must not set {key} to Unconfined"
    if (context.get("windowsOptions") or {}).get("hostProcess"):
        yield f"{name} must not be a host process"
    if (context.get("seLinuxOptions") or {}).get("type") not in {None, "", "container_t", "container_init_t"}:
        yield f"{name} must not choose an SELinux type"


class _Names:
    """Rewrites what a pod names, and notes what it needs."""

    def __init__(self, guest: Guest, pod: Mapping[str, Any], result: Translation) -> None:
        self._guest = guest
        self._pod = pod
        self._namespace = metadata(pod)["namespace"]
        self._result = result
        self.facts: dict[str, str] = {}

    def config_map(self, name: str) -> str:
        self._result.config_maps.add(name)
        return self._guest.host_name(name, self._namespace)

    def secret(self, name: str) -> str:
        self._result.secrets.add(name)
        return self._guest.host_name(name, self._namespace)

    def container(self, container: Mapping[str, Any]) -> Object:
        made = dict(container)
        own = [self._variable(one) for one in container.get("env") or ()]
        links = _links(self._guest, self._namespace) if (self._pod["spec"]).get("enableServiceLinks", True) else []
        given = {one["name"] for one in own}
        made["env"] = [*(one for one in links if one["name"] not in given), *own]
        if container.get("envFrom"):
            made["envFrom"] = [self._source(one) for one in container["envFrom"]]
        return made

    def _source(self, source: Mapping[str, Any]) -> Object:
        made = dict(source)
        if ref := source.get("configMapRef"):
            made["configMapRef"] = {**ref, "name": self.config_map(ref["name"])}
        if ref := source.get("secretRef"):
            made["secretRef"] = {**ref, "name": self.secret(ref["name"])}
        return made

    def _variable(self, variable: Mapping[str, Any]) -> Object:
        source = variable.get("valueFrom") or {}
        if ref := source.get("configMapKeyRef"):
            return {**variable, "valueFrom": {"configMapKeyRef": {**ref, "name": self.config_map(ref["name"])}}}
        if ref := source.get("secretKeyRef"):
            return {**variable, "valueFrom": {"secretKeyRef": {**ref, "name": self.secret(ref["name"])}}}
        if ref := source.get("fieldRef"):
            value = fact(self._pod, str(ref.get("fieldPath")))
            if value is not None:
                return {"name": variable["name"], "value": value.replace("$", "$$")}
        return dict(variable)

    def volume(self, volume: Mapping[str, Any]) -> Object:
        made = dict(volume)
        if found := volume.get("configMap"):
            made["configMap"] = {**found, "name": self.config_map(found["name"])}
        if found := volume.get("secret"):
            made["secret"] = {**found, "secretName": self.secret(found["secretName"])}
        if found := volume.get("persistentVolumeClaim"):
            self._result.claims.add(found["claimName"])
            made["persistentVolumeClaim"] = {
                **found,
                "claimName": self._guest.host_name(found["claimName"], self._namespace),
            }
        if volume.get("ephemeral"):
            claim = f"{metadata(self._pod)['name']}-{volume['name']}"
            self._result.claims.add(claim)
            made.pop("ephemeral")
            made["persistentVolumeClaim"] = {"claimName": self._guest.host_name(claim, self._namespace)}
        if found := volume.get("downwardAPI"):
            made["downwardAPI"] = {**found, "items": [self._item(one) for one in found.get("items") or ()]}
        if found := volume.get("projected"):
            made["projected"] = {**found, "sources": [self._projection(one) for one in found.get("sources") or ()]}
        return made

    def _projection(self, source: Mapping[str, Any]) -> Object:
        made = dict(source)
        if found := source.get("configMap"):
            made["configMap"] = {**found, "name": self.config_map(found["name"])}
        if found := source.get("secret"):
            made["secret"] = {**found, "name": self.secret(found["name"])}
        if found := source.get("downwardAPI"):
            made["downwardAPI"] = {**found, "items": [self._item(one) for one in found.get("items") or ()]}
        if found := source.get("serviceAccountToken"):
            key = f"token-{len(self._result.tokens)}"
            self._result.tokens.append(
                Token(key, str(found.get("audience") or ""), int(found.get("expirationSeconds") or 3600))
            )
            items = [{"key": key, "path": found["path"]}]
            return {"secret": {"name": token_secret(self._guest, self._pod), "items": items}}
        return made

    def _item(self, item: Mapping[str, Any]) -> Object:
        path = str((item.get("fieldRef") or {}).get("fieldPath") or "")
        value = fact(self._pod, path)
        if value is None:
            return dict(item)
        key = f"{FACTS}{names.label_key(path).rpartition('/')[2]}"
        self.facts[key] = value
        return {**item, "fieldRef": {"apiVersion": "v1", "fieldPath": f"metadata.annotations['{key}']"}}


def fact(pod: Mapping[str, Any], path: str) -> str | None:
    """What the downward API tells a guest's container; None where the host's pod knows as well (addresses, nodes)."""
    meta, spec = metadata(pod), pod.get("spec") or {}
    if path in {"metadata.name", "metadata.namespace", "metadata.uid"}:
        return str(meta.get(path.partition(".")[2]) or "")
    if path == "spec.serviceAccountName":
        return str(spec.get("serviceAccountName") or "default")
    for name in ("labels", "annotations"):
        values = {key: value for key, value in (meta.get(name) or {}).items() if key != CLUSTER_ANNOTATION}
        if path == f"metadata.{name}":
            shown = [f'{key}="{_escaped(value)}"' for key, value in sorted(values.items())]
            return "\n".join(shown)
        if path.startswith(f"metadata.{name}['") and path.endswith("']"):
            return str(values.get(path[len(f"metadata.{name}['") : -2], ""))
    return None


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _aliases(guest: Guest, namespace: str) -> list[Object]:
    """Names of the guest's Services, for /etc/hosts: the host's DNS knows nothing of them."""
    result = []
    for home, name, address, _ in guest.services:
        if not address or address == "None":
            continue
        long = [f"{name}.{home}", f"{name}.{home}.svc", f"{name}.{home}.svc.cluster.local"]
        result.append({"ip": address, "hostnames": [name, *long] if home == namespace else long})
    return result


def _links(guest: Guest, namespace: str) -> list[Object]:
    """The variables Kubernetes gives a container for each Service of its namespace."""
    result = []
    for home, name, address, ports in guest.services:
        if home == namespace and address and address != "None" and ports:
            prefix = name.upper().replace("-", "_")
            result += [
                {"name": f"{prefix}_SERVICE_HOST", "value": address},
                {"name": f"{prefix}_SERVICE_PORT", "value": str(ports[0].get("port"))},
            ]
    return result


def _affinity(affinity: Mapping[str, Any], namespace: str, owner_uid: str) -> Object:
    """Node affinity as it is; of pods, only those of the guest's namespace count."""

    def term(one: Mapping[str, Any]) -> Object:
        made = {key: one[key] for key in ("topologyKey",) if key in one}
        return made | {"labelSelector": names.host_selector(one.get("labelSelector") or {}, namespace, owner_uid)}

    def pods(found: Mapping[str, Any]) -> Object:
        made: Object = {}
        if required := found.get("requiredDuringSchedulingIgnoredDuringExecution"):
            made["requiredDuringSchedulingIgnoredDuringExecution"] = [term(one) for one in required]
        if preferred := found.get("preferredDuringSchedulingIgnoredDuringExecution"):
            made["preferredDuringSchedulingIgnoredDuringExecution"] = [
                {"weight": one.get("weight", 1), "podAffinityTerm": term(one.get("podAffinityTerm") or {})}
                for one in preferred
            ]
        return made

    result: Object = {}
    rewrite: dict[str, Callable[[Mapping[str, Any]], Object]] = {
        "nodeAffinity": dict,
        "podAffinity": pods,
        "podAntiAffinity": pods,
    }
    for key, change in rewrite.items():
        if affinity.get(key):
            result[key] = change(affinity[key])
    return result


def status_up(host: Mapping[str, Any], guest_pod: Mapping[str, Any]) -> Object:
    """The guest's status from that of the host's pod. Conditions of others (readiness gates) stay."""
    found = {key: value for key, value in (host.get("status") or {}).items() if key not in {"resourceClaimStatuses"}}
    mine = {one.get("type") for one in found.get("conditions") or ()}
    kept = [one for one in (guest_pod.get("status") or {}).get("conditions") or () if one.get("type") not in mine]
    conditions = [
        {key: value for key, value in one.items() if key != "observedGeneration"}
        for one in found.get("conditions") or ()
    ]
    if conditions or kept:
        found["conditions"] = [*conditions, *kept]
    found.pop("observedGeneration", None)
    return found


def virtual_node(node: Mapping[str, Any]) -> tuple[Object, Object]:
    """The image of a host's node in a guest's cluster: the object, and its status. No taints, no addresses of the host."""
    meta, status = metadata(node), node.get("status") or {}
    shown = {"kubernetes.io/hostname", "kubernetes.io/arch", "kubernetes.io/os"}
    labels = {
        key: value
        for key, value in (meta.get("labels") or {}).items()
        if key in shown or key.startswith("topology.kubernetes.io/")
    }
    obj: Object = {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": meta["name"], "labels": labels | {VIRTUAL_NODE: "true"}},
        "spec": {},
    }
    conditions = [
        {key: one[key] for key in ("type", "status", "reason", "message", "lastTransitionTime") if key in one}
        for one in status.get("conditions") or ()
    ]
    seen = {
        "conditions": conditions,
        "addresses": [{"type": "Hostname", "address": meta["name"]}],
        **{key: status[key] for key in ("capacity", "allocatable", "nodeInfo") if key in status},
    }
    return obj, seen


__all__ = ["OWNER_UID", "Guest", "NotAllowed", "Token", "Translation", "status_up", "translate", "virtual_node"]
