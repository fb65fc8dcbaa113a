"""Knowing the types makes an evaluation faster, and must not make it different.

The same expressions run with declared types (fast steps) and with everything dynamic (careful steps): same value or
same failure.
"""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from fleetplane.model.cel import BOOL, DYN, INT, STRING, CelCompileError, CelError, Declarations, Type, compile
from fleetplane.model.cel.types import DOUBLE, list_of, map_of, object_of

OBJECT = object_of("o", {"i": INT, "s": STRING, "l": list_of(INT), "gone": INT})
TYPES: dict[str, Type] = {
    "i": INT,
    "j": INT,
    "s": STRING,
    "t": STRING,
    "d": DOUBLE,
    "b": BOOL,
    "l": list_of(INT),
    "w": list_of(STRING),
    "m": map_of(STRING, INT),
    "o": OBJECT,
}
VALUES = st.fixed_dictionaries(
    {
        "i": st.sampled_from([0, 1, -1, 5, 2**63 - 1, -(2**63)]),
        "j": st.integers(-3, 3),
        "s": st.text(alphabet="abñ👑", max_size=15),
        "t": st.sampled_from(["", "a", "ab"]),
        "d": st.sampled_from([0.0, -1.5, 2.0, float("nan"), float("inf")]),
        "b": st.booleans(),
        "l": st.lists(st.integers(-2, 2), max_size=4),
        "w": st.lists(st.sampled_from(["", "a", "ab", "b"]), max_size=4),
        "m": st.dictionaries(st.sampled_from(["a", "b"]), st.integers(0, 2), max_size=2),
        "o": st.fixed_dictionaries({"i": st.integers(0, 3), "s": st.just("a"), "l": st.just([1, 2])}),
    }
)


def mixed(template: str, *operands: SearchStrategy[str]) -> SearchStrategy[str]:
    return st.tuples(*operands).map(lambda found: template.format(*found))


def of_int(depth: int) -> SearchStrategy[str]:
    base = st.sampled_from(["i", "j", "0", "2", "size(s)", "o.i", "o.gone", "m.a", "m['b']", "l[0]", "l[j]", "o.l[1]"])
    if depth == 0:
        return base
    inner = of_int(depth - 1)
    return st.one_of(
        base,
        mixed("({} + {})", inner, inner),
        mixed("({} - {})", inner, inner),
        mixed("({} * {})", inner, inner),
        mixed("({} / {})", inner, inner),
        mixed("({} % {})", inner, inner),
        mixed("-({})", inner),
        mixed("({} ? {} : {})", of_bool(depth - 1), inner, inner),
        mixed("size({})", of_list(depth - 1)),
        mixed("{}.sum()", of_list(depth - 1)),
        mixed("cel.bind(v, {}, v + v)", inner),
    )


def of_list(depth: int) -> SearchStrategy[str]:
    base = st.sampled_from(["l", "o.l", "[1, 2]", "[]"])
    if depth == 0:
        return base
    inner, number = of_list(depth - 1), of_int(depth - 1)
    return st.one_of(
        base,
        mixed("({} + {})", inner, inner),
        mixed("{}.map(v, v + {})", inner, number),
        mixed("{}.filter(v, v < {})", inner, number),
        mixed("[{}, {}]", number, number),
    )


def of_bool(depth: int) -> SearchStrategy[str]:
    base = st.sampled_from(
        ["b", "true", "has(o.i)", "has(o.gone)", "has(m.a)", "'a' in m", "s in w", "t in ['a', 'ab']"]
    )
    if depth == 0:
        return base
    inner, number, items = of_bool(depth - 1), of_int(depth - 1), of_list(depth - 1)
    operator = st.sampled_from(["<", "<=", ">", ">=", "==", "!="])
    text = st.sampled_from(["s", "t", "'a'", "''", "(s + t)", "o.s", "'abcdefghijkl'"])
    return st.one_of(
        base,
        mixed("({} && {})", inner, inner),
        mixed("({} || {})", inner, inner),
        mixed("!({})", inner),
        mixed("({} {} {})", number, operator, number),
        mixed("({} {} {})", text, operator, text),
        mixed("(d {} {})", operator, st.sampled_from(["d", "1.0", "-1.5"])),
        mixed("({} == {})", items, items),
        mixed("({} in {})", number, items),
        mixed("{}.all(v, v {} {})", items, operator, number),
        mixed("{}.exists(v, v {} {})", items, operator, number),
        mixed("w.all(v, v {} {})", operator, text),
        mixed("m.all(k, m[k] {} {})", operator, number),
        mixed("m.exists(k, v, v {} {} && k != 'b')", operator, number),
    )


def outcome(expression: str, types: dict[str, Type], values: dict[str, Any]) -> Any:
    try:
        return repr(compile(expression, Declarations(types), result=None).evaluate(values))
    except CelError:
        return "error"
    except CelCompileError:
        return "refused"


@settings(max_examples=150, deadline=None)
@given(st.one_of(of_bool(2), of_int(2), of_list(2)), VALUES)
def test_types_do_not_change_values(expression: str, values: dict[str, Any]) -> None:
    typed = outcome(expression, TYPES, values)
    assert typed == outcome(expression, dict.fromkeys(TYPES, DYN), values)
