"""Evaluating a ValidatingAdmissionPolicy: what its expressions say of one request with one parameter."""

from __future__ import annotations

from typing import Final, NamedTuple

from fleetplane.apiserver.admission.expressions import ConditionFailed, all_match
from fleetplane.apiserver.admission.policies.compiled import Annotation, Validation
from fleetplane.apiserver.admission.policies.finding import Policy
from fleetplane.apiserver.admission.policies.inputs import Budget, Inputs
from fleetplane.model.cel import CelCompileError, CelCostExceeded, CelError
from fleetplane.model.objects import Object

_MAX_MESSAGE: Final = 5 * 1024
_MAX_ANNOTATION: Final = 10 * 1024
_OUT_OF_BUDGET: Final = "validation failed due to running out of cost budget, no further validation rules will be run"


class Objection(NamedTuple):
    """Something a policy has against a request; ``place`` is the validation's place, None where it is no validation."""

    message: str
    reason: str = "Invalid"
    place: int | None = None


class Verdict(NamedTuple):
    objections: list[Objection]
    annotations: list[tuple[str, str]]


def judge(policy: Policy, inputs: Inputs, params: Object | None) -> Verdict:
    """All a policy says. Errors are objections unless the policy ignores its own failures."""
    compiled = policy.compiled()
    variables = inputs.variables(params)
    try:
        if compiled.conditions and not all_match(compiled.conditions, variables, inputs.interrupted):
            return Verdict([], [])
    except ConditionFailed as error:
        return Verdict(_failure(policy, str(error)), [])
    if compiled.broken:
        return Verdict(_failure(policy, f"compilation error: {compiled.broken}"), [])
    budget = Budget(compiled.variables, variables, inputs.interrupted)
    objections: list[Objection] = []
    for index, validation in enumerate(compiled.validations):
        try:
            objection = _validate(validation, budget)
        except CelCostExceeded:
            return Verdict([*objections, *_failure(policy, _OUT_OF_BUDGET, index)], [])
        except CelError as error:
            objections += _failure(policy, f"expression '{validation.text}' resulted in error: {error}", index)
            continue
        if objection is not None:
            objections.append(objection._replace(place=index))
    annotations: list[tuple[str, str]] = []
    for annotation in compiled.annotations:
        try:
            value = _annotate(annotation, budget)
        except (CelError, CelCostExceeded) as error:
            objections += _failure(policy, f"auditAnnotations {annotation.key} resulted in error: {error}")
            continue
        if value:
            annotations.append((f"{policy.name}/{annotation.key}", value[:_MAX_ANNOTATION]))
    return Verdict(objections, annotations)


def _failure(policy: Policy, message: str, index: int | None = None) -> list[Objection]:
    return [] if policy.ignores_failure else [Objection(message, place=index)]


def _validate(validation: Validation, budget: Budget) -> Objection | None:
    if isinstance(validation.program, CelCompileError):
        raise CelError(f"compilation error: compilation failed: {validation.program}")
    if budget.run(validation.program) is True:
        return None
    return Objection(_message(validation, budget), validation.reason)


def _message(validation: Validation, budget: Budget) -> str:
    """The message expression's answer where it is usable, the fixed message, or the expression itself."""
    program = validation.message_program
    if program is not None and not isinstance(program, CelCompileError):
        try:
            made = budget.run(program)
        except CelError:
            made = None
        if isinstance(made, str):
            made = made.strip()
            if made and "\n" not in made and len(made.encode()) <= _MAX_MESSAGE:
                return made
    return validation.message or f"failed expression: {validation.text}"


def _annotate(annotation: Annotation, budget: Budget) -> str:
    if isinstance(annotation.program, CelCompileError):
        raise CelError(f"compilation error: compilation failed: {annotation.program}")
    value = budget.run(annotation.program)
    if value is not None and not isinstance(value, str):
        raise CelError("valueExpression must be a string or null")
    return (value or "").strip()
