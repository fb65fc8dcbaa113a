"""ServiceAccounts and Endpoints: small kinds of the core group."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from typing import Any, Final

from fleetplane.apiserver.kinds.access import entries, fill, number, text
from fleetplane.apiserver.kinds.behaviour import KindBehaviour
from fleetplane.apiserver.kinds.checks import Errors, collected, ip, named, required_choice
from fleetplane.apiserver.kinds.checks import port as port_errors
from fleetplane.apiserver.kinds.columns import NONE, at_most, text_column
from fleetplane.apiserver.kinds.container_rules import PROTOCOLS
from fleetplane.model import names
from fleetplane.model.errors import FieldError
from fleetplane.model.objects import Object
from fleetplane.model.table import AGE, NAME

SERVICE_ACCOUNTS: Final = KindBehaviour(
    columns=(NAME, text_column("Secrets", "Secrets it lists.", lambda obj: len(entries(obj, "secrets"))), AGE),
    has_generation=False,
)


def _default_endpoints(endpoints: Object) -> None:
    for subset in entries(endpoints, "subsets"):
        for port in entries(subset, "ports"):
            fill(port, protocol="TCP")


def _validate_endpoints(endpoints: Object, old: Object | None) -> Errors:
    for index, subset in enumerate(endpoints.get("subsets") or ()):
        path = f"subsets[{index}]"
        if not subset.get("addresses") and not subset.get("notReadyAddresses"):
            yield FieldError.required(path, "must specify `addresses` or `notReadyAddresses`")
        for key in ("addresses", "notReadyAddresses"):
            for number_of, address in enumerate(subset.get(key) or ()):
                yield from _address(address, f"{path}.{key}[{number_of}]")
        ports = subset.get("ports") or ()
        for number_of, port in enumerate(ports):
            here = f"{path}.ports[{number_of}]"
            if port.get("name"):
                yield from named(names.dns1123_label, port["name"], f"{here}.name")
            elif len(ports) > 1:
                yield FieldError.required(f"{here}.name")
            yield from port_errors(port.get("port") or 0, f"{here}.port")
            yield from required_choice(text(port, "protocol"), PROTOCOLS, f"{here}.protocol")
            if port.get("appProtocol"):
                yield from named(names.qualified_name, port["appProtocol"], f"{here}.appProtocol")


def _address(address: Object, path: str) -> Errors:
    value = text(address, "ip")
    yield from ip(value, f"{path}.ip")
    yield from ordinary_address(value, f"{path}.ip")
    if address.get("hostname"):
        yield from named(names.dns1123_label, address["hostname"], f"{path}.hostname")
    if address.get("nodeName"):
        yield from named(names.dns1123_subdomain, address["nodeName"], f"{path}.nodeName")


def ordinary_address(value: str, path: str) -> Errors:
    """Not one of the addresses that lead to the asker itself."""
    try:
        found = ipaddress.ip_address(value)
    except ValueError:
        return
    if found.is_unspecified:
        yield FieldError.invalid(path, value, f"may not be unspecified ({value})")
    elif found.is_loopback:
        yield FieldError.invalid(path, value, "may not be in the loopback range (127.0.0.0/8, ::1/128)")
    elif found.is_link_local:
        yield FieldError.invalid(path, value, "may not be in the link-local range (169.254.0.0/16, fe80::/10)")
    elif found.is_multicast and (found.version == 4 and value.startswith("224.0.0.")):
        yield FieldError.invalid(path, value, "may not be in the link-local multicast range (224.0.0.0/24)")


def host_and_port(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def _shown(endpoints: Mapping[str, Any]) -> str:
    found: list[str] = []
    for subset in entries(endpoints, "subsets"):
        ports = entries(subset, "ports")
        addresses = [text(one, "ip") for one in entries(subset, "addresses")]
        if ports:
            found += [host_and_port(address, number(port, "port")) for port in ports for address in addresses]
        else:
            found += addresses
    return at_most(found) if entries(endpoints, "subsets") else NONE


ENDPOINTS: Final = KindBehaviour(
    default=_default_endpoints,
    validate=collected(_validate_endpoints),
    columns=(NAME, text_column("Endpoints", "Addresses and ports of ready pods.", _shown), AGE),
    has_generation=False,
    create_on_update=True,
)
