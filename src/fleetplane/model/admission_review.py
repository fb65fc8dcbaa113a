"""AdmissionReview (admission.k8s.io/v1): how admission is asked and answered over HTTPS.

Pure functions in both directions for the serving side: the request a webhook is sent, the answer it gives.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any, cast

import orjson

from fleetplane.model.admission import AdmissionRequest, Decision, Operation
from fleetplane.model.errors import bad_request
from fleetplane.model.objects import Object
from fleetplane.model.resources import ResourceType
from fleetplane.model.user import UserInfo

API_VERSION = "admission.k8s.io/v1"


def request_of(review: Mapping[str, Any]) -> AdmissionRequest:
    """What a review asks. Raises ApiError 400 when it is not an AdmissionReview of v1."""
    asked = review.get("request")
    if review.get("apiVersion") != API_VERSION or not isinstance(asked, Mapping) or not asked.get("uid"):
        raise bad_request(f"this endpoint expects an AdmissionReview of {API_VERSION} with a request")
    resource, kind = asked.get("resource") or {}, asked.get("kind") or {}
    operation = asked.get("operation")
    if operation not in {"CREATE", "UPDATE", "DELETE", "CONNECT"}:
        raise bad_request(f"{operation!r} is not an admission operation")
    return AdmissionRequest(
        operation=cast(Operation, operation),
        resource=ResourceType(
            group=str(resource.get("group") or ""),
            version=str(resource.get("version") or ""),
            kind=str(kind.get("kind") or ""),
            plural=str(resource.get("resource") or ""),
            namespaced=bool(asked.get("namespace")),
        ),
        user=UserInfo.from_object(asked.get("userInfo") or {}),
        new=asked.get("object"),
        old=asked.get("oldObject"),
        namespace=str(asked.get("namespace") or ""),
        name=str(asked.get("name") or ""),
        subresource=str(asked.get("subResource") or ""),
        dry_run=bool(asked.get("dryRun")),
        options=asked.get("options") or {},
        uid=str(asked["uid"]),
    )


def review_of(request: AdmissionRequest, decision: Decision) -> Object:
    """The answer to a request."""
    response: Object = {"uid": request.uid, "allowed": decision.allowed}
    if decision.warnings:
        response["warnings"] = list(decision.warnings)
    if decision.audit_annotations:
        response["auditAnnotations"] = dict(decision.audit_annotations)
    if decision.denial is not None:
        response["status"] = decision.denial.to_status()
    elif decision.object is not None and (patch := json_patch_between(request.new, decision.object)):
        response["patchType"] = "JSONPatch"
        response["patch"] = base64.b64encode(orjson.dumps(patch)).decode()
    return {"apiVersion": API_VERSION, "kind": "AdmissionReview", "response": response}


def json_patch_between(old: Any, new: Any, path: str = "") -> list[Object]:
    """The JSON Patch (RFC 6902) that makes ``new`` of ``old``; lists that differ are replaced whole."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        patch: list[Object] = [{"op": "remove", "path": f"{path}/{_token(key)}"} for key in old if key not in new]
        for key, value in new.items():
            here = f"{path}/{_token(key)}"
            if key not in old:
                patch.append({"op": "add", "path": here, "value": value})
            else:
                patch += json_patch_between(old[key], value, here)
        return patch
    if _same(old, new):
        return []
    return [{"op": "replace", "path": path, "value": new}]


def _same(old: Any, new: Any) -> bool:
    """Equal as JSON: ``1`` is not ``true``."""
    return bool(old == new) and orjson.dumps(old, option=orjson.OPT_SORT_KEYS) == orjson.dumps(
        new, option=orjson.OPT_SORT_KEYS
    )


def _token(key: str) -> str:
    return key.replace("~", "~0").replace("/", "~1")
