"""What the expressions of a policy see of a request, and the parameters of a binding."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from fleetplane.apiserver.admission.expressions import Variables, authorizer_values, request_value
from fleetplane.apiserver.admission.policies.finding import Binding, Policy
from fleetplane.apiserver.authorization.attributes import Authorizer
from fleetplane.apiserver.call import Call
from fleetplane.apiserver.readers import StoreReader
from fleetplane.apiserver.registry import Registry, Served
from fleetplane.apiserver.storage import convert_to
from fleetplane.model.admission import AdmissionRequest
from fleetplane.model.builtin.types import NAMESPACES
from fleetplane.model.cel import LazyVariables, Program
from fleetplane.model.cel.cost import PER_CALL_LIMIT, RUNTIME_BUDGET
from fleetplane.model.objects import Object, split_api_version
from fleetplane.model.selectors import LabelSelector

_NAMESPACE_FIELDS = ("metadata", "spec", "status")


class NotConfigured(Exception):
    """A policy or binding cannot be used; the message says why, as Kubernetes does."""


@dataclass(frozen=True, slots=True)
class Inputs:
    """Makes the variables of expressions for one request, in one version of its objects."""

    call: Call
    request: AdmissionRequest
    meant: Served
    new: Object | None
    old: Object | None
    namespace: Object | None
    authorize: Authorizer
    interrupted: Callable[[], bool]

    def variables(self, params: Object | None) -> Variables:
        return {
            "object": self.new,
            "oldObject": self.old,
            "request": request_value(self.request, self.call.served, self.meant),
            "params": params,
            "namespaceObject": self.namespace,
            **authorizer_values(self.call.user, self.authorize, self.call.key_cluster, self.request),
        }


async def inputs_for(
    call: Call,
    request: AdmissionRequest,
    policy: Policy,
    meant: Served,
    authorize: Authorizer,
    reader: StoreReader,
    interrupted: Callable[[], bool],
) -> Inputs:
    async def in_version(obj: Object | None) -> Object | None:
        if obj is None or obj.get("kind") != meant.type.kind:
            return obj
        return await convert_to(meant, obj, meant.type.api_version)

    namespace: Object | None = None
    inside = request.resource.namespaced and request.namespace
    if inside and policy.compiled().uses_namespace:
        found = await reader.get(call.key_cluster, NAMESPACES, "", request.namespace)
        namespace = None if found is None else {key: found[key] for key in _NAMESPACE_FIELDS if key in found}
    return Inputs(
        call,
        request,
        meant,
        await in_version(request.new),
        await in_version(request.old),
        namespace,
        authorize,
        interrupted,
    )


class Budget:
    """What the expressions of one policy and one parameter may still cost together, in CEL cost units."""

    def __init__(self, programs: Mapping[str, Program], variables: Variables, interrupted: Callable[[], bool]) -> None:
        self._left = RUNTIME_BUDGET
        self._interrupted = interrupted
        self._lazy = LazyVariables(programs, variables, cost_limit=RUNTIME_BUDGET, interrupted=interrupted)
        self._variables = {**variables, "variables": self._lazy}

    def run(self, program: Program) -> Any:
        """Raises CelError and CelCostExceeded."""
        before = self._lazy.cost
        limit = max(min(self._left, PER_CALL_LIMIT), 1)
        outcome = program.run(self._variables, cost_limit=limit, interrupted=self._interrupted)
        self._left -= outcome.cost + self._lazy.cost - before
        return outcome.value


async def params_of(
    call: Call, policy: Policy, binding: Binding, registry: Registry, reader: StoreReader, namespace: str
) -> list[Object | None]:
    """The parameters a binding names; one None where there are none to use. Raises NotConfigured."""
    kind, reference = policy.spec.get("paramKind"), binding.spec.get("paramRef")
    if not kind or not reference:
        return [None]
    cluster = call.key_cluster
    group, version = split_api_version(str(kind.get("apiVersion") or ""))
    served = registry.find_kind(cluster, group, str(kind.get("kind") or ""), version)
    if served is None:
        shown = f"{group}/{version}, Kind={kind.get('kind')}" if group else f"/{version}, Kind={kind.get('kind')}"
        raise NotConfigured(f"paramKind kind `{shown}` not known")
    where = str(reference.get("namespace") or "")
    if served.type.namespaced:
        where = where or namespace
        if not where:
            raise NotConfigured(
                "cannot use namespaced paramRef in policy binding that matches cluster-scoped resources"
            )
    elif where:
        raise NotConfigured("paramRef.namespace must not be provided for a cluster-scoped `paramKind`")
    found: list[Object | None] = []
    if reference.get("name"):
        one = await reader.get(cluster, served.type, where, str(reference["name"]))
        found = [] if one is None else [await convert_to(served, one, served.type.api_version)]
    elif reference.get("selector") is not None:
        listed = await reader.list(cluster, served.type, where, labels=_selector(reference["selector"]))
        found = [await convert_to(served, one, served.type.api_version) for one in listed]
    if not found and reference.get("parameterNotFoundAction") == "Deny":
        raise NotConfigured("no params found for policy binding with `Deny` parameterNotFoundAction")
    return found


def _selector(selector: Mapping[str, Any]) -> str:
    return str(LabelSelector.from_object(selector))
