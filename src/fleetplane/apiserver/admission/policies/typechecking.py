"""Type checking of ValidatingAdmissionPolicies into their status (KEP-3488).

A policy is accepted when its expressions make sense for any object. Where its rules name kinds, the expressions are also
checked against the schemas of these, and what does not fit is told as a warning in ``status.typeChecking``.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

from fleetplane.apiserver.own_writes import OwnWrites
from fleetplane.apiserver.registry import Registry, Served
from fleetplane.model.builtin import definitions
from fleetplane.model.builtin.types import VALIDATING_ADMISSION_POLICIES
from fleetplane.model.errors import ApiError
from fleetplane.model.objects import Object, generation, name, split_api_version

if TYPE_CHECKING:
    from fleetplane.model.cel import Type

log = logging.getLogger(__name__)

_MAX_TYPES: Final = 10
_METADATA: Final = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"
_MAX_DEPTH: Final = 16


class TypeChecking:
    """Fed by a follower of the policies; ``run`` is background work."""

    def __init__(self, registry: Registry, own: OwnWrites) -> None:
        self._registry = registry
        self._own = own
        self._pending: dict[tuple[str, str], Object] = {}
        self._changed = asyncio.Event()

    def apply(self, cluster: str, policy: Object, deleted: bool) -> None:
        key = (cluster, name(policy))
        observed = (policy.get("status") or {}).get("observedGeneration")
        if deleted or observed == generation(policy):
            self._pending.pop(key, None)
        else:
            self._pending[key] = policy
            self._changed.set()

    def reset(self) -> None:
        self._pending.clear()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            for (cluster, policy_name), policy in list(self._pending.items()):
                self._pending.pop((cluster, policy_name), None)
                try:
                    await self._write(cluster, policy)
                except ApiError as error:
                    if error.code not in (404, 409):
                        log.warning("the status of policy %s cannot be written: %s", policy_name, error)
                except Exception:  # a policy nobody foresaw must not end the server
                    log.exception("policy %s cannot be type-checked", policy_name)

    async def _write(self, cluster: str, policy: Object) -> None:
        warnings = list(expression_warnings(policy, self._registry, cluster))
        checked = generation(policy)

        async def make(current: Object) -> Object:
            if generation(current) == checked:
                status = current.setdefault("status", {})
                status["observedGeneration"] = checked
                status["typeChecking"] = {"expressionWarnings": warnings} if warnings else {}
            return current

        await self._own.change(cluster, VALIDATING_ADMISSION_POLICIES, name(policy), make, subresource="status")


def expression_warnings(policy: Object, registry: Registry, cluster: str) -> Iterator[Object]:
    """``status.typeChecking.expressionWarnings`` of a policy."""
    from fleetplane.apiserver.admission.policies.compiled import compile_policy, problems  # noqa: PLC0415 - loads CEL

    spec = policy.get("spec") or {}
    params = params_type(spec, registry, cluster)
    found: dict[str, list[str]] = {}
    for served in named_kinds(spec, registry, cluster):
        kind = object_type(served)
        if kind is None:
            continue
        types = {"object": kind, "oldObject": kind, **({"params": params} if params is not None else {})}
        shown = f"{served.type.api_version}, Kind={served.type.kind}"
        for problem in problems(spec, compile_policy(spec, mutating=False, types=types)):
            if problem.path.startswith("spec.validations"):
                found.setdefault(problem.path, []).append(f"{shown}: {problem.error}\n")
    for path, warnings in found.items():
        yield {"fieldRef": path, "warning": "".join(warnings)}


def named_kinds(spec: Mapping[str, Any], registry: Registry, cluster: str) -> list[Served]:
    """The kinds the rules name, ten at most; rules with wildcards name none."""
    found: dict[tuple[str, str, str], Served] = {}
    for rule in (spec.get("matchConstraints") or {}).get("resourceRules") or ():
        groups, versions, resources = (rule.get(key) or () for key in ("apiGroups", "apiVersions", "resources"))
        for group in groups:
            for version in versions:
                for resource in resources:
                    served = registry.find(cluster, group, version, resource)
                    if served is not None:
                        found.setdefault((group, version, resource), served)
    return list(found.values())[:_MAX_TYPES]


def params_type(spec: Mapping[str, Any], registry: Registry, cluster: str) -> Type | None:
    kind = spec.get("paramKind")
    if not kind:
        return None
    group, version = split_api_version(str(kind.get("apiVersion") or ""))
    served = registry.find_kind(cluster, group, str(kind.get("kind") or ""), version)
    return None if served is None else object_type(served)


def object_type(served: Served) -> Type | None:
    """The CEL type of a kind's objects, with all of their metadata."""
    from fleetplane.model.cel import type_from_schema  # noqa: PLC0415

    raw = served.raw_schema()
    if raw is None:
        return None
    expanded = _expanded(raw, 0)
    text = {"type": "string"}
    properties = {
        **(expanded.get("properties") or {}),
        "apiVersion": text,
        "kind": text,
        "metadata": _expanded(definitions()[_METADATA], 0),
    }
    return type_from_schema({**expanded, "type": "object", "properties": properties}, name=served.type.kind)


def _expanded(schema: Mapping[str, Any], depth: int) -> Object:
    """The schema with its references followed; what is nested without end may be anything."""
    if depth > _MAX_DEPTH:
        return {"x-kubernetes-int-or-string": True}
    reference = schema.get("$ref")
    combined = schema.get("allOf")
    if reference is None and combined and "$ref" in combined[0] and "type" not in schema:
        reference = combined[0]["$ref"]
    if reference is not None:
        return _expanded(definitions()[str(reference).rpartition("/")[2]], depth + 1)
    if "type" not in schema:
        return {"x-kubernetes-int-or-string": True}  # a quantity, a port, any JSON: dynamic
    made = dict(schema)
    if isinstance(schema.get("properties"), Mapping):
        made["properties"] = {key: _expanded(one, depth + 1) for key, one in schema["properties"].items()}
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), Mapping):
            made[key] = _expanded(schema[key], depth + 1)
    return made
