"""Rules and signal sources that can never work are refused when they are written; what may still come is only told.

Pure, but for the plug-ins at the end. Rule ``rule-form``: an action, a target, a comparison or a combination that nobody
understands. Rule ``signal-source``: a source that names no place, or several. A condition may be defined by another rule of
the namespace that comes later: then the rule waits for it, and says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from fleetplane.model.admission import (
    ALLOWED,
    AdmissionPlugin,
    AdmissionRequest,
    AdmissionRule,
    Decision,
    Reader,
    allowed,
)
from fleetplane.model.objects import is_deleting
from fleetplane.operators.vehicles.admission import refusal
from fleetplane.operators.vehicles.kinds import LifecycleManagingRule, VehSignalSource
from fleetplane.operators.vehicles.lifecycle import action_of, targets_of
from fleetplane.operators.vehicles.limits import Violation
from fleetplane.operators.vehicles.rules import RuleError, defined_by, named_by, rule_of

_SOURCES: Final = ("recordedDrive", "mqtt", "kuksa")
_ANY: Final = {"conditionTopic": "any", "conditionComparison": "Equal", "conditionValue": 0}


def rule_violations(spec: Mapping[str, Any]) -> list[Violation]:
    """What is wrong with a rule whatever other rules define."""
    elsewhere = dict.fromkeys(missing(spec), _ANY)
    try:
        rule_of(spec, elsewhere)
        action_of(spec)
        targets_of(spec)
    except RuleError as error:
        return [Violation("rule-form", "spec", str(error))]
    return []


def missing(spec: Mapping[str, Any]) -> list[str]:
    """Conditions that this rule combines and does not define."""
    return sorted(named_by(spec) - defined_by(spec))


def source_violations(spec: Mapping[str, Any]) -> list[Violation]:
    named = [one for one in _SOURCES if spec.get(one) is not None]
    if len(named) == 1:
        return []
    shown = " and ".join(named) if named else "nothing"
    return [Violation("signal-source", "spec", f"names {shown}; give one of {', '.join(_SOURCES)}")]


async def _check_rule(request: AdmissionRequest, _reader: Reader) -> Decision:
    spec = (request.new or {}).get("spec") or {}
    if not _says_something_new(request):
        return ALLOWED
    if problems := rule_violations(spec):
        return refusal(request, problems)
    wanted = missing(spec)
    return allowed(
        *[f"condition {one} is not defined here; the rule waits until another one defines it" for one in wanted]
    )


async def _check_source(request: AdmissionRequest, _reader: Reader) -> Decision:
    if not _says_something_new(request):
        return ALLOWED
    problems = source_violations((request.new or {}).get("spec") or {})
    return refusal(request, problems) if problems else ALLOWED


def _says_something_new(request: AdmissionRequest) -> bool:
    """What is stored already is not held against who labels or deletes it."""
    new = request.new or {}
    return not is_deleting(new) and (request.old is None or request.old.get("spec") != new.get("spec"))


PLUGINS: Final = (
    AdmissionPlugin("rules.vehicles.fleetplane.io", "validate", [AdmissionRule([LifecycleManagingRule])], _check_rule),
    AdmissionPlugin("signals.vehicles.fleetplane.io", "validate", [AdmissionRule([VehSignalSource])], _check_source),
)
