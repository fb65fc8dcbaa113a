"""What a CustomResourceDefinition must say to be served: apiextensions' ``ValidateCustomResourceDefinition``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from fleetplane.apiserver.unique import unique_claims
from fleetplane.model import names
from fleetplane.model.errors import FieldError
from fleetplane.model.jsonpath import JsonPath
from fleetplane.model.kind.crd import UNIQUE_ANNOTATION
from fleetplane.model.objects import Object
from fleetplane.model.schema.structural import check_structural

_COLUMN_TYPES = ("boolean", "date", "integer", "number", "string")
_COLUMN_FORMATS = ("int32", "int64", "float", "double", "byte", "date", "date-time", "password")
_SELECTABLE_TYPES = ("boolean", "integer", "string")


def check_definition(definition: Object, old: Object | None) -> list[FieldError]:
    """Everything wrong with a definition; ``old`` is the stored one on update."""
    return list(_check(definition, old))


def _check(definition: Object, old: Object | None) -> Iterator[FieldError]:
    spec = definition["spec"]
    wanted = f"{spec['names']['plural']}.{spec['group']}"
    name = definition["metadata"].get("name", "")
    if name != wanted:
        yield FieldError.invalid("metadata.name", name, 'must be spec.names.plural+"."+spec.group')
    group = spec["group"]
    for problem in names.dns1123_subdomain(group):
        yield FieldError.invalid("spec.group", group, problem)
    if "." not in group:
        yield FieldError.invalid("spec.group", group, "should be a domain with at least one dot")
    if spec.get("scope") not in ("Cluster", "Namespaced"):
        yield FieldError.not_supported("spec.scope", spec.get("scope"), ["Cluster", "Namespaced"])
    yield from _names(spec["names"])
    yield from _versions(spec)
    yield from _conversion(spec)
    try:
        unique_claims(definition)
    except ValueError as error:
        yield FieldError.invalid(f"metadata.annotations[{UNIQUE_ANNOTATION}]", "", str(error))
    if old is not None:
        before = old["spec"]
        for path in (("group",), ("scope",), ("names", "plural"), ("names", "kind")):
            if _at(spec, path) != _at(before, path):
                yield FieldError.invalid(f"spec.{'.'.join(path)}", _at(spec, path), "field is immutable")
        served = {one["name"] for one in spec["versions"]}
        for index, stored in enumerate((definition.get("status") or {}).get("storedVersions") or []):
            if stored not in served:
                yield FieldError.invalid(
                    f"status.storedVersions[{index}]",
                    stored,
                    "missing from spec.versions; must remain in spec.versions "
                    "until a storage migration ensures no objects remain persisted in this version",
                )


def _at(value: Any, path: tuple[str, ...]) -> Any:
    for key in path:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _names(declared: Mapping[str, Any]) -> Iterator[FieldError]:
    for key in ("plural", "singular", "kind", "listKind"):
        value = declared.get(key)
        if not value:
            yield FieldError.required(f"spec.names.{key}")
            continue
        for problem in names.dns1035_label(value.lower()):
            yield FieldError.invalid(f"spec.names.{key}", value, problem)
    for key in ("shortNames", "categories"):
        for index, value in enumerate(declared.get(key) or []):
            for problem in names.dns1035_label(value):
                yield FieldError.invalid(f"spec.names.{key}[{index}]", value, problem)
    if declared.get("kind") and declared.get("kind") == declared.get("listKind"):
        yield FieldError.invalid("spec.names.listKind", declared["listKind"], "kind and listKind may not be the same")


def _versions(spec: Mapping[str, Any]) -> Iterator[FieldError]:
    versions = spec.get("versions") or []
    if not versions:
        yield FieldError.required("spec.versions", "at least one version must be given")
    seen: set[str] = set()
    storage = 0
    for index, version in enumerate(versions):
        here = f"spec.versions[{index}]"
        name = version.get("name", "")
        if name in seen:
            yield FieldError.invalid("spec.versions", name, "must contain unique version names")
        seen.add(name)
        for problem in names.dns1035_label(name):
            yield FieldError.invalid(f"{here}.name", name, problem)
        storage += bool(version.get("storage"))
        yield from _schema(version, here)
        yield from _columns(version, here)
        yield from _subresources(version, here)
        if version.get("deprecationWarning") and not version.get("deprecated"):
            yield FieldError.invalid(
                f"{here}.deprecationWarning", version["deprecationWarning"], "can only be set for deprecated versions"
            )
    if versions and storage != 1:
        yield FieldError.invalid(
            "spec.versions",
            [one.get("name") for one in versions],
            "must have exactly one version marked as storage version",
        )


def _schema(version: Mapping[str, Any], here: str) -> Iterator[FieldError]:
    raw = (version.get("schema") or {}).get("openAPIV3Schema")
    if raw is None:
        yield FieldError.required(f"{here}.schema.openAPIV3Schema", "schemas are required")
        return
    path = f"{here}.schema.openAPIV3Schema"
    if raw.get("type") != "object":
        yield FieldError.invalid(f"{path}.type", raw.get("type", ""), "must be object at the root")
        return
    problems = check_structural(raw, path)
    yield from problems
    if not problems and _has_rules(raw):
        from fleetplane.apiserver.rules import check_rules_compile  # noqa: PLC0415 - CEL is loaded where there are rules

        yield from check_rules_compile(raw, path)


def _has_rules(raw: Any) -> bool:
    if isinstance(raw, dict):
        return "x-kubernetes-validations" in raw or any(_has_rules(one) for one in raw.values())
    return False


def _columns(version: Mapping[str, Any], here: str) -> Iterator[FieldError]:
    for index, column in enumerate(version.get("additionalPrinterColumns") or []):
        path = f"{here}.additionalPrinterColumns[{index}]"
        if not column.get("name"):
            yield FieldError.required(f"{path}.name")
        if column.get("type") not in _COLUMN_TYPES:
            yield FieldError.not_supported(f"{path}.type", column.get("type", ""), _COLUMN_TYPES)
        if column.get("format") and column["format"] not in _COLUMN_FORMATS:
            yield FieldError.not_supported(f"{path}.format", column["format"], _COLUMN_FORMATS)
        yield from _json_path(column.get("jsonPath"), f"{path}.jsonPath")
    for index, field in enumerate(version.get("selectableFields") or []):
        yield from _json_path(field.get("jsonPath"), f"{here}.selectableFields[{index}].jsonPath")


def _json_path(text: Any, path: str) -> Iterator[FieldError]:
    if not isinstance(text, str) or not text:
        yield FieldError.required(path)
        return
    if not text.startswith("."):
        yield FieldError.invalid(path, text, "must be a simple json path starting with .")
        return
    try:
        JsonPath.parse(f"{{{text}}}")
    except ValueError as error:
        yield FieldError.invalid(path, text, f"invalid json path: {error}")


def _subresources(version: Mapping[str, Any], here: str) -> Iterator[FieldError]:
    scale = (version.get("subresources") or {}).get("scale")
    if scale is None:
        return
    for key, start in (("specReplicasPath", ".spec."), ("statusReplicasPath", ".status.")):
        value = scale.get(key)
        if not value:
            yield FieldError.required(f"{here}.subresources.scale.{key}")
        elif not value.startswith(start):
            yield FieldError.invalid(
                f"{here}.subresources.scale.{key}", value, f"should be a json path under {start[:-1]}"
            )
    selector = scale.get("labelSelectorPath")
    if selector and not selector.startswith((".spec.", ".status.")):
        yield FieldError.invalid(
            f"{here}.subresources.scale.labelSelectorPath",
            selector,
            "should be a json path under either .spec or .status",
        )


def _conversion(spec: Mapping[str, Any]) -> Iterator[FieldError]:
    conversion = spec.get("conversion") or {}
    strategy = conversion.get("strategy", "None")
    webhook = conversion.get("webhook")
    if strategy not in ("None", "Webhook"):
        yield FieldError.not_supported("spec.conversion.strategy", strategy, ["None", "Webhook"])
    elif strategy == "None" and webhook is not None:
        yield FieldError.forbidden("spec.conversion.webhook", "should not be set when strategy is not set to Webhook")
    elif strategy == "Webhook":
        if webhook is None or not webhook.get("clientConfig"):
            yield FieldError.required(
                "spec.conversion.webhook.clientConfig", "required when strategy is set to Webhook"
            )
        elif not webhook.get("conversionReviewVersions"):
            yield FieldError.required("spec.conversion.webhook.conversionReviewVersions")
        elif not {"v1", "v1beta1"} & set(webhook["conversionReviewVersions"]):
            yield FieldError.invalid(
                "spec.conversion.webhook.conversionReviewVersions",
                webhook["conversionReviewVersions"],
                "must include at least one of v1, v1beta1",
            )
