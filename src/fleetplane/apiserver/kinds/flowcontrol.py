"""The flowcontrol group: which requests belong together, and how many of them may be under way."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from fleetplane.apiserver.kinds.access import fill, made, section, text
from fleetplane.apiserver.kinds.behaviour import KindBehaviour
from fleetplane.apiserver.kinds.checks import Errors, collected, not_negative, required, spec_of, supported
from fleetplane.apiserver.kinds.columns import NONE, at, text_column
from fleetplane.model.errors import FieldError
from fleetplane.model.objects import Object, condition
from fleetplane.model.table import AGE, NAME

_VERBS: Final = ("*", "create", "delete", "deletecollection", "get", "list", "patch", "proxy", "update", "watch")
_SUBJECTS: Final = {"Group": "group", "ServiceAccount": "serviceAccount", "User": "user"}
_MAX_PRECEDENCE: Final = 10000


def _default_schema(schema: Object) -> None:
    spec = made(schema, "spec")
    if not spec.get("matchingPrecedence"):
        spec["matchingPrecedence"] = 1000


def _validate_schema(schema: Object, old: Object | None) -> Errors:
    spec = spec_of(schema)
    precedence = spec.get("matchingPrecedence") or 0
    if precedence <= 0:
        yield FieldError.invalid("spec.matchingPrecedence", precedence, "must be a positive value")
    if precedence > _MAX_PRECEDENCE:
        yield FieldError.invalid("spec.matchingPrecedence", precedence, f"must not be greater than {_MAX_PRECEDENCE}")
    if precedence == 1 and text(schema["metadata"], "name") != "exempt":
        detail = "only the schema named 'exempt' may have matchingPrecedence 1"
        yield FieldError.invalid("spec.matchingPrecedence", precedence, detail)
    method = spec.get("distinguisherMethod")
    if method is not None:
        yield from supported(text(method, "type"), ("ByNamespace", "ByUser"), "spec.distinguisherMethod.type")
    level = section(spec, "priorityLevelConfiguration").get("name")
    yield from required(level, "spec.priorityLevelConfiguration.name", "must reference a priority level")
    for index, rules in enumerate(spec.get("rules") or ()):
        path = f"spec.rules[{index}]"
        if not rules.get("subjects"):
            yield FieldError.required(f"{path}.subjects", "subjects must contain at least one value")
        for number_of, subject in enumerate(rules.get("subjects") or ()):
            yield from _subject(subject, f"{path}.subjects[{number_of}]")
        if not rules.get("resourceRules") and not rules.get("nonResourceRules"):
            detail = "at least one of resourceRules and nonResourceRules has to be non-empty"
            yield FieldError.required(path, detail)
        for number_of, rule in enumerate(rules.get("resourceRules") or ()):
            yield from _resource_rule(rule, f"{path}.resourceRules[{number_of}]")
        for number_of, rule in enumerate(rules.get("nonResourceRules") or ()):
            here = f"{path}.nonResourceRules[{number_of}]"
            yield from _verbs(rule, here)
            yield from required(
                rule.get("nonResourceURLs"),
                f"{here}.nonResourceURLs",
                "nonResourceURLs must contain at least one value",
            )


def _subject(subject: Object, path: str) -> Errors:
    kind = text(subject, "kind")
    if kind not in _SUBJECTS:
        yield FieldError.not_supported(f"{path}.kind", kind, sorted(_SUBJECTS))
        return
    for other, key in _SUBJECTS.items():
        found = subject.get(key)
        if other != kind and found is not None:
            yield FieldError.forbidden(f"{path}.{key}", f"{key} is forbidden when subject kind is not '{other}'")
        elif other == kind and found is None:
            yield FieldError.required(f"{path}.{key}", f"{key} is required when subject kind is '{kind}'")
        elif other == kind:
            yield from required((found or {}).get("name"), f"{path}.{key}.name")


def _verbs(rule: Object, path: str) -> Errors:
    verbs = rule.get("verbs") or []
    if not verbs:
        yield FieldError.required(f"{path}.verbs", "verbs must contain at least one value")
    elif "*" in verbs and len(verbs) > 1:
        yield FieldError.invalid(f"{path}.verbs", verbs, "if '*' is present, must not specify other verbs")
    elif set(verbs) - set(_VERBS):
        yield FieldError.not_supported(f"{path}.verbs", verbs, _VERBS)


def _resource_rule(rule: Object, path: str) -> Errors:
    yield from _verbs(rule, path)
    for key, word in (("apiGroups", "api group"), ("resources", "resource")):
        yield from required(rule.get(key), f"{path}.{key}", f"resource rules must supply at least one {word}")
    if not rule.get("clusterScope") and not rule.get("namespaces"):
        detail = "resource rules that are not cluster scoped must supply at least one namespace"
        yield FieldError.required(f"{path}.namespaces", detail)


def _missing(schema: Mapping[str, Any]) -> str:
    found = condition(schema, "Dangling")
    return text(found, "status") if found is not None else "?"


FLOW_SCHEMAS: Final = KindBehaviour(
    default=_default_schema,
    validate=collected(_validate_schema),
    columns=(
        NAME,
        text_column("PriorityLevel", "The level of its requests.", at("spec", "priorityLevelConfiguration", "name")),
        text_column("MatchingPrecedence", "Lower goes first.", at("spec", "matchingPrecedence")),
        text_column(
            "DistinguisherMethod", "What tells flows apart.", at("spec", "distinguisherMethod", "type", default=NONE)
        ),
        AGE,
        text_column("MissingPL", "Whether its level is missing.", _missing),
    ),
)


def _default_level(level: Object) -> None:
    spec = made(level, "spec")
    if isinstance(spec.get("limited"), dict):
        limited = spec["limited"]
        fill(limited, nominalConcurrencyShares=30, lendablePercent=0)
        queuing = section(limited, "limitResponse").get("queuing")
        if isinstance(queuing, dict):
            for key, value in (("queues", 64), ("handSize", 8), ("queueLengthLimit", 50)):
                if not queuing.get(key):
                    queuing[key] = value
    if isinstance(spec.get("exempt"), dict):
        fill(spec["exempt"], nominalConcurrencyShares=0, lendablePercent=0)


def _validate_level(level: Object, old: Object | None) -> Errors:
    spec = spec_of(level)
    kind, name = text(spec, "type"), text(level["metadata"], "name")
    if (kind == "Exempt") != (name == "exempt"):
        yield FieldError.invalid("spec.type", kind, "type must be 'Exempt' if and only if name is 'exempt'")
    limited = spec.get("limited")
    if kind == "Exempt":
        if limited is not None:
            yield FieldError.forbidden("spec.limited", "must be nil if the type is not Limited")
        return
    if kind != "Limited":
        yield FieldError.not_supported("spec.type", kind, ["Exempt", "Limited"])
        return
    if limited is None:
        yield FieldError.required("spec.limited", "must not be empty when type is Limited")
        return
    yield from not_negative(limited.get("nominalConcurrencyShares"), "spec.limited.nominalConcurrencyShares")
    response = limited.get("limitResponse") or {}
    answer, queuing = text(response, "type"), response.get("queuing")
    path = "spec.limited.limitResponse"
    if answer == "Reject":
        if queuing is not None:
            yield FieldError.forbidden(f"{path}.queuing", "must be nil if limited.limitResponse.type is not Limited")
    elif answer == "Queue":
        if queuing is None:
            detail = "must not be empty if limited.limitResponse.type is Limited"
            yield FieldError.required(f"{path}.queuing", detail)
        else:
            yield from _queuing(queuing, f"{path}.queuing")
    else:
        yield FieldError.not_supported(f"{path}.type", answer, ["Queue", "Reject"])


def _queuing(queuing: Object, path: str) -> Errors:
    for key in ("queueLengthLimit", "queues", "handSize"):
        if (queuing.get(key) or 0) <= 0:
            yield FieldError.invalid(f"{path}.{key}", queuing.get(key), "must be positive")
    queues, hand = queuing.get("queues") or 0, queuing.get("handSize") or 0
    if hand > queues > 0:
        detail = f"should not be greater than queues ({queues})"
        yield FieldError.invalid(f"{path}.handSize", hand, detail)


def _limited(*path: str) -> Any:
    return at("spec", "limited", *path, default=NONE)


PRIORITY_LEVELS: Final = KindBehaviour(
    default=_default_level,
    validate=collected(_validate_level),
    columns=(
        NAME,
        text_column("Type", "Limited or exempt.", at("spec", "type")),
        text_column(
            "NominalConcurrencyShares", "Its share of what is under way.", _limited("nominalConcurrencyShares")
        ),
        text_column("Queues", "How many queues it has.", _limited("limitResponse", "queuing", "queues")),
        text_column("HandSize", "Queues a flow may use.", _limited("limitResponse", "queuing", "handSize")),
        text_column(
            "QueueLengthLimit", "How long a queue may be.", _limited("limitResponse", "queuing", "queueLengthLimit")
        ),
        AGE,
    ),
)
