"""JSON Merge Patch (RFC 7386): maps are merged, null removes, everything else replaces."""

from __future__ import annotations

from typing import Any

from fleetplane.model.errors import bad_request
from fleetplane.model.jsonvalue import MAX_DEPTH, copied
from fleetplane.model.objects import Object


def merge_patch(obj: Object, patch: Any) -> Object:
    """The object with the patch merged into it. Raises ApiError 400 when the patch is not an object."""
    if type(patch) is not dict:
        raise bad_request("a merge patch must be a JSON object")
    result: Object = copied(obj)
    try:
        _merge(result, copied(patch))
    except RecursionError:
        raise bad_request(f"the patch is nested deeper than {MAX_DEPTH} levels") from None
    return result


def _merge(target: dict[str, Any], patch: dict[str, Any]) -> None:
    for name, value in patch.items():
        if value is None:
            target.pop(name, None)
        elif type(value) is dict:
            inner = target.get(name)
            if type(inner) is not dict:
                inner = target[name] = {}
            _merge(inner, value)
        else:
            target[name] = value
