"""The expressions of a policy, compiled once: conditions, variables, validations, annotations, mutations.

An expression that does not compile is kept as its error: whether that refuses a request is for the failure policy to say.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from fleetplane.apiserver.admission.expressions import Condition, compile_conditions
from fleetplane.model.cel import BOOL, DYN, STRING, CelCompileError, Declarations, Program, Type, compile
from fleetplane.model.cel.admission import mutation_declarations, policy_declarations

Maybe = Program | CelCompileError


class Validation(NamedTuple):
    text: str
    program: Maybe
    message: str
    message_program: Maybe | None
    reason: str


class Annotation(NamedTuple):
    key: str
    program: Maybe


class Mutation(NamedTuple):
    """``kind`` is ``ApplyConfiguration`` or ``JSONPatch``."""

    kind: str
    text: str
    program: Maybe


@dataclass(frozen=True, slots=True)
class Compiled:
    conditions: tuple[Condition, ...]
    variables: Mapping[str, Program]
    validations: tuple[Validation, ...]
    annotations: tuple[Annotation, ...]
    mutations: tuple[Mutation, ...]
    broken: str = ""
    """Why its variables cannot be computed, if so."""

    @property
    def uses_namespace(self) -> bool:
        return any(one.uses("namespaceObject") for one in self._programs())

    def _programs(self) -> Iterator[Program]:
        yield from self.variables.values()
        everything: list[Maybe | None] = [
            *(one.program for one in self.validations),
            *(one.message_program for one in self.validations),
            *(one.program for one in self.annotations),
            *(one.program for one in self.mutations),
        ]
        yield from (one for one in everything if isinstance(one, Program))


def compile_policy(spec: Mapping[str, Any], *, mutating: bool, types: Mapping[str, Type] | None = None) -> Compiled:
    """``types`` replaces the types of declared variables (``object``, ``params`` …), to check a policy against them."""
    known: dict[str, Type] = {}
    variables: dict[str, Program] = {}
    broken = ""

    def declarations() -> Declarations:
        made = mutation_declarations(known) if mutating else policy_declarations(known)
        if not types:
            return made
        return Declarations({**made.variables, **types}, made.functions, made.structs, made.open_structs)

    for raw in spec.get("variables") or ():
        name = str(raw.get("name") or "")
        made = _compiled(raw.get("expression"), declarations(), None)
        if isinstance(made, Program):
            variables[name], known[name] = made, made.result
        else:
            broken = broken or f"variable {name}: {made}"
            known[name] = DYN
    ready = declarations()
    return Compiled(
        compile_conditions(spec.get("matchConditions") or ()),
        variables,
        tuple(_validation(raw, ready) for raw in spec.get("validations") or ()),
        tuple(
            Annotation(str(raw.get("key") or ""), _compiled(raw.get("valueExpression"), ready, None))
            for raw in spec.get("auditAnnotations") or ()
        ),
        tuple(_mutation(raw, ready) for raw in spec.get("mutations") or ()),
        broken,
    )


def _compiled(expression: Any, declarations: Declarations, result: Type | None) -> Maybe:
    try:
        return compile(str(expression or "").strip(), declarations, result=result)
    except CelCompileError as error:
        return error


def _validation(raw: Mapping[str, Any], declarations: Declarations) -> Validation:
    message = raw.get("messageExpression")
    text = str(raw.get("expression") or "").strip()
    return Validation(
        text,
        _compiled(text, declarations, BOOL),
        str(raw.get("message") or "").strip(),
        _compiled(message, declarations, STRING) if message else None,
        str(raw.get("reason") or "Invalid"),
    )


def _mutation(raw: Mapping[str, Any], declarations: Declarations) -> Mutation:
    kind = str(raw.get("patchType") or "")
    source = raw.get("jsonPatch") if kind == "JSONPatch" else raw.get("applyConfiguration")
    text = str((source or {}).get("expression") or "").strip()
    return Mutation(kind, text, _compiled(text, declarations, None))


class Problem(NamedTuple):
    """Where an expression of a policy stands, its text, and what is wrong with it."""

    path: str
    text: str
    error: CelCompileError


def problems(spec: Mapping[str, Any], compiled: Compiled) -> Iterator[Problem]:
    """Every expression that does not compile."""
    for index, one in enumerate(compiled.conditions):
        if isinstance(one.program, CelCompileError):
            yield Problem(f"spec.matchConditions[{index}].expression", one.program.source, one.program)
    for index, raw in enumerate(spec.get("variables") or ()):
        if raw.get("name") not in compiled.variables:
            yield from _variable_problem(spec, index)
    for index, validation in enumerate(compiled.validations):
        path = f"spec.validations[{index}]"
        if isinstance(validation.program, CelCompileError):
            yield Problem(f"{path}.expression", validation.text, validation.program)
        if isinstance(validation.message_program, CelCompileError):
            yield Problem(f"{path}.messageExpression", validation.message_program.source, validation.message_program)
    for index, annotation in enumerate(compiled.annotations):
        if isinstance(annotation.program, CelCompileError):
            path = f"spec.auditAnnotations[{index}].valueExpression"
            yield Problem(path, annotation.program.source, annotation.program)
    for index, mutation in enumerate(compiled.mutations):
        if isinstance(mutation.program, CelCompileError):
            key = "jsonPatch" if mutation.kind == "JSONPatch" else "applyConfiguration"
            yield Problem(f"spec.mutations[{index}].{key}.expression", mutation.text, mutation.program)


def _variable_problem(spec: Mapping[str, Any], index: int) -> Iterator[Problem]:
    raw: Sequence[Mapping[str, Any]] = spec.get("variables") or ()
    text = str(raw[index].get("expression") or "").strip()
    before = {str(one.get("name")): DYN for one in raw[:index]}
    found = _compiled(text, mutation_declarations(before), None)
    if isinstance(found, CelCompileError):
        yield Problem(f"spec.variables[{index}].expression", text, found)
