"""The storage group: classes, drivers and attachments."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from fleetplane.apiserver.kinds.access import entries, fill, made, section, text, words
from fleetplane.apiserver.kinds.behaviour import KindBehaviour
from fleetplane.apiserver.kinds.checks import (
    Errors,
    collected,
    named,
    quantity,
    required_name,
    spec_of,
    supported,
    unchanged,
)
from fleetplane.apiserver.kinds.columns import UNSET, at, boolean_column, integer_column, text_column
from fleetplane.apiserver.kinds.volume_rules import csi_driver_name
from fleetplane.model import names
from fleetplane.model.errors import FieldError
from fleetplane.model.objects import Object
from fleetplane.model.selectors import validate_label_selector
from fleetplane.model.table import AGE, NAME

DEFAULT_CLASS: Final = "storageclass.kubernetes.io/is-default-class"
_MAX_PARAMETERS: Final = 512
_MAX_PARAMETER_SIZE: Final = 256 * 1024


def _default_class(storage_class: Object) -> None:
    fill(storage_class, reclaimPolicy="Delete", volumeBindingMode="Immediate")


def _parameters(found: Mapping[str, str], path: str) -> Errors:
    if len(found) > _MAX_PARAMETERS:
        yield FieldError.too_many(path, len(found), _MAX_PARAMETERS)
    if "" in found:
        yield FieldError.invalid(path, "", "field can not be empty.")
    if sum(len(key) + len(value) for key, value in found.items()) > _MAX_PARAMETER_SIZE:
        yield FieldError.too_long(path, _MAX_PARAMETER_SIZE)


def _validate_class(storage_class: Object, old: Object | None) -> Errors:
    provisioner = text(storage_class, "provisioner")
    yield from required_name(lambda value: names.qualified_name(value.lower()), provisioner, "provisioner")
    yield from _parameters(storage_class.get("parameters") or {}, "parameters")
    yield from supported(text(storage_class, "reclaimPolicy"), ("Delete", "Retain"), "reclaimPolicy")
    choices = ("Immediate", "WaitForFirstConsumer")
    yield from supported(text(storage_class, "volumeBindingMode"), choices, "volumeBindingMode")
    for index, term in enumerate(storage_class.get("allowedTopologies") or ()):
        for number_of, expression in enumerate(term.get("matchLabelExpressions") or ()):
            path = f"allowedTopologies[{index}].matchLabelExpressions[{number_of}]"
            if not expression.get("values"):
                yield FieldError.required(f"{path}.values")
            yield from named(names.label_key, text(expression, "key"), f"{path}.key")
    if old is not None:
        if (storage_class.get("parameters") or {}) != (old.get("parameters") or {}):
            yield FieldError.forbidden("parameters", "updates to parameters are forbidden.")
        for key in ("provisioner", "reclaimPolicy", "volumeBindingMode"):
            if storage_class.get(key) != old.get(key):
                yield FieldError.forbidden(key, f"updates to {key} are forbidden.")


def _class_name(storage_class: Mapping[str, Any]) -> str:
    default = section(storage_class, "metadata", "annotations").get(DEFAULT_CLASS) == "true"
    return text(section(storage_class, "metadata"), "name") + (" (default)" if default else "")


_NAME_WITH_DEFAULT: Final = replace(NAME, cell=lambda obj, now: _class_name(obj))

STORAGE_CLASSES: Final = KindBehaviour(
    default=_default_class,
    validate=collected(_validate_class),
    columns=(
        _NAME_WITH_DEFAULT,
        text_column("Provisioner", "Who makes its volumes.", at("provisioner")),
        text_column("ReclaimPolicy", "What happens to a volume nobody claims.", at("reclaimPolicy")),
        text_column("VolumeBindingMode", "When a volume is chosen.", at("volumeBindingMode", default=UNSET)),
        text_column("AllowVolumeExpansion", "Whether volumes may grow.", at("allowVolumeExpansion", default=False)),
        AGE,
    ),
    has_generation=False,
)


def _default_driver(driver: Object) -> None:
    spec = made(driver, "spec")
    fill(
        spec,
        attachRequired=True,
        podInfoOnMount=False,
        storageCapacity=False,
        fsGroupPolicy="ReadWriteOnceWithFSType",
        requiresRepublish=False,
        seLinuxMount=False,
    )
    if not spec.get("volumeLifecycleModes"):
        spec["volumeLifecycleModes"] = ["Persistent"]


def _validate_driver(driver: Object, old: Object | None) -> Errors:
    spec = spec_of(driver)
    yield from named(csi_driver_name, text(driver["metadata"], "name"), "metadata.name")
    for index, mode in enumerate(spec.get("volumeLifecycleModes") or ()):
        yield from supported(mode, ("Ephemeral", "Persistent"), f"spec.volumeLifecycleModes[{index}]")
    choices = ("File", "None", "ReadWriteOnceWithFSType")
    yield from supported(text(spec, "fsGroupPolicy"), choices, "spec.fsGroupPolicy")
    seen = set()
    for index, token in enumerate(spec.get("tokenRequests") or ()):
        audience, path = text(token, "audience"), f"spec.tokenRequests[{index}]"
        if audience in seen:
            yield FieldError.duplicate(f"{path}.audience", audience)
        seen.add(audience)
        seconds = token.get("expirationSeconds")
        if seconds is not None and seconds < 600:
            detail = "may not specify a duration less than 10 minutes"
            yield FieldError.invalid(f"{path}.expirationSeconds", seconds, detail)
    if old is not None:
        before = spec_of(old)
        for key in ("attachRequired", "volumeLifecycleModes"):
            yield from unchanged(spec.get(key), before.get(key), f"spec.{key}")


CSI_DRIVERS: Final = KindBehaviour(
    default=_default_driver,
    validate=collected(_validate_driver),
    columns=(
        NAME,
        boolean_column(
            "AttachRequired", "Whether volumes are attached first.", at("spec", "attachRequired", default=True)
        ),
        boolean_column("PodInfoOnMount", "Whether it is told of the pod.", at("spec", "podInfoOnMount", default=False)),
        boolean_column("StorageCapacity", "Whether it reports capacity.", at("spec", "storageCapacity", default=False)),
        text_column(
            "TokenRequests",
            "Audiences of the tokens it needs.",
            lambda obj: (
                ",".join(text(one, "audience") for one in entries(section(obj, "spec"), "tokenRequests")) or UNSET
            ),
        ),
        boolean_column(
            "RequiresRepublish", "Whether mounts are refreshed.", at("spec", "requiresRepublish", default=False)
        ),
        text_column(
            "Modes",
            "Lives its volumes may have.",
            lambda obj: ",".join(words(section(obj, "spec"), "volumeLifecycleModes")),
        ),
        AGE,
    ),
    unconditional_update=False,
)


def _validate_csi_node(node: Object, old: Object | None) -> Errors:
    seen = set()
    for index, driver in enumerate(spec_of(node).get("drivers") or ()):
        name, path = text(driver, "name"), f"spec.drivers[{index}]"
        yield from required_name(csi_driver_name, name, f"{path}.name")
        if name in seen:
            yield FieldError.duplicate(f"{path}.name", name)
        seen.add(name)
        if not driver.get("nodeID"):
            yield FieldError.required(f"{path}.nodeID")
        count = section(driver, "allocatable").get("count")
        if count is not None and count < 0:
            yield FieldError.invalid(f"{path}.allocatable.count", count, "must be greater than or equal to 0")


CSI_NODES: Final = KindBehaviour(
    validate=collected(_validate_csi_node),
    columns=(
        NAME,
        integer_column("Drivers", "Drivers on the node.", lambda obj: len(entries(section(obj, "spec"), "drivers"))),
        AGE,
    ),
    has_generation=False,
    unconditional_update=False,
)


def _validate_capacity(capacity: Object, old: Object | None) -> Errors:
    yield from required_name(names.dns1123_subdomain, text(capacity, "storageClassName"), "storageClassName")
    yield from validate_label_selector(capacity.get("nodeTopology"), "nodeTopology")
    for key in ("capacity", "maximumVolumeSize"):
        if capacity.get(key) is not None:
            yield from quantity(capacity[key], key)
    if old is not None:
        for key in ("nodeTopology", "storageClassName"):
            yield from unchanged(capacity.get(key), old.get(key), key)


CSI_STORAGE_CAPACITIES: Final = KindBehaviour(
    validate=collected(_validate_capacity),
    columns=(
        NAME,
        text_column("StorageClassName", "The class it is about.", at("storageClassName")),
        text_column("Capacity", "How much there is.", at("capacity", default=UNSET)),
    ),
    has_generation=False,
    unconditional_update=False,
)


def _validate_attachment(attachment: Object, old: Object | None) -> Errors:
    spec = spec_of(attachment)
    yield from required_name(csi_driver_name, text(spec, "attacher"), "spec.attacher")
    source = spec.get("source") or {}
    told = [key for key in ("persistentVolumeName", "inlineVolumeSpec") if source.get(key)]
    if not told:
        detail = "must specify exactly one of inlineVolumeSpec and persistentVolumeName"
        yield FieldError.required("spec.source", detail)
    elif len(told) > 1:
        detail = "must specify exactly one of inlineVolumeSpec and persistentVolumeName"
        yield FieldError.invalid("spec.source", source, detail)
    yield from required_name(names.dns1123_subdomain, text(spec, "nodeName"), "spec.nodeName")
    if old is not None:
        yield from unchanged(spec, spec_of(old), "spec")


VOLUME_ATTACHMENTS: Final = KindBehaviour(
    validate=collected(_validate_attachment),
    columns=(
        NAME,
        text_column("Attacher", "Who attaches it.", at("spec", "attacher")),
        text_column("PV", "The volume.", at("spec", "source", "persistentVolumeName")),
        text_column("Node", "Where to.", at("spec", "nodeName")),
        boolean_column("Attached", "Whether it is.", at("status", "attached", default=False)),
        AGE,
    ),
    has_generation=False,
    unconditional_update=False,
)


def _validate_attributes(attributes: Object, old: Object | None) -> Errors:
    yield from required_name(csi_driver_name, text(attributes, "driverName"), "driverName")
    parameters = attributes.get("parameters") or {}
    if not parameters:
        yield FieldError.required("parameters", "must contain at least one key/value pair")
    yield from _parameters(parameters, "parameters")
    if old is not None:
        for key in ("driverName", "parameters"):
            if attributes.get(key) != old.get(key):
                yield FieldError.forbidden(key, f"updates to {key} are forbidden.")


VOLUME_ATTRIBUTES_CLASSES: Final = KindBehaviour(
    validate=collected(_validate_attributes),
    columns=(NAME, text_column("DriverName", "Whose attributes they are.", at("driverName")), AGE),
    has_generation=False,
)
