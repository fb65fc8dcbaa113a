"""What each class of applications may do: profiles, and the rules that hold an application against its profile.

Pure. A rule has a name, and every refusal says it, so that a developer can ask the integrator for exactly that. The same
rules are asked at admission, by the reconciler (a dependency may arrive after the application) and for pods that
somebody creates by hand in an application's namespace.

Two profiles are built in: ``system`` is not limited, ``3rd-party`` has the limits of the original sample. An ``AppType``
of the same name takes a profile's place. Who may write DevRes, VehContainerConfig and AppType is left to RBAC.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any, Final, NamedTuple

from fleetplane.model.objects import Object
from fleetplane.model.pod_security import SAFE_SYSCTLS
from fleetplane.operators.vehicles.kinds import AppTypeSpec

SYSTEM: Final = "system"
THIRD_PARTY: Final = "3rd-party"
LEVELS: Final = ("QM", "A", "B", "C", "D")
"""Lowest first."""

_SPELLINGS: Final = {"thirdparty": THIRD_PARTY, "third-party": THIRD_PARTY, "3rdparty": THIRD_PARTY}
_DOMAIN: Final = re.compile(r"<Domain\s[^>]*?[iI]d\s*=\s*[\"'](\d+|any)[\"']")


class Violation(NamedTuple):
    """``rule`` names what was broken, ``field`` where."""

    rule: str
    field: str
    message: str

    def __str__(self) -> str:
        return f"{self.field}: {self.message} (rule {self.rule})"


class Profile(NamedTuple):
    """A class of applications: its canonical name, where its pods run, what it may do."""

    name: str
    namespace: str
    spec: AppTypeSpec

    @property
    def limited(self) -> bool:
        return self.spec.limited


THIRD_PARTY_LIMITS: Final[Object] = {
    "limits": [
        {
            "type": "Container",
            "default": {"cpu": "100m", "memory": "128Mi"},
            "defaultRequest": {"cpu": "50m", "memory": "64Mi"},
            "max": {"cpu": "1", "memory": "1Gi"},
            "min": {"cpu": "10m", "memory": "16Mi"},
        },
        {"type": "PersistentVolumeClaim", "max": {"storage": "1Gi"}, "min": {"storage": "100Mi"}},
    ]
}
THIRD_PARTY_QUOTA: Final[Object] = {
    "hard": {
        "limits.cpu": "2",
        "limits.memory": "8Gi",
        "count/pods": "5",
        "count/replicationcontrollers": "5",
        "count/replicasets.apps": "5",
        "count/deployments.apps": "5",
        "count/statefulsets.apps": "5",
        "count/jobs.batch": "3",
        "count/cronjobs.batch": "3",
        "count/services": "5",
        "services.nodeports": "0",
        "services.loadbalancers": "0",
        "count/configmaps": "10",
        "count/secrets": "10",
        "count/persistentvolumeclaims": "5",
        "count/resourcequotas": "3",
    }
}
_BUILT_IN: Final[Mapping[str, Object]] = {
    SYSTEM: {"limited": False, "maxLevel": "D"},
    THIRD_PARTY: {"limited": True, "limitRange": THIRD_PARTY_LIMITS, "resourceQuota": THIRD_PARTY_QUOTA},
}


def canonical(app_type: str) -> str:
    """One spelling of each class: ``thirdParty``, ``third-party`` and ``3rd-party-application`` are ``3rd-party``."""
    name = app_type.strip().lower().removesuffix("-application")
    return _SPELLINGS.get(name, name)


def profile_of(app_type: str, defined: Mapping[str, Any] | None) -> Profile | None:
    """The profile of a class; ``defined`` is the AppType object of its canonical name, if there is one."""
    name = canonical(app_type)
    spec = (defined or {}).get("spec") if defined is not None else _BUILT_IN.get(name)
    if spec is None or not name:
        return None
    view = AppTypeSpec.view(spec)
    return Profile(name, view.namespace or f"{name}-application", view)


def level_of(text: str) -> str:
    return text or "QM"


def rank(level: str) -> int:
    return LEVELS.index(level_of(level))


# -- rules on what an application says itself


def pod_violations(profile: Profile, spec: Mapping[str, Any], path: str = "spec.podSpec") -> Iterator[Violation]:
    """What a limited class may not put into a pod spec."""
    if not profile.limited:
        return
    allowed = profile.spec
    who = f"applications of type {profile.name}"
    if not allowed.allow_host_namespaces:
        for name in ("hostNetwork", "hostPID", "hostIPC"):
            if spec.get(name):
                yield Violation("no-host-namespaces", f"{path}.{name}", f"{who} may not use the host's namespaces")
    for index, volume in enumerate(spec.get("volumes") or ()):
        host = volume.get("hostPath")
        if host is not None and not _below(str(host.get("path") or ""), allowed.host_paths):
            yield Violation(
                "no-host-path",
                f"{path}.volumes[{index}].hostPath",
                f"{who} reach the host through a DevRes or a VehContainerConfig only",
            )
    yield from _placement_violations(profile, spec, path)
    security = spec.get("securityContext") or {}
    yield from _unconfined(profile, security, f"{path}.securityContext")
    for index, one in enumerate(security.get("sysctls") or ()):
        if one.get("name") not in SAFE_SYSCTLS and not allowed.allow_privileged:
            where = f"{path}.securityContext.sysctls[{index}]"
            yield Violation("no-unconfined", where, f"{who} may not set {one.get('name')}: it is not a pod's own")
    for kind in ("initContainers", "containers", "ephemeralContainers"):
        for index, container in enumerate(spec.get(kind) or ()):
            yield from _container_violations(profile, container, f"{path}.{kind}[{index}]")


def _placement_violations(profile: Profile, spec: Mapping[str, Any], path: str) -> Iterator[Violation]:
    allowed, who = profile.spec, f"applications of type {profile.name}"
    runtime_class = spec.get("runtimeClassName")
    if runtime_class and not _listed(str(runtime_class), allowed.runtime_classes):
        yield Violation("no-runtime-class", f"{path}.runtimeClassName", f"{who} may not choose {runtime_class}")
    named = [("nodeName", spec.get("nodeName"))]
    selector = spec.get("nodeSelector") or {}
    named += [(f"nodeSelector[{key}]", selector[key]) for key in ("name", "kubernetes.io/hostname") if key in selector]
    for field, node in named:
        if node and not _listed(str(node), allowed.nodes):
            yield Violation("allowed-nodes", f"{path}.{field}", f"{who} may not be pinned to node {node}")
    if (affinity := spec.get("affinity") or {}).get("nodeAffinity") and not _listed("*", allowed.nodes):
        yield Violation(
            "allowed-nodes", f"{path}.affinity.nodeAffinity", f"{who} may not choose nodes: {len(affinity)}"
        )
    for index, one in enumerate(spec.get("tolerations") or ()):
        if not one.get("key"):
            yield Violation("allowed-nodes", f"{path}.tolerations[{index}]", f"{who} may not tolerate every taint")
    priority = spec.get("priorityClassName")
    if priority or spec.get("priority"):
        yield Violation(
            "no-priority", f"{path}.priorityClassName", f"{who} get their priority from their criticality level"
        )


def _container_violations(profile: Profile, container: Mapping[str, Any], path: str) -> Iterator[Violation]:
    allowed, who = profile.spec, f"applications of type {profile.name}"
    security = container.get("securityContext") or {}
    if security.get("privileged") and not allowed.allow_privileged:
        yield Violation("no-privileged", f"{path}.securityContext.privileged", f"{who} may not be privileged")
    if security.get("allowPrivilegeEscalation") and not allowed.allow_privileged:
        yield Violation(
            "no-privileged", f"{path}.securityContext.allowPrivilegeEscalation", f"{who} may not gain privileges"
        )
    yield from _unconfined(profile, security, f"{path}.securityContext")
    for one in (security.get("capabilities") or {}).get("add") or ():
        if not _listed(str(one).removeprefix("CAP_"), allowed.capabilities):
            yield Violation("capabilities", f"{path}.securityContext.capabilities.add", f"{who} may not add {one}")
    for index, port in enumerate(container.get("ports") or ()):
        number = port.get("hostPort")
        if number and number not in allowed.ports:
            yield Violation("host-ports", f"{path}.ports[{index}].hostPort", f"{who} may not take host port {number}")
    image = str(container.get("image") or "")
    if allowed.images and not _listed("*", allowed.images) and not image.startswith(tuple(allowed.images)):
        yield Violation("image-policy", f"{path}.image", f"image {image} is not from {', '.join(allowed.images)}")
    yield from domain_violations(profile, container.get("env") or (), f"{path}.env")


def _unconfined(profile: Profile, security: Mapping[str, Any], path: str) -> Iterator[Violation]:
    """What keeps a container from the rest of the kernel stays on (Pod Security Standards, baseline)."""
    if profile.spec.allow_privileged:
        return
    who = f"applications of type {profile.name}"
    for key in ("seccompProfile", "appArmorProfile"):
        if (security.get(key) or {}).get("type") == "Unconfined":
            yield Violation("no-unconfined", f"{path}.{key}", f"{who} may not run unconfined")
    if security.get("procMount") not in {None, "", "Default"}:
        yield Violation("no-unconfined", f"{path}.procMount", f"{who} see /proc as everybody does")
    if security.get("seLinuxOptions"):
        yield Violation("no-unconfined", f"{path}.seLinuxOptions", f"{who} may not choose their SELinux label")


def domain_violations(profile: Profile, env: Sequence[Mapping[str, Any]], path: str) -> Iterator[Violation]:
    """DDS domains named in the environment (``CYCLONEDDS_URI``, ``ROS_DOMAIN_ID``) are on the allow-list, if there is one."""
    allowed = profile.spec.dds_domains
    if not profile.limited or not allowed:
        return
    for index, one in enumerate(env):
        name, value = str(one.get("name") or ""), str(one.get("value") or "")
        found = _DOMAIN.findall(value) if name == "CYCLONEDDS_URI" else [value] if name == "ROS_DOMAIN_ID" else []
        for domain in found:
            if not domain.isdigit() or int(domain) not in allowed:
                shown = ", ".join(map(str, allowed))
                yield Violation("dds-domains", f"{path}[{index}]", f"DDS domain {domain} is not among {shown}")


def level_violations(profile: Profile, level: str) -> Iterator[Violation]:
    highest = profile.spec.max_level or "QM"
    if rank(level) > rank(highest):
        yield Violation(
            "max-level",
            "spec.criticality",
            f"applications of type {profile.name} may be at most {highest}, not {level}",
        )


# -- rules on what it names


def device_violation(profile: Profile, app: str, device: Mapping[str, Any], field: str) -> Violation | None:
    """The device permission matrix: who may use which device."""
    if not profile.limited:
        return None
    spec, name = device.get("spec") or {}, str((device.get("metadata") or {}).get("name") or "")
    kinds = spec.get("devType")
    known_as = [name, *(kinds if isinstance(kinds, list) else [kinds] if kinds else [])]
    if any(_listed(str(one), profile.spec.devices) for one in known_as):
        return None
    if profile.name in {canonical(str(one)) for one in spec.get("allowedAppTypes") or ()}:
        return None
    if app in (spec.get("allowedApps") or ()):
        return None
    return Violation("device-permission", field, f"{app}, of type {profile.name}, may not use device {name}")


def config_violations(profile: Profile, config: Mapping[str, Any], field: str) -> Iterator[Violation]:
    """What an integrator's snippet gives must be meant for this class."""
    if not profile.limited:
        return
    spec, name = config.get("spec") or {}, str((config.get("metadata") or {}).get("name") or "")
    if profile.name not in {canonical(str(one)) for one in spec.get("allowedAppTypes") or ()}:
        for pair in volumes_of(spec):
            host = (pair.get("volume") or {}).get("hostPath")
            if host is not None and not _below(str(host.get("path") or ""), profile.spec.host_paths):
                yield Violation(
                    "config-host-path",
                    field,
                    f"{name} mounts host path {host.get('path')} and is not for {profile.name}",
                )
    yield from domain_violations(profile, spec.get("piccoloEnv") or (), field)


def volumes_of(config: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """A configuration's volumes: the original's code calls them piccoloVolumes, its documents piccoloVolume."""
    return [*(config.get("piccoloVolumes") or ()), *(config.get("piccoloVolume") or ())]


def _listed(name: str, allowed: Sequence[str]) -> bool:
    return "*" in allowed or name in allowed


def _below(path: str, roots: Sequence[str]) -> bool:
    """Whether a path is one of these or below; ``..`` is never below anything."""
    pure = PurePosixPath(path)
    if ".." in pure.parts:
        return False
    return "*" in roots or any(pure == PurePosixPath(root) or PurePosixPath(root) in pure.parents for root in roots)
