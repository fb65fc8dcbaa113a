"""Costs must be those of Kubernetes: the numbers here are what its API server charges for these expressions."""

from __future__ import annotations

from typing import Any

import pytest

from fleetplane.model.cel import CelCostExceeded, Declarations, Type, compile, type_from_schema
from fleetplane.model.cel.library import functions_of

TEXT = {"type": "string"}
NUMBER = {"type": "integer"}


def objects(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties}


def lists(items: Any, **more: Any) -> dict[str, Any]:
    return {"type": "array", "items": items, **more}


SCHEMA = objects(
    i1=NUMBER,
    i2=NUMBER,
    s1=TEXT,
    s2=TEXT,
    day={"type": "string", "format": "duration"},
    ints=lists(NUMBER),
    others=lists(NUMBER),
    set=lists(TEXT, **{"x-kubernetes-list-type": "set"}),
    same=lists(TEXT, **{"x-kubernetes-list-type": "set"}),
    any={"x-kubernetes-int-or-string": True},
    map={"type": "object", "additionalProperties": NUMBER},
    keyed=lists(
        objects(k=TEXT, v=TEXT, v2=TEXT),
        **{"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"]},
    ),
    array=lists(NUMBER),
    a1=objects(b1=objects(c1=NUMBER), d2=objects(e2=NUMBER)),
    obj=objects(field=TEXT, absentField=TEXT),
    m={"type": "object", "additionalProperties": TEXT},
)
DATA = {
    "i1": 2**63 - 1,
    "i2": 2**63 - 1,
    "s1": "Rook takes 👑",
    "s2": "Rook takes 👑",
    "day": "1h2m3s4ms",
    "ints": [1, 2, 3],
    "others": [1, 2, 3],
    "set": ["a", "b", "c"],
    "same": ["a", "c", "b"],
    "any": "25%",
    "map": {"b": 1, "d": 2},
    "keyed": [{"k": "a1", "v": "b1"}, {"k": "a2", "v": "b2"}, {"k": "a3", "v": "b3", "v2": "z"}],
    "array": [1, 1, 2, 2, 3, 3, 4, 5],
    "a1": {"b1": {"c1": 4}},
    "obj": {"field": "a"},
    "m": {"k": "v"},
}


def typed(schema: Any) -> Type:
    kind = type_from_schema(schema)
    assert kind is not None
    return kind


SELF = typed(SCHEMA)

CHARGED = """
11 | self.i1 == self.i2 && self.i1 == 9223372036854775807 && self.i2 == 9223372036854775807
4 | type(self.i1) == int
7 | double(self.i1) <= double(self.i2)
1 | double(5) < 10.0
14 | self.s1 == self.s2 && self.s1 == 'Rook takes 👑' && self.s2 == 'Rook takes 👑'
4 | self.s1.startsWith('Rook')
5 | !self.s1.startsWith('knight')
8 | self.s1.matches('^[^0-9]*$')
7 | !self.s1.matches('^[0-9]*$')
4 | size(self.s1) == 12
4 | self.s1.charAt(3) == 'k'
4 | self.s1.indexOf('o') == 1
4 | self.s1.indexOf('o', 2) == 2
7 | self.s1.replace(' ', 'x') == 'Rookxtakesx👑'
6 | self.s1.split(' ') == ['Rook', 'takes', '👑']
5 | self.s1.substring(5) == 'takes 👑'
6 | self.s1.substring(4, 10).trim() == 'takes'
6 | self.s1.upperAscii() == 'ROOK TAKES 👑'
3 | self.day == duration('1h2m3s4ms')
4 | self.day == duration('1h2m') + duration('3s4ms')
4 | self.day.getHours() == 1
4 | type(self.day) == google.protobuf.Duration
2 | self.s1 in ['Pending', 'Rook takes 👑']
11 | self.ints == self.others && self.ints == [1, 2, 3] && self.others == [1, 2, 3]
5 | 1 in self.ints
8 | self.others[0] in self.ints
6 | !(0 in self.ints)
6 | self.ints + self.others == [1, 2, 3, 1, 2, 3]
4 | self.ints + [4, 5] == [1, 2, 3, 4, 5]
3 | self.set == ['c', 'b', 'a']
5 | self.set == self.same
5 | 'a' in self.set
6 | !('x' in self.set)
4 | self.set + ['c', 'd'] == ['a', 'b', 'c', 'd']
7 | type(self.any) == int ? self.any == 1 : self.any == '25%'
7 | type(self.any) == string && self.any == '25%'
3 | self.any == '25%'
3 | self.any != 1
6 | self.any == 1 || self.any == '25%'
3 | self.any == '25%' || self.any == 1
10 | type(self.any) == string && self.any.matches(r'(\\d+(\\.\\d+)?%)')
4 | !('a' in self.map)
3 | 'b' in self.map
3 | !has(self.map.a)
2 | has(self.map.b)
17 | self.map.all(k, self.map[k] > 0)
14 | self.map.exists_one(k, self.map[k] == 2)
17 | !self.map.exists_one(k, self.map[k] > 0)
4 | size(self.map) == 2
26 | size(self.map.filter(k, self.map[k] > 1)) == 1
3 | has(self.keyed[0].v)
21 | self.keyed.all(m, m.k.startsWith('a'))
21 | self.keyed.all(m, !has(m.v2) || m.v2 == 'z')
13 | self.keyed.exists(m, m.k.endsWith('1'))
15 | self.keyed.exists_one(m, m.k == 'a3')
18 | !self.keyed.all(m, m.k.endsWith('1'))
25 | !self.keyed.exists(m, m.v == 'x')
20 | !self.keyed.exists_one(m, m.k.startsWith('a'))
27 | size(self.keyed.filter(m, m.k == 'a1')) == 1
16 | self.keyed.exists(m, m.k == 'a1' && m.v == 'b1')
55 | self.keyed.map(m, m.v).exists(v, v == 'b1')
21 | self.keyed.exists(m, has(m.v2) && m.v2 == 'z')
10 | !self.keyed.all(m, has(m.v2) && m.v2 != 'z')
12 | self.keyed.exists_one(m, has(m.v2) && m.v2 == 'z')
24 | self.keyed.filter(m, has(m.v2) && m.v2 == 'z').size() == 1
25 | self.keyed.map(m, has(m.v2) && m.v2 == 'z', m.v2).size() == 1
39 | self.keyed.filter(m, has(m.v2) && m.v2 == 'z').map(m, m.v2).size() == 1
24 | self.keyed.exists(m, m.v2 == 'z')
22 | !self.keyed.all(m, m.v2 != 'z')
10 | 2 in self.array
43 | self.array.all(e, e > 0)
36 | self.array.exists(e, e > 2)
22 | self.array.exists_one(e, e > 4)
21 | !self.array.all(e, e < 2)
52 | !self.array.exists(e, e < 0)
25 | !self.array.exists_one(e, e == 2)
68 | size(self.array.filter(e, e%2 == 0)) == 3
194 | self.array.map(e, e * 20).filter(e, e > 50).exists(e, e == 60)
3 | has(self.a1.b1.c1)
3 | !(has(self.a1.d2) && has(self.a1.d2.e2))
3 | !has(self.a1.d2)
5 | type(self) == type(self)
3 | optional.of('a') != optional.of('b')
2 | optional.of('a').hasValue()
2 | optional.of('a').or(optional.of('a')).hasValue()
3 | optional.none().or(optional.of('a')).hasValue()
5 | self.obj.?field == optional.of('a')
4 | self.obj.?field.orValue('v') == 'a'
5 | self.m[?'k'] == optional.of('v')
2 | optional.ofNonZeroValue(1).hasValue()
"""


@pytest.mark.parametrize("line", CHARGED.strip().splitlines())
def test_an_evaluation_costs_what_kubernetes_charges(line: str) -> None:
    cost, _, expression = line.partition(" | ")
    outcome = compile(expression, Declarations({"self": SELF})).run({"self": DATA})
    assert (outcome.value, outcome.cost) == (True, int(cost))


ESTIMATED = """
37 41 | {'a': 1, 'b': 2}.all(k, v, v > 0)
39 43 | {'a': 1, 'b': 2}.exists(k, v, v > 0)
38 40 | {'a': 1, 'b': 2}.existsOne(k, v, v > 0)
71 71 | {'a': 1, 'b': 2}.transformMap(k, v, v + 1)
67 75 | {'a': 1, 'b': 2}.transformMap(k, v, v < 5, v + 1)
131 131 | {'a': 1, 'b': 2}.transformMapEntry(k, v, {k: v + 1})
67 135 | {'a': 1, 'b': 2}.transformMapEntry(k, v, v < 5, {k: v + 1})
17 21 | [1, 2].all(i, v, v > 0)
19 23 | [1, 2].exists(i, v, v > 0)
18 20 | [1, 2].existsOne(i, v, v > 0)
49 49 | [1, 2].transformList(i, v, v + 1)
27 53 | [1, 2].transformList(i, v, v < 5, v + 1)
15 15 | [1, 2, 3, 4, 5].sum()
20 20 | [uint(1), uint(2), uint(3), uint(4), uint(5)].sum()
15 15 | [false, true, false, true, false].isSorted()
15 15 | [1, 2, 3, 4, 5].indexOf(3)
5 5 | '01234567890123456789012345678901234567890123456789'.indexOf('123')
4 4 | url('https:://kubernetes.io/').getScheme()
2 2 | ip('192.168.0.1')
4 4 | ip('2001:db8:3333:4444:5555:6666:7777:8888')
3 3 | ip('192.168.0.1').family()
5 5 | ip('192.168.0.1') == ip('192.168.0.1')
3 3 | ip.isCanonical('192.168.0.1')
3 3 | cidr('192.168.0.0/16').masked()
7 11 | cidr('192.168.0.0/16').containsCIDR('192.0.0.0/30')
3 3 | 'ABCDEFGHIJ abcdefghij'.lowerAscii()
7 9 | 'ABCDEFGHIJ abcdefghij'.lowerAscii() == 'abcdefghij ABCDEFGHIJ'.lowerAscii()
3 3 | strings.quote('ABCDEFGHIJ abcdefghij')
3 3 | 'abc 123 def 123'.replace('123', '456')
3 3 | 'abc 123 def 123'.split(' ')
2 2 | 'abc 123 def 123'.substring(5, 8)
2 2 | 'abc 123 def 123'.find('123')
2 2 | 'abc 123 def 123'.findAll('123', 1)
1 1 | quantity('12Mi')
3 3 | quantity('200M') == quantity('200M')
3 6 | quantity('200M') == quantity('0.2G') && quantity('0.2G') == quantity('200M')
3 3 | quantity('50M').isLessThan(quantity('50Mi'))
7 7 | quantity('50k').add(20).sub(quantity('100k')).sub(-50000).asInteger() > 0
1 1 | format.named('dns1123subdomain')
21 21 | sets.contains([], [])
29 29 | sets.contains([1, 2, 3, 4], [2, 3])
39 39 | sets.equivalent([1, 2, 3], [3, 2, 1])
65 65 | sets.intersects([[1], [2, 3]], [[1, 2], [2, 3]])
4 4 | semver('1234.56789012345.67890123456789')
3 3 | semver('1.0.0').compareTo(semver('1.2.3'))
2 2 | authorizer.path('/healthz')
6 6 | authorizer.group('apps').resource('deployments').subresource('status').namespace('test').name('backend')
350003 350003 | authorizer.path('/healthz').check('get').allowed()
"""


@pytest.mark.parametrize("line", ESTIMATED.strip().splitlines())
def test_an_expression_is_estimated_as_kubernetes_does(line: str) -> None:
    from fleetplane.model.cel.library.authorization import AUTHORIZER

    bounds, _, expression = line.partition(" | ")
    program = compile(expression, Declarations({"authorizer": AUTHORIZER}), result=None)
    assert f"{program.cost.least} {program.cost.most}" == bounds


def most(schema: Any, expression: str) -> int:
    return compile(expression, Declarations({"self": typed(schema)})).cost.most


def maps(values: Any, **more: Any) -> dict[str, Any]:
    return {"type": "object", "additionalProperties": values, **more}


def text(most: int | None = None) -> dict[str, Any]:
    return TEXT if most is None else {"type": "string", "maxLength": most}


REAL = {"type": "number"}
FLAG = {"type": "boolean"}
DAY = {"type": "string", "format": "date"}
TIME = {"type": "string", "format": "date-time"}
SPAN = {"type": "string", "format": "duration"}
EITHER = {"x-kubernetes-int-or-string": True}


@pytest.mark.parametrize(
    ("schema", "expression", "cost"),
    [
        (lists(REAL), "self.all(x, true)", 4718591),
        (lists(REAL, maxItems=10), "self.all(x, true)", 32),
        (lists(TEXT), "self.all(x, true)", 3145727),
        (lists(FLAG), "self.all(x, true)", 1887437),
        (lists(lists(REAL)), "self.all(x, true)", 3145727),
        (maps(REAL), "self.all(x, true)", 1348169),
        (maps(TEXT), "self.all(x, true)", 1179647),
        (maps(FLAG), "self.all(x, true)", 943718),
        (lists(EITHER), "self.all(x, true)", 4718591),
        (lists(SPAN), "self.all(x, true)", 2359295),
        (lists(DAY), "self.all(x, true)", 725936),
        (lists(TIME), "self.all(x, true)", 428963),
        (maps(SPAN), "self.all(x, true)", 1048577),
        (maps(DAY), "self.all(x, true)", 524288),
        (maps(TIME), "self.all(x, true)", 349526),
        (maps(maps(REAL)), "self.all(x, true)", 1179647),
        (TEXT, "self.contains('test')", 314574),
        (text(10), "self.contains('test')", 5),
        (TEXT, "self.startsWith('test')", 2),
        (TEXT, 'size(self + "hello") > size("hello")', 314578),
        (text(4), 'size(self + "hello") > size("hello")', 7),
        (lists(REAL), "self[1] == 0.0", 2),
        (lists(TEXT), "self[1] == self[1]", 314577),
        (lists(REAL, maxItems=10), "self.all(x, self.all(y, true))", 352),
        (lists(REAL, maxItems=10), "self.all(x, self.all(y, self.all(z, true)))", 3552),
        (TEXT, 'self.matches("x")', 314574),
        (text(50), 'self.matches("x")', 22),
        (TEXT, '"".matches("(((((((((())))))))))[0-9]")', 7),
        (TEXT, 'self.matches("")', 1),
        (maps(text(10), maxProperties=10), "self.all(x, x.contains(self[x]))", 72),
        (maps(TEXT), "self.all(x, x.contains(self[x]))", 2752507),
        (TEXT, 'self == "x"', 2),
        (text(0), 'self == "x"', 1),
        (lists(REAL), "self.all(x, x == 0.0)", 6291454),
        (lists(EITHER), "self[0] == 5", 3),
        (lists(FLAG), "self[0] == false", 2),
        (lists(objects(a=TEXT)), "self[0] == null", 2),
        (lists(lists(REAL)), "self[0][0] == -1.0", 3),
        (lists(maps(REAL)), "self.all(x, x.y == 25.2)", 6291452),
        (lists(maps(REAL)), "self[0].x > 2.0", 4),
        (lists(SPAN), "self[0].getHours() == 2", 4),
        (TEXT, "self.find('[0-9]+') == ''", 629147),
        (text(10), "self.find('[0-9]+') == ''", 11),
        (lists(TEXT), "self.join(' ') == 'aa bb'", 329853068905),
        (lists(text(10), maxItems=10), "self.join(' ') == 'aa bb'", 43),
        (lists(TEXT), "self.isSorted() == true", 329854432052),
        (lists(text(10), maxItems=10), "self.isSorted() == true", 52),
        (objects(s=TEXT, b=text(2), a=text(4)), "self.s.replace(self.b, self.a) == 'does not matter'", 629154),
        (objects(s=text(4), b=text(2), a=text(4)), "self.s.replace(self.b, self.a) == 'does not matter'", 12),
        (objects(s=TEXT, p=TEXT), "self.s.split(self.p) == []", 629160),
        (TEXT, "self.lowerAscii() == 'lower!'", 314575),
        (maps(TIME), 'self["a"] == self["b"]', 8),
        ({"type": "string", "enum": ["A", "LongValue"]}, "self.contains('A')", 2),
        (text(1000), "self.contains('A')", 401),
    ],
)
def test_a_rule_on_a_schema_is_estimated_as_kubernetes_does(schema: Any, expression: str, cost: int) -> None:
    assert most(schema, expression) == cost


def test_the_estimate_follows_the_limits_of_the_schema() -> None:
    """Given a list of at most ten strings of at most forty bytes, a walk over it is cheap."""
    bounded = lists({"type": "string", "maxLength": 10}, maxItems=10)
    assert most(bounded, "self.all(x, x.contains('ab'))") == 1 + 1 + 10 * (3 + 1 + 4 * 1)
    unbounded = lists(TEXT)
    assert most(unbounded, "self.all(x, x.contains('ab'))") > 10_000_000


def test_what_fits_into_a_request_bounds_lists_without_limits() -> None:
    assert most(lists(NUMBER), "self.all(x, x > 0)") == 1 + 1 + (3 * 1024 * 1024 - 2) // 2 * 5
    assert most(TEXT, "self == 'abcdefghijkl'") == 1 + 2
    assert (
        most({"type": "object", "additionalProperties": NUMBER}, "self.all(k, true)")
        == 2 + (3 * 1024 * 1024 - 2) // 7 * 3
    )


def test_an_evaluation_stops_at_its_limit() -> None:
    program = compile("self.array.all(e, e > 0)", Declarations({"self": SELF}))
    assert program.evaluate({"self": DATA}, cost_limit=43) is True
    with pytest.raises(CelCostExceeded, match="actual cost limit exceeded"):
        program.evaluate({"self": DATA}, cost_limit=42)


def test_or_does_not_swallow_the_limit() -> None:
    program = compile("self.array.all(e, e > 0) || true", Declarations({"self": SELF}))
    with pytest.raises(CelCostExceeded):
        program.evaluate({"self": DATA}, cost_limit=10)


def test_an_evaluation_can_be_interrupted() -> None:
    program = compile("lists.range(10000).all(x, x >= 0)", Declarations())
    assert program.evaluate({}, interrupted=lambda: False) is True
    with pytest.raises(CelCostExceeded, match="took too long"):
        program.evaluate({}, interrupted=lambda: True)


def test_libraries_can_be_left_out() -> None:
    declarations = Declarations(functions=functions_of("standard"))
    assert compile("size('a') == 1", declarations).evaluate({})
    with pytest.raises(Exception, match="undeclared reference to 'quantity'"):
        compile("quantity('1') == quantity('1')", declarations)
