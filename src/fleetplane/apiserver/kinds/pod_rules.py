"""Rules for a pod's specification, wherever it stands: in a pod, or in the template of a controller."""

from __future__ import annotations

import re
from typing import Any, Final

from fleetplane.apiserver.kinds import container_rules as container
from fleetplane.apiserver.kinds.checks import (
    MAX_INT32,
    Errors,
    annotation_errors,
    in_range,
    ip,
    label_errors,
    named,
    required_choice,
    required_name,
    supported,
)
from fleetplane.apiserver.kinds.resource_rules import pod_resources, resource_list
from fleetplane.apiserver.kinds.scheduling_rules import affinity, spread_constraints, tolerations
from fleetplane.apiserver.kinds.volume_rules import volumes
from fleetplane.model import names
from fleetplane.model.errors import FieldError
from fleetplane.model.objects import Object

DNS_POLICIES: Final = ("ClusterFirst", "ClusterFirstWithHostNet", "Default", "None")
RESTART_POLICIES: Final = ("Always", "Never", "OnFailure")
_MAX_SEARCH: Final = 2048
_is_sysctl = re.compile(r"([a-z0-9][-_a-z0-9]*[./])*[a-z0-9][-_a-z0-9]*").fullmatch
_LINUX_ONLY_POD: Final = ("fsGroup", "fsGroupChangePolicy", "runAsGroup", "runAsUser", "seLinuxOptions", "sysctls")


def context_of(spec: Object) -> container.PodContext:
    return container.PodContext(
        volumes={one.get("name") or "": one for one in spec.get("volumes") or ()},
        host_network=bool(spec.get("hostNetwork")),
        restart_policy=spec.get("restartPolicy") or "Always",
        claims=frozenset(one.get("name") or "" for one in spec.get("resourceClaims") or ()),
        grace_period=spec.get("terminationGracePeriodSeconds"),
    )


def pod_spec(spec: Object, path: str) -> Errors:
    context = context_of(spec)
    ordinary, initial = spec.get("containers") or (), spec.get("initContainers") or ()
    yield from volumes(spec.get("volumes") or (), f"{path}.volumes")
    yield from _claims(spec, path)
    yield from container.containers(ordinary, context, f"{path}.containers")
    yield from container.init_containers(initial, ordinary, context, f"{path}.initContainers")
    ephemeral = spec.get("ephemeralContainers") or ()
    yield from container.ephemeral_containers(ephemeral, spec, context, f"{path}.ephemeralContainers")
    if context.host_network:
        yield from container.host_network_ports(ordinary, f"{path}.containers")
    yield from required_choice(spec.get("restartPolicy") or "", RESTART_POLICIES, f"{path}.restartPolicy")
    yield from _dns(spec, path)
    yield from label_errors(spec.get("nodeSelector") or {}, f"{path}.nodeSelector")
    yield from _security(spec, path)
    yield from affinity(spec.get("affinity") or {}, f"{path}.affinity")
    yield from tolerations(spec.get("tolerations") or (), f"{path}.tolerations")
    yield from spread_constraints(spec.get("topologySpreadConstraints") or (), f"{path}.topologySpreadConstraints")
    yield from _names(spec, path)
    yield from in_range(spec.get("activeDeadlineSeconds"), 1, MAX_INT32, f"{path}.activeDeadlineSeconds")
    for index, alias in enumerate(spec.get("hostAliases") or ()):
        yield from ip(alias.get("ip") or "", f"{path}.hostAliases[{index}].ip")
        for name in alias.get("hostnames") or ():
            yield from named(names.dns1123_subdomain, name, f"{path}.hostAliases[{index}].hostnames")
    yield from resource_list(spec.get("overhead") or {}, f"{path}.overhead")
    if spec.get("preemptionPolicy") is not None:
        choices = ("Never", "PreemptLowerPriority")
        yield from supported(spec["preemptionPolicy"], choices, f"{path}.preemptionPolicy")
    for index, gate in enumerate(spec.get("readinessGates") or ()):
        here = f"{path}.readinessGates[{index}].conditionType"
        yield from named(names.qualified_name, gate.get("conditionType") or "", here)
    seen = set()
    for index, gate in enumerate(spec.get("schedulingGates") or ()):
        name = gate.get("name") or ""
        yield from named(names.qualified_name, name, f"{path}.schedulingGates[{index}]")
        if name in seen:
            yield FieldError.duplicate(f"{path}.schedulingGates[{index}]", name)
        seen.add(name)
    yield from _operating_system(spec, path)
    if spec.get("resources") is not None:
        yield from pod_resources(spec["resources"], f"{path}.resources")


def _claims(spec: Object, path: str) -> Errors:
    seen = set()
    for index, claim in enumerate(spec.get("resourceClaims") or ()):
        here, name = f"{path}.resourceClaims[{index}]", claim.get("name") or ""
        yield from required_name(names.dns1123_label, name, f"{here}.name")
        if name in seen:
            yield FieldError.duplicate(f"{here}.name", name)
        seen.add(name)
        told = [key for key in ("resourceClaimName", "resourceClaimTemplateName") if claim.get(key) is not None]
        if len(told) != 1:
            detail = "must specify one of: `resourceClaimName`, `resourceClaimTemplateName`"
            if told:
                detail = "at most one of `resourceClaimName` or `resourceClaimTemplateName` may be specified"
            yield FieldError.invalid(here, claim, detail)


def _names(spec: Object, path: str) -> Errors:
    for key, check in (
        ("serviceAccountName", names.dns1123_subdomain),
        ("nodeName", names.dns1123_subdomain),
        ("priorityClassName", names.dns1123_subdomain),
        ("runtimeClassName", names.dns1123_subdomain),
        ("hostname", names.dns1123_label),
        ("subdomain", names.dns1123_label),
        ("hostnameOverride", names.dns1123_subdomain),
    ):
        if spec.get(key):
            yield from named(check, spec[key], f"{path}.{key}")
    if spec.get("setHostnameAsFQDN") and spec.get("hostnameOverride"):
        yield FieldError.forbidden(f"{path}.setHostnameAsFQDN", "may not be set together with `hostnameOverride`")


def _dns(spec: Object, path: str) -> Errors:
    policy, config = spec.get("dnsPolicy") or "", spec.get("dnsConfig")
    yield from required_choice(policy, DNS_POLICIES, f"{path}.dnsPolicy")
    if policy == "None":
        if config is None:
            detail = "must provide `dnsConfig` when `dnsPolicy` is None"
            yield FieldError.required(f"{path}.dnsConfig", detail)
            return
        if not config.get("nameservers"):
            detail = "must provide at least one DNS nameserver when `dnsPolicy` is None"
            yield FieldError.required(f"{path}.dnsConfig.nameservers", detail)
            return
    if config is None:
        return
    servers, searches = config.get("nameservers") or (), config.get("searches") or ()
    if len(servers) > 3:
        yield FieldError.invalid(f"{path}.dnsConfig.nameservers", servers, "must not have more than 3 nameservers")
    for index, server in enumerate(servers):
        yield from ip(server, f"{path}.dnsConfig.nameservers[{index}]")
    if len(searches) > 32:
        yield FieldError.invalid(f"{path}.dnsConfig.searches", searches, "must not have more than 32 search paths")
    if len(" ".join(searches)) > _MAX_SEARCH:
        detail = f"must not have more than {_MAX_SEARCH} characters (including spaces) in the search list"
        yield FieldError.invalid(f"{path}.dnsConfig.searches", searches, detail)
    for index, search in enumerate(searches):
        if search != ".":
            here = f"{path}.dnsConfig.searches[{index}]"
            for problem in names.dns1123_subdomain(search.removesuffix(".").replace("_", "-")):
                yield FieldError.invalid(here, search, problem)
    for index, option in enumerate(config.get("options") or ()):
        if not option.get("name"):
            yield FieldError.required(f"{path}.dnsConfig.options[{index}]", "must not be empty")


def _security(spec: Object, path: str) -> Errors:
    context: dict[str, Any] = spec.get("securityContext") or {}
    here = f"{path}.securityContext"
    for key in ("fsGroup", "runAsUser", "runAsGroup"):
        yield from in_range(context.get(key), 0, container.MAX_ID, f"{here}.{key}")
    for index, group in enumerate(context.get("supplementalGroups") or ()):
        yield from in_range(group, 0, container.MAX_ID, f"{here}.supplementalGroups[{index}]")
    if context.get("supplementalGroupsPolicy") is not None:
        yield from supported(
            context["supplementalGroupsPolicy"], ("Merge", "Strict"), f"{here}.supplementalGroupsPolicy"
        )
    if context.get("fsGroupChangePolicy") is not None:
        yield from supported(
            context["fsGroupChangePolicy"], ("Always", "OnRootMismatch"), f"{here}.fsGroupChangePolicy"
        )
    seen = set()
    for index, sysctl in enumerate(context.get("sysctls") or ()):
        name = sysctl.get("name") or ""
        there = f"{here}.sysctls[{index}].name"
        if not name:
            yield FieldError.required(there)
        elif len(name) > 253 or not _is_sysctl(name):
            detail = "must have at most 253 characters and be lower case words joined by dots or slashes"
            yield FieldError.invalid(there, name, detail)
        elif name in seen:
            yield FieldError.duplicate(there, name)
        seen.add(name)
    yield from container.profiles(context, here)
    if spec.get("hostPID") and spec.get("shareProcessNamespace"):
        detail = "ShareProcessNamespace and HostPID cannot both be enabled"
        yield FieldError.invalid(f"{path}.shareProcessNamespace", True, detail)
    if spec.get("hostUsers") is False:
        for key in ("hostNetwork", "hostPID", "hostIPC"):
            if spec.get(key):
                yield FieldError.forbidden(f"{path}.{key}", f"when `hostUsers` is false, {key} must be false")


def _operating_system(spec: Object, path: str) -> Errors:
    system = spec.get("os")
    if system is None:
        return
    name = system.get("name") or ""
    if not name:
        yield FieldError.required(f"{path}.os.name", "cannot be empty")
        return
    yield from supported(name, ("linux", "windows"), f"{path}.os.name")
    context = spec.get("securityContext") or {}
    if name == "windows":
        for key in _LINUX_ONLY_POD:
            if context.get(key) is not None:
                detail = "cannot be set for a windows pod"
                yield FieldError.forbidden(f"{path}.securityContext.{key}", detail)
        for key in ("hostPID", "hostIPC", "shareProcessNamespace"):
            if spec.get(key):
                yield FieldError.forbidden(f"{path}.{key}", "cannot be set for a windows pod")
    elif name == "linux" and context.get("windowsOptions") is not None:
        detail = "windows options cannot be set for a linux pod"
        yield FieldError.forbidden(f"{path}.securityContext.windowsOptions", detail)


def pod_template(template: Object, path: str) -> Errors:
    """A ``PodTemplateSpec``."""
    metadata = template.get("metadata") or {}
    yield from label_errors(metadata.get("labels") or {}, f"{path}.labels")
    yield from annotation_errors(metadata.get("annotations") or {}, f"{path}.annotations")
    spec = template.get("spec") or {}
    if spec.get("ephemeralContainers"):
        detail = "ephemeral containers not allowed in pod template"
        yield FieldError.forbidden(f"{path}.spec.ephemeralContainers", detail)
    yield from pod_spec(spec, f"{path}.spec")
