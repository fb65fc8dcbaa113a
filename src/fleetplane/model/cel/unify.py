"""Which types fit where: assignability with type variables, as cel-go's checker defines it.

``dyn`` fits everywhere and takes everything; null fits whatever may be absent (objects, opaque values, times).
"""

from __future__ import annotations

from itertools import count
from typing import Final

from fleetplane.model.cel.types import DYN, Kind, Type, parameter, same

Substitution = dict[str, Type]

_NULLABLE: Final = frozenset(
    {Kind.NULL, Kind.OBJECT, Kind.OPAQUE, Kind.OPTIONAL, Kind.TIMESTAMP, Kind.DURATION, Kind.DYN, Kind.ERROR}
)
_ANY: Final = frozenset({Kind.DYN, Kind.ERROR})


class Unifier:
    """Type variables of one expression and what they turned out to be."""

    def __init__(self) -> None:
        self._bound: Substitution = {}
        self._numbers = count()

    def fresh(self) -> Type:
        return parameter(f"%{next(self._numbers)}")

    def instantiate(self, *declared: Type) -> list[Type]:
        """The types of a declaration, its variables replaced by new ones."""
        renamed: dict[str, Type] = {}

        def renew(kind: Type) -> Type:
            if kind.kind is Kind.PARAMETER:
                if kind.name not in renamed:
                    renamed[kind.name] = self.fresh()
                return renamed[kind.name]
            if not kind.parameters:
                return kind
            return _with(kind, tuple(map(renew, kind.parameters)))

        return [renew(kind) for kind in declared]

    def assignable(self, targets: list[Type], sources: list[Type]) -> bool:
        """Whether each source fits its target; only then the variables stay bound."""
        trial = dict(self._bound)
        if all(_fits(target, source, trial) for target, source in zip(targets, sources, strict=True)):
            self._bound = trial
            return True
        return False

    def resolve(self, kind: Type, *, free_to_dyn: bool = False) -> Type:
        """The type with all bound variables replaced; what is still free becomes ``dyn`` on demand."""
        kind = _deref(kind, self._bound)
        if kind.kind is Kind.PARAMETER:
            return DYN if free_to_dyn else kind
        if not kind.parameters:
            return kind
        resolved = tuple(self.resolve(inner, free_to_dyn=free_to_dyn) for inner in kind.parameters)
        if all(new is old for new, old in zip(resolved, kind.parameters, strict=True)):
            return kind
        return _with(kind, resolved)


def _with(kind: Type, parameters: tuple[Type, ...]) -> Type:
    return Type(
        kind.kind, kind.name, parameters, kind.fields, kind.max_size, kind.min_json, kind.list_type, kind.list_keys
    )


def _deref(kind: Type, bound: Substitution) -> Type:
    while kind.kind is Kind.PARAMETER and kind.name in bound:
        kind = bound[kind.name]
    return kind


def _occurs(name: str, kind: Type, bound: Substitution) -> bool:
    kind = _deref(kind, bound)
    if kind.kind is Kind.PARAMETER:
        return kind.name == name
    return any(_occurs(name, inner, bound) for inner in kind.parameters)


def more_general(left: Type, right: Type) -> bool:
    """Whether ``left`` says less than (or the same as) ``right``."""
    if left.kind in _ANY or left.kind is Kind.PARAMETER:
        return True
    if right.kind in _ANY or right.kind is Kind.PARAMETER:
        return False
    if right.kind is Kind.NULL:
        return True
    if left.kind is not right.kind or len(left.parameters) != len(right.parameters):
        return False
    return all(map(more_general, left.parameters, right.parameters))


def _fits(target: Type, source: Type, bound: Substitution) -> bool:
    source = _deref(source, bound)
    if target.kind is Kind.PARAMETER:
        return _fits_variable(target, source, bound)
    if source.kind is Kind.PARAMETER:
        return _fits_variable(source, target, bound)
    if target.kind in _ANY or source.kind in _ANY:
        return True
    if source.kind is Kind.NULL:
        return target.kind in _NULLABLE
    if target.kind is Kind.NULL:
        return source.kind in _NULLABLE
    if target.kind is not source.kind or len(target.parameters) != len(source.parameters):
        return False
    if target.kind is Kind.TYPE:
        return True
    if not target.parameters:
        return same(target, source)
    return all(_fits(one, other, bound) for one, other in zip(target.parameters, source.parameters, strict=True))


def _fits_variable(variable: Type, other: Type, bound: Substitution) -> bool:
    last = variable
    while (following := bound.get(last.name)) is not None and following.kind is Kind.PARAMETER:
        last = following
    known = bound.get(last.name)
    if other.kind is Kind.PARAMETER and other.name == last.name:
        return True
    if known is None:
        if _occurs(last.name, other, bound):
            return False
        bound[last.name] = other
        return True
    if not _fits(known, other, bound):
        return False
    if not same(known, other) and more_general(other, known):
        bound[last.name] = other
    return True
