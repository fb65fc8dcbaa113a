"""Telling people what happened, as Events on the object it happened to (core/v1, the form every tool shows).

Events are a courtesy: recording one never blocks, never fails and never slows a reconcile. As in client-go's recorder,
the same event again raises a count instead of adding an object, many similar ones become one "(combined from similar
events)", and each object gets a small budget that refills slowly, so that a failing object cannot fill the store.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, NamedTuple

from fleetplane.client.protocol import Client, cluster_of
from fleetplane.model.builtin.types import EVENTS
from fleetplane.model.environment import Environment, timestamp
from fleetplane.model.errors import ApiError
from fleetplane.model.objects import Object, metadata

log = logging.getLogger(__name__)

EventKind = Literal["Normal", "Warning"]

MAX_PENDING: Final = 1000
MAX_REMEMBERED: Final = 4096
SIMILAR: Final = 10
"""From this many different messages of one reason on, within ``WINDOW``, they are combined."""
WINDOW: Final = 600.0
BUDGET: Final = 25.0
REFILL_PER_SECOND: Final = 1 / 300
MAX_MESSAGE: Final = 1024


class _Subject(NamedTuple):
    cluster: str
    api_version: str
    kind: str
    namespace: str
    name: str
    uid: str


class _Series(NamedTuple):
    """Events that differ only in when they happened."""

    subject: _Subject
    kind: EventKind
    reason: str
    message: str


@dataclass
class _Similar:
    """Events of one reason about one object."""

    messages: OrderedDict[str, None] = field(default_factory=OrderedDict)
    last: float = 0.0


@dataclass
class _Budget:
    tokens: float = BUDGET
    at: float = 0.0


@dataclass
class _Known:
    """An Event that exists: where it is and how often it happened."""

    name: str
    count: int
    last: float


class EventRecorder:
    """``run`` writes what ``event`` was told, until ``close``."""

    def __init__(self, client: Client, environment: Environment, component: str) -> None:
        self._client = client
        self._environment = environment
        self._component = component
        self._pending: deque[_Series] = deque()
        self._work = asyncio.Event()
        self._closed = False
        self._similar: OrderedDict[tuple[_Subject, str, str], _Similar] = OrderedDict()
        self._budgets: OrderedDict[_Subject, _Budget] = OrderedDict()
        self._known: OrderedDict[_Series, _Known] = OrderedDict()
        self.dropped = 0

    def event(self, obj: Mapping[str, Any], kind: EventKind, reason: str, message: str) -> None:
        """Record that something happened to ``obj``. ``reason`` is CamelCase, ``message`` one sentence for people."""
        subject = _subject(obj)
        if not self._may_spend(subject) or len(self._pending) >= MAX_PENDING:
            self.dropped += 1
            return
        message = message if len(message) <= MAX_MESSAGE else message[: MAX_MESSAGE - 3] + "..."
        self._pending.append(_Series(subject, kind, reason, self._combined(subject, kind, reason, message)))
        self._work.set()

    def normal(self, obj: Mapping[str, Any], reason: str, message: str) -> None:
        self.event(obj, "Normal", reason, message)

    def warning(self, obj: Mapping[str, Any], reason: str, message: str) -> None:
        self.event(obj, "Warning", reason, message)

    async def run(self) -> None:
        while True:
            while self._pending:
                await self._write(self._pending.popleft())
            if self._closed:
                return
            self._work.clear()
            await self._work.wait()

    def close(self) -> None:
        """Write what is pending and end."""
        self._closed = True
        self._work.set()

    # -- deciding

    def _may_spend(self, subject: _Subject) -> bool:
        now = self._environment.monotonic()
        budget = _remembered(self._budgets, subject, lambda: _Budget(at=now))
        budget.tokens = min(BUDGET, budget.tokens + (now - budget.at) * REFILL_PER_SECOND)
        budget.at = now
        if budget.tokens < 1:
            return False
        budget.tokens -= 1
        return True

    def _combined(self, subject: _Subject, kind: EventKind, reason: str, message: str) -> str:
        now = self._environment.monotonic()
        similar = _remembered(self._similar, (subject, kind, reason), _Similar)
        if now - similar.last > WINDOW:
            similar.messages.clear()
        similar.last = now
        similar.messages[message] = None
        if len(similar.messages) < SIMILAR:
            return message
        similar.messages.popitem(last=False)
        return "(combined from similar events): " + message

    # -- writing

    async def _write(self, series: _Series) -> None:
        client = self._client.in_cluster(series.subject.cluster)
        now = self._environment.monotonic()
        # Combined events are one series whatever their last message was.
        key = series if not series.message.startswith("(combined") else series._replace(message="(combined)")
        known = self._known.get(key)
        try:
            if known is not None and now - known.last <= WINDOW and await self._raise_count(client, series, known, now):
                return
            name = f"{series.subject.name}.{self._environment.random.getrandbits(64):016x}"
            await client.create(EVENTS, self._object(series, name), _namespace(series.subject))
        except ApiError as error:
            # The namespace is going away, or we may not write there: not worth more than a line.
            log.debug("the event %s could not be recorded: %s", series.reason, error.message)
            return
        self._known[key] = _Known(name, 1, now)
        _limit(self._known)

    async def _raise_count(self, client: Client, series: _Series, known: _Known, now: float) -> bool:
        patch = {
            "count": known.count + 1,
            "lastTimestamp": timestamp(self._environment.now()),
            "message": series.message,
        }
        try:
            await client.patch(EVENTS, known.name, patch, _namespace(series.subject))
        except ApiError as error:
            if error.code == 404:
                return False  # it has expired on the server; begin a new one
            raise
        known.count += 1
        known.last = now
        return True

    def _object(self, series: _Series, name: str) -> Object:
        subject, now = series.subject, timestamp(self._environment.now())
        involved = {
            "apiVersion": subject.api_version,
            "kind": subject.kind,
            "namespace": subject.namespace,
            "name": subject.name,
            "uid": subject.uid,
        }
        return {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": name, "namespace": _namespace(subject)},
            "involvedObject": {key: value for key, value in involved.items() if value},
            "type": series.kind,
            "reason": series.reason,
            "message": series.message,
            "source": {"component": self._component},
            "reportingComponent": self._component,
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
        }


def _subject(obj: Mapping[str, Any]) -> _Subject:
    meta = metadata(obj)
    return _Subject(
        cluster=cluster_of(obj),
        api_version=str(obj.get("apiVersion") or ""),
        kind=str(obj.get("kind") or ""),
        namespace=str(meta.get("namespace") or ""),
        name=str(meta.get("name") or ""),
        uid=str(meta.get("uid") or ""),
    )


def _namespace(subject: _Subject) -> str:
    """Events about objects without a namespace live in ``default``."""
    return subject.namespace or "default"


def _remembered(table: OrderedDict[Any, Any], key: Any, make: Any) -> Any:
    found = table.get(key)
    if found is None:
        found = table[key] = make()
        _limit(table)
    else:
        table.move_to_end(key)
    return found


def _limit(table: OrderedDict[Any, Any]) -> None:
    if len(table) > MAX_REMEMBERED:
        table.popitem(last=False)
