"""Who did what, when: one line of JSON per stage of a request (``audit.k8s.io/v1`` Event).

``Audit.received`` opens a ``Trail`` once the user is known; the trail collects what later stages learn and writes the
line for each stage the policy keeps. Bodies are bounded, lose their managedFields, and are never those of credentials
(see ``audit_policy``). Nothing here ever fails or delays a request.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Final
from urllib.parse import quote, urlencode

import orjson

from fleetplane.apiserver.audit_policy import (
    PANIC,
    REQUEST_RECEIVED,
    RESPONSE_COMPLETE,
    RESPONSE_STARTED,
    Keep,
    Level,
    Policy,
)
from fleetplane.apiserver.authorization.attributes import Attributes, Decision
from fleetplane.apiserver.http import Request
from fleetplane.model.environment import Environment, micro_timestamp
from fleetplane.model.objects import Object
from fleetplane.model.user import UserInfo

MAX_BODY_BYTES: Final = 100 * 1024
"""Larger bodies are left out, and the event says so."""
_MAX_URI: Final = 4096
_MAX_AGENT: Final = 1024
_MAX_ID: Final = 64
_DECISION: Final = "authorization.k8s.io/decision"
_REASON: Final = "authorization.k8s.io/reason"
_TRUNCATED: Final = "audit.k8s.io/truncated"


class Audit:
    """``write`` takes a finished line: ``AuditLog.write``, or anything else that never waits."""

    def __init__(self, policy: Policy, write: Callable[[bytes], None], environment: Environment) -> None:
        self._policy = policy
        self._write = write
        self._environment = environment

    def received(
        self, request: Request, attributes: Attributes, *, impersonated_by: UserInfo | None = None
    ) -> Trail | None:
        """Open the trail of a request and write its first stage; None when the policy keeps nothing of it.

        ``attributes.user`` is whom the request acts as; ``impersonated_by`` who really asked, if that is another.
        """
        keep = self._policy.keep(attributes)
        if keep.level is Level.NONE:
            return None
        trail = Trail(keep, request, attributes, impersonated_by, self._write, self._environment)
        trail.stage(REQUEST_RECEIVED)
        return trail


class Trail:
    """What is known of one request so far. ``audit_id`` belongs into the ``Audit-Id`` response header."""

    __slots__ = (
        "_attributes",
        "_by",
        "_environment",
        "_keep",
        "_received",
        "_request",
        "_response",
        "_write",
        "annotations",
        "audit_id",
        "request_object",
    )

    def __init__(
        self,
        keep: Keep,
        request: Request,
        attributes: Attributes,
        by: UserInfo | None,
        write: Callable[[bytes], None],
        environment: Environment,
    ) -> None:
        self._keep = keep
        self._request = request
        self._attributes = attributes
        self._by = by
        self._write = write
        self._environment = environment
        self._received = environment.now()
        self._response: Object = {}
        self.audit_id = request.headers.get("audit-id", "")[:_MAX_ID] or environment.uuid()
        self.annotations: dict[str, str] = {}
        self.request_object: Any = None
        """The decoded body, for stages that decode what is not JSON. Otherwise the body itself is read."""

    def decided(self, decision: Decision) -> None:
        """Note what authorization said."""
        self.annotations[_DECISION] = "allow" if decision.allowed else "forbid"
        self.annotations[_REASON] = decision.reason

    def started(self, status: int) -> None:
        """A long answer (watch, log, exec) has begun."""
        self._response = {"responseStatus": {"metadata": {}, "code": status}}
        self.stage(RESPONSE_STARTED)

    def completed(self, status: int, body: bytes = b"") -> None:
        """The answer has been sent; ``body`` when it was one piece of JSON."""
        self._response = {"responseStatus": _status(status, body)}
        if self._keep.level >= Level.REQUEST_RESPONSE and body:
            self._body("responseObject", body, self._response)
        self.stage(RESPONSE_COMPLETE)

    def panicked(self) -> None:
        """The server met an error it did not expect."""
        self._response = {"responseStatus": {"metadata": {}, "code": 500}}
        self.stage(PANIC)

    def stage(self, stage: str) -> None:
        if stage not in self._keep.omit_stages:
            self._write(orjson.dumps(self._event(stage)))

    def _event(self, stage: str) -> Object:
        a, request = self._attributes, self._request
        event: Object = {
            "kind": "Event",
            "apiVersion": "audit.k8s.io/v1",
            "level": self._keep.level.shown,
            "auditID": self.audit_id,
            "stage": stage,
            "requestURI": _uri(request),
            "verb": a.verb,
            "user": (self._by or a.user).to_object(),
        }
        if self._by is not None:
            event["impersonatedUser"] = a.user.to_object()
        event["sourceIPs"] = _sources(request)
        if agent := request.headers.get("user-agent"):
            event["userAgent"] = agent if len(agent) <= _MAX_AGENT else agent[:_MAX_AGENT] + "...TRUNCATED"
        if a.resource:
            event["objectRef"] = _object_ref(a)
        if stage != REQUEST_RECEIVED:
            event |= self._response
            if self._keep.level >= Level.REQUEST:
                self._request_body(event)
        event["requestReceivedTimestamp"] = micro_timestamp(self._received)
        event["stageTimestamp"] = micro_timestamp(self._now(stage))
        if self.annotations:
            event["annotations"] = dict(self.annotations)
        return event

    def _now(self, stage: str) -> datetime:
        return self._received if stage == REQUEST_RECEIVED else self._environment.now()

    def _request_body(self, event: Object) -> None:
        if self.request_object is not None:
            event["requestObject"] = self._without_managed_fields(self.request_object)
        elif self._request.body:
            self._body("requestObject", self._request.body, event)

    def _body(self, key: str, body: bytes, into: Object) -> None:
        if len(body) > MAX_BODY_BYTES:
            self.annotations[_TRUNCATED] = "true"
            return
        try:
            found = orjson.loads(body)
        except ValueError:
            return
        into[key] = self._without_managed_fields(found)

    def _without_managed_fields(self, found: Any) -> Any:
        if not self._keep.omit_managed_fields or not isinstance(found, dict):
            return found
        slim = _without(found)
        if isinstance(slim.get("items"), list):
            slim["items"] = [_without(one) if isinstance(one, dict) else one for one in slim["items"]]
        return slim


def _without(obj: Object) -> Object:
    metadata = obj.get("metadata")
    if not isinstance(metadata, dict) or "managedFields" not in metadata:
        return dict(obj)
    return {**obj, "metadata": {key: value for key, value in metadata.items() if key != "managedFields"}}


def _object_ref(a: Attributes) -> Object:
    shown = {
        "resource": a.resource,
        "namespace": a.namespace,
        "name": a.name,
        "apiGroup": a.group,
        "apiVersion": a.version,
        "subresource": a.subresource,
    }
    return {key: value for key, value in shown.items() if value}


def _status(code: int, body: bytes) -> Object:
    """The answer's status; of a refusal also what it said."""
    shown: Object = {"metadata": {}, "code": code}
    if code < 400 or len(body) > MAX_BODY_BYTES:
        return shown
    try:
        found = orjson.loads(body)
    except ValueError:
        return shown
    if isinstance(found, Mapping) and found.get("kind") == "Status":
        shown |= {key: found[key] for key in ("status", "message", "reason") if key in found}
    return shown


def _uri(request: Request) -> str:
    uri = quote(request.path, safe="/:@!$&'()*+,;=~-._")
    if request.queries:
        uri += "?" + urlencode(request.queries, doseq=True)
    elif request.query:
        uri += "?" + urlencode(request.query)
    return uri if len(uri) <= _MAX_URI else uri[:_MAX_URI] + "...TRUNCATED"


def _sources(request: Request) -> list[str]:
    """Where it came from: what proxies say first, then the peer itself."""
    forwarded = [one.strip() for one in request.headers.get("x-forwarded-for", "").split(",") if one.strip()]
    found = [*forwarded[:8], *([request.remote] if request.remote else [])]
    return [one[:_MAX_ID] for one in dict.fromkeys(found)]
