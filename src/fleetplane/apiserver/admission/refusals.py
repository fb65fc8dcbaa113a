"""Refusals in the words of Kubernetes' ``admission.NewForbidden``: who reads them matches on them."""

from __future__ import annotations

from fleetplane.model.admission import AdmissionRequest, Decision
from fleetplane.model.errors import ApiError, forbidden


def forbid(request: AdmissionRequest, message: str) -> ApiError:
    """403, naming the object; one that has no name yet by the prefix its creator gave it."""
    resource = request.resource
    metadata = request.object.get("metadata") or {}
    name = request.name or str(metadata.get("generateName") or "")
    return forbidden(message, group=resource.group, resource=resource.plural, name=name)


def refuse(request: AdmissionRequest, message: str) -> Decision:
    return Decision(denial=forbid(request, message))
