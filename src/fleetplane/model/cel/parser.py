"""Tokens to a tree: recursive descent, one function per level of precedence (CEL language definition, "Syntax").

Bounded on hostile input: the source's length, how deep it nests, and how deep the tree gets (``a + a + a …`` nests to
the left without any bracket) are all limited here, so that no later pass over the tree can run out of stack.
"""

from __future__ import annotations

from typing import Final

from fleetplane.model.cel.ast import (
    Bind,
    Call,
    Comprehension,
    Entry,
    Expr,
    FieldInit,
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
from fleetplane.model.cel.errors import CelCompileError, Issue
from fleetplane.model.cel.lexer import RESERVED, Token, is_too_large, negated, tokenize

MAX_LENGTH: Final = 100_000
"""Characters of source."""
MAX_NESTING: Final = 60
"""Brackets, calls and conditionals within one another."""
MAX_DEPTH: Final = 150
"""Levels of the tree."""

_PRECEDENCE: Final = {
    **dict.fromkeys(("<", "<=", ">", ">=", "==", "!=", "in"), 1),
    **dict.fromkeys(("+", "-"), 2),
    **dict.fromkeys(("*", "/", "%"), 3),
}
_FUNCTIONS: Final = {
    "<": "_<_",
    "<=": "_<=_",
    ">": "_>_",
    ">=": "_>=_",
    "==": "_==_",
    "!=": "_!=_",
    "in": "@in",
    "+": "_+_",
    "-": "_-_",
    "*": "_*_",
    "/": "_/_",
    "%": "_%_",
}


def parse(source: str) -> Expr:
    """The tree of an expression. Raises CelCompileError."""
    if len(source) > MAX_LENGTH:
        raise CelCompileError(
            source[:80],
            [Issue(0, f"expression code point size exceeds limit: size: {len(source)}, limit {MAX_LENGTH}")],
        )
    return _Parser(source).whole()


class _Parser:
    def __init__(self, source: str) -> None:
        self._source = source
        self._tokens = tokenize(source)
        self._at = 0
        self._nesting = 0
        self._depths: dict[Expr, int] = {}

    # -- tokens ---------------------------------------------------------------------------------------------

    @property
    def _token(self) -> Token:
        return self._tokens[self._at]

    def _next(self) -> Token:
        token = self._tokens[self._at]
        self._at += 1
        return token

    def _take(self, kind: str) -> Token | None:
        return self._next() if self._tokens[self._at].kind == kind else None

    def _expect(self, kind: str) -> Token:
        if self._token.kind != kind:
            raise self._unexpected(f"expected {kind!r}")
        return self._next()

    def _error(self, offset: int, message: str) -> CelCompileError:
        return CelCompileError(self._source, [Issue(offset, message)])

    def _unexpected(self, wanted: str) -> CelCompileError:
        token = self._token
        found = "<EOF>"
        if token.kind != "end":
            found = self._source[token.offset : self._tokens[self._at + 1].offset].split()[0][:40]
        return self._error(token.offset, f"Syntax error: mismatched input '{found}', {wanted}")

    def _node(self, node: Expr, *children: Expr) -> Expr:
        depth = 1 + max((self._depths[child] for child in children), default=0)
        if depth > MAX_DEPTH:
            raise self._error(node.offset, f"expression is too deep: at most {MAX_DEPTH} levels; split it up")
        self._depths[node] = depth
        return node

    # -- precedence, loosest first ----------------------------------------------------------------------------

    def whole(self) -> Expr:
        expression = self._expression()
        if self._token.kind != "end":
            raise self._unexpected("expected the end of the expression")
        return expression

    def _expression(self) -> Expr:
        self._nesting += 1
        if self._nesting > MAX_NESTING:
            raise self._error(
                self._token.offset, f"expression recursion limit exceeded: at most {MAX_NESTING} levels of nesting"
            )
        result = self._logic(is_and=False)
        if mark := self._take("?"):
            chosen = self._logic(is_and=False)
            self._expect(":")
            other = self._expression()
            result = self._node(Call(mark.offset, "_?_:_", (result, chosen, other)), result, chosen, other)
        self._nesting -= 1
        return result

    def _logic(self, *, is_and: bool) -> Expr:
        operator = "&&" if is_and else "||"
        operands = [self._operators(1) if is_and else self._logic(is_and=True)]
        offsets: list[int] = []
        while token := self._take(operator):
            offsets.append(token.offset)
            operands.append(self._operators(1) if is_and else self._logic(is_and=True))
        if len(operands) == 1:
            return operands[0]
        return self._node(Logic(offsets[0], is_and, tuple(operands), tuple(offsets)), *operands)

    def _operators(self, loosest: int) -> Expr:
        """Comparisons, sums and products, by precedence climbing; all associate to the left."""
        left = self._unary()
        while (precedence := _PRECEDENCE.get(self._token.kind, 0)) >= loosest:
            operator = self._next()
            right = self._operators(precedence + 1)
            left = self._node(Call(operator.offset, _FUNCTIONS[operator.kind], (left, right)), left, right)
        return left

    def _unary(self) -> Expr:
        """Signs are folded in pairs, as the language defines them: ``!!a`` is ``a``."""
        token = self._token
        if token.kind not in {"!", "-"}:
            return self._member()
        count = 0
        while self._token.kind == token.kind:
            if token.kind == "-" and self._is_number(self._tokens[self._at + 1]):
                break
            self._next()
            count += 1
        operand = self._member()
        if count % 2 == 0:
            return operand
        return self._node(Call(token.offset, "!_" if token.kind == "!" else "-_", (operand,)), operand)

    @staticmethod
    def _is_number(token: Token) -> bool:
        return token.kind == "literal" and not isinstance(token.value, (str, bytes))

    def _member(self) -> Expr:
        expression = self._primary()
        while True:
            token = self._token
            if token.kind == ".":
                expression = self._dotted(expression)
            elif token.kind == "[":
                self._next()
                function = "_[?_]" if self._take("?") else "_[_]"
                index = self._expression()
                self._expect("]")
                expression = self._node(Call(token.offset, function, (expression, index)), expression, index)
            elif token.kind == "{" and (name := _qualified(expression)):
                expression = self._struct(name)
            else:
                return expression

    def _dotted(self, operand: Expr) -> Expr:
        dot = self._next()
        optional = self._take("?") is not None
        token = self._next()
        if token.kind not in {"identifier", "quoted"}:
            self._at -= 1
            raise self._unexpected("expected a field name")
        name = str(token.value)
        if not optional and token.kind == "identifier" and self._token.kind == "(":
            opening = self._next()
            arguments = self._arguments(")")
            return self._member_call(opening.offset, operand, name, arguments)
        return self._node(Select(dot.offset, operand, name, optional), operand)

    def _arguments(self, closing: str) -> tuple[Expr, ...]:
        found: list[Expr] = []
        while self._token.kind != closing:
            found.append(self._expression())
            if self._token.kind != closing:
                self._expect(",")
                if self._token.kind == closing:
                    raise self._unexpected("expected an expression")
        self._expect(closing)
        return tuple(found)

    def _primary(self) -> Expr:
        token = self._next()
        match token.kind:
            case "literal":
                if is_too_large(token.value):
                    raise self._error(token.offset, "invalid int literal: it must be within -2^63 and 2^63-1")
                return self._node(Literal(token.offset, token.value))
            case "-" if self._is_number(self._token):
                return self._node(Literal(token.offset, negated(self._source, self._next())))
            case "true" | "false":
                return self._node(Literal(token.offset, token.kind == "true"))
            case "null":
                return self._node(Literal(token.offset, None))
            case "(":
                inner = self._expression()
                self._expect(")")
                return inner
            case "[":
                return self._list(token.offset)
            case "{":
                return self._map(token.offset)
            case "identifier":
                return self._name(token)
            case "." if self._token.kind == "identifier":
                return self._name(self._next())
        self._at -= 1
        raise self._unexpected("expected an expression")

    def _name(self, token: Token) -> Expr:
        name = str(token.value)
        if name in RESERVED:
            raise self._error(token.offset, f"reserved identifier: {name}")
        if self._token.kind == "(":
            opening = self._next()
            arguments = self._arguments(")")
            return self._global_call(opening.offset, name, arguments)
        return self._node(Ident(token.offset, name))

    def _list(self, offset: int) -> Expr:
        elements: list[Expr] = []
        optional: set[int] = set()
        while self._token.kind != "]":
            if self._take("?"):
                optional.add(len(elements))
            elements.append(self._expression())
            if not self._take(","):
                break
        self._expect("]")
        return self._node(ListLiteral(offset, tuple(elements), frozenset(optional)), *elements)

    def _map(self, offset: int) -> Expr:
        entries: list[Entry] = []
        while self._token.kind != "}":
            optional = self._take("?") is not None
            key = self._expression()
            colon = self._expect(":")
            entries.append(Entry(colon.offset, key, self._expression(), optional))
            if not self._take(","):
                break
        self._expect("}")
        children = [part for entry in entries for part in (entry.key, entry.value)]
        return self._node(MapLiteral(offset, tuple(entries)), *children)

    def _struct(self, name: str) -> Expr:
        opening = self._expect("{")
        fields: list[FieldInit] = []
        while self._token.kind != "}":
            optional = self._take("?") is not None
            token = self._next()
            if token.kind not in {"identifier", "quoted"}:
                self._at -= 1
                raise self._unexpected("expected a field name")
            colon = self._expect(":")
            fields.append(FieldInit(colon.offset, str(token.value), self._expression(), optional))
            if not self._take(","):
                break
        self._expect("}")
        return self._node(Struct(opening.offset, name, tuple(fields)), *(field.value for field in fields))

    # -- macros -----------------------------------------------------------------------------------------------

    def _global_call(self, offset: int, name: str, arguments: tuple[Expr, ...]) -> Expr:
        if name == "has" and len(arguments) == 1:
            (field,) = arguments
            if not isinstance(field, Select) or field.test_only:
                raise self._error(offset, "invalid argument to has() macro")
            return self._node(Select(offset, field.operand, field.name, field.optional, test_only=True), field.operand)
        return self._node(Call(offset, name, arguments), *arguments)

    def _member_call(self, offset: int, target: Expr, name: str, arguments: tuple[Expr, ...]) -> Expr:
        count = len(arguments)
        if name in _FOLDS and count in _FOLDS[name]:
            return self._fold(offset, target, name, arguments)
        if name == "bind" and count == 3 and isinstance(target, Ident) and target.name == "cel":
            variable = self._variable(arguments[0])
            return self._node(Bind(offset, variable, arguments[1], arguments[2]), *arguments)
        if name in {"greatest", "least"} and count > 2 and isinstance(target, Ident) and target.name == "math":
            return self._pairwise(offset, target, name, arguments)
        if name == "sortBy" and count == 2:
            return self._sort_by(offset, target, arguments)
        if name in {"optMap", "optFlatMap"} and count == 2:
            variable = self._variable(arguments[0])
            node = OptionalMap(offset, target, variable, arguments[1], name == "optFlatMap")
            return self._node(node, target, arguments[1])
        return self._node(Call(offset, name, arguments, target), target, *arguments)

    def _fold(self, offset: int, target: Expr, name: str, arguments: tuple[Expr, ...]) -> Expr:
        fold, names, filtered = _FOLDS[name][len(arguments)]
        variables = tuple(self._variable(argument) for argument in arguments[:names])
        if len(set(variables)) != len(variables):
            raise self._error(arguments[1].offset, f"duplicate variable name: {variables[1]}")
        condition = arguments[names] if filtered else None
        body = arguments[-1]
        if name == "filter":
            body = self._node(Ident(arguments[0].offset, variables[0]))
        children = [target, body] if condition is None else [target, condition, body]
        return self._node(Comprehension(offset, fold, target, variables, condition, body), *children)

    def _pairwise(self, offset: int, target: Expr, name: str, arguments: tuple[Expr, ...]) -> Expr:
        """``math.greatest(a, b, c)`` is ``math.greatest(math.greatest(a, b), c)``."""
        result = arguments[0]
        for argument in arguments[1:]:
            result = self._node(Call(offset, name, (result, argument), target), result, argument)
        return result

    def _sort_by(self, offset: int, target: Expr, arguments: tuple[Expr, ...]) -> Expr:
        """``list.sortBy(x, key)``: the list is computed once, then its keys, then both are sorted together."""
        variable = self._variable(arguments[0])
        items = self._node(Ident(offset, "@items"))
        keys = self._node(Comprehension(offset, Fold.LIST, items, (variable,), None, arguments[1]), items, arguments[1])
        ordered = self._node(Call(offset, "@sortByAssociatedKeys", (items, keys)), items, keys)
        return self._node(Bind(offset, "@items", target, ordered), target, ordered)

    def _variable(self, argument: Expr) -> str:
        if not isinstance(argument, Ident):
            raise self._error(argument.offset, "argument must be a simple name")
        if argument.name == "__result__":
            raise self._error(argument.offset, "iteration variable overwrites accumulator variable")
        return argument.name


_FOLDS: Final[dict[str, dict[int, tuple[Fold, int, bool]]]] = {
    "all": {2: (Fold.ALL, 1, False), 3: (Fold.ALL, 2, False)},
    "exists": {2: (Fold.EXISTS, 1, False), 3: (Fold.EXISTS, 2, False)},
    "exists_one": {2: (Fold.EXISTS_ONE, 1, False)},
    "existsOne": {2: (Fold.EXISTS_ONE, 1, False), 3: (Fold.EXISTS_ONE, 2, False)},
    "map": {2: (Fold.LIST, 1, False), 3: (Fold.LIST, 1, True)},
    "filter": {2: (Fold.LIST, 1, True)},
    "transformList": {3: (Fold.LIST, 2, False), 4: (Fold.LIST, 2, True)},
    "transformMap": {3: (Fold.MAP, 2, False), 4: (Fold.MAP, 2, True)},
    "transformMapEntry": {3: (Fold.MAP_ENTRY, 2, False), 4: (Fold.MAP_ENTRY, 2, True)},
}
"""Macro name -> number of arguments -> (what it does, how many variables, whether a filter follows them)."""


def _qualified(expression: Expr) -> str:
    """``a.b.c`` of a chain of plain names, or an empty string."""
    names: list[str] = []
    while isinstance(expression, Select) and not expression.optional and not expression.test_only:
        names.append(expression.name)
        expression = expression.operand
    if not isinstance(expression, Ident):
        return ""
    names.append(expression.name)
    return ".".join(reversed(names))
