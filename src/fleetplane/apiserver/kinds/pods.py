"""Pods: created pending, changed little, bound once.

Almost nothing of a running pod's specification may change, because what runs would not follow; what may is listed in
``_without_changeable``. Containers are resized and debugged through subresources of their own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from fleetplane.apiserver.kinds.access import entries, made, section, text
from fleetplane.apiserver.kinds.behaviour import KindBehaviour, SubresourceRules
from fleetplane.apiserver.kinds.checks import (
    MAX_INT32,
    Errors,
    collected,
    in_range,
    ip,
    named,
    parsed_quantity,
    spec_of,
    status_of,
)
from fleetplane.apiserver.kinds.container_rules import ephemeral_containers
from fleetplane.apiserver.kinds.pod_defaults import default_pod
from fleetplane.apiserver.kinds.pod_rules import context_of, pod_spec
from fleetplane.apiserver.kinds.pod_status import COLUMNS
from fleetplane.apiserver.kinds.resource_rules import requirements
from fleetplane.model import names
from fleetplane.model.errors import FieldError
from fleetplane.model.jsonvalue import copied
from fleetplane.model.objects import Object

MIRROR_ANNOTATION: Final = "kubernetes.io/config.mirror"
_TOLERATED_SECONDS: Final = 300
_NODE_TROUBLES: Final = ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable")
_COMPUTE: Final = ("cpu", "memory")
_UPDATE_DETAIL: Final = (
    "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,"
    "`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),"
    "`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)"
)


def quality_of_service(spec: Mapping[str, Any]) -> str:
    """``Guaranteed``, ``Burstable`` or ``BestEffort``, from the requests and limits of cpu and memory."""
    holders = [{"resources": spec["resources"]}] if section(spec, "resources") else []
    holders = holders or [one for key in ("initContainers", "containers") for one in entries(spec, key)]
    any_told, guaranteed = False, bool(holders)
    for holder in holders:
        limits, requests = section(holder, "resources", "limits"), section(holder, "resources", "requests")
        for name in _COMPUTE:
            limit, request = _amount(limits.get(name)), _amount(requests.get(name))
            any_told |= bool(limit or request)
            guaranteed &= bool(limit) and limit == (request or limit)
    if not any_told:
        return "BestEffort"
    return "Guaranteed" if guaranteed else "Burstable"


def _amount(value: Any) -> int:
    found = parsed_quantity(value) if isinstance(value, str) else None
    return found.nanos if found else 0


def _prepare_create(pod: Object) -> None:
    spec = section(pod, "spec")
    status: Object = {"phase": "Pending", "qosClass": quality_of_service(spec)}
    if spec.get("schedulingGates"):
        status["conditions"] = [
            {
                "type": "PodScheduled",
                "status": "False",
                "reason": "SchedulingGated",
                "message": "Scheduling is blocked due to non-empty scheduling gates",
            }
        ]
    pod["status"] = status
    _tolerate_node_troubles(made(pod, "spec"))


def _tolerate_node_troubles(spec: Object) -> None:
    """Every pod stays five minutes on a node that is not well, unless it says otherwise."""
    found = spec.get("tolerations")
    if found is not None and not isinstance(found, list):
        return
    present = entries(spec, "tolerations")
    missing = [key for key in _NODE_TROUBLES if not any(_tolerates(one, key) for one in present)]
    if missing:
        spec["tolerations"] = (found or []) + [
            {"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": _TOLERATED_SECONDS}
            for key in missing
        ]


def _tolerates(toleration: Object, key: str) -> bool:
    return toleration.get("key") in (None, "", key) and toleration.get("effect") in (None, "", "NoExecute")


def _prepare_update(pod: Object, old: Object) -> None:
    quality = section(old, "status").get("qosClass") or quality_of_service(section(old, "spec"))
    made(pod, "status")["qosClass"] = quality
    _tolerate_node_troubles(made(pod, "spec"))


def _validate(pod: Object, old: Object | None) -> Errors:
    spec = spec_of(pod)
    if old is None:
        yield from _validate_new(pod)
    else:
        yield from _validate_change(spec, spec_of(old))
        yield from _validate_mirror(pod, old)


def _validate_new(pod: Object) -> Errors:
    spec = spec_of(pod)
    annotations = pod["metadata"].get("annotations") or {}
    # what has a resource version is stored already, and is checked whole because a subresource changed it
    if spec.get("ephemeralContainers") and not pod["metadata"].get("resourceVersion"):
        yield FieldError.forbidden("spec.ephemeralContainers", "cannot be set on create")
    if annotations.get(MIRROR_ANNOTATION) and not spec.get("nodeName"):
        detail = "must set spec.nodeName if mirror pod annotation is set"
        yield FieldError.invalid(f"metadata.annotations[{MIRROR_ANNOTATION}]", annotations[MIRROR_ANNOTATION], detail)
    if spec.get("nodeName") and spec.get("schedulingGates"):
        detail = "cannot be set until all schedulingGates have been cleared"
        yield FieldError.forbidden("spec.nodeName", detail)
    yield from pod_spec(spec, "spec")


def _validate_mirror(pod: Object, old: Object) -> Errors:
    before = (old["metadata"].get("annotations") or {}).get(MIRROR_ANNOTATION)
    after = (pod["metadata"].get("annotations") or {}).get(MIRROR_ANNOTATION)
    path = f"metadata.annotations[{MIRROR_ANNOTATION}]"
    if before is None and after is not None:
        yield FieldError.forbidden(path, "may not add mirror pod annotation")
    elif before != after:
        yield FieldError.forbidden(path, "may not remove or update mirror pod annotation")


def _validate_change(spec: Object, old: Object) -> Errors:
    for key in ("containers", "initContainers"):
        new_list, old_list = spec.get(key) or [], old.get(key) or []
        if len(new_list) != len(old_list):
            yield FieldError.forbidden(f"spec.{key}", "pod updates may not add or remove containers")
            return
        for index, container in enumerate(new_list):
            image, path = container.get("image") or "", f"spec.{key}[{index}].image"
            if not image:
                yield FieldError.required(path)
            elif image != image.strip():
                yield FieldError.invalid(path, image, "must not have leading or trailing whitespace")
    yield from _deadline_change(spec.get("activeDeadlineSeconds"), old.get("activeDeadlineSeconds"))
    yield from _toleration_change(spec.get("tolerations") or [], old.get("tolerations") or [])
    yield from _gate_change(spec.get("schedulingGates") or [], old.get("schedulingGates") or [])
    changed = _changed_fields(_without_changeable(spec, old), _without_changeable(old, old))
    if changed:
        yield FieldError.forbidden("spec", f"{_UPDATE_DETAIL}\n changed: {', '.join(changed)}")


def _deadline_change(new: int | None, old: int | None) -> Errors:
    path = "spec.activeDeadlineSeconds"
    if new is not None:
        yield from in_range(new, 0, MAX_INT32, path)
        if old is not None and new > old:
            yield FieldError.invalid(path, new, "must be less than or equal to previous value")
    elif old is not None:
        yield FieldError.invalid(path, None, "must not update from a positive integer to nil value")


def _toleration_change(new: list[Object], old: list[Object]) -> Errors:
    def essence(toleration: Object) -> Object:
        return {key: value for key, value in toleration.items() if key != "tolerationSeconds"}

    kept = [essence(one) for one in new]
    if any(essence(one) not in kept for one in old):
        detail = "existing toleration can not be modified except its tolerationSeconds"
        yield FieldError.forbidden("spec.tolerations", detail)


def _gate_change(new: list[Object], old: list[Object]) -> Errors:
    before = {one.get("name") for one in old}
    added = sorted(str(one.get("name")) for one in new if one.get("name") not in before)
    if added:
        detail = f"only deletion is allowed, but found new scheduling gates '{{{', '.join(added)}}}'"
        yield FieldError.forbidden("spec.schedulingGates", detail)


def _without_changeable(spec: Object, old: Object) -> Object:
    """The specification without what an update may change."""
    rest = {
        key: value
        for key, value in spec.items()
        if key not in ("activeDeadlineSeconds", "tolerations", "schedulingGates")
    }
    grace = old.get("terminationGracePeriodSeconds")
    if grace is not None and grace < 0:
        rest.pop("terminationGracePeriodSeconds", None)
    if old.get("schedulingGates"):
        # a pod that waits may still be steered
        rest.pop("nodeSelector", None)
        rest.pop("affinity", None)
    for key in ("containers", "initContainers"):
        if rest.get(key):
            rest[key] = [{k: v for k, v in one.items() if k != "image"} for one in rest[key]]
    return rest


def _changed_fields(new: Object, old: Object) -> list[str]:
    return sorted(key for key in new.keys() | old.keys() if new.get(key) != old.get(key))


def _validate_status(pod: Object, old: Object | None) -> Errors:
    status, before = status_of(pod), status_of(old or {})
    if spec_of(pod).get("nodeName") != spec_of(old or {}).get("nodeName"):
        yield FieldError.forbidden("status.nodeName", "may not be changed directly")
    if status.get("nominatedNodeName"):
        yield from named(names.dns1123_subdomain, status["nominatedNodeName"], "status.nominatedNodeName")
    for index, condition in enumerate(status.get("conditions") or ()):
        yield from named(names.qualified_name, condition.get("type") or "", f"status.conditions[{index}].Type")
    addresses = [one.get("ip") or "" for one in status.get("podIPs") or ()]
    for index, address in enumerate(addresses):
        yield from ip(address, f"status.podIPs[{index}]")
    if status.get("podIP") and addresses and status["podIP"] != addresses[0]:
        yield FieldError.invalid("status.podIPs[0]", addresses[0], "must be the same as podIP")
    policy = spec_of(pod).get("restartPolicy")
    for key in ("containerStatuses", "initContainerStatuses"):
        yield from _transitions(status.get(key) or (), before.get(key) or (), policy, f"status.{key}")


def _transitions(new: Iterable[Object], old: Iterable[Object], policy: Any, path: str) -> Errors:
    """A container that has ended for good does not come back."""
    if policy not in ("Never", "OnFailure"):
        return
    now = {one.get("name"): one for one in new}
    for index, container in enumerate(old):
        ended = section(container, "state").get("terminated")
        if not isinstance(ended, dict) or (policy == "OnFailure" and ended.get("exitCode")):
            continue
        current = now.get(container.get("name"))
        if current is not None and not isinstance(section(current, "state").get("terminated"), dict):
            detail = "may not be transitioned to non-terminated state"
            yield FieldError.forbidden(f"{path}[{index}].state", detail)


def _prepare_ephemeral(pod: Object, old: Object) -> None:
    """Only the ephemeral containers are taken from what was sent."""
    containers = section(pod, "spec").get("ephemeralContainers")
    pod["spec"] = copied(spec_of(old))
    pod["spec"].pop("ephemeralContainers", None)
    if containers:
        pod["spec"]["ephemeralContainers"] = containers
        default_pod(pod)
    pod["status"] = copied(status_of(old))


def _validate_ephemeral(pod: Object, old: Object | None) -> Errors:
    spec = spec_of(pod)
    containers = spec.get("ephemeralContainers") or []
    before = spec_of(old or {}).get("ephemeralContainers") or []
    yield from ephemeral_containers(containers, spec, context_of(spec), "spec.ephemeralContainers")
    now = {one.get("name"): one for one in containers}
    for container in before:
        name = container.get("name")
        if name not in now:
            detail = f'existing ephemeral containers "{name}" may not be removed\n'
            yield FieldError.forbidden("spec.ephemeralContainers", detail)
        elif now[name] != container:
            detail = f'existing ephemeral containers "{name}" may not be changed\n'
            yield FieldError.forbidden("spec.ephemeralContainers", detail)


def _validate_resize(pod: Object, old: Object | None) -> Errors:
    """Resources of containers may change, by cpu and memory, without changing the quality of service."""
    spec, before = spec_of(pod), spec_of(old or {})
    if quality_of_service(spec) != quality_of_service(before):
        detail = "Pod QOS Class may not change as a result of resizing"
        yield FieldError.invalid("spec", quality_of_service(spec), detail)
    for key in ("containers", "initContainers"):
        for index, container in enumerate(spec.get(key) or ()):
            path = f"spec.{key}[{index}].resources"
            yield from requirements(container.get("resources") or {}, path)
            former = (before.get(key) or [])[index : index + 1]
            if former:
                yield from _only_compute_changed(container, former[0], path)
    changed = _changed_fields(_without_resources(spec), _without_resources(before))
    if changed:
        detail = f"only cpu and memory resources are mutable, not: {', '.join(changed)}"
        yield FieldError.forbidden("spec", detail)


def _only_compute_changed(container: Object, former: Object, path: str) -> Errors:
    for kind in ("limits", "requests"):
        new, old = section(container, "resources", kind), section(former, "resources", kind)
        for name in sorted(new.keys() | old.keys()):
            if name not in _COMPUTE and new.get(name) != old.get(name):
                yield FieldError.forbidden(f"{path}.{kind}", "only cpu and memory resources are mutable")
            elif name in old and name not in new:
                yield FieldError.forbidden(f"{path}.{kind}", f"resource {kind} cannot be removed")


def _without_resources(spec: Object) -> Object:
    rest = dict(spec)
    for key in ("containers", "initContainers"):
        if rest.get(key):
            rest[key] = [{k: v for k, v in one.items() if k not in ("resources", "resizePolicy")} for one in rest[key]]
    return rest


def _validate_binding(pod: Object, old: Object | None) -> Errors:
    yield from named(names.dns1123_subdomain, spec_of(pod).get("nodeName") or "", "spec.nodeName")


def _terms(pod: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    yield "spec.nodeName", text(section(pod, "spec"), "nodeName")
    yield "status.phase", text(section(pod, "status"), "phase")


def _host_network(pod: Mapping[str, Any]) -> str:
    return "true" if section(pod, "spec").get("hostNetwork") is True else "false"


PODS: Final = KindBehaviour(
    default=default_pod,
    prepare_create=_prepare_create,
    prepare_update=_prepare_update,
    validate=collected(_validate),
    validate_status=collected(_validate_status),
    columns=COLUMNS,
    terms=_terms,
    indexed_fields=frozenset({"spec.nodeName", "status.phase"}),
    fields={
        "spec.restartPolicy": lambda pod: text(section(pod, "spec"), "restartPolicy"),
        "spec.schedulerName": lambda pod: text(section(pod, "spec"), "schedulerName"),
        "spec.serviceAccountName": lambda pod: text(section(pod, "spec"), "serviceAccountName"),
        "spec.hostNetwork": _host_network,
        "status.podIP": lambda pod: text(section(pod, "status"), "podIP"),
        "status.nominatedNodeName": lambda pod: text(section(pod, "status"), "nominatedNodeName"),
    },
    subresources={
        "binding": SubresourceRules(validate=collected(_validate_binding)),
        "ephemeralcontainers": SubresourceRules(_prepare_ephemeral, collected(_validate_ephemeral)),
        "resize": SubresourceRules(validate=collected(_validate_resize)),
    },
    graceful=True,
)
