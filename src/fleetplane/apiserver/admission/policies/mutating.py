"""Evaluating a MutatingAdmissionPolicy: its mutations, one on top of the other."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import orjson

from fleetplane.apiserver.admission.expressions import ConditionFailed, all_match
from fleetplane.apiserver.admission.policies.compiled import Mutation
from fleetplane.apiserver.admission.policies.finding import Policy
from fleetplane.apiserver.admission.policies.inputs import Budget, Inputs
from fleetplane.model.apply.typed import merge
from fleetplane.model.cel import CelCompileError, CelCostExceeded, CelError
from fleetplane.model.cel.values import Duration, Timestamp
from fleetplane.model.errors import ApiError
from fleetplane.model.objects import Object
from fleetplane.model.patch import json_patch


class MutationFailed(Exception):
    """The message says which expression failed, and why."""


def mutate(policy: Policy, inputs: Inputs, params: Object | None) -> Object | None:
    """The object as the policy wants it (the very same where it has nothing to say). Raises MutationFailed."""
    compiled = policy.compiled()
    if inputs.new is None:
        return None
    try:
        if compiled.conditions and not all_match(compiled.conditions, inputs.variables(params), inputs.interrupted):
            return inputs.new
    except ConditionFailed as error:
        raise MutationFailed(str(error)) from None
    if compiled.broken:
        raise MutationFailed(f"compilation error: {compiled.broken}")
    for mutation in compiled.mutations:
        budget = Budget(compiled.variables, inputs.variables(params), inputs.interrupted)
        changed = _apply(mutation, inputs, _evaluate(mutation, budget))
        inputs = replace(inputs, new=changed)
    return inputs.new


def _evaluate(mutation: Mutation, budget: Budget) -> Any:
    if isinstance(mutation.program, CelCompileError):
        raise MutationFailed(f"compilation error: compilation failed: {mutation.program}")
    try:
        made = budget.run(mutation.program)
        return orjson.loads(orjson.dumps(made, default=_plain))
    except (CelError, CelCostExceeded) as error:
        raise MutationFailed(f"expression '{mutation.text}' resulted in error: {error}") from None
    except orjson.JSONEncodeError:
        raise MutationFailed(f"expression '{mutation.text}' makes something JSON has no word for") from None


def _plain(value: Any) -> Any:
    if isinstance(value, int):
        return int(value)
    if isinstance(value, (Duration, Timestamp)):
        raise TypeError
    if isinstance(value, bytes):
        return value.decode()
    raise TypeError


def _apply(mutation: Mutation, inputs: Inputs, made: Any) -> Object:
    before: Object = orjson.loads(orjson.dumps(inputs.new))
    if mutation.kind == "JSONPatch":
        try:
            patched = json_patch(before, made)
        except ApiError as error:
            raise MutationFailed(
                f"expression '{mutation.text}' made a patch that does not apply: {error.message}"
            ) from None
        if not isinstance(patched, dict) or not isinstance(patched.get("metadata"), dict):
            raise MutationFailed(f"expression '{mutation.text}' made something else of the object")
        return patched
    if not isinstance(made, dict):
        raise MutationFailed(f"expression '{mutation.text}' must make an Object")
    metadata = made.get("metadata") or {}
    if {"apiVersion", "kind"} & made.keys() or {"name", "namespace", "uid"} & metadata.keys():
        raise MutationFailed(
            f"expression '{mutation.text}' may not set apiVersion, kind, or the name, namespace or uid of the object"
        )
    merge(inputs.meant.schema, before, made)
    return before
