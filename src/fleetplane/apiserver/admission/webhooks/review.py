"""AdmissionReview from the asking side: what a webhook is sent, and what of its answer can be believed."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import orjson

from fleetplane.apiserver.registry import Served
from fleetplane.model.admission import AdmissionRequest
from fleetplane.model.errors import ApiError, FieldError
from fleetplane.model.objects import Object, split_api_version

GROUP: Final = "admission.k8s.io"
_MAX_WARNING: Final = 256


class BadAnswer(Exception):
    """The answer is not one; the message says why, as Kubernetes does."""


@dataclass(frozen=True, slots=True)
class Answer:
    """``patch`` is as sent, of the kind ``patch_type``; ``status`` is what a refusal is explained with."""

    allowed: bool
    patch: bytes = b""
    patch_type: str = ""
    warnings: tuple[str, ...] = ()
    annotations: tuple[tuple[str, str], ...] = ()
    status: Mapping[str, Any] | None = None


def kind_of(served: Served, subresource: str) -> Object:
    """The GroupVersionKind that travels in a request."""
    api_version, kind = served.type.api_version, served.type.kind
    if subresource:
        api_version, kind = served.subresources.get(subresource, (api_version, kind))
    group, version = split_api_version(api_version)
    return {"group": group, "version": version, "kind": kind}


def resource_of(served: Served) -> Object:
    return {"group": served.type.group, "version": served.type.version, "resource": served.type.plural}


def review_of(
    version: str,
    request: AdmissionRequest,
    asked: Served,
    meant: Served,
    new: Object | None,
    old: Object | None,
    uid: str,
) -> Object:
    """The review for a webhook; ``asked`` is the version of the request, ``meant`` the one of ``new`` and ``old``."""
    sub = request.subresource
    asking: Object = {
        "uid": uid,
        "kind": kind_of(meant, sub),
        "resource": resource_of(meant),
        "requestKind": kind_of(asked, sub),
        "requestResource": resource_of(asked),
        "operation": request.operation,
        "userInfo": request.user.to_object(),
        "object": new,
        "oldObject": old,
        "dryRun": request.dry_run,
        "options": request.options or None,
    }
    if sub:
        asking["subResource"] = asking["requestSubResource"] = sub
    if request.name:
        asking["name"] = request.name
    if request.namespace:
        asking["namespace"] = request.namespace
    return {"kind": "AdmissionReview", "apiVersion": f"{GROUP}/{version}", "request": asking}


def read_answer(review: Mapping[str, Any], uid: str, version: str, *, mutating: bool) -> Answer:
    """Raises BadAnswer."""
    response = review.get("response")
    if not isinstance(response, Mapping):
        raise BadAnswer("webhook response was absent")
    if version == "v1" and response.get("uid") != uid:
        raise BadAnswer(f'expected response.uid="{uid}", got {json.dumps(response.get("uid") or "")}')
    given = (review.get("apiVersion"), review.get("kind"))
    wanted = (f"{GROUP}/{version}", "AdmissionReview")
    if given != wanted and any(given):
        raise BadAnswer(f"expected webhook response of {_shown(*wanted)}, got {_shown(*given)}")
    patch = _patch(response, strict=version == "v1", mutating=mutating)
    status = response.get("status")
    return Answer(
        response.get("allowed") is True,
        patch,
        str(response.get("patchType") or ""),
        tuple(str(one)[:_MAX_WARNING] for one in response.get("warnings") or () if one),
        tuple((str(key), str(value)) for key, value in (response.get("auditAnnotations") or {}).items()),
        status if isinstance(status, Mapping) else None,
    )


def _shown(api_version: Any, kind: Any) -> str:
    return f"{api_version or ''}, Kind={kind or ''}"


def _patch(response: Mapping[str, Any], *, strict: bool, mutating: bool) -> bytes:
    encoded, kind = response.get("patch"), response.get("patchType")
    if not mutating:
        if strict and encoded:
            raise BadAnswer("validating webhook may not return response.patch")
        if strict and kind is not None:
            raise BadAnswer("validating webhook may not return response.patchType")
        return b""
    if strict and encoded and kind is None:
        raise BadAnswer("webhook returned response.patch but not response.patchType")
    if strict and not encoded and kind is not None:
        raise BadAnswer("webhook returned response.patchType but not response.patch")
    if not encoded:
        return b""
    try:
        return base64.b64decode(encoded, validate=True)
    except (ValueError, TypeError, binascii.Error):
        raise BadAnswer("response.patch is not valid base64") from None


def denial(webhook: str, status: Mapping[str, Any] | None) -> ApiError:
    """The refusal of a webhook, never below 400."""
    told = status or {}
    code = told.get("code")
    number = code if isinstance(code, int) and code >= 400 else 400
    message, reason = str(told.get("message") or ""), str(told.get("reason") or "")
    denied = f'admission webhook "{webhook}" denied the request'
    explained = f"{denied}: {message or reason}" if message or reason else f"{denied} without explanation"
    details = told.get("details")
    if not isinstance(details, Mapping):
        details = {}
    causes = [
        FieldError(str(one.get("reason") or ""), str(one.get("field") or ""), str(one.get("message") or ""))
        for one in details.get("causes") or ()
        if isinstance(one, Mapping)
    ]
    return ApiError(
        number,
        explained,
        reason=reason,
        group=str(details.get("group") or ""),
        kind=str(details.get("kind") or ""),
        name=str(details.get("name") or ""),
        causes=causes,
        retry_after=details.get("retryAfterSeconds"),
    )


def parse_patch(answer: Answer) -> list[Any]:
    """The operations of a JSON Patch; none of them is fine, whatever it calls itself. Raises BadAnswer."""
    try:
        found = orjson.loads(answer.patch)
    except orjson.JSONDecodeError as error:
        raise BadAnswer(f"received undecodable patch in webhook response: {error}") from None
    if not isinstance(found, list):
        raise BadAnswer("received undecodable patch in webhook response: it is not a list of operations")
    if found and answer.patch_type not in ("", "JSONPatch"):
        raise BadAnswer(f"unsupported patch type {json.dumps(answer.patch_type)}")
    return found
