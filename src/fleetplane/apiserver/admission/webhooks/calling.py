"""Calling webhooks: mutating ones in turn, validating ones at once.

A webhook that cannot be asked is treated as its failure policy says; one that says no is believed. What a mutating
webhook sends back is only a patch: identity and everything else the server owns are put back as they were.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from fleetplane.apiserver.admission.dispatching import Memory, options_of, with_own
from fleetplane.apiserver.admission.matching import Meant
from fleetplane.apiserver.admission.namespaces import NamespaceView
from fleetplane.apiserver.admission.refusals import forbid
from fleetplane.apiserver.admission.views import Follow, View
from fleetplane.apiserver.admission.webhooks.hooks import Hook, HookFinder
from fleetplane.apiserver.admission.webhooks.review import (
    Answer,
    BadAnswer,
    denial,
    parse_patch,
    read_answer,
    review_of,
)
from fleetplane.apiserver.authorization.attributes import Authorizer
from fleetplane.apiserver.call import Call
from fleetplane.apiserver.outgoing import CallFailed, Outgoing
from fleetplane.apiserver.registry import Registry, Served
from fleetplane.apiserver.storage import convert_to
from fleetplane.model import errors
from fleetplane.model.admission import AdmissionRequest
from fleetplane.model.environment import Environment
from fleetplane.model.objects import Object
from fleetplane.model.patch import json_patch

log = logging.getLogger(__name__)

GROUP: Final = "admissionregistration.k8s.io"


class _Failed(Exception):
    """A webhook could not be asked, or gave no usable answer."""


class Webhooks:
    """The webhooks of all clusters."""

    def __init__(
        self,
        registry: Registry,
        namespaces: NamespaceView,
        outgoing: Outgoing,
        authorize: Authorizer,
        environment: Environment,
    ) -> None:
        self.mutating = View()
        self.validating = View()
        self._mutators = HookFinder(self.mutating, registry)
        self._validators = HookFinder(self.validating, registry)
        self._namespaces = namespaces
        self._outgoing = outgoing
        self._authorize = authorize
        self._environment = environment

    def follow(self, follow: Follow) -> None:
        """Ask for the configurations."""
        follow(GROUP, "mutatingwebhookconfigurations", self.mutating.apply, self.mutating.reset)
        follow(GROUP, "validatingwebhookconfigurations", self.validating.apply, self.validating.reset)

    # -- the two phases ------------------------------------------------------------------------------------------------

    async def mutate(self, call: Call, request: AdmissionRequest, memory: Memory) -> AdmissionRequest:
        """The request as the mutating webhooks want it. Raises the ApiError of the first refusal."""
        cluster = call.key_cluster
        for hook, meant in self._mutators.find(cluster, request.operation, call.served, request.subresource):
            key = f"{hook.configuration}/{hook.name}"
            if memory.again and not (hook.reinvoke and memory.changed_since(key, request.new)):
                continue
            answer = await self._ask(call, request, hook, meant, mutating=True)
            if answer is None:
                continue
            self._tell(call, hook, answer)
            if not answer.allowed:
                raise denial(hook.name, answer.status)
            if answer.patch:
                request = await self._patched(call, request, hook, meant, answer)
            memory.note(key, request.new)
        return request

    async def validate(self, call: Call, request: AdmissionRequest) -> None:
        """Raises the ApiError of the first refusal, in the order of configuration."""
        found = self._validators.find(call.key_cluster, request.operation, call.served, request.subresource)
        if not found:
            return
        if len(found) == 1:
            refusals = [await self._judge(call, request, *found[0])]
        else:
            async with asyncio.TaskGroup() as group:
                asked = [group.create_task(self._judge(call, request, hook, meant)) for hook, meant in found]
            refusals = [task.result() for task in asked]
        for refusal in refusals:
            if refusal is not None:
                raise refusal

    async def _judge(self, call: Call, request: AdmissionRequest, hook: Hook, meant: Meant) -> errors.ApiError | None:
        try:
            answer = await self._ask(call, request, hook, meant, mutating=False)
        except errors.ApiError as error:
            return error
        if answer is None:
            return None
        self._tell(call, hook, answer)
        return None if answer.allowed else denial(hook.name, answer.status)

    def _tell(self, call: Call, hook: Hook, answer: Answer) -> None:
        for warning in answer.warnings:
            call.warn(warning)
        for key, value in answer.annotations:
            call.annotate(f"{hook.name}/{key}", value)

    # -- one webhook ---------------------------------------------------------------------------------------------------

    async def _ask(
        self, call: Call, request: AdmissionRequest, hook: Hook, meant: Meant, *, mutating: bool
    ) -> Answer | None:
        """What a webhook answers; None when it is not to be asked, or failed and that is ignored. Raises ApiError."""
        if not meant.includes(request.name):
            return None
        labels = self._namespaces.labels_for(call.key_cluster, request)
        if not hook.matching.selects(request, labels):
            return None
        request = replace(request, options=options_of(call, request))
        new, old = await _in_version(request.new, meant.served), await _in_version(request.old, meant.served)
        if hook.raw_conditions and not self._conditions_hold(call, request, hook, meant.served, new, old):
            return None
        if request.dry_run and not hook.dry_run:
            raise errors.bad_request(f'admission webhook "{hook.name}" does not support dry run')
        uid = self._environment.uuid()
        review = review_of(hook.review, request, call.served, meant.served, new, old, uid)
        try:
            try:
                answer = await self._outgoing.post(call.key_cluster, hook.client, review, hook.seconds)
            except CallFailed as error:
                raise _Failed(f"failed to call webhook: {error}") from None
            try:
                return read_answer(answer, uid, hook.review, mutating=mutating)
            except BadAnswer as error:
                raise _Failed(f"received invalid webhook response: {error}") from None
        except _Failed as error:
            self._failed(call, hook, str(error), mutating=mutating)
            return None

    def _failed(self, call: Call, hook: Hook, problem: str, *, mutating: bool) -> None:
        told = f'failed calling webhook "{hook.name}": {problem}'
        if not hook.ignore_failure:
            raise errors.internal(told)
        log.warning("%s; the request is let through, as its failure policy says", told)
        word = "mutating" if mutating else "validating"
        call.annotate(f"failed-open.{word}.webhook.admission.k8s.io/{hook.configuration}", hook.name)

    def _conditions_hold(
        self,
        call: Call,
        request: AdmissionRequest,
        hook: Hook,
        meant: Served,
        new: Object | None,
        old: Object | None,
    ) -> bool:
        from fleetplane.apiserver.admission import expressions  # noqa: PLC0415 - loads CEL

        variables: dict[str, Any] = {
            "object": new,
            "oldObject": old,
            "request": expressions.request_value(request, call.served, meant),
            **expressions.authorizer_values(call.user, self._authorize, call.key_cluster, request),
        }
        try:
            return expressions.all_match(hook.conditions(), variables, expressions.deadline(self._environment))
        except expressions.ConditionFailed as error:
            if hook.ignore_failure:
                return False
            raise forbid(request, str(error)) from None

    async def _patched(
        self, call: Call, request: AdmissionRequest, hook: Hook, meant: Meant, answer: Answer
    ) -> AdmissionRequest:
        try:
            patch = parse_patch(answer)
        except BadAnswer as error:
            self._failed(call, hook, str(error), mutating=True)
            return request
        if not patch:
            return request
        if request.new is None:
            raise errors.internal(
                f'admission webhook "{hook.name}" attempted to modify the object, '
                "which is not supported for this operation"
            )
        seen = await _in_version(request.new, meant.served)
        try:
            made = json_patch(seen or {}, patch)
        except errors.ApiError as error:
            raise errors.internal(error.causes[0].detail if error.causes else error.message) from None
        if not _still_an_object(made, request.new, meant.served):
            raise errors.internal(f'admission webhook "{hook.name}" made something else of the object')
        if made["metadata"].get("namespace") != request.new["metadata"].get("namespace"):
            raise errors.bad_request(
                "the namespace of the provided object does not match the namespace sent on the request"
            )
        restored = await convert_to(call.served, made, request.new["apiVersion"])
        return replace(request, new=with_own(restored, request.new))


async def _in_version(obj: Object | None, served: Served) -> Object | None:
    return None if obj is None else await convert_to(served, obj, _version_for(obj, served))


def _version_for(obj: Mapping[str, Any], served: Served) -> str:
    """Objects that travel under a kind of their own (a Scale, options) have one version only."""
    return served.type.api_version if obj.get("kind") == served.type.kind else str(obj.get("apiVersion") or "")


def _still_an_object(made: Any, before: Mapping[str, Any], served: Served) -> bool:
    return (
        isinstance(made, dict)
        and isinstance(made.get("metadata"), dict)
        and made.get("kind") == before.get("kind")
        and made.get("apiVersion") == _version_for(before, served)
    )
