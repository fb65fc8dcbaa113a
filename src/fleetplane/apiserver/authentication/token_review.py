"""TokenReview: asking about a token through the API (``authentication.k8s.io/v1``)."""

from __future__ import annotations

from fleetplane.apiserver.authentication.chain import Authenticator
from fleetplane.apiserver.authentication.identity import ROOT, Identity
from fleetplane.model import errors
from fleetplane.model.objects import Object


async def review_token(review: Object, authenticator: Authenticator, cluster: str = ROOT) -> Object:
    """The posted review with its status; the token stays in the spec as posted, as in Kubernetes. Raises 400."""
    spec = review.get("spec") or {}
    token = spec.get("token")
    if not isinstance(token, str) or not token:
        raise errors.bad_request("token is required for TokenReview in authentication")
    audiences = tuple(str(one) for one in spec.get("audiences") or ())
    found = await authenticator.examine(token, cluster, audiences)
    answered = {**review, "apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview"}
    answered["metadata"] = review.get("metadata") or {}
    if isinstance(found, Identity):
        answered["status"] = {"authenticated": True, "user": found.user.to_object()}
        if found.audiences:
            answered["status"]["audiences"] = list(found.audiences)
    else:
        answered["status"] = {"user": {}, "error": f"[invalid bearer token, {found}]"}
    return answered
