"""ReplicationControllers and PodTemplates, the oldest ways to keep pods running."""

from __future__ import annotations

from typing import Final

from fleetplane.apiserver.kinds.access import fill, made, section, text
from fleetplane.apiserver.kinds.behaviour import KindBehaviour
from fleetplane.apiserver.kinds.checks import Errors, collected, label_errors, not_negative, spec_of, status_of
from fleetplane.apiserver.kinds.columns import (
    container_images,
    container_names,
    labels_text,
    template_columns,
    text_column,
)
from fleetplane.apiserver.kinds.pod_defaults import default_template
from fleetplane.apiserver.kinds.pod_rules import pod_template
from fleetplane.apiserver.kinds.workload_rules import CURRENT, DESIRED, READY, always_restarting, count, replica_counts
from fleetplane.model.errors import FieldError
from fleetplane.model.objects import Object
from fleetplane.model.table import AGE, NAME


def _default(controller: Object) -> None:
    spec = made(controller, "spec")
    fill(spec, replicas=1)
    template = spec.get("template")
    if not isinstance(template, dict):
        return
    labels = section(template, "metadata").get("labels")
    if isinstance(labels, dict) and labels:
        if not spec.get("selector"):
            spec["selector"] = dict(labels)
        metadata = made(controller, "metadata")
        if not metadata.get("labels"):
            metadata["labels"] = dict(labels)
    default_template(template)


def _validate(controller: Object, old: Object | None) -> Errors:
    spec = spec_of(controller)
    yield from not_negative(spec.get("minReadySeconds"), "spec.minReadySeconds")
    yield from not_negative(spec.get("replicas"), "spec.replicas")
    selector, template = spec.get("selector") or {}, spec.get("template")
    if not selector:
        yield FieldError.required("spec.selector")
    yield from label_errors(selector, "spec.selector")
    if template is None:
        yield FieldError.required("spec.template")
        return
    labels = (template.get("metadata") or {}).get("labels") or {}
    if selector and not selector.items() <= labels.items():
        detail = "`selector` does not match template `labels`"
        yield FieldError.invalid("spec.template.metadata.labels", labels, detail)
    yield from pod_template(template, "spec.template")
    yield from always_restarting(spec, "ReplicationController")


def _validate_status(controller: Object, old: Object | None) -> Errors:
    keys = ("replicas", "fullyLabeledReplicas", "readyReplicas", "availableReplicas")
    yield from replica_counts(status_of(controller), keys)


REPLICATION_CONTROLLERS: Final = KindBehaviour(
    default=_default,
    validate=collected(_validate),
    validate_status=collected(_validate_status),
    columns=(
        NAME,
        DESIRED,
        CURRENT,
        READY,
        AGE,
        *template_columns("spec", "template"),
        text_column(
            "Selector", "Labels of the pods.", lambda obj: labels_text(section(obj, "spec").get("selector")), wide=True
        ),
    ),
    fields={"status.replicas": lambda obj: str(count("status", "replicas")(obj))},
)


def _default_pod_template(template: Object) -> None:
    if isinstance(template.get("template"), dict):
        default_template(template["template"])


def _validate_pod_template(template: Object, old: Object | None) -> Errors:
    yield from pod_template(template.get("template") or {}, "template")


POD_TEMPLATES: Final = KindBehaviour(
    default=_default_pod_template,
    validate=collected(_validate_pod_template),
    columns=(
        NAME,
        text_column(
            "Containers", "Names of the containers.", lambda obj: container_names(section(obj, "template", "spec"))
        ),
        text_column(
            "Images", "Images of the containers.", lambda obj: container_images(section(obj, "template", "spec"))
        ),
        text_column(
            "Pod Labels",
            "Labels pods made from it get.",
            lambda obj: labels_text(section(obj, "template", "metadata").get("labels")),
        ),
    ),
)

COMPONENT_STATUSES: Final = KindBehaviour(
    columns=(
        NAME,
        text_column("Status", "Whether the component is healthy.", lambda obj: _health(obj)[0]),
        text_column("Message", "What the component says.", lambda obj: _health(obj)[1]),
        text_column("Error", "What went wrong when asking.", lambda obj: _health(obj)[2]),
    ),
    has_generation=False,
    status_subresource=False,
)


def _health(obj: object) -> tuple[str, str, str]:
    conditions = obj.get("conditions") if isinstance(obj, dict) else None
    for one in conditions or ():
        if one.get("type") == "Healthy":
            word = {"True": "Healthy", "False": "Unhealthy"}.get(text(one, "status"), "Unknown")
            return word, text(one, "message"), text(one, "error")
    return "Unknown", "", ""
