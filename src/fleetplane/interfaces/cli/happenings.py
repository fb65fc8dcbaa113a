"""Events as people read them: which object, since when, how often, in the order of time.

Old and new forms of Event (core/v1 fields, events.k8s.io series) are read alike.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Final

from fleetplane.interfaces.cli.connection import Session
from fleetplane.interfaces.cli.output import cell_text
from fleetplane.interfaces.cli.terminal import Terminal
from fleetplane.model.errors import ApiError
from fleetplane.model.objects import Object, metadata, name, namespace, uid
from fleetplane.model.resources import ResourceType
from fleetplane.model.table import time_since

EVENTS: Final = ResourceType("", "v1", "Event", "events")
HEADING: Final = ("LAST SEEN", "TYPE", "REASON", "OBJECT", "MESSAGE")


def last_seen(event: Object) -> str:
    """RFC 3339, or empty. All servers write UTC, so texts compare as times do at the precision of a second."""
    series = event.get("series") or {}
    return str(
        series.get("lastObservedTime")
        or event.get("lastTimestamp")
        or event.get("eventTime")
        or event.get("firstTimestamp")
        or metadata(event).get("creationTimestamp")
        or ""
    )


def times(event: Object) -> int:
    return int((event.get("series") or {}).get("count") or event.get("count") or 1)


def about(event: Object) -> Object:
    """Reference to the object the event is about."""
    return event.get("involvedObject") or event.get("regarding") or {}


def in_order(events: Iterable[Object]) -> list[Object]:
    return sorted(
        events, key=lambda event: (last_seen(event)[:19], metadata(event).get("resourceVersion", "").zfill(20))
    )


def row(event: Object, now: datetime) -> list[str]:
    subject = about(event)
    seen = time_since(last_seen(event), now)
    count = times(event)
    if count > 1:
        first = event.get("firstTimestamp") or event.get("eventTime") or metadata(event).get("creationTimestamp")
        seen += f" (x{count} over {time_since(first, now)})"
    what = f"{str(subject.get('kind') or '').lower()}/{subject.get('name') or ''}"
    message = " ".join(str(event.get("message") or event.get("note") or "").split())
    return [seen, str(event.get("type") or ""), str(event.get("reason") or ""), what, cell_text(message)]


def colour(terminal: Terminal, line: str, event: Object) -> str:
    return terminal.style(line, "yellow") if event.get("type") == "Warning" else line


async def events_of(session: Session, obj: Object) -> list[Object]:
    """What happened to one object, oldest first; nothing when we may not read events."""
    where = namespace(obj) or "default"
    fields = f"involvedObject.name={name(obj)},involvedObject.kind={obj.get('kind')}"
    try:
        found = [event async for event in session.client.iterate(EVENTS, where, fields=fields)]
    except ApiError as error:
        if error.code in {400, 403, 404}:
            return []
        raise
    # A node's events carry its name in place of its uid.
    return in_order(one for one in found if about(one).get("uid") in {uid(obj), name(obj), None, ""})


def rows(events: Sequence[Object], now: datetime) -> list[list[str]]:
    return [row(event, now) for event in events]
