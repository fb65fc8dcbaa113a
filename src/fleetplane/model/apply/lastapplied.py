"""Coming from client-side apply.

``kubectl apply`` without ``--server-side`` keeps what it last applied in an annotation. When the same user turns to
server-side apply, what that annotation says and nobody changed since is no conflict; and as long as the annotation
is there it is kept up to date, so that turning back loses nothing. ``upgraded`` hands the fields that client-side apply
owned to the applier, as kubectl and ``fleetplane apply`` do before the first server-side apply.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Final

import orjson

from fleetplane.model.apply.entries import (
    APPLY,
    BEFORE_FIRST_APPLY,
    UPDATE,
    Entry,
    Id,
    of_object,
    read,
    strip,
    union_of,
    with_entries,
)
from fleetplane.model.apply.fieldset import Trie, difference
from fleetplane.model.apply.typed import applied_fields, compare
from fleetplane.model.errors import ApiError
from fleetplane.model.jsonvalue import is_too_deep
from fleetplane.model.objects import Object
from fleetplane.model.schema.schema import Schema

ANNOTATION: Final = "kubectl.kubernetes.io/last-applied-configuration"
KUBECTL: Final = "kubectl"
CLIENT_SIDE: Final = ("kubectl-client-side-apply", BEFORE_FIRST_APPLY)
_MAX_ANNOTATIONS: Final = 256 * 1024


def _annotations(obj: Any) -> dict[str, Any]:
    metadata = obj.get("metadata") if type(obj) is dict else None
    found = metadata.get("annotations") if type(metadata) is dict else None
    return found if type(found) is dict else {}


def unchanged(schema: Schema | None, manager: str, live: Object) -> Trie:
    """The fields that client-side apply set and nobody changed since; only kubectl itself may take them over."""
    text = _annotations(live).get(ANNOTATION)
    if manager != KUBECTL or type(text) is not str or not text:
        return {}
    try:
        before = orjson.loads(text)
        if type(before) is not dict or is_too_deep(before):
            return {}
        fields = strip(applied_fields(schema, before))
    except (ValueError, ApiError):
        return {}
    for changed in compare(schema, before, live):
        fields = difference(fields, changed)
    return fields


def refresh(manager: str, merged: Object, applied: Object) -> None:
    """Bring the annotation of ``merged`` up to date, in place, if it is there and kubectl applied."""
    annotations = _annotations(merged)
    if manager != KUBECTL or ANNOTATION not in annotations:
        return
    others = {name: value for name, value in _annotations(applied).items() if name != ANNOTATION}
    metadata = {**(applied.get("metadata") or {}), "annotations": others}
    text = orjson.dumps({**applied, "metadata": metadata}, option=orjson.OPT_SORT_KEYS).decode() + "\n"
    size = len(text) + sum(len(str(one)) for name, one in annotations.items() if name != ANNOTATION)
    annotations[ANNOTATION] = text if size <= _MAX_ANNOTATIONS else ""


def upgraded(obj: Object, manager: str, *, client_side: Collection[str] = CLIENT_SIDE, subresource: str = "") -> Object:
    """The object with the updates of client-side apply turned into an apply by ``manager``.

    Returns ``obj`` itself when there is nothing to turn.
    """
    entries = read(of_object(obj))
    theirs = [key for key in entries if key.operation == UPDATE and key.manager in client_side and not key.subresource]
    if not theirs:
        return obj
    old = [entries.pop(key) for key in theirs]
    own = Id.of(manager, APPLY, subresource, "")
    mine = entries.get(own)
    version = mine.api_version if mine is not None else old[-1].api_version
    time = max(entry.time for entry in [*old, *([mine] if mine is not None else [])])
    entries[own] = Entry(version, time, union_of([*old, *([mine] if mine is not None else [])]))
    return with_entries(obj, entries)
