"""Signed applications only: what an AppType with ``trustedKeys`` lets in, and that there is no other way in.

Rule ``package-signature``. A VehApplication of such a class is taken when its microservices, as a whole and under its
name, are signed by one of the keys. Everything else that could bring other content into the class is refused to all but the
operator: workloads of their own (starting and stopping them is not content), the notes from which an update is taken
back, pods made by hand or given another image or a debugging container. A rule on signals may start, stop and delete there,
and not change anything (``lifecycle`` asks for the class).

Keys that change are asked about again by the controller of VehApplications; what runs goes on.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from fleetplane.model import names, objects
from fleetplane.model.admission import (
    ALLOWED,
    AdmissionPlugin,
    AdmissionRequest,
    AdmissionRule,
    Decision,
    Reader,
)
from fleetplane.model.builtin.types import NAMESPACES
from fleetplane.model.objects import Object, is_deleting, labels, name
from fleetplane.model.user import MASTERS_GROUP
from fleetplane.operators.vehicles.admission import IN_CLASSES, OPERATORS, RUNNING, is_ours, refusal
from fleetplane.operators.vehicles.application import DIGEST, GOOD, classes_of, unsigned_classes
from fleetplane.operators.vehicles.kinds import AppType, VehApplication, VehDeployment, VehPod
from fleetplane.operators.vehicles.lifecycle import PREVIOUS
from fleetplane.operators.vehicles.limits import Violation, canonical
from fleetplane.operators.vehicles.package_signing import RULE, SigningError, is_signed_class, keys_of, public_key
from fleetplane.operators.vehicles.plan import CLASS_LABEL

_NOTES: Final = (DIGEST, GOOD, PREVIOUS)
"""Annotations from which the operator goes back to an earlier form."""


def class_violations(app_type: Mapping[str, Any]) -> list[Violation]:
    """An AppType that would have no effect, or a key nobody can read and which would let nothing in."""
    found, called = [], name(app_type)
    if canonical(called) != called:
        text = f"{called} is another word for {canonical(called)}; an AppType is found by that name only"
        found.append(Violation("app-type-name", "metadata.name", text))
    space = str((app_type.get("spec") or {}).get("namespace") or "")
    if space and (wrong := names.dns1123_label(space)):
        found.append(Violation("app-type-namespace", "spec.namespace", f"{space} is no namespace: {wrong[0]}"))
    for number, pem in enumerate(keys_of(app_type)):
        try:
            public_key(pem)
        except SigningError as error:
            found.append(Violation("trusted-key", f"spec.trustedKeys[{number}]", str(error)))
    return found


async def _check_class(request: AdmissionRequest, _reader: Reader) -> Decision:
    new = request.new or {}
    if is_deleting(new) or (request.old is not None and request.old.get("spec") == new.get("spec")):
        return ALLOWED
    problems = class_violations(new)
    return refusal(request, problems) if problems else ALLOWED


async def _check_application(request: AdmissionRequest, reader: Reader) -> Decision:
    """A VehApplication brings signatures of its microservices, as a whole and under its name."""
    new = request.new or {}
    spec = new.get("spec") or {}
    if is_deleting(new) or (request.old is not None and (request.old.get("spec") or {}) == spec):
        return ALLOWED
    trusted = {one: keys_of(await reader.get(AppType, one)) for one in classes_of(spec)}
    problems = [
        Violation(RULE, "spec.signatures", f"no signature of these microservices is by a key that {one} trusts")
        for one in unsigned_classes(request.name or name(new), spec, trusted)
    ]
    return refusal(request, problems) if problems else ALLOWED


async def _check_workload(request: AdmissionRequest, reader: Reader) -> Decision:
    """A VehPod or VehDeployment that somebody else than the operator writes."""
    old, new = request.old, request.new or {}
    if request.user.name in OPERATORS or is_deleting(new) or _content(old) == _content(new):
        return ALLOWED
    classes = {canonical(str((one.get("spec") or {}).get("appType") or "")) for one in (old, new) if one is not None}
    for app_type in sorted(classes - {""}):
        if is_signed_class(await reader.get(AppType, app_type)):
            text = f"workloads of type {app_type} come as a signed VehApplication, and are changed by it only"
            return refusal(request, [Violation(RULE, "spec", text)])
    return ALLOWED


def _content(obj: Mapping[str, Any] | None) -> Any:
    """What a signature vouches for; that it runs or is stopped is not part of it."""
    if obj is None:
        return None
    spec = {key: value for key, value in (obj.get("spec") or {}).items() if key != "state"}
    noted = objects.annotations(obj)
    return spec, {key: noted.get(key) for key in _NOTES}


async def _check_pod(request: AdmissionRequest, reader: Reader) -> Decision:
    """A pod that somebody else than the operator writes into the namespace of a class."""
    new = request.new or {}
    if request.user.name in OPERATORS:
        if is_ours(new):
            return ALLOWED
    elif MASTERS_GROUP in request.user.groups:
        return ALLOWED
    if _executed(request.old) == _executed(new):
        return ALLOWED
    app_type = labels(await reader.get(NAMESPACES, request.namespace) or {}).get(CLASS_LABEL)
    if app_type is None or not is_signed_class(await reader.get(AppType, app_type)):
        return ALLOWED
    text = f"pods of type {app_type} are made of signed applications, by the operator"
    return refusal(request, [Violation(RULE, "spec", text)])


def _executed(pod: Object | None) -> Any:
    """Which images, and what of them."""
    if pod is None:
        return None
    spec = pod.get("spec") or {}
    kinds = ("initContainers", "containers", "ephemeralContainers")
    keys = ("name", "image", "command", "args")
    return [[{key: one.get(key) for key in keys} for one in spec.get(kind) or ()] for kind in kinds]


PLUGINS: Final = (
    AdmissionPlugin("classes.vehicles.fleetplane.io", "validate", [AdmissionRule([AppType])], _check_class),
    AdmissionPlugin(
        "signed-applications.vehicles.fleetplane.io", "validate", [AdmissionRule([VehApplication])], _check_application
    ),
    AdmissionPlugin(
        "signed-workloads.vehicles.fleetplane.io",
        "validate",
        [AdmissionRule([VehPod, VehDeployment])],
        _check_workload,
    ),
    AdmissionPlugin(
        "signed-pods.vehicles.fleetplane.io",
        "validate",
        [RUNNING],
        _check_pod,
        elsewhere=IN_CLASSES,
    ),
)
