"""JSON Patch (RFC 6902): a list of operations, all or none of which apply.

Ours rather than a library's, because the server needs bounds no library has: on the number of operations and on what
``copy`` can multiply (a chain of copies doubles the document each time). As in Kubernetes, an array index may be
negative.
"""

from __future__ import annotations

import re
from typing import Any, Final

import orjson

from fleetplane.model.errors import ApiError, FieldError, bad_request
from fleetplane.model.jsonvalue import MAX_DEPTH, copied, is_too_deep
from fleetplane.model.objects import Object
from fleetplane.model.schema.validate import same

MAX_OPERATIONS: Final = 10_000
MAX_COPIED_BYTES: Final = 3 * 1024 * 1024

_NEEDS_VALUE: Final = frozenset({"add", "replace", "test"})
_NEEDS_FROM: Final = frozenset({"move", "copy"})
_INDEX: Final = re.compile(r"-?(?:0|[1-9][0-9]{0,9})")
_BAD_ESCAPE: Final = re.compile(r"~(?![01])")


class _DoesNotApplyError(Exception):
    pass


def json_patch(obj: Object, patch: Any) -> Object:
    """The object after all operations.

    Raises ApiError: 400 for a malformed patch, 413 for too many operations, 422 when one does not apply (a ``test``
    that fails included).
    """
    _check_shape(patch)
    document: dict[str, Any] = {"": copied(obj)}
    copied_bytes = 0
    try:
        for operation in patch:
            match operation["op"]:
                case "add":
                    _add(document, operation["path"], copied(operation["value"]))
                case "replace":
                    _replace(document, operation["path"], copied(operation["value"]))
                case "remove":
                    _remove(document, operation["path"], "remove")
                case "test":
                    _test(document, operation["path"], operation["value"])
                case "move":
                    _move(document, operation["from"], operation["path"])
                case "copy":
                    value = _get(document, operation["from"], "copy")
                    copied_bytes += len(orjson.dumps(value))
                    if copied_bytes > MAX_COPIED_BYTES:
                        raise _DoesNotApplyError(
                            f"Unable to complete the copy, the accumulated size increase of copy is {copied_bytes}, "
                            f"exceeding the limit {MAX_COPIED_BYTES}"
                        )
                    _add(document, operation["path"], copied(value))
    except _DoesNotApplyError as error:
        raise _refused(str(error)) from None
    except (TypeError, RecursionError):  # what orjson and msgspec say to a document copied into itself too often
        raise _refused(f"the patched object is nested deeper than {MAX_DEPTH} levels") from None
    result = document.get("")
    if type(result) is not dict:
        raise _refused("the patched object is not a JSON object")
    if is_too_deep(result):
        raise _refused(f"the patched object is nested deeper than {MAX_DEPTH} levels")
    return result


def _refused(detail: str) -> ApiError:
    cause = FieldError("UnexpectedServerResponse", "", detail)
    message = f"the server rejected our request due to an error in our request: {detail}"
    return ApiError(422, message, causes=[cause])


def _check_shape(patch: Any) -> None:
    if type(patch) is not list:
        raise bad_request("error decoding patch: a JSON patch must be a list of operations")
    if len(patch) > MAX_OPERATIONS:
        detail = f"The allowed maximum operations in a JSON patch is {MAX_OPERATIONS}, got {len(patch)}"
        raise ApiError(413, detail)
    for index, operation in enumerate(patch):
        wrong = _wrong_shape(operation)
        if wrong:
            raise bad_request(f"error decoding patch: operation {index}: {wrong}")


def _wrong_shape(operation: Any) -> str | None:
    if type(operation) is not dict:
        return "must be an object"
    op = operation.get("op")
    if op not in ("add", "remove", "replace", "move", "copy", "test"):
        return f"unexpected kind: {op}"
    pointers = ["path", "from"] if op in _NEEDS_FROM else ["path"]
    for name in pointers:
        pointer = operation.get(name)
        if type(pointer) is not str:
            return f"{name} must be a JSON pointer"
        if (pointer and pointer[0] != "/") or _BAD_ESCAPE.search(pointer):
            return f"{name} {pointer!r} is not a JSON pointer"
    if op in _NEEDS_VALUE and "value" not in operation:
        return "value is missing"
    return None


# The document is wrapped as {"": obj}, so that the whole of it has a parent like every other value.


def _segments(pointer: str) -> list[str]:
    return [part.replace("~1", "/").replace("~0", "~") for part in pointer.split("/")]


def _parent(document: Any, pointer: str, op: str) -> tuple[Any, str]:
    """The container of what the pointer names, and the last segment."""
    *path, last = _segments(pointer)
    value = document
    for segment in path:
        if type(value) is dict and segment in value:
            value = value[segment]
        elif type(value) is list and (index := _index(value, segment)) is not None:
            value = value[index]
        else:
            raise _DoesNotApplyError(f'{op} operation does not apply: doc is missing path: "{pointer}": missing value')
    if type(value) is not dict and type(value) is not list:
        raise _DoesNotApplyError(f'{op} operation does not apply: doc is missing path: "{pointer}": missing value')
    return value, last


def _index(array: list[Any], segment: str) -> int | None:
    """A position that exists, or None."""
    if not _INDEX.fullmatch(segment):
        return None
    index = int(segment)
    return index if -len(array) <= index < len(array) else None


def _missing(op: str, pointer: str) -> _DoesNotApplyError:
    return _DoesNotApplyError(f"{op} operation does not apply: doc is missing key: {pointer}: missing value")


def _get(document: Any, pointer: str, op: str) -> Any:
    container, last = _parent(document, pointer, op)
    if type(container) is dict:
        if last not in container:
            raise _missing(op, pointer)
        return container[last]
    index = _index(container, last)
    if index is None:
        raise _missing(op, pointer)
    return container[index]


def _add(document: Any, pointer: str, value: Any, op: str = "add") -> None:
    container, last = _parent(document, pointer, op)
    if type(container) is dict:
        container[last] = value
    elif last == "-":
        container.append(value)
    elif _INDEX.fullmatch(last) and -len(container) - 1 <= (index := int(last)) <= len(container):
        container.insert(index if index >= 0 else len(container) + 1 + index, value)
    else:
        raise _DoesNotApplyError(f"Unable to access invalid index: {last}: invalid index referenced")


def _replace(document: Any, pointer: str, value: Any) -> None:
    container, last = _parent(document, pointer, "replace")
    if type(container) is dict:
        if last not in container:
            raise _missing("replace", pointer)
        container[last] = value
    elif (index := _index(container, last)) is not None:
        container[index] = value
    else:
        raise _missing("replace", pointer)


def _remove(document: Any, pointer: str, op: str) -> Any:
    container, last = _parent(document, pointer, op)
    if type(container) is dict:
        if last not in container:
            raise _missing(op, pointer)
        return container.pop(last)
    index = _index(container, last)
    if index is None:
        raise _missing(op, pointer)
    return container.pop(index)


def _test(document: Any, pointer: str, expected: Any) -> None:
    try:
        actual = _get(document, pointer, "test")
    except _DoesNotApplyError:
        if expected is None:  # as in Kubernetes, an absent member equals null
            return
        raise
    if not same(actual, expected) and not _same_number(actual, expected):
        raise _DoesNotApplyError(f"testing value {pointer} failed: test failed")


def _same_number(one: Any, other: Any) -> bool:
    return type(one) in (int, float) and type(other) in (int, float) and bool(one == other)


def _move(document: Any, source: str, target: str) -> None:
    if target.startswith(source + "/"):
        raise _DoesNotApplyError(f"move operation does not apply: {source!r} cannot be moved into itself")
    _add(document, target, _remove(document, source, "move"), "move")
