"""``x-kubernetes-validations``: the CEL rules of custom resources, compiled once and evaluated on every write.

A rule that refers to ``oldSelf`` runs only where there is an old value to compare with; a rule whose value did not change
is not held against an update (KEP-2876, KEP-4008). All rules of one write share one budget of evaluation cost.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from fleetplane.model.cel import (
    STRING,
    CelCompileError,
    CelCostExceeded,
    CelError,
    Declarations,
    Program,
    Type,
    compile,
    type_from_schema,
)
from fleetplane.model.cel.cost import PER_CALL_LIMIT, RUNTIME_BUDGET
from fleetplane.model.errors import FieldError
from fleetplane.model.objects import Object
from fleetplane.model.schema import ABSENT, Schema, walk_rules

_REASONS = frozenset({"FieldValueInvalid", "FieldValueForbidden", "FieldValueRequired", "FieldValueDuplicate"})


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule of one schema node, ready to run."""

    text: str
    program: Program
    message: str
    message_program: Program | None
    reason: str
    field_path: str
    is_transition: bool
    optional_old_self: bool


class RuleSet:
    """The rules of one schema, compiled as they are first met."""

    def __init__(self, root: Schema) -> None:
        self._root = root
        self._compiled: dict[int, tuple[Schema, tuple[Rule, ...]]] = {}

    def check(self, new: Object, old: Object | None) -> list[FieldError]:
        """What the rules refuse, in schema order."""
        found: list[FieldError] = []
        budget = RUNTIME_BUDGET
        for site in walk_rules(self._root, new, ABSENT if old is None else old):
            known = site.old is not ABSENT
            unchanged = known and site.old == site.value
            for rule in self._rules(site.schema):
                if rule.is_transition and not known and not rule.optional_old_self:
                    continue
                if unchanged and not rule.is_transition:
                    continue
                error, budget = _run(rule, site.path, site.value, site.old if known else None, budget, site.schema)
                if error is not None:
                    found.append(error)
                if budget <= 0:
                    return found
        return found

    def _rules(self, schema: Schema) -> tuple[Rule, ...]:
        kept = self._compiled.get(id(schema))
        if kept is None:
            self_type = type_from_schema(schema.raw, is_resource=schema is self._root, name="object")
            rules = tuple(compile_rule(raw, self_type) for raw in schema.rules) if self_type is not None else ()
            kept = self._compiled[id(schema)] = (schema, rules)
        return kept[1]


def compile_rule(raw: Mapping[str, Any], self_type: Type) -> Rule:
    """Raises CelCompileError."""
    optional = bool(raw.get("optionalOldSelf"))
    declarations = Declarations({"self": self_type, "oldSelf": self_type})
    text = str(raw.get("rule") or "").strip()
    program = compile(text, declarations)
    message_expression = raw.get("messageExpression")
    message_program = compile(message_expression, declarations, result=STRING) if message_expression else None
    reason = str(raw.get("reason") or "FieldValueInvalid")
    return Rule(
        text,
        program,
        str(raw.get("message") or "").strip(),
        message_program,
        reason if reason in _REASONS else "FieldValueInvalid",
        str(raw.get("fieldPath") or ""),
        program.uses("oldSelf"),
        optional,
    )


def _run(rule: Rule, path: str, value: Any, old: Any, budget: int, schema: Schema) -> tuple[FieldError | None, int]:
    """(what is wrong, the budget left)."""
    variables = {"self": value, "oldSelf": old}
    where = path + rule.field_path if path else rule.field_path.lstrip(".")
    kind = schema.type or "object"
    try:
        outcome = rule.program.run(variables, cost_limit=min(budget, PER_CALL_LIMIT))
    except CelCostExceeded:
        detail = (
            f"validation failed due to running out of cost budget, no further validation rules will be run: {rule.text}"
        )
        return FieldError.invalid(where, kind, detail), 0
    except CelError as error:
        return FieldError.invalid(where, kind, f"{error} evaluating rule: {rule.message or rule.text}"), budget
    budget -= outcome.cost
    if outcome.value is True:
        return None, budget
    message = rule.message or f"failed rule: {rule.text}"
    if rule.message_program is not None:
        try:
            made = rule.message_program.run(variables, cost_limit=max(min(budget, PER_CALL_LIMIT), 1))
            budget -= made.cost
            if isinstance(made.value, str) and made.value.strip() and "\n" not in made.value.strip():
                message = made.value.strip()
        except (CelError, CelCostExceeded):
            pass  # the rule's own message serves; a broken message never hides a broken rule
    return _refusal(rule.reason, where, kind, message), budget


def _refusal(reason: str, where: str, kind: str, message: str) -> FieldError:
    match reason:
        case "FieldValueForbidden":
            return FieldError.forbidden(where, message)
        case "FieldValueRequired":
            return FieldError.required(where, message)
        case "FieldValueDuplicate":
            return FieldError("FieldValueDuplicate", where, f"Duplicate value: {json.dumps(kind)}")
    return FieldError.invalid(where, kind, message)


def check_rules_compile(raw: Mapping[str, Any], path: str) -> Iterator[FieldError]:
    """What keeps the rules of a CRD's schema from compiling; ``path`` is where the schema stands in the CRD."""
    yield from _compile_errors(raw, path, is_root=True)


def _compile_errors(raw: Mapping[str, Any], path: str, *, is_root: bool) -> Iterator[FieldError]:
    rules = raw.get("x-kubernetes-validations")
    if isinstance(rules, list) and rules:
        self_type = type_from_schema(raw, is_resource=is_root, name="object")
        for index, rule in enumerate(rules):
            here = f"{path}.x-kubernetes-validations[{index}]"
            yield from _rule_errors(rule, self_type, here)
    for key in ("properties",):
        below = raw.get(key)
        if isinstance(below, dict):
            for name, one in below.items():
                if isinstance(one, dict):
                    yield from _compile_errors(one, f"{path}.{key}[{name}]", is_root=False)
    for key in ("items", "additionalProperties"):
        one = raw.get(key)
        if isinstance(one, dict):
            yield from _compile_errors(one, f"{path}.{key}", is_root=False)


def _rule_errors(rule: Mapping[str, Any], self_type: Type | None, here: str) -> Iterator[FieldError]:
    text = str(rule.get("rule") or "").strip()
    if not text:
        yield FieldError.required(f"{here}.rule", "rule is not specified")
        return
    if self_type is None:
        yield FieldError.invalid(here, text, "rules cannot be used where the schema tells nothing of the data")
        return
    try:
        compile_rule(rule, self_type)
    except CelCompileError as error:
        yield FieldError.invalid(f"{here}.rule", text, f"compilation failed: {error}")
