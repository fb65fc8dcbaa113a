"""Reviews: asking the authorizer through the API (``authorization.k8s.io/v1``, ``authentication.k8s.io/v1``).

Each is a function from the posted object to the answered one; nothing is stored. Bad specs raise 400 or 422.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from fleetplane.apiserver.authorization.attributes import Attributes, Authorizer, Verdict
from fleetplane.apiserver.authorization.node import node_of
from fleetplane.apiserver.authorization.rbac import RbacIndex
from fleetplane.model import errors, objects
from fleetplane.model.errors import FieldError
from fleetplane.model.objects import Object
from fleetplane.model.selectors import FieldRequirement, FieldSelector
from fleetplane.model.user import UserInfo

GROUP: Final = "authorization.k8s.io"


def self_subject_access_review(review: Object, user: UserInfo, authorize: Authorizer, cluster: str = "root") -> Object:
    """May I? Asked about the caller."""
    return _answered(review, user, authorize, cluster, "SelfSubjectAccessReview")


def subject_access_review(review: Object, authorize: Authorizer, cluster: str = "root") -> Object:
    """May they? Asked about the user in the spec; who may ask this may ask about anybody."""
    return _answered(review, _subject(review, "SubjectAccessReview"), authorize, cluster, "SubjectAccessReview")


def local_subject_access_review(review: Object, namespace: str, authorize: Authorizer, cluster: str = "root") -> Object:
    """May they, in this namespace?"""
    kind = "LocalSubjectAccessReview"
    asked = (review.get("spec") or {}).get("resourceAttributes")
    if not isinstance(asked, dict):
        raise _invalid(review, kind, FieldError.invalid("spec.resourceAttributes", None, "must be specified"))
    if asked.get("namespace", "") != namespace:
        raise errors.bad_request(f"spec.resourceAttributes.namespace must match namespace: {namespace}")
    return _answered(review, _subject(review, kind), authorize, cluster, kind)


def self_subject_review(review: Object, user: UserInfo) -> Object:
    """Who am I?"""
    answered = {**review, "apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
    answered["metadata"] = review.get("metadata") or {}
    answered["status"] = {"userInfo": user.to_object()}
    return answered


def self_subject_rules_review(review: Object, user: UserInfo, index: RbacIndex, cluster: str = "root") -> Object:
    """What may I do in a namespace? Complete as far as RBAC goes; nodes are told that theirs is not."""
    namespace = str((review.get("spec") or {}).get("namespace") or "")
    if not namespace:
        raise errors.bad_request("no namespace on request")
    permissions = index.permissions(cluster, user, namespace)
    rules = [grant.rule for grant in permissions.grants]
    problems = list(permissions.problems)
    if node_of(user) is not None:
        problems.insert(0, "node authorizer does not support user rule resolution")
    status: Object = {
        "resourceRules": [
            {
                "verbs": list(rule.verbs),
                "apiGroups": list(rule.groups),
                "resources": list(rule.resources),
                **({"resourceNames": list(rule.names)} if rule.names else {}),
            }
            for rule in rules
            if rule.resources
        ],
        "nonResourceRules": [
            {"verbs": list(rule.verbs), "nonResourceURLs": list(rule.urls)} for rule in rules if rule.urls
        ],
        "incomplete": bool(problems),
    }
    if problems:
        status["evaluationError"] = ", ".join(problems)
    return {**_typed(review, "SelfSubjectRulesReview"), "status": status}


# --- how ------------------------------------------------------------------------------------------------------------


def _answered(review: Object, user: UserInfo, authorize: Authorizer, cluster: str, kind: str) -> Object:
    attributes = _attributes(review, user, cluster, kind)
    decision = authorize(attributes)
    status: Object = {"allowed": decision.allowed}
    if decision.verdict is Verdict.DENY:
        status["denied"] = True
    if decision.reason:
        status["reason"] = decision.reason
    return {**_typed(review, kind), "status": status}


def _typed(review: Object, kind: str) -> Object:
    return {**review, "apiVersion": f"{GROUP}/v1", "kind": kind, "metadata": review.get("metadata") or {}}


def _subject(review: Object, kind: str) -> UserInfo:
    spec = review.get("spec") or {}
    groups = tuple(str(one) for one in spec.get("groups") or ())
    name = str(spec.get("user") or "")
    if not name and not groups:
        raise _invalid(
            review, kind, FieldError.invalid("spec.user", "", "at least one of user or group must be specified")
        )
    extra = {str(key).lower(): tuple(map(str, values or ())) for key, values in (spec.get("extra") or {}).items()}
    return UserInfo(name, str(spec.get("uid") or ""), groups, extra)


def _attributes(review: Object, user: UserInfo, cluster: str, kind: str) -> Attributes:
    spec = review.get("spec") or {}
    resource, path = spec.get("resourceAttributes"), spec.get("nonResourceAttributes")
    if (resource is None) == (path is None):
        which = "spec.nonResourceAttributes" if resource is not None else "spec.resourceAttributes"
        detail = "exactly one of nonResourceAttributes or resourceAttributes must be specified"
        if resource is not None:
            detail = "cannot be specified in combination with resourceAttributes"
        raise _invalid(review, kind, FieldError.invalid(which, path, detail))
    if path is not None:
        return Attributes(user, str(path.get("verb") or "").lower(), path=str(path.get("path") or ""), cluster=cluster)

    def text(key: str) -> str:
        return str((resource or {}).get(key) or "")

    return Attributes(
        user,
        text("verb"),
        text("group"),
        text("version"),
        text("resource") or "*",
        text("subresource"),
        text("namespace"),
        text("name"),
        cluster=cluster,
        field_selector=_field_selector((resource or {}).get("fieldSelector")),
    )


def _field_selector(selector: Any) -> tuple[FieldRequirement, ...]:
    """What of a field selector can be understood; the rest narrows nothing, which only ever allows less."""
    if not isinstance(selector, dict):
        return ()
    if selector.get("rawSelector"):
        try:
            return FieldSelector.parse(str(selector["rawSelector"])).requirements
        except ValueError:
            return ()
    terms: Sequence[Mapping[str, Any]] = selector.get("requirements") or ()
    return tuple(
        FieldRequirement(str(term.get("key") or ""), str(term["values"][0]), term["operator"] == "NotIn")
        for term in terms
        if term.get("operator") in {"In", "NotIn"} and len(term.get("values") or ()) == 1
    )


def _invalid(review: Object, kind: str, *causes: FieldError) -> errors.ApiError:
    return errors.invalid(kind, objects.name(review), causes, group=GROUP)
