"""What device plugins and nodes say to each other: messages and their field numbers.

Source: the published definition of the kubelet's device plugin API, ``v1beta1``. Names are its own.
"""

# ruff: noqa: RUF009 - a field is declared by a call, as with dataclasses.field

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from fleetplane.model.protobuf.messages import flag, many, one, pairs, text, whole

VERSION: Final = "v1beta1"
REGISTRATION: Final = "v1beta1.Registration"
PLUGIN: Final = "/v1beta1.DevicePlugin/"
HEALTHY: Final = "Healthy"


@dataclass
class Empty:
    """Nothing."""


@dataclass
class DevicePluginOptions:
    pre_start_required: bool = flag(1)
    get_preferred_allocation_available: bool = flag(2)


@dataclass
class RegisterRequest:
    version: str = text(1)
    endpoint: str = text(2)
    resource_name: str = text(3)
    options: DevicePluginOptions | None = one(4)


@dataclass
class PluginDevice:
    id: str = text(1)
    health: str = text(2)


@dataclass
class ListAndWatchResponse:
    devices: list[PluginDevice] = many(1)


@dataclass
class DeviceIds:
    """The devices of one container."""

    devices_ids: list[str] = many(1)


@dataclass
class AllocateRequest:
    container_requests: list[DeviceIds] = many(1)


@dataclass
class PluginMount:
    container_path: str = text(1)
    host_path: str = text(2)
    read_only: bool = flag(3)


@dataclass
class DeviceSpec:
    container_path: str = text(1)
    host_path: str = text(2)
    permissions: str = text(3)


@dataclass
class CdiDevice:
    name: str = text(1)


@dataclass
class ContainerAllocateResponse:
    envs: dict[str, str] = pairs(1)
    mounts: list[PluginMount] = many(2)
    devices: list[DeviceSpec] = many(3)
    annotations: dict[str, str] = pairs(4)
    cdi_devices: list[CdiDevice] = many(5)


@dataclass
class AllocateResponse:
    container_responses: list[ContainerAllocateResponse] = many(1)


@dataclass
class PreferredRequest:
    available: list[str] = many(1)
    must_include: list[str] = many(2)
    allocation_size: int = whole(3)


@dataclass
class PreferredAllocationRequest:
    container_requests: list[PreferredRequest] = many(1)


@dataclass
class PreferredAllocationResponse:
    container_responses: list[DeviceIds] = many(1)
