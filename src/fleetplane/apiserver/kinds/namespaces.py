"""Namespaces: alive until everything in them is gone."""

from __future__ import annotations

from typing import Any, Final

from fleetplane.apiserver.kinds.access import fill, made, section, text, words
from fleetplane.apiserver.kinds.behaviour import KindBehaviour, SubresourceRules
from fleetplane.apiserver.kinds.checks import Errors, collected, status_of
from fleetplane.apiserver.kinds.columns import at, text_column
from fleetplane.model import names
from fleetplane.model.errors import FieldError
from fleetplane.model.objects import Object
from fleetplane.model.table import AGE, NAME

NAME_LABEL: Final = "kubernetes.io/metadata.name"
FINALIZER: Final = "kubernetes"


def _default(namespace: Object) -> None:
    name = section(namespace, "metadata").get("name")
    if isinstance(name, str) and name:
        made(namespace, "metadata", "labels")[NAME_LABEL] = name
    fill(made(namespace, "status"), phase="Active")


def _prepare_create(namespace: Object) -> None:
    spec = made(namespace, "spec")
    finalizers = words(spec, "finalizers")
    if FINALIZER not in finalizers:
        spec["finalizers"] = [*finalizers, FINALIZER]
    namespace["status"] = {"phase": "Active"}


def _prepare_update(namespace: Object, old: Object) -> None:
    # only the finalize subresource takes finalizers away
    finalizers = section(old, "spec").get("finalizers")
    spec = made(namespace, "spec")
    if finalizers:
        spec["finalizers"] = list(finalizers)
    else:
        spec.pop("finalizers", None)


def _finalizers(namespace: Object, old: Object | None) -> Errors:
    for finalizer in words(section(namespace, "spec"), "finalizers"):
        for problem in names.qualified_name(finalizer):
            yield FieldError.invalid("spec.finalizers", finalizer, problem)
        if "/" not in finalizer and finalizer not in (FINALIZER, "orphan", "foregroundDeletion"):
            detail = "name is neither a standard finalizer name nor is it fully qualified"
            yield FieldError.invalid("spec.finalizers", finalizer, detail)


def _validate_status(namespace: Object, old: Object | None) -> Errors:
    phase = status_of(namespace).get("phase")
    if namespace["metadata"].get("deletionTimestamp"):
        if phase != "Terminating":
            detail = "may only be 'Active' if `deletionTimestamp` is empty"
            yield FieldError.invalid("status.Phase", phase, detail)
    elif phase != "Active":
        detail = "may only be 'Terminating' if `deletionTimestamp` is not empty"
        yield FieldError.invalid("status.Phase", phase, detail)


def _phase(namespace: Any) -> str:
    return text(section(namespace, "status"), "phase")


NAMESPACES: Final = KindBehaviour(
    default=_default,
    prepare_create=_prepare_create,
    prepare_update=_prepare_update,
    validate=collected(_finalizers),
    validate_status=collected(_validate_status),
    validate_name=names.dns1123_label,
    columns=(NAME, text_column("Status", "Active, or Terminating while it is emptied.", at("status", "phase")), AGE),
    terms=lambda namespace: [("status.phase", _phase(namespace))],
    indexed_fields=frozenset({"status.phase"}),
    fields={"name": lambda namespace: text(section(namespace, "metadata"), "name")},
    subresources={"finalize": SubresourceRules(validate=collected(_finalizers))},
    has_generation=False,
)
