"""What can go wrong with a request, in the words of the Kubernetes API.

Every refusal anywhere below the HTTP stage is one of these; ``ApiError.to_status`` is the only place that builds a
``Status`` object. Reasons, codes and message forms follow apimachinery's ``metav1.Status`` conventions, because clients
match on them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from fleetplane.model.objects import Object


@dataclass(frozen=True, slots=True)
class FieldError:
    """One thing wrong with one field.

    ``reason`` is a ``metav1.CauseType`` (``FieldValueRequired`` …); ``field`` a path as Kubernetes writes it
    (``spec.containers[0].name``, ``metadata.labels[a.b/c]``).
    """

    reason: str
    field: str
    detail: str

    @classmethod
    def required(cls, field: str, detail: str = "") -> FieldError:
        return cls("FieldValueRequired", field, "Required value" + (f": {detail}" if detail else ""))

    @classmethod
    def invalid(cls, field: str, value: Any, detail: str) -> FieldError:
        return cls("FieldValueInvalid", field, f"Invalid value: {_shown(value)}: {detail}")

    @classmethod
    def type_invalid(cls, field: str, value: Any, detail: str) -> FieldError:
        return cls("FieldValueTypeInvalid", field, f"Invalid value: {_shown(value)}: {detail}")

    @classmethod
    def duplicate(cls, field: str, value: Any) -> FieldError:
        return cls("FieldValueDuplicate", field, f"Duplicate value: {_shown(value)}")

    @classmethod
    def forbidden(cls, field: str, detail: str) -> FieldError:
        return cls("FieldValueForbidden", field, f"Forbidden: {detail}")

    @classmethod
    def not_supported(cls, field: str, value: Any, supported: Sequence[str]) -> FieldError:
        allowed = ", ".join(json.dumps(one) for one in supported)
        return cls("FieldValueNotSupported", field, f"Unsupported value: {_shown(value)}: supported values: {allowed}")

    @classmethod
    def too_long(cls, field: str, limit: int) -> FieldError:
        return cls("FieldValueTooLong", field, f"Too long: may not be more than {limit} bytes")

    @classmethod
    def too_many(cls, field: str, count: int, limit: int) -> FieldError:
        return cls("FieldValueTooMany", field, f"Too many: {count}: must have at most {limit} items")

    @classmethod
    def not_found(cls, field: str, value: Any) -> FieldError:
        return cls("FieldValueNotFound", field, f"Not found: {_shown(value)}")

    def __str__(self) -> str:
        return f"{self.field}: {self.detail}" if self.field else self.detail


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 1024 else text[:1021] + "..."


_REASONS: Final[Mapping[int, str]] = {
    400: "BadRequest",
    401: "Unauthorized",
    403: "Forbidden",
    404: "NotFound",
    405: "MethodNotAllowed",
    406: "NotAcceptable",
    409: "Conflict",
    410: "Expired",
    413: "RequestEntityTooLarge",
    415: "UnsupportedMediaType",
    422: "Invalid",
    429: "TooManyRequests",
    500: "InternalError",
    503: "ServiceUnavailable",
    504: "Timeout",
}


class ApiError(Exception):
    """A refusal that a client is told about, as a ``metav1.Status``.

    ``retry_after`` is in seconds. ``causes`` become ``details.causes``.
    """

    def __init__(
        self,
        code: int,
        message: str,
        *,
        reason: str | None = None,
        group: str = "",
        kind: str = "",
        name: str = "",
        uid: str = "",
        causes: Sequence[FieldError] = (),
        retry_after: int | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason if reason is not None else _REASONS.get(code, "")
        self.message = message
        self.group = group
        self.kind = kind
        self.name = name
        self.uid = uid
        self.causes = tuple(causes)
        self.retry_after = retry_after

    def to_status(self) -> Object:
        details: Object = {}
        for key in ("name", "group", "kind", "uid"):
            if value := getattr(self, key):
                details[key] = value
        if self.causes:
            details["causes"] = [
                {key: text for key, text in (("reason", c.reason), ("message", c.detail), ("field", c.field)) if text}
                for c in self.causes
            ]
        if self.retry_after is not None:
            details["retryAfterSeconds"] = self.retry_after
        status: Object = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
        }
        if self.reason:
            status["reason"] = self.reason
        if details:
            status["details"] = details
        status["code"] = self.code
        return status

    @classmethod
    def from_status(cls, status: Mapping[str, Any], code: int = 500) -> ApiError:
        """The error a client raises for a ``Status`` it was answered; tolerant of partial ones."""
        details = status.get("details") or {}
        return cls(
            int(status.get("code") or code),
            str(status.get("message") or "unknown error"),
            reason=str(status.get("reason") or ""),
            group=str(details.get("group") or ""),
            kind=str(details.get("kind") or ""),
            name=str(details.get("name") or ""),
            uid=str(details.get("uid") or ""),
            causes=[
                FieldError(str(c.get("reason") or ""), str(c.get("field") or ""), str(c.get("message") or ""))
                for c in details.get("causes") or []
            ],
            retry_after=details.get("retryAfterSeconds"),
        )


def _qualified(resource: str, group: str) -> str:
    return f"{resource}.{group}" if group else resource


def bad_request(message: str) -> ApiError:
    return ApiError(400, message)


def unauthorized(message: str = "Unauthorized") -> ApiError:
    return ApiError(401, message)


def forbidden(message: str, *, group: str = "", resource: str = "", name: str = "") -> ApiError:
    """``resource`` is the plural name; the message is prefixed as apimachinery does."""
    subject = f"{_qualified(resource, group)} " + (f'"{name}" ' if name else "")
    prefix = f"{subject}is forbidden: " if resource else ""
    return ApiError(403, prefix + message, group=group, kind=resource, name=name)


def not_found(resource: str, name: str, *, group: str = "") -> ApiError:
    return ApiError(404, f'{_qualified(resource, group)} "{name}" not found', group=group, kind=resource, name=name)


def unknown_path() -> ApiError:
    return ApiError(404, "the server could not find the requested resource")


def already_exists(resource: str, name: str, *, group: str = "") -> ApiError:
    return ApiError(
        409,
        f'{_qualified(resource, group)} "{name}" already exists',
        reason="AlreadyExists",
        group=group,
        kind=resource,
        name=name,
    )


def conflict(resource: str, name: str, detail: str, *, group: str = "", causes: Sequence[FieldError] = ()) -> ApiError:
    return ApiError(
        409,
        f'Operation cannot be fulfilled on {_qualified(resource, group)} "{name}": {detail}',
        group=group,
        kind=resource,
        name=name,
        causes=causes,
    )


def stale(resource: str, name: str, *, group: str = "") -> ApiError:
    """The optimistic-concurrency refusal, worded as every client expects it."""
    return conflict(
        resource,
        name,
        "the object has been modified; please apply your changes to the latest version and try again",
        group=group,
    )


def invalid(kind: str, name: str, causes: Sequence[FieldError], *, group: str = "") -> ApiError:
    """``kind`` is the kind (not the plural), as apimachinery words it: ``Pod "x" is invalid: …``."""
    shown = [str(cause) for cause in causes]
    text = shown[0] if len(shown) == 1 else "[" + ", ".join(shown) + "]"
    return ApiError(
        422, f'{_qualified(kind, group)} "{name}" is invalid: {text}', group=group, kind=kind, name=name, causes=causes
    )


def method_not_allowed(message: str = "the server does not allow this method on the requested resource") -> ApiError:
    return ApiError(405, message)


def not_acceptable(supported: Sequence[str]) -> ApiError:
    return ApiError(406, f"only the following media types are accepted: {', '.join(supported)}")


def unsupported_media_type(supported: Sequence[str]) -> ApiError:
    return ApiError(
        415,
        "the body of the request was in an unknown format - accepted media types include: " + ", ".join(supported),
    )


def too_large(limit_bytes: int) -> ApiError:
    return ApiError(413, f"Request entity too large: limit is {limit_bytes}")


def expired(message: str) -> ApiError:
    return ApiError(410, message)


def too_many_requests(message: str, retry_after: int = 1) -> ApiError:
    return ApiError(429, message, retry_after=retry_after)


def internal(message: str) -> ApiError:
    return ApiError(500, f"Internal error occurred: {message}", causes=[FieldError("", "", message)])


def unavailable(message: str, retry_after: int | None = 1) -> ApiError:
    return ApiError(503, message, retry_after=retry_after)


def timeout(message: str, retry_after: int = 1) -> ApiError:
    return ApiError(504, message, retry_after=retry_after)
