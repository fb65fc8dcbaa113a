"""What is wrong with the expressions of policies and webhooks, told to whoever writes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from fleetplane.model.admission import (
    ALLOWED,
    AdmissionPlugin,
    AdmissionRequest,
    AdmissionRule,
    Decision,
    Reader,
    refused,
)
from fleetplane.model.errors import FieldError

_POLICIES: Final = ("validatingadmissionpolicies", "mutatingadmissionpolicies")
_WEBHOOKS: Final = ("validatingwebhookconfigurations", "mutatingwebhookconfigurations")
_GROUP: Final = "admissionregistration.k8s.io"


def expression_checks() -> list[AdmissionPlugin]:
    async def check_policy(request: AdmissionRequest, _reader: Reader) -> Decision:
        if request.new is None or not _changed(request):
            return ALLOWED
        spec = request.new["spec"]
        return refused(request, _wrong_with_policy(spec, mutating=request.resource.plural.startswith("mutating")))

    async def check_webhooks(request: AdmissionRequest, _reader: Reader) -> Decision:
        webhooks = (request.new or {}).get("webhooks") or ()
        if not any(one.get("matchConditions") for one in webhooks) or not _changed(request):
            return ALLOWED
        return refused(request, _wrong_with_conditions(webhooks))

    return [
        AdmissionPlugin(
            "policies.expressions.fleetplane.io",
            "validate",
            [AdmissionRule([f"{one}.{_GROUP}" for one in _POLICIES])],
            check_policy,
        ),
        AdmissionPlugin(
            "webhooks.expressions.fleetplane.io",
            "validate",
            [AdmissionRule([f"{one}.{_GROUP}" for one in _WEBHOOKS])],
            check_webhooks,
        ),
    ]


def _changed(request: AdmissionRequest) -> bool:
    """Whether there is anything to check: what was accepted once stays accepted."""
    if request.new is None or request.old is None:
        return True
    return any(request.new.get(key) != request.old.get(key) for key in ("spec", "webhooks"))


def _wrong_with_policy(spec: Mapping[str, Any], *, mutating: bool) -> list[FieldError]:
    from fleetplane.apiserver.admission.policies.compiled import compile_policy, problems  # noqa: PLC0415 - loads CEL

    found = problems(spec, compile_policy(spec, mutating=mutating))
    return [FieldError.invalid(one.path, one.text, f"compilation failed: {one.error}") for one in found]


def _wrong_with_conditions(webhooks: Sequence[Mapping[str, Any]]) -> list[FieldError]:
    from fleetplane.apiserver.admission.expressions import compile_conditions  # noqa: PLC0415 - loads CEL
    from fleetplane.model.cel import CelCompileError  # noqa: PLC0415

    return [
        FieldError.invalid(
            f"webhooks[{index}].matchConditions[{place}].expression",
            one.program.source,
            f"compilation failed: {one.program}",
        )
        for index, webhook in enumerate(webhooks)
        for place, one in enumerate(compile_conditions(webhook.get("matchConditions") or ()))
        if isinstance(one.program, CelCompileError)
    ]
