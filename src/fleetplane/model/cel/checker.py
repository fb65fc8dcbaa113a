"""The type checker: every node gets a type, every call its possible overloads, every mistake a message.

It follows cel-go's checker, including the wording of its messages, since users of Kubernetes search for them. It goes
on after a mistake (with a type that fits everywhere), so one compilation reports all of them, up to a limit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, assert_never

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
from fleetplane.model.cel.checked import TYPE_NAMES, Checked, find_field, qualified_name
from fleetplane.model.cel.declarations import Declarations
from fleetplane.model.cel.errors import CelCompileError, Issue
from fleetplane.model.cel.library.declarations import Overload
from fleetplane.model.cel.schema_lists import is_merging
from fleetplane.model.cel.types import (
    BOOL,
    BYTES,
    DOUBLE,
    DYN,
    ERROR,
    INT,
    LIST,
    NULL,
    STRING,
    UINT,
    Field,
    Kind,
    Type,
    list_of,
    map_of,
    optional_of,
    runtime_name,
    same,
    shown,
    type_of,
)
from fleetplane.model.cel.unify import Unifier, more_general
from fleetplane.model.cel.values import TypeValue, Uint

MAX_ISSUES: Final = 20


def check(source: str, root: Expr, declarations: Declarations) -> Checked:
    """Raises CelCompileError with everything that is wrong."""
    checker = _Checker(declarations)
    checker.visit(root)
    if checker.issues:
        raise CelCompileError(source, sorted(checker.issues, key=lambda issue: issue.offset)[:MAX_ISSUES])
    types = {node: checker.unifier.resolve(kind, free_to_dyn=True) for node, kind in checker.types.items()}
    return Checked(
        root,
        types,
        checker.overloads,
        checker.functions,
        checker.constants,
        checker.fields,
        checker.qualified,
        checker.structs,
        frozenset(checker.free),
    )


class _Checker:
    def __init__(self, declarations: Declarations) -> None:
        self._declarations = declarations
        self._scopes: list[dict[str, Type]] = []
        self._mixed = False
        """Within the arguments of format(), whose list may hold anything."""
        self.unifier = Unifier()
        self.types: dict[Expr, Type] = {}
        self.overloads: dict[Expr, tuple[Overload, ...]] = {}
        self.functions: dict[Expr, str] = {}
        self.constants: dict[Expr, TypeValue] = {}
        self.fields: dict[Expr, Field] = {}
        self.qualified: dict[Expr, str] = {}
        self.structs: dict[Expr, Type] = {}
        self.free: set[str] = set()
        self.issues: list[Issue] = []

    def _issue(self, offset: int, message: str) -> Type:
        self.issues.append(Issue(offset, message))
        return ERROR

    def visit(self, node: Expr) -> Type:
        match node:
            case Call():
                kind = self._call(node)
            case Select():
                kind = self._select(node)
            case Ident():
                kind = self._ident(node)
            case Literal():
                kind = _literal_type(node.value)
            case Logic():
                kind = self._logic(node)
            case Comprehension():
                kind = self._comprehension(node)
            case ListLiteral():
                kind = self._list(node)
            case MapLiteral():
                kind = self._map(node)
            case Bind():
                kind = self._within({node.name: self.visit(node.value)}, node.body)
            case OptionalMap():
                kind = self._optional_map(node)
            case Struct():
                kind = self._struct(node)
            case _:
                assert_never(node)
        self.types[node] = kind
        return kind

    def _within(self, scope: dict[str, Type], node: Expr) -> Type:
        self._scopes.append(scope)
        kind = self.visit(node)
        self._scopes.pop()
        return kind

    def _assignable(self, target: Type, source: Type) -> bool:
        return self.unifier.assignable([target], [source])

    # -- names --------------------------------------------------------------------------------------------------

    def _find(self, name: str) -> Type | None:
        for scope in reversed(self._scopes):
            if name in scope:
                return scope[name]
        declared = self._declarations.variables.get(name)
        if declared is not None:
            self.free.add(name)
        return declared

    def _type_constant(self, node: Expr, name: str) -> Type | None:
        kind = TYPE_NAMES.get(name) or self._declarations.structs.get(name)
        if kind is None:
            return None
        self.constants[node] = TypeValue(runtime_name(kind))
        return type_of(kind)

    def _ident(self, node: Ident) -> Type:
        found = self._find(node.name) or self._type_constant(node, node.name)
        if found is None:
            return self._issue(node.offset, f"undeclared reference to '{node.name}' (in container '')")
        return found

    def _is_variable(self, node: Expr) -> bool:
        while isinstance(node, Select):
            node = node.operand
        return isinstance(node, Ident) and (
            node.name in self._declarations.variables or any(node.name in scope for scope in self._scopes)
        )

    def _qualified(self, node: Expr) -> Type | None:
        """The type of a variable whose name has dots in it."""
        name = qualified_name(node)
        declared = None if name is None else self._declarations.variables.get(name)
        if name is None or declared is None or any(name.partition(".")[0] in scope for scope in self._scopes):
            return None
        self.qualified[node] = name
        self.free.add(name)
        return declared

    def _select(self, node: Select) -> Type:
        if (variable := self._qualified(node)) is not None:
            return variable
        if not node.optional and not node.test_only and not self._is_variable(node):
            name = qualified_name(node)
            if name is not None and (constant := self._type_constant(node, name)) is not None:
                return constant
        operand = self.unifier.resolve(self.visit(node.operand))
        inner = operand.parameters[0] if operand.kind is Kind.OPTIONAL else operand
        found = self._field(node, self.unifier.resolve(inner))
        if node.test_only:
            return BOOL
        if node.optional or operand.kind is Kind.OPTIONAL:
            return found if found.kind is Kind.OPTIONAL else optional_of(found)
        return found

    def _field(self, node: Select, operand: Type) -> Type:
        match operand.kind:
            case Kind.OBJECT:
                field = find_field(operand, node.name)
                if field is None:
                    return self._issue(node.offset, f"undefined field '{node.name}'")
                self.fields[node] = field
                return field.type
            case Kind.MAP:
                return operand.parameters[1]
            case Kind.DYN | Kind.ERROR | Kind.PARAMETER:
                return DYN
        return self._issue(node.offset, f"type '{shown(operand)}' does not support field selection")

    # -- calls ----------------------------------------------------------------------------------------------------

    def _call(self, node: Call) -> Type:
        functions = self._declarations.functions
        if node.target is None:
            return self._global_call(node, node.function)
        prefix = None if self._is_variable(node.target) else qualified_name(node.target)
        if prefix is not None and f"{prefix}.{node.function}" in functions:
            return self._global_call(node, f"{prefix}.{node.function}")
        target = self.visit(node.target)
        before, self._mixed = self._mixed, self._mixed or node.function == "format"
        arguments = [self.visit(argument) for argument in node.arguments]
        self._mixed = before
        overloads = [one for one in functions.get(node.function, ()) if one.member]
        if not overloads:
            return self._issue(node.offset, f"undeclared reference to '{node.function}' (in container '')")
        return self._resolve(node, node.function, overloads, [target, *arguments], member=True)

    def _global_call(self, node: Call, name: str) -> Type:
        arguments = [self.visit(argument) for argument in node.arguments]
        overloads = [one for one in self._declarations.functions.get(name, ()) if not one.member]
        if not overloads:
            return self._issue(node.offset, f"undeclared reference to '{name}' (in container '')")
        self.functions[node] = name
        return self._resolve(node, name, overloads, arguments, member=False)

    def _resolve(
        self, node: Call, name: str, overloads: Sequence[Overload], arguments: list[Type], *, member: bool
    ) -> Type:
        result: Type | None = None
        fitting: list[Overload] = []
        kinds_known = [self.unifier.resolve(argument).kind for argument in arguments]
        for overload in overloads:
            if len(overload.parameters) != len(arguments) or _hopeless(overload, kinds_known):
                continue
            *parameters, declared = self.unifier.instantiate(*overload.parameters, overload.result)
            if not self.unifier.assignable(parameters, arguments):
                continue
            fitting.append(overload)
            found = self.unifier.resolve(declared)
            result = found if result is None or same(result, found) else DYN
        if result is None:
            kinds = [self._shown(argument) for argument in arguments]
            applied = f"{kinds[0]}.({', '.join(kinds[1:])})" if member else f"({', '.join(kinds)})"
            return self._issue(node.offset, f"found no matching overload for '{name}' applied to '{applied}'")
        self.overloads[node] = tuple(fitting)
        if name == "_+_" and is_merging(first := self.unifier.resolve(arguments[0])):
            return first
        return result

    def _logic(self, node: Logic) -> Type:
        for at, operand in enumerate(node.operands):
            kind = self.visit(operand)
            if not self._assignable(BOOL, kind):
                kinds = (kind, BOOL) if at == 0 else (BOOL, kind)
                self._no_overload(node.offsets[max(at - 1, 0)], "_&&_" if node.is_and else "_||_", *kinds)
        return BOOL

    def _no_overload(self, offset: int, name: str, *kinds: Type) -> None:
        found = ", ".join(self._shown(kind) for kind in kinds)
        self._issue(offset, f"found no matching overload for '{name}' applied to '({found})'")

    def _shown(self, kind: Type) -> str:
        return shown(self.unifier.resolve(kind, free_to_dyn=True))

    # -- literals -----------------------------------------------------------------------------------------------

    def _join(self, offset: int, before: Type | None, kind: Type) -> Type:
        if before is None:
            return kind
        if self._assignable(before, kind):
            before, kind = self.unifier.resolve(before), self.unifier.resolve(kind)
            return before if more_general(before, kind) else kind
        if self._mixed or not self._declarations.homogeneous_literals:
            return DYN
        expected, found = (self._shown(one) for one in (before, kind))
        return self._issue(offset, f"expected type '{expected}' but found '{found}'")

    def _unwrapped(self, node: Expr, *, optional: bool) -> Type:
        kind = self.visit(node)
        if not optional:
            return kind
        inner = self.unifier.fresh()
        if not self._assignable(optional_of(inner), kind):
            found = self._shown(kind)
            return self._issue(node.offset, f"expected type 'optional_type(dyn)' but found '{found}'")
        return self.unifier.resolve(inner)

    def _list(self, node: ListLiteral) -> Type:
        element: Type | None = None
        for position, item in enumerate(node.elements):
            kind = self._unwrapped(item, optional=position in node.optional)
            element = self._join(item.offset, element, kind)
        return list_of(self.unifier.fresh() if element is None else element)

    def _map(self, node: MapLiteral) -> Type:
        key: Type | None = None
        value: Type | None = None
        for entry in node.entries:
            key = self._join(entry.key.offset, key, self.visit(entry.key))
            value = self._join(entry.value.offset, value, self._unwrapped(entry.value, optional=entry.optional))
        if key is None or value is None:
            return map_of(self.unifier.fresh(), self.unifier.fresh())
        return map_of(key, value)

    def _struct(self, node: Struct) -> Type:
        declared = self._declarations.structs.get(node.type_name)
        if declared is None and node.type_name.partition(".")[0] in self._declarations.open_structs:
            declared = Type(Kind.OBJECT, node.type_name)
        for field in node.fields:
            kind = self._unwrapped(field.value, optional=field.optional)
            if declared is None or declared.fields is None:
                continue
            known = find_field(declared, field.name)
            if known is None:
                self._issue(field.offset, f"undefined field '{field.name}'")
            elif not self._assignable(known.type, kind):
                found = self._shown(kind)
                self._issue(
                    field.offset,
                    f"expected type of field '{field.name}' is '{shown(known.type)}' but provided type is '{found}'",
                )
        if declared is None:
            return self._issue(node.offset, f"undeclared reference to '{node.type_name}' (in container '')")
        self.structs[node] = declared
        return declared

    # -- macros -------------------------------------------------------------------------------------------------

    def _comprehension(self, node: Comprehension) -> Type:
        over = self.unifier.resolve(self.visit(node.range))
        scope = dict(zip(node.variables, self._elements(node, over), strict=True))
        if node.condition is not None:
            kind = self._within(scope, node.condition)
            if not self._assignable(BOOL, kind):
                self._no_overload(node.offset, "_?_:_", kind, LIST, LIST)
        body = self._within(scope, node.body)
        match node.fold:
            case Fold.ALL | Fold.EXISTS | Fold.EXISTS_ONE:
                if not self._assignable(BOOL, body):
                    name, kinds = _FOLD_STEPS[node.fold]
                    self._no_overload(node.offset, name, *(body if kind is None else kind for kind in kinds))
                return BOOL
            case Fold.LIST:
                return list_of(body)
            case Fold.MAP:
                return map_of(scope[node.variables[0]], body)
            case Fold.MAP_ENTRY:
                if not self._assignable(map_of(self.unifier.fresh(), self.unifier.fresh()), body):
                    found = self._shown(body)
                    return self._issue(node.body.offset, f"expected type 'map(dyn, dyn)' but found '{found}'")
                return body

    def _elements(self, node: Comprehension, over: Type) -> tuple[Type, ...]:
        """The types of the iteration variables."""
        two = len(node.variables) == 2
        inner = tuple(DYN if one.kind is Kind.PARAMETER else one for one in over.parameters)
        match over.kind:
            case Kind.LIST:
                return (INT, inner[0]) if two else (inner[0],)
            case Kind.MAP:
                return inner if two else (inner[0],)
            case Kind.DYN | Kind.ERROR | Kind.PARAMETER:
                return (DYN, DYN) if two else (DYN,)
        self._issue(
            node.range.offset,
            f"expression of type '{shown(over)}' cannot be range of a comprehension (must be list, map, or dynamic)",
        )
        return (ERROR, ERROR) if two else (ERROR,)

    def _optional_map(self, node: OptionalMap) -> Type:
        inner = self.unifier.fresh()
        target = self.visit(node.target)
        if not self._assignable(optional_of(inner), target):
            found = self._shown(target)
            name = "optFlatMap" if node.flat else "optMap"
            self._issue(node.offset, f"found no matching overload for '{name}' applied to '{found}.(ident, dyn)'")
        body = self._within({node.name: self.unifier.resolve(inner)}, node.body)
        if not node.flat:
            return optional_of(body)
        result = optional_of(self.unifier.fresh())
        if not self._assignable(result, body):
            found = self._shown(body)
            return self._issue(node.body.offset, f"expected type 'optional_type(dyn)' but found '{found}'")
        return result


_FOLD_STEPS: Final[Mapping[Fold, tuple[str, tuple[Type | None, ...]]]] = {
    Fold.ALL: ("_&&_", (BOOL, None)),
    Fold.EXISTS: ("_||_", (BOOL, None)),
    Fold.EXISTS_ONE: ("_?_:_", (None, INT, INT)),
}
"""The call that cel-go expands a macro's turn into, which its messages name; None stands for the predicate."""


_PLAIN: Final = frozenset({Kind.BOOL, Kind.INT, Kind.UINT, Kind.DOUBLE, Kind.STRING, Kind.BYTES, Kind.LIST, Kind.MAP})


def _hopeless(overload: Overload, kinds: Sequence[Kind]) -> bool:
    """Whether two plain kinds differ, which spares most overloads the full comparison."""
    return any(
        wanted.kind is not found and wanted.kind in _PLAIN and found in _PLAIN
        for wanted, found in zip(overload.parameters, kinds, strict=True)
    )


def _literal_type(value: object) -> Type:
    return _LITERALS[type(value)]


_LITERALS: Final[Mapping[type, Type]] = {
    bool: BOOL,
    int: INT,
    Uint: UINT,
    float: DOUBLE,
    str: STRING,
    bytes: BYTES,
    type(None): NULL,
}
