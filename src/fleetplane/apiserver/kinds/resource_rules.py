"""Rules for amounts: the resources of containers and pods, and what resources may be called."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from fleetplane.apiserver.kinds.checks import Errors, named, parsed_quantity, quantity
from fleetplane.model import names
from fleetplane.model.errors import FieldError
from fleetplane.model.objects import Object

HUGE_PAGES: Final = "hugepages-"
_STANDARD_CONTAINER: Final = frozenset({"cpu", "memory", "ephemeral-storage"})
_INTEGER: Final = frozenset({"pods", "services", "replicationcontrollers", "resourcequotas", "secrets", "configmaps"})


def is_native(name: str) -> bool:
    """Of Kubernetes itself: no prefix, or one of its own."""
    return "/" not in name or "kubernetes.io/" in name


def is_extended(name: str) -> bool:
    """A whole-numbered resource of somebody else: ``example.com/gpu``."""
    if is_native(name) or name.startswith("requests."):
        return False
    return not names.qualified_name("requests." + name)


def is_overcommittable(name: str) -> bool:
    return is_native(name) and not name.startswith(HUGE_PAGES)


def is_integer(name: str) -> bool:
    return name in _INTEGER or is_extended(name)


def resource_name(name: str, path: str) -> Errors:
    problems = names.qualified_name(name)
    if problems:
        for problem in problems:
            yield FieldError.invalid(path, name, problem)


def container_resource_name(name: str, path: str) -> Errors:
    yield from resource_name(name, path)
    if "/" not in name:
        if name not in _STANDARD_CONTAINER and not name.startswith(HUGE_PAGES):
            yield FieldError.invalid(path, name, "must be a standard resource for containers")
    elif not is_native(name) and not is_extended(name):
        yield FieldError.invalid(path, name, "doesn't follow extended resource name standard")


def quantity_of(name: str, value: Any, path: str) -> Errors:
    yield from quantity(value, path)
    found = parsed_quantity(value)
    if found is not None and is_integer(name) and found.nanos % 10**9:
        yield FieldError.invalid(path, value, "must be an integer")


def requirements(resources: Mapping[str, Any], path: str, *, claims: frozenset[str] | None = None) -> Errors:
    """``ResourceRequirements`` of a container; ``claims`` are the names of the pod's resource claims."""
    limits: Mapping[str, Any] = resources.get("limits") or {}
    requests: Mapping[str, Any] = resources.get("requests") or {}
    for name, value in limits.items():
        yield from container_resource_name(name, f"{path}.limits")
        yield from quantity_of(name, value, f"{path}.limits[{name}]")
    for name, value in requests.items():
        yield from container_resource_name(name, f"{path}.requests")
        yield from quantity_of(name, value, f"{path}.requests[{name}]")
        yield from _request_within_limit(name, value, limits.get(name), path)
    used = limits.keys() | requests.keys()
    if any(name.startswith(HUGE_PAGES) for name in used) and not used & {"cpu", "memory"}:
        yield FieldError.forbidden(path, "HugePages require cpu or memory")
    seen = set()
    for index, claim in enumerate(resources.get("claims") or ()):
        name = str(claim.get("name") or "")
        here = f"{path}.claims[{index}]"
        key = (name, claim.get("request"))
        if not name:
            yield FieldError.required(f"{here}.name")
        elif key in seen:
            yield FieldError.duplicate(here, name)
        elif claims is not None and name not in claims:
            yield FieldError.not_found(f"{here}.name", name)
        seen.add(key)


def _request_within_limit(name: str, request: Any, limit: Any, path: str) -> Errors:
    asked = parsed_quantity(request)
    if asked is None:
        return
    if limit is None:
        if not is_overcommittable(name):
            yield FieldError.required(f"{path}.limits", "Limit must be set for non overcommitable resources")
        return
    most = parsed_quantity(limit)
    if most is None:
        return
    if not is_overcommittable(name) and asked != most:
        yield FieldError.invalid(f"{path}.requests", request, f"must be equal to {name} limit of {limit}")
    elif asked > most:
        yield FieldError.invalid(f"{path}.requests", request, f"must be less than or equal to {name} limit of {limit}")


def pod_resources(resources: Object, path: str) -> Errors:
    """Pod-level resources: only what can be shared between containers."""
    for kind in ("limits", "requests"):
        for name in resources.get(kind) or {}:
            if name not in ("cpu", "memory") and not name.startswith(HUGE_PAGES):
                yield FieldError.not_supported(f"{path}.{kind}[{name}]", name, ["cpu", "hugepages-", "memory"])
    yield from requirements(resources, path)


def resource_list(amounts: Mapping[str, Any], path: str) -> Errors:
    """A plain list of amounts: names and values."""
    for name, value in amounts.items():
        yield from named(names.qualified_name, name, f"{path}[{name}]")
        yield from quantity_of(name, value, f"{path}[{name}]")
