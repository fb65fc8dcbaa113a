"""What is refused when a vehicle object is written, always with the name of the rule.

Rules that need a dependency are asked again by the reconciler, because a dependency may arrive or change later; what
admission can see it says at once. Pods that somebody makes by hand in the namespace of a limited class obey the same
rules, so that a class cannot be left through the back door; the operator itself and administrators are not asked.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from fleetplane.controller.children import OWNER_UID_LABEL
from fleetplane.model import objects
from fleetplane.model.admission import (
    ALLOWED,
    AdmissionPlugin,
    AdmissionRequest,
    AdmissionRule,
    Decision,
    Elsewhere,
    Reader,
    allowed,
    denied,
)
from fleetplane.model.builtin.types import NAMESPACES
from fleetplane.model.errors import ApiError
from fleetplane.model.objects import Object, is_deleting, labels, metadata, name
from fleetplane.model.resources import ResourceRef
from fleetplane.model.user import MASTERS_GROUP
from fleetplane.operators.vehicles import arrangement
from fleetplane.operators.vehicles.application import application_violations
from fleetplane.operators.vehicles.degradation import degradation_violations
from fleetplane.operators.vehicles.kinds import (
    AppType,
    DevRes,
    VehApplication,
    VehContainerConfig,
    VehDegradation,
    VehDeployment,
    VehMonitor,
    VehPod,
)
from fleetplane.operators.vehicles.limits import Profile, Violation, canonical, pod_violations, profile_of
from fleetplane.operators.vehicles.plan import (
    CLASS_LABEL,
    DEVICES,
    LEVEL,
    OWNER,
    PREFIX,
    RESERVATION,
    Dependencies,
    Refused,
    container_index,
    dependencies_of,
    device_nodes,
    expand,
    index_violations,
    resolve,
    violations,
)
from fleetplane.operators.vehicles.redundancy import GROUP, PAUSED, SUCCESSOR, arrangement_violations

RESOURCES: Final[Mapping[str, ResourceRef]] = {"DevRes": DevRes, "VehContainerConfig": VehContainerConfig}
OPERATORS: Final = frozenset(
    {
        "system:kube-controller-manager",
        "system:serviceaccount:fleetplane-system:vehicles",
        "system:serviceaccount:piccolo-system:vehicles",
    }
)
_ASKED: Final = (DEVICES, RESERVATION, LEVEL, GROUP, SUCCESSOR)
"""Annotations that give something, to whomever they are put on."""
_ARRANGED: Final = (*_ASKED, PAUSED, arrangement.ONE_ACTIVE, arrangement.HELD, OWNER)
"""Annotations of a vehicle pod by which it is arranged with others."""
RUNNING: Final = AdmissionRule(["pods"], subresources=("", "ephemeralcontainers"))
"""Writes that decide what runs in a pod."""
IN_CLASSES: Final = Elsewhere(namespaces={"matchExpressions": [{"key": CLASS_LABEL, "operator": "Exists"}]})


async def _check_workload(request: AdmissionRequest, reader: Reader) -> Decision:
    new = request.new or {}
    if is_deleting(new) or (request.old is not None and request.old.get("spec") == new.get("spec")):
        return ALLOWED
    spec = new.get("spec") or {}
    app_type = str(spec.get("appType") or "")
    if not app_type:
        return refusal(request, [Violation("app-type", "spec.appType", "is required: system or 3rd-party")])
    profile = profile_of(app_type, await reader.get(AppType, canonical(app_type)))
    if profile is None:
        shown = f"there is no AppType {canonical(app_type)!r}; system and 3rd-party are always there"
        return refusal(request, [Violation("app-type", "spec.appType", shown)])
    found = {
        one: await reader.get(RESOURCES[one[0]], one[1], request.namespace) for one in dependencies_of(spec) if one[1]
    }
    known = resolve(spec, lambda kind, wanted: found.get((kind, wanted)))
    app = request.name or name(new)
    problems = list(_workload_problems(request.resource.kind, profile, app, spec, known))
    if problems:
        return refusal(request, problems)
    return allowed(*_warnings(request.resource.kind, spec, known))


def _workload_problems(
    kind: str, profile: Profile, app: str, spec: Mapping[str, Any], known: Dependencies
) -> Iterator[Violation]:
    broken = list(violations(profile, app, spec, known))
    if kind == VehDeployment.resource.kind:
        broken += arrangement_violations(profile, spec)
    else:
        broken += arrangement.violations(profile, spec)
        arranged = None if broken else arrangement.arrange(spec)
        made = arrangement.effective(spec, arranged)
        broken += index_violations(made)
        if not (made.get("podSpec") or {}).get("containers"):
            broken.append(Violation("containers", "spec.podSpec.containers", "needs at least one container"))
        if not broken and not known.missing:
            broken += _misfits(app, made, known, profile, arranged)
    yield from broken


def _misfits(
    app: str, spec: Mapping[str, Any], known: Dependencies, profile: Profile, arranged: arrangement.Arranged | None
) -> Iterator[Violation]:
    try:
        expand(app, spec, known, profile, arranged.alike if arranged is not None else ())
    except Refused as error:
        yield error.violation


def _warnings(kind: str, spec: Mapping[str, Any], known: Dependencies) -> Iterator[str]:
    made = arrangement.effective(spec, arrangement.arrange(spec)) if kind == VehPod.resource.kind else spec
    count = len((made.get("podSpec") or {}).get("containers") or ())
    for key in ("devContainerIdx", "vehContainerConfigIdx"):
        try:
            warning = container_index(int(spec.get(key) or 0), count)[1]
        except IndexError:
            continue
        if warning:
            yield f"spec.{key}: {warning}"
    if known.missing:
        yield f"not there yet: {', '.join(known.missing)}; the pod starts when they are"


async def _check_degradation(request: AdmissionRequest, _reader: Reader) -> Decision:
    problems = list(degradation_violations((request.new or {}).get("spec") or {}))
    return refusal(request, problems) if problems else ALLOWED


async def _check_application(request: AdmissionRequest, _reader: Reader) -> Decision:
    problems = list(application_violations((request.new or {}).get("spec") or {}))
    return refusal(request, problems) if problems else ALLOWED


async def _check_monitor(request: AdmissionRequest, _reader: Reader) -> Decision:
    """A watcher says things in the spec of its VehMonitor; what it belongs to and how it ends is not the watcher's."""
    if MASTERS_GROUP in request.user.groups or request.user.name in OPERATORS or request.old is None:
        return ALLOWED
    old, new = metadata(request.old), metadata(request.new or {})
    parts = ("labels", "annotations", "ownerReferences", "finalizers")
    changed = [part for part in parts if (old.get(part) or None) != (new.get(part) or None)]
    text = "is written by the vehicles operator and by administrators only"
    problems = [Violation("monitor-metadata", f"metadata.{part}", text) for part in changed]
    return refusal(request, problems) if problems else ALLOWED


async def _check_device(request: AdmissionRequest, _reader: Reader) -> Decision:
    spec = (request.new or {}).get("spec") or {}
    problems = []
    for key in ("devType", "path"):
        value = spec.get(key)
        if value is not None and not isinstance(value, str) and not _is_texts(value):
            problems.append(Violation("device-form", f"spec.{key}", "is a text or a list of texts"))
    if not problems:
        nodes, kinds = device_nodes(spec), spec.get("devType")
        for node in nodes:
            if not node.startswith("/") or "/../" in f"{node}/":
                problems.append(Violation("device-path", "spec.path", f"{node} is not an absolute path"))
        if isinstance(kinds, list) and isinstance(spec.get("path"), list) and len(kinds) != len(nodes):
            problems.append(
                Violation("device-form", "spec.devType", f"{len(kinds)} types do not pair with {len(nodes)} paths")
            )
    return refusal(request, problems) if problems else ALLOWED


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(one, str) for one in value)


async def _check_pod(request: AdmissionRequest, reader: Reader) -> Decision:
    """A pod made by hand, or by a workload, in the namespace of a class."""
    ours = request.user.name in OPERATORS and is_ours(request.new or {})
    if MASTERS_GROUP in request.user.groups and request.user.name not in OPERATORS:
        return ALLOWED
    app_type = labels(await reader.get(NAMESPACES, request.namespace) or {}).get(CLASS_LABEL)
    if app_type is None:
        return ALLOWED
    if request.operation == "CREATE" and (borrowed := await _borrowed(request, reader, ours=ours)) is not None:
        return refusal(request, [borrowed])
    if ours:
        return ALLOWED
    profile = profile_of(app_type, await reader.get(AppType, app_type))
    if profile is None:
        return ALLOWED
    problems = list(pod_violations(profile, _brought(request), "spec"))
    # Priorities are filled in by the server where nobody asked for one; classes of ours are given by level.
    problems = [one for one in problems if one.rule != "no-priority"]
    return refusal(request, problems) if problems else ALLOWED


async def _borrowed(request: AdmissionRequest, reader: Reader, *, ours: bool) -> Violation | None:
    """A watcher's account is for its watcher: whoever else ran under it could have another's primaries stopped."""
    account = str(((request.new or {}).get("spec") or {}).get("serviceAccountName") or "default")
    if account == "default" or (ours and (request.name or name(request.new or {})) == account):
        return None
    if await reader.get(VehMonitor, account, request.namespace) is None:
        return None
    return Violation("watcher-account", "spec.serviceAccountName", f"{account} is the account of a watcher")


def _brought(request: AdmissionRequest) -> Mapping[str, Any]:
    """What of a pod's spec is new: all of it, or images that were changed and containers that were added for debugging."""
    new: Mapping[str, Any] = (request.new or {}).get("spec") or {}
    if request.operation == "CREATE":
        return new
    old = (request.old or {}).get("spec") or {}
    found: dict[str, Any] = {}
    for kind in ("initContainers", "containers"):
        known = {(one.get("name"), one.get("image")) for one in old.get(kind) or ()}
        found[kind] = [
            {"name": one.get("name"), "image": one.get("image")}
            for one in new.get(kind) or ()
            if (one.get("name"), one.get("image")) not in known
        ]
    there = {one.get("name") for one in old.get("ephemeralContainers") or ()}
    found["ephemeralContainers"] = [one for one in new.get("ephemeralContainers") or () if one.get("name") not in there]
    return found


async def _check_asking(request: AdmissionRequest, _reader: Reader) -> Decision:
    """Devices, realtime and levels are given through a VehPod; a pod that asks the node itself gets around the rules.

    And what the node is told of an arrangement is nobody else's to change: who thaws a standby has made a second active.
    """
    if MASTERS_GROUP in request.user.groups and request.user.name not in OPERATORS:
        return ALLOWED
    old, new = objects.annotations(request.old or {}), objects.annotations(request.new or {})
    changed = [f"annotations[{key}]" for key in _ASKED if key in new and new[key] != old.get(key)]
    if OWNER in old:
        changed = [f"annotations[{key}]" for key in _ARRANGED if new.get(key) != old.get(key)]
        # By this label its pods are found: one that is not found is taken to have stopped.
        if labels(request.old or {}).get(OWNER_UID_LABEL) != labels(request.new or {}).get(OWNER_UID_LABEL):
            changed.append(f"labels[{OWNER_UID_LABEL}]")
    if not changed or (request.user.name in OPERATORS and is_ours(request.new or {})):
        return ALLOWED
    text = "is written by the vehicles operator and by administrators only"
    return refusal(request, [Violation("node-annotations", f"metadata.{key}", text) for key in changed])


def is_ours(pod: Object) -> bool:
    """Made by this operator itself: pods of other controllers always have an owner reference."""
    meta = pod.get("metadata") or {}
    return f"{PREFIX}owner" in (meta.get("annotations") or {}) and not meta.get("ownerReferences")


def refusal(request: AdmissionRequest, problems: list[Violation]) -> Decision:
    """403, naming every rule that was broken."""
    shown = "; ".join(str(one) for one in problems)
    decision = denied(shown, request=request)
    if decision.denial is None:  # pragma: no cover - denied always denies
        raise ApiError(500, "a refusal without a denial")
    annotation = (PREFIX + "rules", ",".join(dict.fromkeys(one.rule for one in problems)))
    return Decision(denial=decision.denial, audit_annotations=(annotation,))


PLUGINS: Final = (
    AdmissionPlugin(
        "workloads.vehicles.fleetplane.io", "validate", [AdmissionRule([VehPod, VehDeployment])], _check_workload
    ),
    AdmissionPlugin(
        "applications.vehicles.fleetplane.io", "validate", [AdmissionRule([VehApplication])], _check_application
    ),
    AdmissionPlugin(
        "degradation.vehicles.fleetplane.io", "validate", [AdmissionRule([VehDegradation])], _check_degradation
    ),
    AdmissionPlugin(
        "monitors.vehicles.fleetplane.io", "validate", [AdmissionRule([VehMonitor], ["UPDATE"])], _check_monitor
    ),
    AdmissionPlugin("devices.vehicles.fleetplane.io", "validate", [AdmissionRule([DevRes])], _check_device),
    AdmissionPlugin(
        "node-annotations.vehicles.fleetplane.io",
        "validate",
        [AdmissionRule(["pods"])],
        _check_asking,
        elsewhere=Elsewhere(served=False),  # no other node reads them
    ),
    AdmissionPlugin(
        "pods.vehicles.fleetplane.io",
        "validate",
        [RUNNING],
        _check_pod,
        elsewhere=IN_CLASSES,
    ),
)
