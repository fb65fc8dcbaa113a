"""Rules for containers: what runs in a pod, and how it is watched, mounted and limited."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from fleetplane.apiserver.kinds.checks import (
    Errors,
    in_range,
    named,
    not_negative,
    port_or_name,
    required,
    required_choice,
    required_name,
    supported,
)
from fleetplane.apiserver.kinds.checks import port as port_errors
from fleetplane.apiserver.kinds.resource_rules import requirements
from fleetplane.model import names
from fleetplane.model.errors import FieldError
from fleetplane.model.objects import Object

PROTOCOLS: Final = ("SCTP", "TCP", "UDP")
PULL_POLICIES: Final = ("Always", "IfNotPresent", "Never")
MAX_ID: Final = (1 << 31) - 1
_ENV_SOURCES: Final = ("fieldRef", "resourceFieldRef", "configMapKeyRef", "secretKeyRef", "fileKeyRef")
_ENV_FIELDS: Final = (
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
)
_ENV_RESOURCES: Final = (
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
)
_HANDLERS: Final = ("exec", "httpGet", "tcpSocket", "grpc", "sleep")
_is_header_name = re.compile("[-A-Za-z0-9]+").fullmatch
_SUBSCRIPT: Final = re.compile(r"(metadata\.(?:labels|annotations))\['(.*)'\]")


@dataclass(frozen=True, slots=True)
class PodContext:
    """What a container's rules need to know of its pod."""

    volumes: Mapping[str, Object]
    host_network: bool = False
    restart_policy: str = "Always"
    claims: frozenset[str] = frozenset()
    grace_period: int | None = None


def containers(found: Sequence[Object], context: PodContext, path: str) -> Errors:
    """The list of a pod's ordinary containers."""
    if not found:
        yield FieldError.required(path)
    seen: set[str] = set()
    for index, container in enumerate(found):
        here = f"{path}[{index}]"
        yield from common(container, context, here)
        name = container.get("name") or ""
        if name in seen:
            yield FieldError.duplicate(f"{here}.name", name)
        seen.add(name)
        yield from _restart_policy(container, here, sidecar_only=False)
        yield from probes_and_hooks(container, context, here)
    yield from host_port_conflicts(found, path)


def init_containers(found: Sequence[Object], others: Sequence[Object], context: PodContext, path: str) -> Errors:
    seen = {one.get("name") or "" for one in others}
    for index, container in enumerate(found):
        here = f"{path}[{index}]"
        yield from common(container, context, here)
        name = container.get("name") or ""
        if name in seen:
            yield FieldError.duplicate(f"{here}.name", name)
        seen.add(name)
        if is_sidecar(container):
            yield from probes_and_hooks(container, context, here)
            continue
        yield from _restart_policy(container, here, sidecar_only=True)
        for key in ("lifecycle", "livenessProbe", "readinessProbe", "startupProbe"):
            if container.get(key):
                yield FieldError.forbidden(
                    f"{here}.{key}", "may not be set for init containers without restartPolicy=Always"
                )


def is_sidecar(container: Mapping[str, Any]) -> bool:
    """An init container that keeps running beside the others."""
    return container.get("restartPolicy") == "Always"


def _restart_policy(container: Object, path: str, *, sidecar_only: bool) -> Errors:
    policy = container.get("restartPolicy")
    rules = container.get("restartPolicyRules") or []
    if policy is not None:
        yield from supported(policy, ("Always", "Never", "OnFailure"), f"{path}.restartPolicy")
    elif rules:
        yield FieldError.required(f"{path}.restartPolicy", "must specify restartPolicy when restart rules are used")
    if len(rules) > 20:
        yield FieldError.too_many(f"{path}.restartPolicyRules", len(rules), 20)


def ephemeral_containers(found: Sequence[Object], spec: Mapping[str, Any], context: PodContext, path: str) -> Errors:
    others = {one.get("name") for key in ("containers", "initContainers") for one in spec.get(key) or ()}
    seen = set(others)
    for index, container in enumerate(found):
        here = f"{path}[{index}]"
        yield from common(container, context, here)
        name = container.get("name") or ""
        if name in seen:
            yield FieldError.duplicate(f"{here}.name", name)
        seen.add(name)
        target = container.get("targetContainerName")
        if target and target not in others:
            yield FieldError.not_found(f"{here}.targetContainerName", target)
        for key in ("ports", "livenessProbe", "readinessProbe", "startupProbe", "lifecycle", "resources"):
            if container.get(key):
                yield FieldError.forbidden(f"{here}.{key}", "cannot be set for an Ephemeral Container")
        for mount_index, mount in enumerate(container.get("volumeMounts") or ()):
            for key in ("subPath", "subPathExpr"):
                if mount.get(key):
                    mount_path = f"{here}.volumeMounts[{mount_index}].{key}"
                    yield FieldError.forbidden(mount_path, "cannot be set for an Ephemeral Container")


def common(container: Object, context: PodContext, path: str) -> Errors:
    """What holds of containers of every sort."""
    yield from required_name(names.dns1123_label, container.get("name") or "", f"{path}.name")
    image = container.get("image") or ""
    if not image:
        yield FieldError.required(f"{path}.image")
    elif image != image.strip():
        yield FieldError.invalid(f"{path}.image", image, "must not have leading or trailing whitespace")
    policy = container.get("terminationMessagePolicy")
    if policy not in ("File", "FallbackToLogsOnError"):
        detail = "must be 'File' or 'FallbackToLogsOnError'"
        yield FieldError.invalid(f"{path}.terminationMessagePolicy", policy, detail)
    yield from _ports(container.get("ports") or (), f"{path}.ports")
    yield from _environment(container.get("env") or (), f"{path}.env", context)
    yield from _environment_from(container.get("envFrom") or (), f"{path}.envFrom")
    yield from _volume_mounts(container, context, path)
    yield from _volume_devices(container, context, path)
    yield from required_choice(container.get("imagePullPolicy") or "", PULL_POLICIES, f"{path}.imagePullPolicy")
    yield from requirements(container.get("resources") or {}, f"{path}.resources", claims=context.claims)
    resize = container.get("resizePolicy") or ()
    for index, one in enumerate(resize):
        here = f"{path}.resizePolicy[{index}]"
        yield from required_choice(one.get("resourceName") or "", ("cpu", "memory"), f"{here}.resourceName")
        choices = ("NotRequired", "RestartContainer")
        yield from required_choice(one.get("restartPolicy") or "", choices, f"{here}.restartPolicy")
    yield from security_context(container.get("securityContext") or {}, f"{path}.securityContext")


def _ports(ports: Sequence[Object], path: str) -> Errors:
    seen: set[str] = set()
    for index, port in enumerate(ports):
        here = f"{path}[{index}]"
        name = port.get("name") or ""
        if name:
            yield from named(names.port_name, name, f"{here}.name")
            if name in seen:
                yield FieldError.duplicate(f"{here}.name", name)
            seen.add(name)
        if not port.get("containerPort"):
            yield FieldError.required(f"{here}.containerPort")
        else:
            yield from port_errors(port["containerPort"], f"{here}.containerPort")
        if port.get("hostPort"):
            yield from port_errors(port["hostPort"], f"{here}.hostPort")
        yield from required_choice(port.get("protocol") or "", PROTOCOLS, f"{here}.protocol")


def host_port_conflicts(found: Sequence[Object], path: str) -> Errors:
    seen = set()
    for index, container in enumerate(found):
        for port_index, port in enumerate(container.get("ports") or ()):
            if port.get("hostPort"):
                key = f"{port['hostPort']}/{port.get('hostIP', '')}/{port.get('protocol')}"
                if key in seen:
                    yield FieldError.duplicate(f"{path}[{index}].ports[{port_index}].hostPort", key)
                seen.add(key)


def host_network_ports(found: Sequence[Object], path: str) -> Errors:
    """On the host's network a port is the host's."""
    for index, container in enumerate(found):
        for port_index, port in enumerate(container.get("ports") or ()):
            if port.get("hostPort") != port.get("containerPort"):
                here = f"{path}[{index}].ports[{port_index}].containerPort"
                yield FieldError.invalid(
                    here, port.get("containerPort"), "must match `hostPort` when `hostNetwork` is true"
                )


def _environment(variables: Sequence[Object], path: str, context: PodContext) -> Errors:
    for index, variable in enumerate(variables):
        here = f"{path}[{index}]"
        yield from required_name(names.env_var_name, variable.get("name") or "", f"{here}.name")
        source = variable.get("valueFrom")
        if source is None:
            continue
        told = [key for key in _ENV_SOURCES if source.get(key)]
        if not told:
            detail = (
                "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`"
            )
            yield FieldError.invalid(f"{here}.valueFrom", "", detail)
        elif variable.get("value"):
            yield FieldError.invalid(f"{here}.valueFrom", "", "may not be specified when `value` is not empty")
        elif len(told) > 1:
            detail = "may not have more than one field specified at a time"
            yield FieldError.invalid(f"{here}.valueFrom", "", detail)
        if source.get("fieldRef"):
            yield from field_reference(source["fieldRef"], _ENV_FIELDS, f"{here}.valueFrom.fieldRef")
        if source.get("resourceFieldRef"):
            yield from resource_reference(source["resourceFieldRef"], f"{here}.valueFrom.resourceFieldRef")
        for key in ("configMapKeyRef", "secretKeyRef"):
            if source.get(key):
                yield from required_name(names.config_key, source[key].get("key") or "", f"{here}.valueFrom.{key}.key")
                if source[key].get("name"):
                    yield from named(names.dns1123_subdomain, source[key]["name"], f"{here}.valueFrom.{key}.name")
        if source.get("fileKeyRef"):
            reference, there = source["fileKeyRef"], f"{here}.valueFrom.fileKeyRef"
            for key in ("key", "path", "volumeName"):
                yield from required(reference.get(key), f"{there}.{key}")
            volume = reference.get("volumeName")
            if volume and volume not in context.volumes:
                yield FieldError.not_found(f"{there}.volumeName", volume)


def field_reference(reference: Object, allowed: Sequence[str], path: str) -> Errors:
    """A field of the pod itself, one of those that may be told to its containers."""
    if reference.get("apiVersion") != "v1":
        detail = "error converting fieldPath: only v1 is known"
        yield FieldError.invalid(f"{path}.apiVersion", reference.get("apiVersion"), detail)
    field_path = reference.get("fieldPath") or ""
    if not field_path:
        yield FieldError.required(f"{path}.fieldPath")
        return
    subscript = _SUBSCRIPT.fullmatch(field_path)
    if subscript is not None:
        for problem in names.qualified_name(subscript[2]):
            yield FieldError.invalid(f"{path}.fieldPath", subscript[2], problem)
    else:
        yield from supported(field_path, allowed, f"{path}.fieldPath")


def resource_reference(reference: Object, path: str, *, container_needed: bool = False) -> Errors:
    if container_needed and not reference.get("containerName"):
        yield FieldError.required(f"{path}.containerName")
    resource = reference.get("resource") or ""
    if not resource:
        yield FieldError.required(f"{path}.resource")
    elif not resource.partition(".")[2].startswith("hugepages-"):
        yield from supported(resource, _ENV_RESOURCES, f"{path}.resource")


def _environment_from(sources: Sequence[Object], path: str) -> Errors:
    for index, source in enumerate(sources):
        here = f"{path}[{index}]"
        if source.get("prefix"):
            yield from named(names.env_var_name, source["prefix"], f"{here}.prefix")
        told = [key for key in ("configMapRef", "secretRef") if source.get(key) is not None]
        for key in told:
            yield from required_name(names.dns1123_subdomain, source[key].get("name") or "", f"{here}.{key}.name")
        if not told:
            yield FieldError.invalid(here, "", "must specify one of: `configMapRef` or `secretRef`")
        elif len(told) > 1:
            yield FieldError.invalid(here, "", "may not have more than one field specified at a time")


def relative_path(value: str, path: str) -> Errors:
    """A path below somewhere: not absolute, no way up."""
    if value.startswith("/"):
        yield FieldError.invalid(path, value, "must be a relative path")
    yield from no_backsteps(value, path)


def no_backsteps(value: str, path: str) -> Errors:
    if ".." in value.split("/"):
        yield FieldError.invalid(path, value, "must not contain '..'")


def _volume_mounts(container: Object, context: PodContext, path: str) -> Errors:
    devices = {one.get("name") for one in container.get("volumeDevices") or ()}
    device_paths = {one.get("devicePath") for one in container.get("volumeDevices") or ()}
    seen = set()
    for index, mount in enumerate(container.get("volumeMounts") or ()):
        here = f"{path}.volumeMounts[{index}]"
        name, mount_path = mount.get("name") or "", mount.get("mountPath") or ""
        if not name:
            yield FieldError.required(f"{here}.name")
        elif name not in context.volumes:
            yield FieldError.not_found(f"{here}.name", name)
        if not mount_path:
            yield FieldError.required(f"{here}.mountPath")
        elif mount_path in seen:
            yield FieldError.invalid(f"{here}.mountPath", mount_path, "must be unique")
        seen.add(mount_path)
        if name in devices:
            yield FieldError.invalid(f"{here}.name", name, "must not already exist in volumeDevices")
        if mount_path in device_paths:
            detail = "must not already exist as a path in volumeDevices"
            yield FieldError.invalid(f"{here}.mountPath", mount_path, detail)
        if mount.get("subPath"):
            yield from relative_path(mount["subPath"], f"{here}.subPath")
        if mount.get("subPathExpr"):
            if mount.get("subPath"):
                detail = "subPathExpr and subPath are mutually exclusive"
                yield FieldError.invalid(f"{here}.subPathExpr", mount["subPathExpr"], detail)
            yield from relative_path(mount["subPathExpr"], f"{here}.subPathExpr")
        propagation = mount.get("mountPropagation")
        if propagation is not None:
            choices = ("Bidirectional", "HostToContainer", "None")
            yield from supported(propagation, choices, f"{here}.mountPropagation")
            if propagation == "Bidirectional" and not (container.get("securityContext") or {}).get("privileged"):
                detail = "Bidirectional mount propagation is available only to privileged containers"
                yield FieldError.forbidden(f"{here}.mountPropagation", detail)
        recursive = mount.get("recursiveReadOnly")
        if recursive is not None:
            yield from supported(recursive, ("Disabled", "Enabled", "IfPossible"), f"{here}.recursiveReadOnly")
            if recursive != "Disabled" and not mount.get("readOnly"):
                detail = "may only be specified when readOnly is true"
                yield FieldError.forbidden(f"{here}.recursiveReadOnly", detail)


def _volume_devices(container: Object, context: PodContext, path: str) -> Errors:
    names_seen, paths_seen = set(), set()
    for index, device in enumerate(container.get("volumeDevices") or ()):
        here = f"{path}.volumeDevices[{index}]"
        name, device_path = device.get("name") or "", device.get("devicePath") or ""
        if not name:
            yield FieldError.required(f"{here}.name")
        elif name in names_seen:
            yield FieldError.invalid(f"{here}.name", name, "must be unique")
        elif name not in context.volumes:
            yield FieldError.not_found(f"{here}.name", name)
        elif not {"persistentVolumeClaim", "ephemeral"} & context.volumes[name].keys():
            detail = "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode"
            yield FieldError.invalid(f"{here}.name", name, detail)
        if not device_path:
            yield FieldError.required(f"{here}.devicePath")
        elif device_path in paths_seen:
            yield FieldError.invalid(f"{here}.devicePath", device_path, "must be unique")
        elif ".." in device_path.split("/"):
            yield FieldError.invalid(f"{here}.devicePath", device_path, "can not contain backsteps ('..')")
        names_seen.add(name)
        paths_seen.add(device_path)


def probes_and_hooks(container: Object, context: PodContext, path: str) -> Errors:
    for key in ("livenessProbe", "readinessProbe", "startupProbe"):
        probe = container.get(key)
        if probe is None:
            continue
        here = f"{path}.{key}"
        yield from handler(probe, here)
        for field in ("initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"):
            yield from not_negative(probe.get(field), f"{here}.{field}")
        if key != "readinessProbe" and probe.get("successThreshold") != 1:
            yield FieldError.invalid(f"{here}.successThreshold", probe.get("successThreshold"), "must be 1")
        grace = probe.get("terminationGracePeriodSeconds")
        if grace is not None:
            if key == "readinessProbe":
                detail = "must not be set for readinessProbes"
                yield FieldError.invalid(f"{here}.terminationGracePeriodSeconds", grace, detail)
            elif grace <= 0:
                yield FieldError.invalid(f"{here}.terminationGracePeriodSeconds", grace, "must be greater than 0")
    lifecycle = container.get("lifecycle") or {}
    for hook in ("postStart", "preStop"):
        if lifecycle.get(hook) is not None:
            yield from handler(lifecycle[hook], f"{path}.lifecycle.{hook}", grace_period=context.grace_period)


def handler(found: Object, path: str, *, grace_period: int | None = None) -> Errors:
    """The one thing a probe or hook does."""
    told = [key for key in _HANDLERS if found.get(key) is not None]
    if not told:
        yield FieldError.required(path, "must specify a handler type")
    for extra in told[1:]:
        yield FieldError.forbidden(f"{path}.{extra}", "may not specify more than 1 handler type")
    if not told:
        return
    kind = told[0]
    action, here = found[kind], f"{path}.{kind}"
    if kind == "exec":
        yield from required(action.get("command"), f"{here}.command")
    elif kind == "httpGet":
        yield from required(action.get("path"), f"{here}.path")
        yield from port_or_name(action.get("port", 0), f"{here}.port")
        yield from supported(action.get("scheme") or "", ("HTTP", "HTTPS"), f"{here}.scheme")
        for header in action.get("httpHeaders") or ():
            if not _is_header_name(header.get("name") or ""):
                detail = (
                    "a valid HTTP header must consist of alphanumeric characters or '-' "
                    "(e.g. 'X-Header-Name', regex used for validation is '[-A-Za-z0-9]+')"
                )
                yield FieldError.invalid(f"{here}.httpHeaders", header.get("name"), detail)
    elif kind == "tcpSocket":
        yield from port_or_name(action.get("port", 0), f"{here}.port")
    elif kind == "grpc":
        yield from port_errors(action.get("port", 0), f"{here}.port")
    elif kind == "sleep":
        seconds = action.get("seconds", 0)
        if seconds < 0 or (grace_period is not None and seconds > grace_period):
            detail = f"must be non-negative and less than terminationGracePeriodSeconds ({grace_period})"
            yield FieldError.invalid(here, seconds, detail)


def security_context(context: Object, path: str) -> Errors:
    for key in ("runAsUser", "runAsGroup"):
        yield from in_range(context.get(key), 0, MAX_ID, f"{path}.{key}")
    if context.get("procMount") is not None:
        yield from supported(context["procMount"], ("Default", "Unmasked"), f"{path}.procMount")
    if context.get("allowPrivilegeEscalation") is False:
        if context.get("privileged"):
            detail = "cannot set `allowPrivilegeEscalation` to false and `privileged` to true"
            yield FieldError.invalid(path, context, detail)
        added = (context.get("capabilities") or {}).get("add") or ()
        if "CAP_SYS_ADMIN" in added:
            detail = "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN"
            yield FieldError.invalid(path, context, detail)
    yield from profiles(context, path)


def profiles(context: Object, path: str) -> Errors:
    """Seccomp and AppArmor profiles, of a container or a pod."""
    for key, word in (("seccompProfile", "seccomp"), ("appArmorProfile", "AppArmor")):
        profile = context.get(key)
        if profile is None:
            continue
        here, kind = f"{path}.{key}", profile.get("type") or ""
        if not kind:
            yield FieldError.required(f"{here}.type", f"type is required when {key} is set")
            continue
        yield from supported(kind, ("Localhost", "RuntimeDefault", "Unconfined"), f"{here}.type")
        local = profile.get("localhostProfile")
        if kind == "Localhost":
            if not local:
                detail = f"must be set when {word} type is Localhost"
                yield FieldError.required(f"{here}.localhostProfile", detail)
            elif key == "seccompProfile":
                yield from relative_path(local, f"{here}.localhostProfile")
        elif local is not None:
            detail = f"can only be set when {word} type is Localhost"
            yield FieldError.invalid(f"{here}.localhostProfile", local, detail)
