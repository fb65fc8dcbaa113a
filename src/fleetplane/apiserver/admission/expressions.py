"""What CEL expressions of admission are evaluated against: the request, its objects, and who may do what.

Loads CEL, so it is imported only where there are expressions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from fleetplane.apiserver.admission.webhooks.review import kind_of, resource_of
from fleetplane.apiserver.authorization.attributes import Attributes
from fleetplane.apiserver.authorization.attributes import Authorizer as Authorize
from fleetplane.apiserver.registry import Served
from fleetplane.model.admission import AdmissionRequest
from fleetplane.model.cel import CelCompileError, CelCostExceeded, CelError, Program, compile
from fleetplane.model.cel.admission import match_declarations
from fleetplane.model.cel.cost import PER_CALL_LIMIT
from fleetplane.model.cel.library.authorization import AuthorizationCheck, AuthorizationDecision, Authorizer
from fleetplane.model.environment import Environment
from fleetplane.model.objects import Object
from fleetplane.model.user import UserInfo, service_account_user

MATCH_BUDGET: Final = 2_500_000
"""What all match conditions of one webhook or policy may cost together, in CEL cost units."""
SECONDS: Final = 2.0
"""What all expressions about one request may take together: a guard for everybody else, far beyond the cost limits' work."""
Variables = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Condition:
    """A match condition; ``program`` is the reason why there is none when it could not be compiled."""

    name: str
    program: Program | CelCompileError


def compile_conditions(conditions: Sequence[Mapping[str, Any]]) -> tuple[Condition, ...]:
    made = []
    for one in conditions:
        program: Program | CelCompileError
        try:
            program = compile(str(one.get("expression") or "").strip(), match_declarations())
        except CelCompileError as error:
            program = error
        made.append(Condition(str(one.get("name") or ""), program))
    return tuple(made)


def deadline(environment: Environment, seconds: float = SECONDS) -> Callable[[], bool]:
    """Whether the time for the expressions about one request is over. They run in turn with everything else."""
    end = environment.monotonic() + seconds
    return lambda: environment.monotonic() > end


class ConditionFailed(Exception):
    """Some condition could not be evaluated, and none said no."""


def all_match(
    conditions: Sequence[Condition], variables: Mapping[str, Any], interrupted: Callable[[], bool] | None = None
) -> bool:
    """Whether every condition holds. One that says no decides, whatever is wrong with others. Raises ConditionFailed."""
    budget = MATCH_BUDGET
    problems: list[str] = []
    for one in conditions:
        if isinstance(one.program, CelCompileError):
            problems.append(f"compilation error: {one.program}")
            continue
        try:
            limit = max(min(budget, PER_CALL_LIMIT), 1)
            outcome = one.program.run(variables, cost_limit=limit, interrupted=interrupted)
        except CelCostExceeded:
            problems.append(
                "validation failed due to running out of cost budget, no further validation rules will be run"
            )
            break
        except CelError as error:
            problems.append(f"expression '{one.program.source}' resulted in error: {error}")
            continue
        budget -= outcome.cost
        if outcome.value is not True:
            return False
    if problems:
        raise ConditionFailed(problems[0] if len(problems) == 1 else f"[{', '.join(problems)}]")
    return True


def request_value(request: AdmissionRequest, asked: Served, matched: Served) -> Object:
    """``request``: ``asked`` is the version the client used, ``matched`` the one the expression's rules are about."""
    sub = request.subresource
    return {
        "kind": kind_of(matched, sub),
        "resource": resource_of(matched),
        "subResource": sub,
        "requestKind": kind_of(asked, sub),
        "requestResource": resource_of(asked),
        "requestSubResource": sub,
        "name": request.name,
        "namespace": request.namespace,
        "operation": request.operation,
        "userInfo": request.user.to_object(),
        "dryRun": request.dry_run,
        "options": request.options or None,
    }


def authorizer_values(user: UserInfo, authorize: Authorize, cluster: str, request: AdmissionRequest) -> Variables:
    """``authorizer`` and ``authorizer.requestResource``, about the sender of the request in its cluster (by id)."""

    def check(question: AuthorizationCheck) -> AuthorizationDecision:
        who = user if question.service_account is None else service_account_user(*question.service_account)
        decision = authorize(
            Attributes(
                who,
                question.verb,
                question.group,
                "*",
                question.resource,
                question.subresource,
                question.namespace,
                question.name,
                question.path or "",
                cluster,
            )
        )
        return AuthorizationDecision(decision.allowed, decision.reason)

    whole = Authorizer(check)
    about = AuthorizationCheck(
        group=request.resource.group,
        resource=request.resource.plural,
        subresource=request.subresource,
        namespace=request.namespace,
        name=request.name,
    )
    of_request = Authorizer(check, about, "kubernetes.authorization.ResourceCheck")
    return {"authorizer": whole, "authorizer.requestResource": of_request}
