"""The vocabulary of node affinity, taints and tolerations, parsed. Used by the scheduler, DaemonSets and node lifecycle.

Semantics are those of ``core/v1``: terms are ORed, the expressions of one are ANDed, a term without expressions
matches nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple


class Expression(NamedTuple):
    """``key operator values``; ``operator`` as written (``In``, ``NotIn``, ``Exists``, ``DoesNotExist``, ``Gt``, ``Lt``)."""

    key: str
    operator: str
    values: frozenset[str]

    def matches(self, value: str | None) -> bool:
        match self.operator:
            case "In":
                return value is not None and value in self.values
            case "NotIn":
                return value is None or value not in self.values
            case "Exists":
                return value is not None
            case "DoesNotExist":
                return value is None
            case "Gt" | "Lt":
                return self._compares(value)
        return False

    def _compares(self, value: str | None) -> bool:
        try:
            number, bound = int(value or ""), int(next(iter(self.values), ""))
        except ValueError:
            return False
        return number > bound if self.operator == "Gt" else number < bound


class NodeTerm(NamedTuple):
    """Expressions on a node's labels and (for DaemonSets) on its name."""

    labels: tuple[Expression, ...]
    fields: tuple[Expression, ...]

    def matches(self, node_name: str, node_labels: Mapping[str, str]) -> bool:
        if not self.labels and not self.fields:
            return False
        return all(one.matches(node_labels.get(one.key)) for one in self.labels) and all(
            one.key == "metadata.name" and one.matches(node_name) for one in self.fields
        )

    def only_names(self) -> frozenset[str] | None:
        """The nodes it is limited to by name, if it is."""
        for one in self.fields:
            if one.key == "metadata.name" and one.operator == "In":
                return one.values
        return None


def _expressions(written: Iterable[Mapping[str, Any]] | None) -> tuple[Expression, ...]:
    return tuple(
        Expression(str(one.get("key") or ""), str(one.get("operator") or ""), frozenset(one.get("values") or ()))
        for one in written or ()
    )


def node_terms(written: Sequence[Mapping[str, Any]]) -> tuple[NodeTerm, ...]:
    return tuple(NodeTerm(_expressions(t.get("matchExpressions")), _expressions(t.get("matchFields"))) for t in written)


def matches_any(terms: Sequence[NodeTerm], node_name: str, node_labels: Mapping[str, str]) -> bool:
    return any(term.matches(node_name, node_labels) for term in terms)


class Taint(NamedTuple):
    key: str
    value: str
    effect: str


class Toleration(NamedTuple):
    """An empty ``key`` tolerates every taint, an empty ``effect`` every effect."""

    key: str
    operator: str
    value: str
    effect: str
    seconds: int | None

    def tolerates(self, taint: Taint) -> bool:
        if self.effect and self.effect != taint.effect:
            return False
        if self.key and self.key != taint.key:
            return False
        if self.operator == "Exists":
            return True
        if self.operator in {"", "Equal"}:
            return bool(self.key) and self.value == taint.value
        return self._compares(taint.value)

    def _compares(self, value: str) -> bool:
        """``Gt`` and ``Lt`` of KEP-5471: the taint's number against the toleration's."""
        try:
            number, bound = int(value), int(self.value)
        except ValueError:
            return False
        return {"Gt": number > bound, "Lt": number < bound}.get(self.operator, False)


NO_SCHEDULE: Final = "NoSchedule"
PREFER_NO_SCHEDULE: Final = "PreferNoSchedule"
NO_EXECUTE: Final = "NoExecute"


def taints(written: Iterable[Mapping[str, Any]] | None) -> tuple[Taint, ...]:
    return tuple(
        Taint(str(one.get("key") or ""), str(one.get("value") or ""), str(one.get("effect") or ""))
        for one in written or ()
    )


def tolerations(written: Iterable[Mapping[str, Any]] | None) -> tuple[Toleration, ...]:
    return tuple(
        Toleration(
            str(one.get("key") or ""),
            str(one.get("operator") or ""),
            str(one.get("value") or ""),
            str(one.get("effect") or ""),
            None if one.get("tolerationSeconds") is None else int(one["tolerationSeconds"]),
        )
        for one in written or ()
    )


def tolerated(taint: Taint, by: Sequence[Toleration]) -> bool:
    return any(one.tolerates(taint) for one in by)


def first_untolerated(of: Sequence[Taint], by: Sequence[Toleration], effects: frozenset[str]) -> Taint | None:
    """The first taint with one of ``effects`` that no toleration covers."""
    return next((one for one in of if one.effect in effects and not tolerated(one, by)), None)
