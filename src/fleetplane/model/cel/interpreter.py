"""From a checked tree to closures.

Each node becomes a step (a function of the frame) and a certain cost. Certain costs of what is always evaluated add up
along the way; where evaluation forks (``&&``, ``?:``, loops) the branch charges its own when it is taken. Constants are
folded the way cel-go folds them, because that changes what an expression costs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple, assert_never

from fleetplane.model.cel import control, fields, folds, operations, selection
from fleetplane.model.cel.adapt import adapter
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
from fleetplane.model.cel.checked import Checked, find_field
from fleetplane.model.cel.cost import LIST_COST, MAP_COST, STRUCT_COST
from fleetplane.model.cel.errors import CelError
from fleetplane.model.cel.frame import FIRST, Step
from fleetplane.model.cel.library import operators
from fleetplane.model.cel.library.declarations import Overload
from fleetplane.model.cel.selection import Compiled, constant, general
from fleetplane.model.cel.types import Kind

_FOLDED: Final = frozenset(
    {"int", "uint", "double", "bool", "string", "bytes", "timestamp", "duration", "dyn"},
)
"""Conversions that are computed once when their argument is a literal."""


class Layout(NamedTuple):
    """A compiled expression: its step, its certain cost, and how to fill a frame."""

    step: Step
    cost: int
    inputs: tuple[str, ...]
    locals: int


def compile_checked(checked: Checked) -> Layout:
    compiler = _Compiler(checked)
    compiled = compiler.visit(checked.root)
    return Layout(compiled.step, compiled.cost, compiler.inputs, compiler.slots - len(compiler.inputs))


class _Compiler:
    def __init__(self, checked: Checked) -> None:
        self._checked = checked
        self._types = checked.types
        self.inputs = tuple(sorted(checked.free))
        self._scopes: list[dict[str, Compiled]] = []
        self._places = {name: FIRST + at for at, name in enumerate(self.inputs)}
        self.slots = len(self.inputs)

    def visit(self, node: Expr) -> Compiled:
        match node:
            case Call():
                return self._call(node)
            case Select():
                return self._select(node)
            case Ident():
                return self._ident(node)
            case Literal():
                return constant(node.value)
            case Logic():
                return self._logic(node)
            case Comprehension():
                return self._comprehension(node)
            case ListLiteral():
                return self._list(node)
            case MapLiteral():
                return self._map(node)
            case Bind():
                return self._bind(node)
            case OptionalMap():
                return self._optional_map(node)
            case Struct():
                return self._struct(node)
            case _:
                assert_never(node)

    # -- names ----------------------------------------------------------------------------------------------------

    def _new_slot(self) -> int:
        self.slots += 1
        return FIRST + self.slots - 1

    def _slot_of(self, node: Expr) -> int | None:
        """The frame's place of a plain variable."""
        if not isinstance(node, Ident) or node in self._checked.constants:
            return None
        if any(node.name in scope for scope in self._scopes):
            return None
        return self._places.get(node.name)

    def _ident(self, node: Ident) -> Compiled:
        named = self._checked.constants.get(node)
        if named is not None:
            return constant(named)
        for scope in reversed(self._scopes):
            local: Compiled | None = scope.get(node.name)
            if local is not None:
                return local
        return Compiled(fields.variable(self._places[node.name]), 1)

    def _select(self, node: Select) -> Compiled:
        name = self._checked.qualified.get(node)
        if name is not None:
            return Compiled(fields.variable(self._places[name]), 1)
        named = self._checked.constants.get(node)
        if named is not None:
            return constant(named)
        field = self._checked.fields.get(node)
        key = node.name if field is None else field.key
        convert = None if field is None else adapter(field.type)
        operand = self.visit(node.operand)
        if node.test_only:
            return Compiled(fields.has_field(operand.step, key, null_is_absent=field is not None), operand.cost)
        kind = self._types[node.operand].kind
        cost = operand.cost + 1
        if node.optional or kind is Kind.OPTIONAL:
            return Compiled(fields.select_optional(operand.step, key, convert, null_is_absent=field is not None), cost)
        if field is not None:
            slot = self._slot_of(node.operand)
            if slot is not None:
                return Compiled(fields.field_of_variable(slot, key, convert), cost)
            return Compiled(fields.field_of_object(operand.step, key, convert), cost)
        return Compiled(fields.field_of_map(operand.step, key), cost)

    # -- operators and calls ------------------------------------------------------------------------------------

    def _call(self, node: Call) -> Compiled:
        if node.function == "_?_:_":
            return self._conditional(node)
        overloads = self._checked.overloads[node]
        arguments = [self.visit(argument) for argument in node.arguments]
        nodes: list[Expr] = list(node.arguments)
        if node.target is not None and node not in self._checked.functions:
            arguments.insert(0, self.visit(node.target))
            nodes.insert(0, node.target)
        name = self._checked.functions.get(node, node.function)
        if name in _FOLDED and len(arguments) == 1 and arguments[0].is_constant:
            folded = _folded(overloads, arguments[0].constant)
            if folded is not None:
                return folded
        if name in {"or", "orValue"} and node.target is not None:
            target, other = arguments
            return Compiled(
                control.optional_or(target.step, other.step, other.cost, unwrap=name == "orValue"), target.cost
            )
        if name in {"_[_]", "_[?_]"}:
            return self._index(name, arguments, nodes)
        kinds = [self._types[one] for one in nodes]
        operator = selection.operator(name, arguments, kinds)
        if operator is not None:
            return operator
        return general(name, overloads, arguments, kinds)

    def _index(self, name: str, arguments: list[Compiled], nodes: list[Expr]) -> Compiled:
        """An index that is a name or a selection itself costs nothing more: cel-go reads it as part of the path."""
        operand, index = arguments
        container, key = (self._types[one] for one in nodes)
        cost = operand.cost + 1 + (0 if _is_attribute(nodes[1]) else index.cost)
        if name == "_[_]" and container.kind is Kind.LIST and key.kind is Kind.INT:
            return Compiled(operations.index_list(operand.step, index.step), cost)
        if name == "_[_]" and container.kind is Kind.MAP and key.kind is Kind.STRING:
            return Compiled(operations.index_map(operand.step, index.step), cost)
        # Whatever the container turns out to be, and whichever number the key is.
        function = operators.index if name == "_[_]" else operators.optional_index
        return Compiled(operations.binary(function, operand.step, index.step), cost)

    def _logic(self, node: Logic) -> Compiled:
        operands = [self.visit(operand) for operand in node.operands]
        parts = [(operand.step, operand.cost if at else 0) for at, operand in enumerate(operands)]
        return Compiled(control.logic(parts, is_and=node.is_and), operands[0].cost)

    def _conditional(self, node: Call) -> Compiled:
        condition, chosen, other = (self.visit(argument) for argument in node.arguments)
        costs = [
            compiled.cost - (1 if _is_attribute(branch) and compiled.cost else 0)
            for branch, compiled in ((node.arguments[1], chosen), (node.arguments[2], other))
        ]
        return Compiled(
            control.conditional(condition.step, chosen.step, costs[0], other.step, costs[1]), condition.cost
        )

    # -- literals -------------------------------------------------------------------------------------------------

    def _list(self, node: ListLiteral) -> Compiled:
        elements = [self.visit(element) for element in node.elements]
        if not node.optional and all(element.is_constant for element in elements):
            return constant([element.constant for element in elements])
        parts = [(element.step, at in node.optional) for at, element in enumerate(elements)]
        return Compiled(folds.list_literal(parts), LIST_COST + sum(element.cost for element in elements))

    def _map(self, node: MapLiteral) -> Compiled:
        entries = [(self.visit(entry.key), self.visit(entry.value), entry.optional) for entry in node.entries]
        step = folds.map_literal([(key.step, value.step, optional) for key, value, optional in entries])
        if all(key.is_constant and value.is_constant and not optional for key, value, optional in entries):
            try:
                return constant(step([]))
            except CelError:
                pass
        return Compiled(step, MAP_COST + sum(key.cost + value.cost for key, value, _ in entries))

    def _struct(self, node: Struct) -> Compiled:
        kind = self._checked.structs[node]
        entries = []
        cost = STRUCT_COST
        for field in node.fields:
            known = find_field(kind, field.name)
            assert known is not None
            value = self.visit(field.value)
            cost += value.cost
            entries.append((fields.literal(known.key), value.step, field.optional))
        return Compiled(folds.map_literal(entries), cost)

    # -- macros ---------------------------------------------------------------------------------------------------

    def _comprehension(self, node: Comprehension) -> Compiled:
        over = self.visit(node.range)
        slots = [self._new_slot() for _ in node.variables]
        self._scopes.append(
            {name: Compiled(fields.variable(slot), 1) for name, slot in zip(node.variables, slots, strict=True)}
        )
        condition = None if node.condition is None else self.visit(node.condition)
        body = self.visit(node.body)
        self._scopes.pop()
        return Compiled(self._fold(node.fold, over, slots, condition, body), over.cost + _RESULTS[node.fold])

    @staticmethod
    def _fold(fold: Fold, over: Compiled, slots: list[int], condition: Compiled | None, body: Compiled) -> Step:
        match fold:
            case Fold.ALL | Fold.EXISTS:
                return folds.quantified(over.step, slots, body.step, body.cost, is_all=fold is Fold.ALL)
            case Fold.EXISTS_ONE:
                return folds.exists_one(over.step, slots, body.step, body.cost)
            case Fold.LIST:
                cost = body.cost + (2 if body.is_constant else folds.COLLECT)
                if condition is None:
                    return folds.collect(over.step, slots, body.step, cost)
                return folds.collect_some(over.step, slots, condition[:2], body.step, cost)
            case Fold.MAP | Fold.MAP_ENTRY:
                is_entry = fold is Fold.MAP_ENTRY
                cost = body.cost + (folds.INSERT_ENTRY if is_entry else folds.INSERT)
                test = None if condition is None else condition[:2]
                return folds.collect_map(over.step, slots, test, body.step, cost, entries=is_entry)

    def _bind(self, node: Bind) -> Compiled:
        value = self.visit(node.value)
        slot = self._new_slot()
        _, read = control.bind(slot, value.step, value.cost, fields.literal(None))
        self._scopes.append({node.name: Compiled(read, 1)})
        body = self.visit(node.body)
        self._scopes.pop()
        step, _ = control.bind(slot, value.step, value.cost, body.step)
        return Compiled(step, body.cost)

    def _optional_map(self, node: OptionalMap) -> Compiled:
        """cel-go expands it to ``target.hasValue() ? optional.of(body with target.value()) : optional.none()``."""
        target = self.visit(node.target)
        slot = self._new_slot()
        self._scopes.append({node.name: Compiled(fields.variable(slot), 1)})
        body = self.visit(node.body)
        self._scopes.pop()
        present = target.cost + 1 + body.cost + (0 if node.flat else 1)
        step = control.optional_map(target.step, slot, body.step, present, 1, flat=node.flat)
        return Compiled(step, target.cost + 1)


_RESULTS: Final[Mapping[Fold, int]] = {
    Fold.ALL: folds.RESULT,
    Fold.EXISTS: folds.RESULT,
    Fold.EXISTS_ONE: folds.COUNT,
    Fold.LIST: folds.RESULT,
    Fold.MAP: folds.RESULT,
    Fold.MAP_ENTRY: folds.RESULT,
}


def _is_attribute(node: Expr) -> bool:
    """A variable, or a path from one; cel-go evaluates those in one step."""
    while True:
        if isinstance(node, Select) and not node.test_only:
            node = node.operand
        elif isinstance(node, Call) and node.function in {"_[_]", "_[?_]"}:
            node = node.arguments[0]
        else:
            return isinstance(node, Ident)


def _folded(overloads: tuple[Overload, ...], value: Any) -> Compiled | None:
    try:
        return constant(overloads[0].call(value))
    except CelError:
        return None
