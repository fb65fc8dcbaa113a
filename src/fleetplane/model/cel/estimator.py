"""How much an expression may cost, before it ever runs.

Sizes come from literals, from a schema's limits (``maxLength``, ``maxItems`` …, or what fits into the largest request)
and from what functions say of their results; where nothing is known the size is unbounded, and so is the cost of
walking it. The arithmetic is cel-go's ``checker.Cost`` with presence tests at no cost, as Kubernetes configures it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple, assert_never

from fleetplane.model.cel import folds
from fleetplane.model.cel.ast import (
    Bind,
    Call,
    Comprehension,
    Expr,
    Fold,
    Ident,
    ListLiteral,
    Literal,
    Logic,
    MapLiteral,
    OptionalMap,
    Select,
    Struct,
)
from fleetplane.model.cel.checked import Checked
from fleetplane.model.cel.cost import (
    LIST_COST,
    MAP_COST,
    ONE,
    STRUCT_COST,
    UNKNOWN,
    ZERO,
    Operand,
    Range,
    fixed,
)
from fleetplane.model.cel.types import SCALARS, Kind, Type


class Known(NamedTuple):
    """Cost of a node; size of its value; sizes of its keys (or 1) and elements when it is a container."""

    cost: Range
    size: Range | None = None
    key: Range | None = None
    element: Range | None = None


def estimate(checked: Checked) -> Range:
    """Least and most that one evaluation costs."""
    return _Estimator(checked).visit(checked.root).cost


def type_size(kind: Type) -> Range | None:
    """The size that values of a type may have."""
    if kind.max_size is not None:
        return Range(0, kind.max_size)
    if kind.kind in SCALARS:
        return ONE
    if kind.kind is Kind.OBJECT:
        return Range(0, len(kind.fields or ()))
    if kind.kind is Kind.OPTIONAL and kind.parameters[0].kind in SCALARS:
        return ONE
    return None


class _Estimator:
    def __init__(self, checked: Checked) -> None:
        self._checked = checked
        self._scopes: list[dict[str, Known]] = []

    def visit(self, node: Expr) -> Known:
        match node:
            case Literal():
                return Known(ZERO, _literal_size(node.value))
            case Ident():
                return self._ident(node)
            case Select():
                return self._select(node)
            case Call():
                return self._call(node)
            case Logic():
                return self._logic(node)
            case ListLiteral():
                return self._list(node)
            case MapLiteral():
                return self._map(node)
            case Struct():
                cost = fixed(STRUCT_COST)
                for field in node.fields:
                    cost = cost.plus(self.visit(field.value).cost)
                return Known(cost)
            case Comprehension():
                return self._comprehension(node)
            case Bind():
                value = self.visit(node.value)
                body = self._within({node.name: value}, node.body)
                return body._replace(cost=value.cost.plus(body.cost))
            case OptionalMap():
                return self._optional_map(node)
            case _:
                assert_never(node)

    def _within(self, scope: dict[str, Known], node: Expr) -> Known:
        self._scopes.append(scope)
        known = self.visit(node)
        self._scopes.pop()
        return known

    def _typed(self, node: Expr, cost: Range, size: Range | None = None) -> Known:
        kind = self._checked.types[node]
        return Known(cost, type_size(kind) if size is None else size)

    def _ident(self, node: Ident) -> Known:
        if node in self._checked.constants:
            return Known(ONE, ONE)
        for scope in reversed(self._scopes):
            if node.name in scope:
                found = scope[node.name]
                size = found.size if found.size is not None else type_size(self._checked.types[node])
                return Known(ONE, size, found.key, found.element)
        return self._typed(node, ONE)

    def _select(self, node: Select) -> Known:
        if node in self._checked.qualified:
            return self._typed(node, ONE)
        if node in self._checked.constants:
            return Known(ONE, ONE)
        operand = self.visit(node.operand)
        if node.test_only:
            return Known(operand.cost, ONE)
        kind = self._checked.types[node.operand].kind
        costs = node.optional or kind in {Kind.MAP, Kind.OBJECT, Kind.PARAMETER}
        cost = operand.cost.plus(ONE if costs else ZERO)
        if kind is Kind.MAP:
            # A key written as a field is no path that cel-go knows: what its value's schema says is lost.
            scalar = ONE if self._checked.types[node].kind in SCALARS else None
            return Known(cost, operand.element if operand.element is not None else scalar or UNKNOWN)
        return self._typed(node, cost)

    def _operand(self, node: Expr, known: Known) -> Operand:
        kind = self._checked.types[node]
        size = known.size if known.size is not None else type_size(kind)
        element = known.element
        if element is None and kind.kind is Kind.LIST:
            element = type_size(kind.parameters[0])
        value = node.value if isinstance(node, Literal) else None
        return Operand(kind, size or UNKNOWN, element or UNKNOWN, value)

    def _call(self, node: Call) -> Known:
        if node.function == "_?_:_":
            return self._conditional(node)
        nodes = list(node.arguments)
        if node.target is not None and node not in self._checked.functions:
            nodes.insert(0, node.target)
        known = [self.visit(one) for one in nodes]
        cost = ZERO
        for one in known:
            cost = cost.plus(one.cost)
        name = self._checked.functions.get(node, node.function)
        if name == "dyn":
            return known[0]._replace(cost=cost.plus(ONE))
        if name in {"_[_]", "_[?_]"}:
            return self._typed(node, cost.plus(ONE), known[0].element)
        operands = [self._operand(one, found) for one, found in zip(nodes, known, strict=True)]
        called: Range | None = None
        size: Range | None = None
        for overload in self._checked.overloads[node]:
            found = overload.price.estimate(operands)
            called = found.cost if called is None else called.union(found.cost)
            if found.size is not None:
                size = found.size if size is None else size.union(found.size)
        result = self._typed(node, cost.plus(called or ZERO), size)
        if name == "_+_" and known[0].element is not None and known[1].element is not None:
            return result._replace(element=known[0].element.union(known[1].element), key=ONE)
        return result

    def _conditional(self, node: Call) -> Known:
        condition, chosen, other = (self.visit(argument) for argument in node.arguments)
        sizes = [self._operand(one, known).size for one, known in zip(node.arguments[1:], (chosen, other), strict=True)]
        element = None
        if chosen.element is not None and other.element is not None:
            element = chosen.element.union(other.element)
        cost = condition.cost.plus(chosen.cost.union(other.cost))
        return Known(cost, sizes[0].union(sizes[1]), None, element)

    def _logic(self, node: Logic) -> Known:
        """At least the first operand, at most all of them."""
        first, *others = (self.visit(operand) for operand in node.operands)
        most = first.cost
        for other in others:
            most = most.plus(other.cost)
        return Known(Range(first.cost.least, most.most), ONE)

    def _list(self, node: ListLiteral) -> Known:
        cost = fixed(LIST_COST)
        element: Range | None = None
        for item in node.elements:
            known = self.visit(item)
            cost = cost.plus(known.cost)
            size = self._operand(item, known).size
            element = size if element is None else element.union(size)
        return Known(cost, fixed(len(node.elements)), ONE, element or ZERO)

    def _map(self, node: MapLiteral) -> Known:
        cost = fixed(MAP_COST)
        keys: Range | None = None
        values: Range | None = None
        for entry in node.entries:
            key, value = self.visit(entry.key), self.visit(entry.value)
            cost = cost.plus(key.cost).plus(value.cost)
            key_size, value_size = self._operand(entry.key, key).size, self._operand(entry.value, value).size
            keys = key_size if keys is None else keys.union(key_size)
            values = value_size if values is None else values.union(value_size)
        return Known(cost, fixed(len(node.entries)), keys or ZERO, values or ZERO)

    def _comprehension(self, node: Comprehension) -> Known:
        over = self.visit(node.range)
        count = self._operand(node.range, over).size
        scope = self._variables(node, over)
        condition = None if node.condition is None else self._within(scope, node.condition)
        body = self._within(scope, node.body)
        turn = _turn(node.fold, body, condition)
        cost = over.cost.plus(_START[node.fold]).plus(count.times(turn)).plus(fixed(_END[node.fold]))
        if node.fold in {Fold.LIST, Fold.MAP}:
            key = scope[node.variables[0]].size if node.fold is Fold.MAP else ONE
            least = 0 if condition is not None else count.least
            return Known(cost, Range(least, count.most), key, self._operand(node.body, body).size)
        if node.fold is Fold.MAP_ENTRY:
            return Known(cost, count)
        return Known(cost, ONE)

    def _variables(self, node: Comprehension, over: Known) -> dict[str, Known]:
        kind = self._checked.types[node.range]
        if kind.kind is Kind.LIST:
            element = over.element if over.element is not None else type_size(kind.parameters[0])
            sizes = [ONE, element] if len(node.variables) == 2 else [element]
        elif kind.kind is Kind.MAP:
            key = over.key if over.key is not None else type_size(kind.parameters[0])
            value = over.element if over.element is not None else type_size(kind.parameters[1])
            sizes = [key, value] if len(node.variables) == 2 else [key]
        else:
            sizes = [None] * len(node.variables)
        return {name: Known(ONE, size) for name, size in zip(node.variables, sizes, strict=True)}

    def _optional_map(self, node: OptionalMap) -> Known:
        target = self.visit(node.target)
        body = self._within({node.name: Known(ONE)}, node.body)
        present = target.cost.plus(ONE).plus(body.cost).plus(ZERO if node.flat else ONE).plus(fixed(LIST_COST))
        cost = target.cost.plus(ONE).plus(present.union(ONE))
        return self._typed(node, cost)


def _literal_size(value: object) -> Range:
    return fixed(len(value)) if isinstance(value, (str, bytes)) else ONE


def _turn(fold: Fold, body: Known, condition: Known | None) -> Range:
    """The cost of one element."""
    match fold:
        case Fold.ALL | Fold.EXISTS:
            look = folds.LOOK_ALL if fold is Fold.ALL else folds.LOOK_EXISTS
            least = fixed(look + folds.ACCUMULATE)
            return Range(least.least, least.plus(body.cost).most)
        case Fold.EXISTS_ONE:
            return body.cost.plus(Range(1, 2))
        case Fold.LIST:
            step = body.cost.plus(fixed(folds.COLLECT))
        case Fold.MAP:
            step = body.cost.plus(fixed(folds.INSERT))
        case Fold.MAP_ENTRY:
            step = body.cost.plus(fixed(folds.INSERT_ENTRY))
    if condition is None:
        return step
    return condition.cost.plus(step.union(ONE))


_START: Final[Mapping[Fold, Range]] = {
    Fold.ALL: ZERO,
    Fold.EXISTS: ZERO,
    Fold.EXISTS_ONE: ZERO,
    Fold.LIST: fixed(LIST_COST),
    Fold.MAP: fixed(MAP_COST),
    Fold.MAP_ENTRY: fixed(MAP_COST),
}
_END: Final[Mapping[Fold, int]] = {
    Fold.ALL: 1,
    Fold.EXISTS: 1,
    Fold.EXISTS_ONE: 2,
    Fold.LIST: 1,
    Fold.MAP: 1,
    Fold.MAP_ENTRY: 1,
}
