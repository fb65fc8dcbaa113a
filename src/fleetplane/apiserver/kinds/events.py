"""Events: what happened to an object, told once or in a series.

Kept in the core form. Those of the newer API (they have an ``eventTime``) must say who reports what was done; older ones
may say less.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any, Final

from fleetplane.apiserver.kinds.access import number, section, text
from fleetplane.apiserver.kinds.behaviour import KindBehaviour
from fleetplane.apiserver.kinds.checks import Errors, collected, named
from fleetplane.apiserver.kinds.columns import at, text_column, timed_column
from fleetplane.model import names
from fleetplane.model.errors import FieldError
from fleetplane.model.objects import Object
from fleetplane.model.table import NAME, Cell, Column, time_since

_INVOLVED: Final = ("apiVersion", "fieldPath", "kind", "name", "namespace", "resourceVersion", "uid")
_IMMUTABLE_IN_SERIES: Final = (
    "eventTime",
    "reportingComponent",
    "reportingInstance",
    "action",
    "reason",
    "involvedObject",
    "related",
    "message",
    "type",
)


def _validate(event: Object, old: Object | None) -> Errors:
    yield from _place(event)
    if not event.get("eventTime"):
        return
    for key, limit in (("reportingComponent", 0), ("reportingInstance", 128), ("action", 128), ("reason", 128)):
        value = text(event, key)
        path = "reportingController" if key == "reportingComponent" else key
        if not value:
            yield FieldError.required(path)
        elif limit and len(value) > limit:
            yield FieldError.invalid(path, "", f"can have at most {limit} characters")
    if text(event, "reportingComponent"):
        yield from named(names.qualified_name, text(event, "reportingComponent"), "reportingController")
    if text(event, "type") not in ("Normal", "Warning"):
        yield FieldError.invalid("type", event.get("type"), 'has invalid value: it must be "Normal" or "Warning"')
    if len(text(event, "message")) > 1024:
        yield FieldError.invalid("message", "", "can have at most 1024 characters")
    series = event.get("series")
    if series is not None and number(series, "count") < 2:
        yield FieldError.invalid("series.count", "", "should be at least 2")
    if old is not None and old.get("eventTime"):
        for key in _IMMUTABLE_IN_SERIES:
            if event.get(key) != old.get(key):
                yield FieldError.invalid(key, event.get(key), "field is immutable")


def _place(event: Object) -> Errors:
    """An event lives beside its object; those of cluster-scoped objects in ``default`` or ``kube-system``."""
    namespace = event["metadata"].get("namespace")
    involved = text(section(event, "involvedObject"), "namespace")
    homes = ("", "default", "kube-system") if event.get("eventTime") else ("", "default")
    if (involved and involved != namespace) or (not involved and namespace not in homes):
        yield FieldError.invalid("involvedObject.namespace", involved, "does not match event.namespace")


def _first_seen(event: Mapping[str, Any], now: datetime) -> Cell:
    return time_since(event.get("firstTimestamp") or event.get("eventTime"), now)


def _last_seen(event: Mapping[str, Any], now: datetime) -> Cell:
    observed = section(event, "series").get("lastObservedTime")
    return (
        time_since(observed or event.get("lastTimestamp"), now)
        if observed or event.get("lastTimestamp")
        else (_first_seen(event, now))
    )


def _count(event: Mapping[str, Any]) -> Cell:
    series = event.get("series")
    if isinstance(series, dict):
        return number(series, "count") + 1
    return number(event, "count") or 1


def _object(event: Mapping[str, Any]) -> Cell:
    involved = section(event, "involvedObject")
    kind, name = text(involved, "kind").lower(), text(involved, "name")
    return f"{kind}/{name}" if name else kind


def _source(event: Mapping[str, Any]) -> Cell:
    source = section(event, "source")
    component = text(source, "component") or text(event, "reportingComponent")
    host = text(source, "host") or text(event, "reportingInstance")
    return f"{component}, {host}" if host else component


def _involved(key: str) -> Any:
    return lambda event: text(section(event, "involvedObject"), key)


COLUMNS: Final[tuple[Column, ...]] = (
    timed_column("Last Seen", "Time since it happened last.", _last_seen),
    text_column("Type", "Normal or Warning.", at("type")),
    text_column("Reason", "Why, in one word.", at("reason")),
    text_column("Object", "What it happened to.", _object),
    text_column("Subobject", "Which part of the object.", at("involvedObject", "fieldPath"), wide=True),
    text_column("Source", "Who reports it.", _source, wide=True),
    text_column("Message", "What happened.", lambda event: text(event, "message").strip()),
    timed_column("First Seen", "Time since it happened first.", _first_seen, wide=True),
    text_column("Count", "How often it happened.", _count, wide=True),
    replace(NAME, priority=1),
)

EVENTS: Final = KindBehaviour(
    validate=collected(_validate),
    columns=COLUMNS,
    terms=lambda event: [
        ("involvedObject.uid", _involved("uid")(event)),
        ("involvedObject.name", _involved("name")(event)),
    ],
    indexed_fields=frozenset({"involvedObject.name", "involvedObject.uid"}),
    fields={f"involvedObject.{key}": _involved(key) for key in _INVOLVED}
    | {f"regarding.{key}": _involved(key) for key in _INVOLVED}
    | {
        "reason": lambda event: text(event, "reason"),
        "reportingComponent": lambda event: text(event, "reportingComponent"),
        "reportingController": lambda event: text(event, "reportingComponent"),
        "source": lambda event: text(section(event, "source"), "component") or text(event, "reportingComponent"),
        "type": lambda event: text(event, "type"),
    },
    has_generation=False,
    create_on_update=True,
)
