"""The question authorization answers, and its three answers.

An authorizer is a plain function of ``Attributes``: it never does I/O and never waits, because every request asks it at
least once. What it needs to know reaches it beforehand, as events.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final, NamedTuple

from fleetplane.model import errors
from fleetplane.model.errors import ApiError
from fleetplane.model.selectors import FieldRequirement
from fleetplane.model.user import UserInfo

EVERY_CLUSTER: Final = "*"
"""No logical cluster's roles reach so far: only the default ones do (``system:masters``, built-in controllers)."""


@dataclass(slots=True)
class Attributes:
    """Who wants to do what. A resource is meant when ``resource`` is set, otherwise the URL ``path``.

    ``verb`` is the API verb (``get``, ``list``, ``deletecollection`` …) or, for paths, the HTTP method in lower case.
    ``name`` is also set for lists and watches that select one ``metadata.name``. ``cluster`` is the logical cluster's
    uid, or ``EVERY_CLUSTER`` for lists and watches over all of them. ``field_selector`` is what the request narrows
    itself to, where known.
    """

    user: UserInfo
    verb: str
    group: str = ""
    version: str = ""
    resource: str = ""
    subresource: str = ""
    namespace: str = ""
    name: str = ""
    path: str = ""
    cluster: str = "root"
    field_selector: tuple[FieldRequirement, ...] = ()

    @property
    def full_resource(self) -> str:
        """``pods`` or ``pods/status``."""
        return f"{self.resource}/{self.subresource}" if self.subresource else self.resource


class Verdict(Enum):
    ALLOW = "allow"
    DENY = "deny"
    NO_OPINION = "no opinion"


class Decision(NamedTuple):
    """``reason`` says which grant allowed it, or why it was refused; it goes to audit and into the refusal."""

    verdict: Verdict
    reason: str = ""

    @property
    def allowed(self) -> bool:
        return self.verdict is Verdict.ALLOW


NO_OPINION: Final = Decision(Verdict.NO_OPINION)


Authorizer = Callable[[Attributes], Decision]


def first_of(authorizers: Sequence[Authorizer]) -> Authorizer:
    """Ask in order; the first that allows or denies decides. The reasons of those without opinion are collected."""
    asked = tuple(authorizers)

    def authorize(attributes: Attributes) -> Decision:
        reasons: list[str] = []
        for one in asked:
            decision = one(attributes)
            if decision.verdict is not Verdict.NO_OPINION:
                return decision
            if decision.reason:
                reasons.append(decision.reason)
        return Decision(Verdict.NO_OPINION, "\n".join(reasons)) if reasons else NO_OPINION

    return authorize


def forbidden(attributes: Attributes, reason: str = "") -> ApiError:
    """The 403 in kube-apiserver's words; clients and people match on them."""
    sentence = _sentence(attributes)
    message = f"{sentence}: {reason}" if reason else sentence
    if not attributes.resource:
        return ApiError(403, f"forbidden: {message}")
    return errors.forbidden(message, group=attributes.group, resource=attributes.resource, name=attributes.name)


def _sentence(a: Attributes) -> str:
    subject = f"User {_quoted(a.user.name)} cannot {_safe(a.verb)}"
    if not a.resource:
        return f"{subject} path {_quoted(a.path)}"
    what = f"{subject} resource {_quoted(a.full_resource)} in API group {_quoted(a.group)}"
    return f"{what} in the namespace {_quoted(a.namespace)}" if a.namespace else f"{what} at the cluster scope"


def _quoted(text: str) -> str:
    return _safe(json.dumps(text, ensure_ascii=False))


def _safe(text: str) -> str:
    """Nothing in a refusal may look like HTML."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
