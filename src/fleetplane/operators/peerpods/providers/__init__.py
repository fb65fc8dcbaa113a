"""Providers of VMs, by the name that ``CLOUD_PROVIDER`` has for them."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from fleetplane.operators.peerpods.providers.aws import aws
from fleetplane.operators.peerpods.providers.byom import byom
from fleetplane.operators.peerpods.providers.libvirt import libvirt
from fleetplane.operators.peerpods.providers.protocol import ProviderFactory
from fleetplane.operators.peerpods.providers.qemu import qemu

PROVIDERS: Final[Mapping[str, ProviderFactory]] = MappingProxyType(
    {"aws": aws, "byom": byom, "libvirt": libvirt(), "qemu": qemu()}
)
