"""Nodes: registered whole, with their status; afterwards specification and status are written apart."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from typing import Any, Final

from fleetplane.apiserver.kinds.access import entries, made, section, text, words
from fleetplane.apiserver.kinds.behaviour import KindBehaviour
from fleetplane.apiserver.kinds.checks import Errors, cidr, collected, spec_of, status_of
from fleetplane.apiserver.kinds.columns import NONE, at, text_column
from fleetplane.apiserver.kinds.resource_rules import resource_list
from fleetplane.apiserver.kinds.scheduling_rules import taints
from fleetplane.model.errors import FieldError
from fleetplane.model.objects import Object, condition, labels
from fleetplane.model.pod_networks import claimed
from fleetplane.model.table import AGE, NAME, UNKNOWN

_ROLE_PREFIX: Final = "node-role.kubernetes.io/"
_ROLE_LABEL: Final = "kubernetes.io/role"


def _default(node: Object) -> None:
    status = made(node, "status")
    if status.get("allocatable") is None and isinstance(status.get("capacity"), dict):
        status["allocatable"] = dict(status["capacity"])
    spec = section(node, "spec")
    first, networks = text(spec, "podCIDR"), words(spec, "podCIDRs")
    if first and networks[:1] != [first]:
        spec["podCIDRs"] = [first]
    elif networks and not first:
        spec["podCIDR"] = networks[0]


def _validate(node: Object, old: Object | None) -> Errors:
    spec = spec_of(node)
    yield from taints(spec.get("taints") or (), "spec.taints")
    networks = spec.get("podCIDRs") or ()
    for index, network in enumerate(networks):
        yield from cidr(network, f"spec.podCIDRs[{index}]")
    families = [_family(one) for one in networks]
    if len(networks) > 2 or len(set(families)) < len(families):
        detail = "may specify no more than one CIDR for each IP family"
        yield FieldError.invalid("spec.podCIDRs", networks, detail)
    yield from _amounts(node)
    if old is None:
        return
    before = spec_of(old)
    if before.get("podCIDRs") and before["podCIDRs"] != spec.get("podCIDRs"):
        detail = 'node updates may not change podCIDR except from "" to valid'
        yield FieldError.forbidden("spec.podCIDRs", detail)
    if before.get("providerID") and before["providerID"] != spec.get("providerID"):
        detail = 'node updates may not change providerID except from "" to valid'
        yield FieldError.forbidden("spec.providerID", detail)


def _family(network: str) -> int:
    try:
        return ipaddress.ip_network(network, strict=False).version
    except ValueError:
        return 0


def _amounts(node: Object) -> Errors:
    status = status_of(node)
    for key in ("capacity", "allocatable"):
        yield from resource_list(status.get(key) or {}, f"status.{key}")
    seen = []
    for index, address in enumerate(status.get("addresses") or ()):
        if address in seen:
            yield FieldError.duplicate(f"status.addresses[{index}]", address)
        seen.append(address)


def _validate_status(node: Object, old: Object | None) -> Errors:
    yield from _amounts(node)


def _state(node: Mapping[str, Any]) -> str:
    ready = condition(node, "Ready")
    words = ["Unknown"] if ready is None else ["Ready" if ready.get("status") == "True" else "NotReady"]
    if section(node, "spec").get("unschedulable") is True:
        words.append("SchedulingDisabled")
    return ",".join(words)


def _roles(node: Mapping[str, Any]) -> str:
    roles = set()
    for key, value in labels(node).items():
        if key.startswith(_ROLE_PREFIX) and len(key) > len(_ROLE_PREFIX):
            roles.add(key[len(_ROLE_PREFIX) :])
        elif key == _ROLE_LABEL and value:
            roles.add(value)
    return ",".join(sorted(roles)) or NONE


def _address(kind: str) -> Any:
    def read(node: Mapping[str, Any]) -> str:
        addresses = entries(section(node, "status"), "addresses")
        return next((text(one, "address") for one in addresses if one.get("type") == kind), NONE)

    return read


def _information(key: str, default: str = UNKNOWN) -> Any:
    return lambda node: at("status", "nodeInfo", key)(node) or default


NODES: Final = KindBehaviour(
    default=_default,
    validate=collected(_validate),
    validate_status=collected(_validate_status),
    columns=(
        NAME,
        text_column("Status", "Whether the node is ready and takes new pods.", _state),
        text_column("Roles", "Roles from the node's labels.", _roles),
        AGE,
        text_column("Version", "Version of the node agent.", _information("kubeletVersion", "")),
        text_column("Internal-IP", "First internal address.", _address("InternalIP"), wide=True),
        text_column("External-IP", "First external address.", _address("ExternalIP"), wide=True),
        text_column("OS-Image", "Operating system the node reports.", _information("osImage"), wide=True),
        text_column("Kernel-Version", "Kernel the node reports.", _information("kernelVersion"), wide=True),
        text_column(
            "Container-Runtime",
            "Runtime and version the node reports.",
            _information("containerRuntimeVersion"),
            wide=True,
        ),
    ),
    fields={
        "spec.unschedulable": lambda node: str(section(node, "spec").get("unschedulable") is True).lower(),
    },
    claims=claimed,
    has_generation=False,
    status_on_create=True,
)
