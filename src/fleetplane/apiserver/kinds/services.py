"""Services: a name and addresses for pods.

Addresses and node ports are handed out by the server; here is what a Service may say, what it means where it says
nothing, and what falls away when its type changes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from fleetplane.apiserver.kinds.access import entries, fill, made, section, text
from fleetplane.apiserver.kinds.accounts import ordinary_address
from fleetplane.apiserver.kinds.behaviour import KindBehaviour
from fleetplane.apiserver.kinds.checks import (
    Errors,
    cidr,
    collected,
    in_range,
    ip,
    ip_family,
    label_errors,
    named,
    port_or_name,
    required_choice,
    spec_of,
    status_of,
    supported,
)
from fleetplane.apiserver.kinds.checks import port as port_errors
from fleetplane.apiserver.kinds.columns import NONE, at, labels_text, text_column
from fleetplane.apiserver.kinds.container_rules import PROTOCOLS
from fleetplane.model import names
from fleetplane.model.errors import FieldError
from fleetplane.model.objects import Object
from fleetplane.model.table import AGE, NAME

TYPES: Final = ("ClusterIP", "ExternalName", "LoadBalancer", "NodePort")
FAMILIES: Final = ("IPv4", "IPv6")
_AFFINITY_SECONDS: Final = 10800
_MAX_AFFINITY_SECONDS: Final = 86400
_ONCE: Final = "may not change once set"


def _default(service: Object) -> None:
    spec = made(service, "spec")
    fill(spec, sessionAffinity="None", type="ClusterIP")
    if spec["sessionAffinity"] == "ClientIP":
        fill(made(spec, "sessionAffinityConfig", "clientIP"), timeoutSeconds=_AFFINITY_SECONDS)
    elif spec["sessionAffinity"] == "None":
        spec.pop("sessionAffinityConfig", None)
    for port in entries(spec, "ports"):
        fill(port, protocol="TCP")
        if port.get("targetPort") in (None, 0, ""):
            port["targetPort"] = port.get("port", 0)
    kind = spec["type"]
    if kind in ("NodePort", "LoadBalancer") or (kind == "ClusterIP" and spec.get("externalIPs")):
        fill(spec, externalTrafficPolicy="Cluster")
    if kind in ("ClusterIP", "NodePort", "LoadBalancer"):
        fill(spec, internalTrafficPolicy="Cluster")
    if kind == "LoadBalancer":
        fill(spec, allocateLoadBalancerNodePorts=True)
        for ingress in entries(section(service, "status", "loadBalancer"), "ingress"):
            if ingress.get("ip"):
                fill(ingress, ipMode="VIP")
    if kind != "ExternalName":
        _default_families(spec)


def _default_families(spec: Object) -> None:
    """Two of something mean dual stack, and dual stack means both families."""
    families = spec.get("ipFamilies")
    count = len(families) if isinstance(families, list) else 0
    addresses = spec.get("clusterIPs")
    if count == 2 or (isinstance(addresses, list) and len(addresses) == 2):
        fill(spec, ipFamilyPolicy="RequireDualStack")
    if spec.get("ipFamilyPolicy") == "RequireDualStack" and isinstance(families, list) and count == 1:
        families.append("IPv6" if families[0] == "IPv4" else "IPv4")


def _has_cluster_ip(spec: Mapping[str, Any]) -> bool:
    return spec.get("type") in ("ClusterIP", "NodePort", "LoadBalancer")


def _has_node_ports(spec: Mapping[str, Any]) -> bool:
    kind = spec.get("type")
    return kind == "NodePort" or (kind == "LoadBalancer" and spec.get("allocateLoadBalancerNodePorts") is not False)


def _has_health_port(spec: Mapping[str, Any]) -> bool:
    return spec.get("type") == "LoadBalancer" and spec.get("externalTrafficPolicy") == "Local"


def _prepare_create(service: Object) -> None:
    spec = made(service, "spec")
    if text(spec, "clusterIP") and not spec.get("clusterIPs"):
        spec["clusterIPs"] = [spec["clusterIP"]]


def _prepare_update(service: Object, old: Object) -> None:
    spec, before = made(service, "spec"), section(old, "spec")
    _follow_cluster_ip(spec, before)
    _keep_allocated(spec, before)
    _drop_what_the_type_has_not(spec, before)


def _follow_cluster_ip(spec: Object, before: Object) -> None:
    """A client that knows only one of clusterIP and clusterIPs changes both."""
    one, many = spec.get("clusterIP"), spec.get("clusterIPs")
    old_one, old_many = before.get("clusterIP"), before.get("clusterIPs")
    if one and not many:
        spec["clusterIPs"] = [one]
    elif one != old_one and many == old_many:
        if one:
            spec["clusterIPs"] = [one]
        else:
            spec.pop("clusterIPs", None)
    elif one == old_one and old_many and not many:
        spec.pop("clusterIP", None)


def _keep_allocated(spec: Object, before: Object) -> None:
    """What was handed out stays where a client did not repeat it."""
    if _has_cluster_ip(before) and _has_cluster_ip(spec):
        if not spec.get("clusterIP") and before.get("clusterIP"):
            spec["clusterIP"] = before["clusterIP"]
        if not spec.get("clusterIPs") and before.get("clusterIPs") and spec.get("clusterIP") == before.get("clusterIP"):
            spec["clusterIPs"] = list(before["clusterIPs"])
    if _has_node_ports(before) and _has_node_ports(spec):
        known = {(one.get("protocol"), one.get("port")): one.get("nodePort") for one in entries(before, "ports")}
        taken = {one.get("nodePort") for one in entries(spec, "ports")}
        for port in entries(spec, "ports"):
            number = known.get((port.get("protocol"), port.get("port")))
            if number and not port.get("nodePort") and number not in taken:
                port["nodePort"] = number
    if _has_health_port(before) and _has_health_port(spec) and before.get("healthCheckNodePort"):
        fill(spec, healthCheckNodePort=before["healthCheckNodePort"])


def _drop_what_the_type_has_not(spec: Object, before: Object) -> None:
    """Fields that only the former type had fall away, unless the client set them anew."""

    def drop(*keys: str) -> None:
        if all(spec.get(key) == before.get(key) for key in keys):
            for key in keys:
                spec.pop(key, None)

    if _has_cluster_ip(before) and not _has_cluster_ip(spec):
        drop("clusterIP", "clusterIPs")
        drop("ipFamilies")
        drop("ipFamilyPolicy")
        drop("internalTrafficPolicy")
    if _has_node_ports(before) and not _has_node_ports(spec):
        old_ports = {one.get("nodePort") for one in entries(before, "ports")}
        for port in entries(spec, "ports"):
            if port.get("nodePort") in old_ports:
                port.pop("nodePort", None)
    if _has_health_port(before) and not _has_health_port(spec):
        drop("healthCheckNodePort")
    if before.get("type") == "LoadBalancer" and spec.get("type") != "LoadBalancer":
        drop("allocateLoadBalancerNodePorts")
        drop("loadBalancerClass")
    external = ("NodePort", "LoadBalancer")
    if before.get("type") in external and spec.get("type") not in external and not spec.get("externalIPs"):
        drop("externalTrafficPolicy")


def _validate(service: Object, old: Object | None) -> Errors:
    spec = spec_of(service)
    kind = text(spec, "type")
    yield from required_choice(kind, TYPES, "spec.type")
    headless = spec.get("clusterIP") == "None"
    ports = spec.get("ports") or []
    if not ports and not headless and kind != "ExternalName":
        yield FieldError.required("spec.ports")
    yield from _by_type(spec, kind, headless)
    yield from _ports(ports, kind)
    if spec.get("selector"):
        yield from label_errors(spec["selector"], "spec.selector")
    yield from _affinity(spec)
    yield from _addresses(spec)
    for index, address in enumerate(spec.get("externalIPs") or ()):
        problems = list(ip(address, f"spec.externalIPs[{index}]"))
        yield from problems or ordinary_address(address, f"spec.externalIPs[{index}]")
    yield from _load_balancer(spec, kind)
    yield from _traffic(spec, kind)
    if spec.get("trafficDistribution") is not None:
        choices = ("PreferClose", "PreferSameNode", "PreferSameZone")
        yield from supported(spec["trafficDistribution"], choices, "spec.trafficDistribution")
    if old is not None:
        yield from _validate_change(spec, spec_of(old))


def _by_type(spec: Object, kind: str, headless: bool) -> Errors:
    if kind in ("LoadBalancer", "NodePort") and headless:
        detail = f"may not be set to 'None' for {kind} services"
        yield FieldError.invalid("spec.clusterIPs[0]", "None", detail)
    if kind == "ExternalName":
        for key in ("clusterIPs", "ipFamilies", "ipFamilyPolicy"):
            if spec.get(key):
                yield FieldError.forbidden(f"spec.{key}", "may not be set for ExternalName services")
        name = text(spec, "externalName").removesuffix(".")
        if name:
            yield from named(names.dns1123_subdomain, name, "spec.externalName")
        else:
            yield FieldError.required("spec.externalName")


def _ports(ports: list[Object], kind: str) -> Errors:
    seen_names: set[str] = set()
    seen_ports: set[tuple[Any, Any]] = set()
    seen_node_ports: set[tuple[Any, Any]] = set()
    for index, port in enumerate(ports):
        path = f"spec.ports[{index}]"
        name = text(port, "name")
        if name:
            yield from named(names.dns1123_label, name, f"{path}.name")
            if name in seen_names:
                yield FieldError.duplicate(f"{path}.name", name)
        elif len(ports) > 1:
            yield FieldError.required(f"{path}.name")
        seen_names.add(name)
        yield from port_errors(port.get("port", 0), f"{path}.port")
        yield from required_choice(text(port, "protocol"), PROTOCOLS, f"{path}.protocol")
        yield from port_or_name(port.get("targetPort", 0), f"{path}.targetPort")
        if port.get("appProtocol"):
            yield from named(names.qualified_name, port["appProtocol"], f"{path}.appProtocol")
        key = (port.get("protocol"), port.get("port"))
        if key in seen_ports:
            yield FieldError.duplicate(path, {"port": key[1], "protocol": key[0]})
        seen_ports.add(key)
        node_port = port.get("nodePort")
        if not node_port:
            continue
        if kind == "ClusterIP":
            yield FieldError.forbidden(f"{path}.nodePort", "may not be used when `type` is 'ClusterIP'")
        key = (port.get("protocol"), node_port)
        if key in seen_node_ports:
            yield FieldError.duplicate(f"{path}.nodePort", node_port)
        seen_node_ports.add(key)


def _affinity(spec: Object) -> Errors:
    affinity = text(spec, "sessionAffinity")
    yield from required_choice(affinity, ("ClientIP", "None"), "spec.sessionAffinity")
    path = "spec.sessionAffinityConfig"
    if affinity == "ClientIP":
        seconds = section(spec, "sessionAffinityConfig", "clientIP").get("timeoutSeconds")
        if seconds is None:
            detail = "when session affinity type is ClientIP"
            yield FieldError.required(f"{path}.clientIP.timeoutSeconds", detail)
        elif not 0 < seconds <= _MAX_AFFINITY_SECONDS:
            detail = f"must be greater than 0 and less than {_MAX_AFFINITY_SECONDS}"
            yield FieldError.invalid(f"{path}.clientIP.timeoutSeconds", seconds, detail)
    elif affinity == "None" and spec.get("sessionAffinityConfig") is not None:
        yield FieldError.forbidden(path, "must not be set when session affinity is None")


def _addresses(spec: Object) -> Errors:
    families, addresses = spec.get("ipFamilies") or [], spec.get("clusterIPs") or []
    for index, family in enumerate(families):
        yield from supported(family, FAMILIES, f"spec.ipFamilies[{index}]")
        if family in families[:index]:
            yield FieldError.duplicate(f"spec.ipFamilies[{index}]", family)
    if spec.get("ipFamilyPolicy") is not None:
        choices = ("PreferDualStack", "RequireDualStack", "SingleStack")
        yield from supported(spec["ipFamilyPolicy"], choices, "spec.ipFamilyPolicy")
    if not addresses:
        return
    if not spec.get("clusterIP"):
        yield FieldError.invalid("spec.clusterIPs", addresses, "must be empty when `clusterIP` is not specified")
    elif spec["clusterIP"] != addresses[0]:
        yield FieldError.invalid("spec.clusterIPs", addresses, "first value must match `clusterIP`")
    if "None" in addresses:
        if addresses != ["None"]:
            yield FieldError.invalid("spec.clusterIPs", addresses, "'None' must be the first and only value")
        return
    if len(addresses) > 2:
        yield FieldError.invalid("spec.clusterIPs", addresses, "may only hold up to 2 values")
    found = [ip_family(one) for one in addresses]
    for index, address in enumerate(addresses):
        yield from ip(address, f"spec.clusterIPs[{index}]")
        if found[index] and index < len(families) and found[index] != families[index]:
            detail = f"expected an {families[index]} value as indicated by `ipFamilies[{index}]`"
            yield FieldError.invalid(f"spec.clusterIPs[{index}]", address, detail)
    if len(found) == 2 and found[0] == found[1]:
        detail = "may specify no more than one IP for each IP family"
        yield FieldError.invalid("spec.clusterIPs", addresses, detail)


def _load_balancer(spec: Object, kind: str) -> Errors:
    ranges = spec.get("loadBalancerSourceRanges") or []
    only = "may only be used when `type` is 'LoadBalancer'"
    if ranges and kind != "LoadBalancer":
        yield FieldError.forbidden("spec.LoadBalancerSourceRanges", only)
    for index, one in enumerate(ranges):
        yield from cidr(one.strip(), f"spec.LoadBalancerSourceRanges[{index}]")
    for key in ("allocateLoadBalancerNodePorts", "loadBalancerClass"):
        if spec.get(key) is not None and kind != "LoadBalancer":
            yield FieldError.forbidden(f"spec.{key}", only)
    if spec.get("loadBalancerClass"):
        yield from named(names.qualified_name, spec["loadBalancerClass"], "spec.loadBalancerClass")


def _traffic(spec: Object, kind: str) -> Errors:
    policy, health = spec.get("externalTrafficPolicy"), spec.get("healthCheckNodePort") or 0
    external = kind in ("NodePort", "LoadBalancer") or (kind == "ClusterIP" and spec.get("externalIPs"))
    if policy:
        if not external:
            detail = "may only be set for externally-accessible services"
            yield FieldError.invalid("spec.externalTrafficPolicy", policy, detail)
        yield from supported(policy, ("Cluster", "Local"), "spec.externalTrafficPolicy")
    if health:
        yield from in_range(health, 1, 65535, "spec.healthCheckNodePort")
        if not _has_health_port(spec):
            detail = "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'"
            yield FieldError.invalid("spec.healthCheckNodePort", health, detail)
    internal = spec.get("internalTrafficPolicy")
    if internal is not None:
        yield from supported(internal, ("Cluster", "Local"), "spec.internalTrafficPolicy")


def _validate_change(spec: Object, before: Object) -> Errors:
    if not (_has_cluster_ip(spec) and _has_cluster_ip(before)):
        return
    new, old = spec.get("clusterIPs") or [], before.get("clusterIPs") or []
    if old and (not new or new[0] != old[0]):
        detail = _ONCE if new else "primary clusterIP can not be unset"
        yield FieldError.invalid("spec.clusterIPs[0]", new, detail)
    elif len(old) > 1 and len(new) > 1 and old[1] != new[1]:
        yield FieldError.invalid("spec.clusterIPs[1]", new, _ONCE)
    elif len(old) > 1 and len(new) == 1 and spec.get("ipFamilyPolicy") != "SingleStack":
        detail = "must be 'SingleStack' to release the secondary cluster IP"
        yield FieldError.invalid("spec.ipFamilyPolicy", spec.get("ipFamilyPolicy"), detail)
    new_families, old_families = spec.get("ipFamilies") or [], before.get("ipFamilies") or []
    if old_families and new_families and new_families[0] != old_families[0]:
        yield FieldError.invalid("spec.ipFamilies[0]", new_families, _ONCE)
    if before.get("type") == spec.get("type") == "LoadBalancer":
        new_class, old_class = spec.get("loadBalancerClass"), before.get("loadBalancerClass")
        if new_class != old_class:
            yield FieldError.invalid("spec.loadBalancerClass", new_class, _ONCE)


def _validate_status(service: Object, old: Object | None) -> Errors:
    for index, ingress in enumerate(section(status_of(service), "loadBalancer").get("ingress") or ()):
        path = f"status.loadBalancer.ingress[{index}]"
        if ingress.get("ip"):
            yield from ip(ingress["ip"], f"{path}.ip")
        if ingress.get("hostname"):
            yield from named(names.dns1123_subdomain, ingress["hostname"], f"{path}.hostname")


def load_balancer_text(status: Mapping[str, Any]) -> str:
    found = [text(one, "ip") or text(one, "hostname") for one in entries(section(status, "loadBalancer"), "ingress")]
    return ",".join(dict.fromkeys(one for one in found if one))


def _external(service: Mapping[str, Any]) -> str:
    spec = section(service, "spec")
    kind = text(spec, "type")
    addresses = [one for one in spec.get("externalIPs") or () if isinstance(one, str)]
    if kind == "ExternalName":
        return text(spec, "externalName")
    if kind == "LoadBalancer":
        balanced = load_balancer_text(section(service, "status"))
        return ",".join(([balanced] if balanced else []) + addresses) or "<pending>"
    return ",".join(addresses) or NONE


def _internal(service: Mapping[str, Any]) -> str:
    spec = section(service, "spec")
    addresses = spec.get("clusterIPs")
    if isinstance(addresses, list) and addresses:
        return str(addresses[0])
    return text(spec, "clusterIP") or NONE


def _port_words(service: Mapping[str, Any]) -> Iterator[str]:
    for port in entries(section(service, "spec"), "ports"):
        node_port = f":{port['nodePort']}" if port.get("nodePort") else ""
        yield f"{port.get('port')}{node_port}/{port.get('protocol')}"


SERVICES: Final = KindBehaviour(
    default=_default,
    prepare_create=_prepare_create,
    prepare_update=_prepare_update,
    validate=collected(_validate),
    validate_status=collected(_validate_status),
    validate_name=names.dns1035_label,
    columns=(
        NAME,
        text_column("Type", "How the service is reached.", at("spec", "type")),
        text_column("Cluster-IP", "First address in the cluster.", _internal),
        text_column("External-IP", "Addresses outside of the cluster.", _external),
        text_column("Port(s)", "Ports, node ports and protocols.", lambda s: ",".join(_port_words(s)) or NONE),
        AGE,
        text_column(
            "Selector",
            "Labels of the pods behind it.",
            lambda s: labels_text(section(s, "spec").get("selector")),
            wide=True,
        ),
    ),
    fields={
        "spec.clusterIP": lambda service: text(section(service, "spec"), "clusterIP"),
        "spec.type": lambda service: text(section(service, "spec"), "type"),
    },
    has_generation=False,
    create_on_update=True,
)
