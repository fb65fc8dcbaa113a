"""The resource group: devices, who has them and who wants them (dynamic resource allocation, KEP-4381)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from fleetplane.apiserver.kinds.access import entries, fill, section, text
from fleetplane.apiserver.kinds.behaviour import KindBehaviour
from fleetplane.apiserver.kinds.checks import Errors, collected, required_name, spec_of, supported, unchanged
from fleetplane.apiserver.kinds.columns import at, text_column
from fleetplane.apiserver.kinds.volume_rules import csi_driver_name
from fleetplane.model import names
from fleetplane.model.errors import FieldError
from fleetplane.model.objects import Object
from fleetplane.model.table import AGE, NAME

_MODES: Final = ("All", "ExactCount")
_MAX_REQUESTS: Final = 32


def _default_requests(spec: Mapping[str, Any]) -> None:
    for request in entries(section(spec, "devices"), "requests"):
        wanted = [request["exactly"]] if isinstance(request.get("exactly"), dict) else []
        for one in [*wanted, *entries(request, "firstAvailable")]:
            fill(one, allocationMode="ExactCount")
            if one["allocationMode"] == "ExactCount":
                fill(one, count=1)
            for toleration in entries(one, "tolerations"):
                fill(toleration, operator="Equal")


def _requests(spec: Mapping[str, Any], path: str) -> Errors:
    requests = section(spec, "devices").get("requests") or []
    if len(requests) > _MAX_REQUESTS:
        yield FieldError.too_many(f"{path}.devices.requests", len(requests), _MAX_REQUESTS)
    seen = set()
    for index, request in enumerate(requests):
        here, name = f"{path}.devices.requests[{index}]", text(request, "name")
        yield from required_name(names.dns1123_label, name, f"{here}.name")
        if name in seen:
            yield FieldError.duplicate(here, name)
        seen.add(name)
        exactly, first = request.get("exactly"), request.get("firstAvailable") or []
        if (exactly is None) == (not first):
            detail = "exactly one of `exactly` or `firstAvailable` is required"
            yield FieldError.required(here, detail) if exactly is None else FieldError.invalid(here, name, detail)
        if exactly is not None:
            yield from _wanted(exactly, f"{here}.exactly")
        for number_of, one in enumerate(first):
            there = f"{here}.firstAvailable[{number_of}]"
            yield from required_name(names.dns1123_label, text(one, "name"), f"{there}.name")
            yield from _wanted(one, there)


def _wanted(one: Object, path: str) -> Errors:
    yield from required_name(names.dns1123_subdomain, text(one, "deviceClassName"), f"{path}.deviceClassName")
    mode, count = text(one, "allocationMode"), one.get("count")
    yield from supported(mode, _MODES, f"{path}.allocationMode")
    if mode == "ExactCount" and (count or 0) <= 0:
        yield FieldError.invalid(f"{path}.count", count, "must be greater than zero")
    elif mode == "All" and count:
        detail = "must not be specified when allocationMode is 'All'"
        yield FieldError.invalid(f"{path}.count", count, detail)


def _default_claim(claim: Object) -> None:
    _default_requests(section(claim, "spec"))


def _validate_claim(claim: Object, old: Object | None) -> Errors:
    yield from _requests(spec_of(claim), "spec")
    if old is not None:
        yield from unchanged(spec_of(claim), spec_of(old), "spec")


def _claim_state(claim: Mapping[str, Any]) -> str:
    words = []
    if section(claim, "metadata").get("deletionTimestamp"):
        words.append("deleted")
    status = section(claim, "status")
    if status.get("allocation") is None:
        words.append("pending")
    else:
        words.append("allocated")
        if status.get("reservedFor"):
            words.append("reserved")
    return ",".join(words)


RESOURCE_CLAIMS: Final = KindBehaviour(
    default=_default_claim,
    validate=collected(_validate_claim),
    columns=(NAME, text_column("State", "Whether it has its devices.", _claim_state), AGE),
    has_generation=False,
)


def _default_template(template: Object) -> None:
    _default_requests(section(template, "spec", "spec"))


def _validate_template(template: Object, old: Object | None) -> Errors:
    yield from _requests(section(spec_of(template), "spec"), "spec.spec")
    if old is not None:
        yield from unchanged(spec_of(template), spec_of(old), "spec")


RESOURCE_CLAIM_TEMPLATES: Final = KindBehaviour(
    default=_default_template, validate=collected(_validate_template), columns=(NAME, AGE), has_generation=False
)


def _validate_slice(resource_slice: Object, old: Object | None) -> Errors:
    spec = spec_of(resource_slice)
    yield from required_name(csi_driver_name, text(spec, "driver"), "spec.driver")
    pool = section(spec, "pool")
    if not pool.get("name"):
        yield FieldError.required("spec.pool.name")
    if (pool.get("resourceSliceCount") or 0) <= 0:
        yield FieldError.invalid(
            "spec.pool.resourceSliceCount", pool.get("resourceSliceCount"), "must be greater than zero"
        )
    where = [key for key in ("nodeName", "nodeSelector", "allNodes", "perDeviceNodeSelection") if spec.get(key)]
    if len(where) != 1:
        detail = "exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required"
        yield FieldError.required("spec", detail) if not where else FieldError.invalid("spec", where, detail)
    seen = set()
    for index, device in enumerate(spec.get("devices") or ()):
        name, path = text(device, "name"), f"spec.devices[{index}].name"
        yield from required_name(names.dns1123_label, name, path)
        if name in seen:
            yield FieldError.duplicate(path, name)
        seen.add(name)
    if old is not None:
        before = spec_of(old)
        yield from unchanged(section(spec, "pool").get("name"), section(before, "pool").get("name"), "spec.pool.name")
        for key in ("driver", "nodeName"):
            yield from unchanged(spec.get(key), before.get(key), f"spec.{key}")


RESOURCE_SLICES: Final = KindBehaviour(
    validate=collected(_validate_slice),
    columns=(
        NAME,
        text_column("Node", "Where the devices are.", at("spec", "nodeName")),
        text_column("Driver", "Who drives them.", at("spec", "driver")),
        text_column("Pool", "The pool they belong to.", at("spec", "pool", "name")),
        AGE,
    ),
    fields={
        "spec.driver": lambda obj: text(section(obj, "spec"), "driver"),
        "spec.nodeName": lambda obj: text(section(obj, "spec"), "nodeName"),
    },
)

NAME_AND_AGE: Final = KindBehaviour(columns=(NAME, AGE))
"""Kinds with nothing of their own but their age."""
