"""Policies in the admission chain: mutating ones before webhooks, validating ones before validating webhooks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Final

import orjson

from fleetplane.apiserver.admission.dispatching import Memory, options_of, with_own
from fleetplane.apiserver.admission.namespaces import NamespaceView
from fleetplane.apiserver.admission.policies.finding import Binding, Bound, Policy, PolicyFinder
from fleetplane.apiserver.admission.policies.typechecking import TypeChecking
from fleetplane.apiserver.admission.refusals import forbid
from fleetplane.apiserver.admission.views import Follow, View
from fleetplane.apiserver.authorization.attributes import Authorizer
from fleetplane.apiserver.call import Call
from fleetplane.apiserver.own_writes import OwnWrites
from fleetplane.apiserver.readers import StoreReader
from fleetplane.apiserver.registry import Registry
from fleetplane.apiserver.storage import convert_to
from fleetplane.model.admission import AdmissionRequest
from fleetplane.model.environment import Environment
from fleetplane.model.errors import ApiError, FieldError
from fleetplane.model.objects import Object

GROUP: Final = "admissionregistration.k8s.io"
_FAILURE: Final = "validation.policy.admission.k8s.io/validation_failure"


class Policies:
    """The policies of all clusters."""

    def __init__(
        self,
        registry: Registry,
        namespaces: NamespaceView,
        reader: StoreReader,
        authorize: Authorizer,
        own: OwnWrites,
        environment: Environment,
    ) -> None:
        self._environment = environment
        self.type_checking = TypeChecking(registry, own)
        self.validating = View()
        self.mutating = View()
        self._validating_bindings = View()
        self._mutating_bindings = View()
        self._validators = PolicyFinder(self.validating, self._validating_bindings, registry, mutating=False)
        self._mutators = PolicyFinder(self.mutating, self._mutating_bindings, registry, mutating=True)
        self._registry = registry
        self._namespaces = namespaces
        self._reader = reader
        self._authorize = authorize

    def follow(self, follow: Follow) -> None:
        """Ask for the policies and their bindings."""
        for plural, view in (
            ("validatingadmissionpolicies", self.validating),
            ("validatingadmissionpolicybindings", self._validating_bindings),
            ("mutatingadmissionpolicies", self.mutating),
            ("mutatingadmissionpolicybindings", self._mutating_bindings),
        ):
            follow(GROUP, plural, view.apply, view.reset)
        checking = self.type_checking
        follow(GROUP, "validatingadmissionpolicies", checking.apply, checking.reset)

    def _met(self, bound: Bound, call: Call, request: AdmissionRequest) -> list[Binding]:
        """The bindings through which a policy says something of this very request."""
        if not bound.meant.includes(request.name):
            return []
        labels = self._namespaces.labels_for(call.key_cluster, request)
        if not bound.policy.matching.selects(request, labels):
            return []
        return [
            binding
            for binding, meant in bound.bindings
            if meant.includes(request.name) and binding.matching.selects(request, labels)
        ]

    def _deadline(self) -> Callable[[], bool]:
        from fleetplane.apiserver.admission.expressions import deadline  # noqa: PLC0415 - loads CEL

        return deadline(self._environment)

    # -- validating ----------------------------------------------------------------------------------------------------

    async def validate(self, call: Call, request: AdmissionRequest) -> None:
        """Raises the ApiError of the first refusal."""
        found = self._validators.find(call.key_cluster, request.operation, call.served, request.subresource)
        if not found:
            return
        request = replace(request, options=options_of(call, request))
        failures: list[Object] = []
        denial: ApiError | None = None
        interrupted = self._deadline()
        for bound in found:
            bindings = self._met(bound, call, request)
            if bindings:
                first = await self._judge(call, request, bound, bindings, failures, interrupted)
                denial = denial or first
        if failures:
            call.annotate(_FAILURE, orjson.dumps(failures).decode())
        if denial is not None:
            raise denial

    async def _judge(
        self,
        call: Call,
        request: AdmissionRequest,
        bound: Bound,
        bindings: list[Binding],
        failures: list[Object],
        interrupted: Callable[[], bool],
    ) -> ApiError | None:
        from fleetplane.apiserver.admission.policies.inputs import (  # noqa: PLC0415 - loads CEL
            NotConfigured,
            inputs_for,
            params_of,
        )
        from fleetplane.apiserver.admission.policies.judging import judge  # noqa: PLC0415

        policy = bound.policy
        served = bound.meant.served
        inputs = await inputs_for(call, request, policy, served, self._authorize, self._reader, interrupted)
        denial: ApiError | None = None
        for binding in bindings:
            try:
                params = await params_of(call, policy, binding, self._registry, self._reader, _namespace_of(request))
            except NotConfigured as error:
                if not policy.ignores_failure:
                    denial = denial or _denial(request, policy, binding, f"failed to configure binding: {error}")
                continue
            for param in params:
                verdict = judge(policy, inputs, param)
                for key, value in verdict.annotations:
                    call.annotate(key, value)
                for objection in verdict.objections:
                    if "Deny" in binding.actions:
                        denial = denial or _denial(request, policy, binding, objection.message, objection.reason)
                    if "Warn" in binding.actions:
                        call.warn(
                            f"Validation failed for ValidatingAdmissionPolicy '{policy.name}' "
                            f"with binding '{binding.name}': {objection.message}"
                        )
                    if "Audit" in binding.actions:
                        failures.append(
                            {
                                "message": objection.message,
                                "policy": policy.name,
                                "binding": binding.name,
                                "expressionIndex": objection.place or 0,
                                "validationActions": list(binding.actions),
                            }
                        )
        return denial

    # -- mutating ------------------------------------------------------------------------------------------------------

    async def mutate(self, call: Call, request: AdmissionRequest, memory: Memory) -> AdmissionRequest:
        """The request as the mutating policies want it. Raises ApiError where one fails and must not."""
        found = self._mutators.find(call.key_cluster, request.operation, call.served, request.subresource)
        if not found or request.new is None:
            return request
        request = replace(request, options=options_of(call, request))
        interrupted = self._deadline()
        for bound in found:
            for binding in self._met(bound, call, request):
                key = f"policy:{bound.policy.name}/{binding.name}"
                if memory.again and not (bound.policy.reinvoked and memory.changed_since(key, request.new)):
                    continue
                request = await self._change(call, request, bound, binding, interrupted)
                memory.note(key, request.new)
        return request

    async def _change(
        self,
        call: Call,
        request: AdmissionRequest,
        bound: Bound,
        binding: Binding,
        interrupted: Callable[[], bool],
    ) -> AdmissionRequest:
        from fleetplane.apiserver.admission.policies.inputs import (  # noqa: PLC0415 - loads CEL
            NotConfigured,
            inputs_for,
            params_of,
        )
        from fleetplane.apiserver.admission.policies.mutating import MutationFailed, mutate  # noqa: PLC0415

        policy, served = bound.policy, bound.meant.served
        try:
            for param in await params_of(call, policy, binding, self._registry, self._reader, _namespace_of(request)):
                inputs = await inputs_for(call, request, policy, served, self._authorize, self._reader, interrupted)
                made = mutate(policy, inputs, param)
                if made is not None and made is not inputs.new and request.new is not None:
                    restored = await convert_to(call.served, made, str(request.new.get("apiVersion")))
                    request = replace(request, new=with_own(restored, request.new))
        except (NotConfigured, MutationFailed) as error:
            if policy.ignores_failure:
                return request
            why = f"failed to configure binding: {error}" if isinstance(error, NotConfigured) else str(error)
            raise _denial(request, policy, binding, why) from None
        return request


def _namespace_of(request: AdmissionRequest) -> str:
    if request.resource.qualified == "namespaces":
        return request.name
    return request.namespace if request.resource.namespaced else ""


def _denial(
    request: AdmissionRequest, policy: Policy, binding: Binding, message: str, reason: str = "Invalid"
) -> ApiError:
    codes: Mapping[str, int] = {"Unauthorized": 401, "Forbidden": 403, "RequestEntityTooLarge": 413}
    kind = "MutatingAdmissionPolicy" if policy.mutating else "ValidatingAdmissionPolicy"
    told = f"{kind} '{policy.name}' with binding '{binding.name}' denied request: {message}"
    error = forbid(request, told)
    error.reason, error.code = reason, codes.get(reason, 422)
    error.causes = (FieldError("", "", told),)
    return error
