"""The parts that every object has, and all there is to say about a kind we know nothing more of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from fleetplane.interfaces.cli.connection import Session
from fleetplane.interfaces.cli.describing.sheet import Sheet
from fleetplane.interfaces.cli.happenings import row
from fleetplane.interfaces.cli.readiness import readiness
from fleetplane.model.objects import (
    Object,
    finalizers,
    labels,
    metadata,
    name,
    namespace,
    owner_references,
)
from fleetplane.model.table import time_since

_HIDDEN: Final = frozenset({"kubectl.kubernetes.io/last-applied-configuration"})
_MAX_VALUE: Final = 4096


def head(session: Session, sheet: Sheet, obj: Object) -> None:
    now = session.environment.now()
    sheet.field("Name", name(obj))
    sheet.field("Namespace", namespace(obj))
    sheet.field("Kind", f"{obj.get('kind')} ({obj.get('apiVersion')})")
    created = metadata(obj).get("creationTimestamp")
    if created:
        sheet.field("Created", f"{created} ({time_since(created, now)} ago)")
    deleting = metadata(obj).get("deletionTimestamp")
    if deleting:
        sheet.field("Deleted", f"{deleting} ({time_since(deleting, now)} ago), not gone yet")
    sheet.pairs("Labels", labels(obj))
    shown = {key: value for key, value in (metadata(obj).get("annotations") or {}).items() if key not in _HIDDEN}
    sheet.pairs("Annotations", shown)
    sheet.field("Owned by", ", ".join(f"{one.kind.lower()}/{one.name}" for one in owner_references(obj)))
    sheet.field("Finalizers", ", ".join(finalizers(obj)))


def state(sheet: Sheet, obj: Object) -> None:
    """Whether it is ready, in a sentence, for kinds that have such a thing."""
    if obj.get("status"):
        found = readiness(obj)
        sheet.field("Ready", ("yes, " if found.ready else "no, ") + found.why)


def body(sheet: Sheet, obj: Object) -> None:
    """Every field that is not told elsewhere. Values of Secrets are never shown, only their sizes."""
    if obj.get("kind") == "Secret" and obj.get("apiVersion") == "v1":
        sheet.field("Type", obj.get("type"))
        sheet.table(
            "Data",
            ("KEY", "SIZE"),
            [[key, f"{_size(value)} bytes"] for key, value in sorted(_map(obj, "data").items())],
        )
        return
    for key, value in obj.items():
        if key in {"apiVersion", "kind", "metadata", "status"}:
            continue
        label = key[:1].upper() + key[1:]
        if isinstance(value, dict | list):
            sheet.yaml(label, _shortened(value))
        else:
            sheet.field(label, value)
    status = {
        key: value for key, value in _map(obj, "status").items() if key not in {"conditions", "observedGeneration"}
    }
    sheet.yaml("Status", status)


def conditions(session: Session, sheet: Sheet, obj: Object) -> None:
    found = _map(obj, "status").get("conditions")
    if not isinstance(found, list):
        return
    now = session.environment.now()
    rows = [
        [
            one.get("type"),
            one.get("status"),
            time_since(one.get("lastTransitionTime") or one.get("lastUpdateTime"), now)
            if one.get("lastTransitionTime")
            else "",
            one.get("reason"),
            " ".join(str(one.get("message") or "").split()),
        ]
        for one in found
        if isinstance(one, dict)
    ]
    sheet.table("Conditions", ("TYPE", "STATUS", "SINCE", "REASON", "MESSAGE"), rows)


def events(session: Session, sheet: Sheet, found: Sequence[Object]) -> None:
    now = session.environment.now()
    rows = [[seen, kind, reason, message] for seen, kind, reason, _, message in (row(event, now) for event in found)]
    sheet.table("Events", ("LAST SEEN", "TYPE", "REASON", "MESSAGE"), rows, empty="none lately")


def _map(obj: Object, key: str) -> Object:
    found = obj.get(key)
    return found if isinstance(found, dict) else {}


def _size(encoded: Any) -> int:
    text = str(encoded)
    return max(len(text) * 3 // 4 - text.count("="), 0)


def _shortened(value: Any) -> Any:
    """Very long texts cut: a description is for reading; 'get -o yaml' has everything."""
    if isinstance(value, str) and len(value) > _MAX_VALUE:
        return f"{value[:_MAX_VALUE]}… ({len(value)} characters in all)"
    if isinstance(value, dict):
        return {key: _shortened(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_shortened(one) for one in value]
    return value
