"""Kubernetes' authorizer library: an expression asks whether the one who sent the request may do something.

``authorizer.group('apps').resource('deployments').namespace('x').check('create').allowed()``

The server passes an ``Authorizer`` made with its own callback; it must answer at once and must not raise. Each check is
priced so that one expression affords two.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Final, Protocol

from fleetplane.model import names
from fleetplane.model.cel.cost import (
    LIST_COST,
    STRUCT_COST,
    TRAVERSAL,
    Estimate,
    Operand,
    Price,
    Range,
    constant,
    fixed,
)
from fleetplane.model.cel.errors import CelError
from fleetplane.model.cel.library.declarations import Functions, Overload
from fleetplane.model.cel.types import BOOL, STRING, Type, opaque
from fleetplane.model.cel.values import size_of

_PREFIX: Final = "kubernetes.authorization."


@dataclass(frozen=True, slots=True)
class AuthorizationCheck:
    """One question. ``path`` is set for non-resource requests; ``service_account`` (namespace, name) when it is not
    about the sender of the request; selectors as they were written."""

    verb: str = ""
    path: str | None = None
    group: str = ""
    resource: str = ""
    subresource: str = ""
    namespace: str = ""
    name: str = ""
    field_selector: str = ""
    label_selector: str = ""
    service_account: tuple[str, str] | None = None


@dataclass(frozen=True, slots=True)
class AuthorizationDecision:
    """``error`` is empty unless the check itself failed."""

    cel_type_name: ClassVar[str] = f"{_PREFIX}Decision"
    allowed: bool
    reason: str = ""
    error: str = ""


class Authorize(Protocol):
    def __call__(self, check: AuthorizationCheck, /) -> AuthorizationDecision: ...


@dataclass(frozen=True, slots=True, eq=False)
class Authorizer:
    """The value of the variable ``authorizer``; also what its methods build up."""

    authorize: Authorize
    check: AuthorizationCheck = AuthorizationCheck()
    cel_type_name: str = f"{_PREFIX}Authorizer"

    def with_(self, kind: Type, **parts: Any) -> Authorizer:
        return Authorizer(self.authorize, replace(self.check, **parts), kind.name)


AUTHORIZER: Final = opaque(f"{_PREFIX}Authorizer")
PATH_CHECK: Final = opaque(f"{_PREFIX}PathCheck")
GROUP_CHECK: Final = opaque(f"{_PREFIX}GroupCheck")
RESOURCE_CHECK: Final = opaque(f"{_PREFIX}ResourceCheck")
DECISION: Final = opaque(f"{_PREFIX}Decision")


def _not_empty(what: str, text: str) -> str:
    if not text.strip():
        raise CelError(f"{what} must not be empty")
    return text


def path(authorizer: Authorizer, text: str) -> Authorizer:
    return authorizer.with_(PATH_CHECK, path=_not_empty("path", text))


def resource(check: Authorizer, text: str) -> Authorizer:
    return check.with_(RESOURCE_CHECK, resource=_not_empty("resource", text))


def service_account(authorizer: Authorizer, namespace: str, name: str) -> Authorizer:
    if problems := names.dns1123_subdomain(name):
        raise CelError(f"Invalid service account name: {', '.join(problems)}")
    if problems := names.dns1123_label(namespace):
        raise CelError(f"Invalid service account namespace: {', '.join(problems)}")
    return authorizer.with_(AUTHORIZER, service_account=(namespace, name))


def decide(check: Authorizer, verb: str) -> AuthorizationDecision:
    return check.authorize(replace(check.check, verb=verb))


def _selector_actual(arguments: Sequence[Any], _result: Any) -> int:
    return _selector(fixed(size_of(arguments[1]))).most


def _selector(size: Range) -> Range:
    """Parsing it, and a requirement for every two characters."""
    requirements = size.scaled(0.5).scaled(LIST_COST + STRUCT_COST)
    return fixed(LIST_COST).plus(size.scaled(TRAVERSAL)).plus(requirements)


def _selector_estimate(operands: Sequence[Operand]) -> Estimate:
    return Estimate(_selector(operands[1].size))


_SELECTOR: Final = Price(_selector_actual, _selector_estimate)
_CHECK: Final = constant(350_000)


def _setter(field: str) -> Callable[[Authorizer, str], Authorizer]:
    return lambda check, text: check.with_(RESOURCE_CHECK, **{field: text})


def _narrowing(identifier: str, field: str, **more: Any) -> tuple[Overload, ...]:
    return (Overload(identifier, (RESOURCE_CHECK, STRING), RESOURCE_CHECK, _setter(field), member=True, **more),)


def _reader(identifier: str, result: Type, read: Callable[[AuthorizationDecision], Any]) -> tuple[Overload, ...]:
    return (Overload(identifier, (DECISION,), result, read, member=True),)


FUNCTIONS: Final[Functions] = {
    "path": (Overload("authorizer_path", (AUTHORIZER, STRING), PATH_CHECK, path, member=True),),
    "group": (
        Overload(
            "authorizer_group",
            (AUTHORIZER, STRING),
            GROUP_CHECK,
            lambda authorizer, text: authorizer.with_(GROUP_CHECK, group=text),
            member=True,
        ),
    ),
    "serviceAccount": (
        Overload("authorizer_serviceaccount", (AUTHORIZER, STRING, STRING), AUTHORIZER, service_account, member=True),
    ),
    "resource": (Overload("groupcheck_resource", (GROUP_CHECK, STRING), RESOURCE_CHECK, resource, member=True),),
    "subresource": _narrowing("resourcecheck_subresource", "subresource"),
    "namespace": _narrowing("resourcecheck_namespace", "namespace"),
    "name": _narrowing("resourcecheck_name", "name"),
    "fieldSelector": _narrowing("authorizer_fieldselector", "field_selector", price=_SELECTOR),
    "labelSelector": _narrowing("authorizer_labelselector", "label_selector", price=_SELECTOR),
    "check": (
        Overload("pathcheck_check", (PATH_CHECK, STRING), DECISION, decide, member=True, price=_CHECK),
        Overload("resourcecheck_check", (RESOURCE_CHECK, STRING), DECISION, decide, member=True, price=_CHECK),
    ),
    "allowed": _reader("decision_allowed", BOOL, lambda decision: decision.allowed),
    "reason": _reader("decision_reason", STRING, lambda decision: decision.reason),
    "errored": _reader("decision_errored", BOOL, lambda decision: bool(decision.error)),
    "error": _reader("decision_error", STRING, lambda decision: decision.error),
}
