"""The networking group: Ingresses and their classes, NetworkPolicies, service address ranges."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from typing import Any, Final

from fleetplane.apiserver.kinds.access import entries, fill, made, section, text, words
from fleetplane.apiserver.kinds.behaviour import KindBehaviour
from fleetplane.apiserver.kinds.checks import (
    Errors,
    cidr,
    collected,
    in_range,
    ip_family,
    named,
    port_or_name,
    required,
    spec_of,
    supported,
    unchanged,
)
from fleetplane.apiserver.kinds.checks import port as port_errors
from fleetplane.apiserver.kinds.columns import NONE, at, at_most, selector_text, text_column
from fleetplane.apiserver.kinds.container_rules import PROTOCOLS
from fleetplane.apiserver.kinds.services import load_balancer_text
from fleetplane.model import names
from fleetplane.model.errors import FieldError
from fleetplane.model.networks import is_within
from fleetplane.model.objects import Object
from fleetplane.model.schema.formats import is_ip
from fleetplane.model.selectors import validate_label_selector
from fleetplane.model.table import AGE, NAME

PATH_TYPES: Final = ("Exact", "ImplementationSpecific", "Prefix")
CLASS_ANNOTATION: Final = "kubernetes.io/ingress.class"
_BAD_SEQUENCES: Final = ("//", "/./", "/../", "%2f", "%2F")
_BAD_ENDINGS: Final = ("/..", "/.")


def _host(host: str, path: str) -> Errors:
    if is_ip(host):
        yield FieldError.invalid(path, host, "must be a DNS name, not an IP address")
    elif "*" in host:
        yield from named(names.wildcard_subdomain, host, path)
    else:
        yield from named(names.dns1123_subdomain, host, path)


def _validate_ingress(ingress: Object, old: Object | None) -> Errors:
    spec = spec_of(ingress)
    rules, default = spec.get("rules") or [], spec.get("defaultBackend")
    if not rules and default is None:
        detail = "either `defaultBackend` or `rules` must be specified"
        yield FieldError.invalid("spec", rules, detail)
    if default is not None:
        yield from _backend(default, "spec.defaultBackend")
    for index, rule in enumerate(rules):
        path = f"spec.rules[{index}]"
        if rule.get("host"):
            yield from _host(rule["host"], f"{path}.host")
        if rule.get("http") is not None:
            paths = rule["http"].get("paths") or []
            if not paths:
                yield FieldError.required(f"{path}.http.paths")
            for number_of, one in enumerate(paths):
                yield from _path(one, f"{path}.http.paths[{number_of}]")
    for index, tls in enumerate(spec.get("tls") or ()):
        for number_of, host in enumerate(tls.get("hosts") or ()):
            yield from _host(host, f"spec.tls[{index}].hosts[{number_of}]")
        if tls.get("secretName"):
            yield from named(names.dns1123_subdomain, tls["secretName"], f"spec.tls[{index}].secretName")
    if spec.get("ingressClassName") is not None:
        yield from named(names.dns1123_subdomain, spec["ingressClassName"], "spec.ingressClassName")
        annotation = section(ingress["metadata"], "annotations").get(CLASS_ANNOTATION)
        if old is None and annotation is not None and annotation != spec["ingressClassName"]:
            path = f"annotations.{CLASS_ANNOTATION}"
            yield FieldError.invalid(path, annotation, "must match `ingressClassName` when both are specified")


def _path(one: Object, path: str) -> Errors:
    kind, value = one.get("pathType"), text(one, "path")
    if kind is None:
        yield FieldError.required(f"{path}.pathType", "pathType must be specified")
        return
    yield from supported(kind, PATH_TYPES, f"{path}.pathType")
    if kind in ("Exact", "Prefix"):
        if not value.startswith("/"):
            yield FieldError.invalid(f"{path}.path", value, "must be an absolute path")
        for sequence in _BAD_SEQUENCES:
            if sequence in value:
                yield FieldError.invalid(f"{path}.path", value, f"must not contain '{sequence}'")
        for ending in _BAD_ENDINGS:
            if value.endswith(ending):
                yield FieldError.invalid(f"{path}.path", value, f"cannot end with '{ending}'")
    elif value and not value.startswith("/"):
        yield FieldError.invalid(f"{path}.path", value, "must be an absolute path")
    yield from _backend(one.get("backend") or {}, f"{path}.backend")


def _backend(backend: Object, path: str) -> Errors:
    service, resource = backend.get("service"), backend.get("resource")
    if service is not None and resource is not None:
        yield FieldError.invalid(path, "", "cannot set both resource and service backends")
        return
    if resource is not None:
        for key in ("kind", "name"):
            yield from required(resource.get(key), f"{path}.resource.{key}")
        return
    if service is None:
        yield FieldError.invalid(path, "", "resource or service backend is required")
        return
    if not service.get("name"):
        yield FieldError.required(f"{path}.service.name")
    else:
        yield from named(names.dns1035_label, service["name"], f"{path}.service.name")
    port = service.get("port") or {}
    if port.get("name") and port.get("number"):
        yield FieldError.invalid(path, "", "cannot set both port name & port number")
    elif port.get("name"):
        yield from named(names.port_name, port["name"], f"{path}.service.port.name")
    elif port.get("number"):
        yield from port_errors(port["number"], f"{path}.service.port.number")
    else:
        yield FieldError.required(path, "port name or number is required")


def _hosts(ingress: Mapping[str, Any]) -> str:
    rules = entries(section(ingress, "spec"), "rules")
    hosts = [text(rule, "host") for rule in rules[:3] if rule.get("host")]
    shown = ",".join(hosts) or "*"
    return f"{shown} + {len(rules) - 3} more..." if hosts and len(rules) > 3 else shown


INGRESSES: Final = KindBehaviour(
    validate=collected(_validate_ingress),
    columns=(
        NAME,
        text_column("Class", "The class that serves it.", at("spec", "ingressClassName", default=NONE)),
        text_column("Hosts", "Hosts it answers for.", _hosts),
        text_column("Address", "Where it is reached.", lambda obj: load_balancer_text(section(obj, "status"))),
        text_column(
            "Ports", "Ports of its protocols.", lambda obj: "80, 443" if section(obj, "spec").get("tls") else "80"
        ),
        AGE,
    ),
)


def _default_class(ingress_class: Object) -> None:
    parameters = section(ingress_class, "spec").get("parameters")
    if isinstance(parameters, dict):
        fill(parameters, scope="Cluster")


def _validate_class(ingress_class: Object, old: Object | None) -> Errors:
    spec = spec_of(ingress_class)
    controller = text(spec, "controller")
    if old is None and len(controller) > 250:
        yield FieldError.too_long("spec.controller", 250)
    if not controller:
        yield FieldError.required("spec.controller")
    elif "/" not in controller:
        detail = "must be a domain-prefixed path, such as example.com/controller"
        yield FieldError.invalid("spec.controller", controller, detail)
    parameters = spec.get("parameters")
    if parameters is not None:
        for key in ("kind", "name"):
            yield from required(parameters.get(key), f"spec.parameters.{key}")
        yield from supported(text(parameters, "scope"), ("Cluster", "Namespace"), "spec.parameters.scope")
        namespaced, scope = parameters.get("namespace"), parameters.get("scope")
        if scope == "Namespace" and not namespaced:
            detail = "`parameters.scope` is set to 'Namespace'"
            yield FieldError.required("spec.parameters.namespace", detail)
        if scope == "Cluster" and namespaced:
            detail = "`parameters.scope` is set to 'Cluster'"
            yield FieldError.forbidden("spec.parameters.namespace", detail)
    if old is not None:
        yield from unchanged(controller, spec_of(old).get("controller"), "spec.controller")


def _parameters(ingress_class: Mapping[str, Any]) -> str:
    found = section(ingress_class, "spec", "parameters")
    if not found:
        return NONE
    group = f".{found['apiGroup']}" if found.get("apiGroup") else ""
    return f"{text(found, 'kind')}{group}/{text(found, 'name')}"


INGRESS_CLASSES: Final = KindBehaviour(
    default=_default_class,
    validate=collected(_validate_class),
    columns=(
        NAME,
        text_column("Controller", "Who serves the class.", at("spec", "controller")),
        text_column("Parameters", "Where its settings are.", _parameters),
        AGE,
    ),
)


def _default_policy(policy: Object) -> None:
    spec = made(policy, "spec")
    for direction in ("ingress", "egress"):
        for rule in entries(spec, direction):
            for port in entries(rule, "ports"):
                fill(port, protocol="TCP")
    if not spec.get("policyTypes"):
        spec["policyTypes"] = ["Ingress", "Egress"] if spec.get("egress") else ["Ingress"]


def _validate_policy(policy: Object, old: Object | None) -> Errors:
    spec = spec_of(policy)
    yield from validate_label_selector(spec.get("podSelector"), "spec.podSelector")
    for direction, peers in (("ingress", "from"), ("egress", "to")):
        for index, rule in enumerate(spec.get(direction) or ()):
            path = f"spec.{direction}[{index}]"
            for number_of, port in enumerate(rule.get("ports") or ()):
                yield from _policy_port(port, f"{path}.ports[{number_of}]")
            for number_of, peer in enumerate(rule.get(peers) or ()):
                yield from _policy_peer(peer, f"{path}.{peers}[{number_of}]")
    kinds = spec.get("policyTypes") or []
    if len(kinds) > 2:
        yield FieldError.invalid("spec.policyTypes", kinds, "may not specify more than two policyTypes")
    for index, kind in enumerate(kinds):
        yield from supported(kind, ("Egress", "Ingress"), f"spec.policyTypes[{index}]")


def _policy_port(port: Object, path: str) -> Errors:
    if port.get("protocol") is not None:
        yield from supported(port["protocol"], PROTOCOLS, f"{path}.protocol")
    first, last = port.get("port"), port.get("endPort")
    if first is not None:
        yield from port_or_name(first, f"{path}.port")
    if last is not None:
        if first is None:
            detail = "may not be specified when `port` is not specified"
            yield FieldError.forbidden(f"{path}.endPort", detail)
        elif isinstance(first, str):
            yield FieldError.forbidden(f"{path}.endPort", "may not be specified when `port` is non-numeric")
        elif last < first:
            yield FieldError.invalid(f"{path}.endPort", last, "must be greater than or equal to `port`")
        yield from in_range(last, 1, 65535, f"{path}.endPort")


def _policy_peer(peer: Object, path: str) -> Errors:
    block = peer.get("ipBlock")
    selectors = [key for key in ("podSelector", "namespaceSelector") if peer.get(key) is not None]
    if block is None and not selectors:
        yield FieldError.required(path, "must specify a peer")
    elif block is not None and selectors:
        yield FieldError.forbidden(path, "may not specify both ipBlock and another peer")
    for key in selectors:
        yield from validate_label_selector(peer[key], f"{path}.{key}")
    if block is None:
        return
    whole = text(block, "cidr")
    if not whole:
        yield FieldError.required(f"{path}.ipBlock.cidr")
        return
    problems = list(cidr(whole, f"{path}.ipBlock.cidr"))
    yield from problems
    for index, part in enumerate(block.get("except") or ()):
        here = f"{path}.ipBlock.except[{index}]"
        inner = list(cidr(part, here))
        yield from inner
        if not problems and not inner and not _is_strictly_inside(part, whole):
            yield FieldError.invalid(here, part, "must be a strict subset of `cidr`")


def _is_strictly_inside(part: str, whole: str) -> bool:
    inner, outer = ipaddress.ip_network(part, strict=False), ipaddress.ip_network(whole, strict=False)
    return inner != outer and is_within(inner, outer)


NETWORK_POLICIES: Final = KindBehaviour(
    default=_default_policy,
    validate=collected(_validate_policy),
    columns=(
        NAME,
        text_column(
            "Pod-Selector", "Pods it applies to.", lambda obj: selector_text(section(obj, "spec", "podSelector"))
        ),
        AGE,
    ),
)


def _validate_address(address: Object, old: Object | None) -> Errors:
    parent = section(spec_of(address), "parentRef")
    if not parent:
        yield FieldError.required("spec.parentRef")
        return
    for key in ("resource", "name"):
        yield from required(parent.get(key), f"spec.parentRef.{key}")
    if old is not None:
        yield from unchanged(parent, section(spec_of(old), "parentRef"), "spec.parentRef")


def _address_name(value: str) -> list[str]:
    if not ip_family(value):
        return ["must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"]
    canonical = str(ipaddress.ip_address(value))
    return [] if canonical == value else [f"must be in canonical form ({canonical})"]


def _parent(address: Mapping[str, Any]) -> str:
    parent = section(address, "spec", "parentRef")
    group = f".{parent['group']}" if parent.get("group") else ""
    parts = [f"{text(parent, 'resource')}{group}", text(parent, "namespace"), text(parent, "name")]
    return "/".join(part for part in parts if part) or NONE


IP_ADDRESSES: Final = KindBehaviour(
    validate=collected(_validate_address),
    validate_name=_address_name,
    columns=(NAME, text_column("ParentRef", "What it belongs to.", _parent), AGE),
    fields={
        "spec.parentRef.resource": lambda obj: text(section(obj, "spec", "parentRef"), "resource"),
        "spec.parentRef.name": lambda obj: text(section(obj, "spec", "parentRef"), "name"),
        "spec.parentRef.namespace": lambda obj: text(section(obj, "spec", "parentRef"), "namespace"),
    },
)


def _validate_range(service_range: Object, old: Object | None) -> Errors:
    ranges = spec_of(service_range).get("cidrs") or []
    if not ranges:
        yield FieldError.required("spec.cidrs", "at least one CIDR required")
    if len(ranges) > 2:
        yield FieldError.invalid("spec.cidrs", ranges, "may only hold up to 2 values")
    found = []
    for index, one in enumerate(ranges):
        problems = list(cidr(one, f"spec.cidrs[{index}]"))
        yield from problems
        if not problems:
            found.append(ipaddress.ip_network(one, strict=False).version)
    if len(found) == 2 and found[0] == found[1]:
        detail = "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64"
        yield FieldError.invalid("spec.cidrs", ranges, detail)
    if old is not None:
        before = spec_of(old).get("cidrs") or []
        if ranges[: len(before)] != before:
            yield FieldError.invalid("spec.cidrs", ranges, "field is immutable")


SERVICE_CIDRS: Final = KindBehaviour(
    validate=collected(_validate_range),
    columns=(
        NAME,
        text_column("CIDRs", "The ranges.", lambda obj: ",".join(words(section(obj, "spec"), "cidrs")) or NONE),
        AGE,
    ),
)

# EndpointSlices stand in a group of their own, discovery.k8s.io

_ADDRESS_TYPES: Final = ("FQDN", "IPv4", "IPv6")
_MAX_ENDPOINTS: Final = 1000
_MAX_PORTS: Final = 20000
_MAX_ADDRESSES: Final = 100


def _default_slice(endpoint_slice: Object) -> None:
    for port in entries(endpoint_slice, "ports"):
        fill(port, name="", protocol="TCP")


def _validate_slice(endpoint_slice: Object, old: Object | None) -> Errors:
    kind = text(endpoint_slice, "addressType")
    if not kind:
        yield FieldError.required("addressType")
    else:
        yield from supported(kind, _ADDRESS_TYPES, "addressType")
    endpoints = endpoint_slice.get("endpoints") or []
    if len(endpoints) > _MAX_ENDPOINTS:
        yield FieldError.too_many("endpoints", len(endpoints), _MAX_ENDPOINTS)
        return
    for index, endpoint in enumerate(endpoints):
        yield from _endpoint(endpoint, kind, f"endpoints[{index}]")
    ports = endpoint_slice.get("ports") or []
    if len(ports) > _MAX_PORTS:
        yield FieldError.too_many("ports", len(ports), _MAX_PORTS)
        return
    seen = set()
    for index, port in enumerate(ports):
        path = f"ports[{index}]"
        name = text(port, "name")
        if name:
            yield from named(names.dns1123_label, name, f"{path}.name")
        if name in seen:
            yield FieldError.duplicate(f"{path}.name", name)
        seen.add(name)
        yield from supported(text(port, "protocol"), PROTOCOLS, f"{path}.protocol")
        if port.get("port") is not None:
            yield from in_range(port["port"], 1, 65535, f"{path}.port")
    if old is not None:
        yield from unchanged(kind, old.get("addressType"), "addressType")


def _endpoint(endpoint: Object, kind: str, path: str) -> Errors:
    addresses = endpoint.get("addresses") or []
    if not addresses:
        yield FieldError.required(f"{path}.addresses", "must contain at least 1 address")
    if len(addresses) > _MAX_ADDRESSES:
        yield FieldError.too_many(f"{path}.addresses", len(addresses), _MAX_ADDRESSES)
    for index, address in enumerate(addresses):
        here = f"{path}.addresses[{index}]"
        if kind == "FQDN":
            yield from named(names.dns1123_subdomain, address, here)
        elif kind in ("IPv4", "IPv6") and ip_family(address) != kind:
            yield FieldError.invalid(here, address, f"must be a valid {kind} address")
    if endpoint.get("nodeName"):
        yield from named(names.dns1123_subdomain, endpoint["nodeName"], f"{path}.nodeName")
    if endpoint.get("hostname"):
        yield from named(names.dns1123_label, endpoint["hostname"], f"{path}.hostname")


def _slice_ports(endpoint_slice: Mapping[str, Any]) -> str:
    found = [
        str(port["port"]) if port.get("port") is not None else text(port, "name") or "*"
        for port in entries(endpoint_slice, "ports")
    ]
    return at_most(found) or "<unset>"


def _slice_addresses(endpoint_slice: Mapping[str, Any]) -> str:
    return at_most(
        [one for endpoint in entries(endpoint_slice, "endpoints") for one in words(endpoint, "addresses")]
    ) or ("<unset>")


ENDPOINT_SLICES: Final = KindBehaviour(
    default=_default_slice,
    validate=collected(_validate_slice),
    columns=(
        NAME,
        text_column("AddressType", "What its addresses are.", at("addressType")),
        text_column("Ports", "Ports of its endpoints.", _slice_ports),
        text_column("Endpoints", "Addresses of its endpoints.", _slice_addresses),
        AGE,
    ),
)
