"""Validate: everything that must hold of an object before it is committed, whoever wrote it.

In this order, all causes of one step together: shape of metadata, unknown fields (by the call's ``fieldValidation``),
schema, CEL rules, the kind's own rules.
"""

from __future__ import annotations

from typing import Any

from fleetplane.apiserver import metadata as meta
from fleetplane.apiserver.call import Call
from fleetplane.model import errors
from fleetplane.model.errors import FieldError
from fleetplane.model.objects import Object
from fleetplane.model.schema import apply_defaults, prune, validate

_EXTENSIONS = frozenset({"apiextensions.k8s.io", "apiregistration.k8s.io"})
"""Groups that are not Kubernetes' own core: their finalizers need no domain."""


_TYPE_REASONS = frozenset({"FieldValueTypeInvalid"})


def normalise(call: Call, obj: Object, strict: list[str]) -> None:
    """Drop what the schema does not know, as ``fieldValidation`` asks, in place. Raises ApiError 400 or 422."""
    served = call.served
    shape = meta.check_shape(obj)
    if shape:
        raise errors.invalid(served.type.kind, _name(obj), shape, group=served.type.group)
    schema = served.schema
    dropped = meta.drop_unknown(obj["metadata"]) if schema is None else prune(schema, obj)
    _tell_unknown(call, obj, [*strict, *(f'unknown field "{path}"' for path in dropped)])
    if not served.custom:
        _check_schema_types(call, obj)


def _tell_unknown(call: Call, obj: Object, unknown: list[str]) -> None:
    if not unknown or call.field_validation == "Ignore":
        return
    if call.field_validation == "Strict":
        resource = call.served.type
        raise errors.bad_request(
            f'{obj.get("kind")} in version "{resource.version}" cannot be handled as a {resource.kind}: '
            f"strict decoding error: {', '.join(unknown)}"
        )
    for text in unknown:
        call.warn(text)


def check_types(call: Call, obj: Object) -> None:
    """Whether what there is has the types of its kind, which all stages that follow rely on. Raises ApiError 422.

    What is missing or out of range may still be mended by defaults and admission, so it is not looked at yet.
    """
    found = meta.check_shape(obj)
    if found:
        raise errors.invalid(call.served.type.kind, _name(obj), found, group=call.served.type.group)
    _check_schema_types(call, obj)


def _check_schema_types(call: Call, obj: Object) -> None:
    schema = call.served.schema
    if schema is None:
        return
    found = [one for one in validate(schema, obj, None) if one.reason in _TYPE_REASONS]
    if found:
        raise errors.invalid(call.served.type.kind, _name(obj), found, group=call.served.type.group)


def fill_defaults(call: Call, obj: Object) -> None:
    """Schema defaults, then the kind's own, in place."""
    served = call.served
    if served.schema is not None:
        apply_defaults(served.schema, obj)
    served.behaviour.default(obj)


def check(call: Call, new: Object, old: Object | None, *, subresource: str = "") -> None:
    """Raises ApiError 422 with one cause per problem."""
    served = call.served
    behaviour = served.behaviour
    found: list[FieldError] = []
    if subresource not in ("status", "scale"):
        found += meta.validate(
            new,
            namespaced=served.type.namespaced,
            validate_name=behaviour.validate_name,
            any_finalizer=served.custom or served.type.group in _EXTENSIONS,
        )
    if old is not None:
        found += meta.validate_update(new["metadata"], old["metadata"])
    schema = served.schema
    if schema is not None:
        problems = validate(schema, new, old)
        found += problems
        if not problems and served.custom and schema.leads_to_rules():
            found += served.rules().check(new, old)
    if not found:
        rules = behaviour.subresources.get(subresource)
        if rules is not None:
            found += rules.validate(new, old)
        elif subresource == "status":
            found += behaviour.validate_status(new, old)
        else:  # other subresources exist to change what an update may not
            found += behaviour.validate(new, None if subresource else old)
    if found:
        raise errors.invalid(served.type.kind, _name(new), found, group=served.type.group)


def _name(obj: Any) -> str:
    metadata = obj.get("metadata")
    return str(metadata.get("name") or metadata.get("generateName") or "") if isinstance(metadata, dict) else ""
