"""Rules of custom resources, as their authors write them: compiled against a schema, run on data."""

from __future__ import annotations

from typing import Any

import pytest

from fleetplane.model import cel
from fleetplane.model.cel import (
    CelCompileError,
    CelError,
    Declarations,
    compile,
    escape,
    type_from_schema,
    unescape,
)

TEXT = {"type": "string"}
NUMBER = {"type": "integer"}

SCALER = {
    "type": "object",
    "properties": {
        "minReplicas": NUMBER,
        "replicas": NUMBER,
        "maxReplicas": NUMBER,
        "x-dash": NUMBER,
        "namespace": TEXT,
        "ratio": {"type": "number"},
        "port": {"x-kubernetes-int-or-string": True},
        "created": {"type": "string", "format": "date-time"},
        "day": {"type": "string", "format": "date"},
        "timeout": {"type": "string", "format": "duration"},
        "secret": {"type": "string", "format": "byte"},
        "tags": {"type": "array", "items": TEXT, "x-kubernetes-list-type": "set"},
        "labels": {"type": "object", "additionalProperties": TEXT},
        "ports": {
            "type": "array",
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["name"],
            "items": {"type": "object", "properties": {"name": TEXT, "port": NUMBER}},
        },
        "ratios": {"type": "array", "items": {"type": "number"}},
        "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
        "anything": {"x-kubernetes-preserve-unknown-fields": True},
        "nullable": {"type": "string", "nullable": True},
        "template": {"type": "object", "x-kubernetes-embedded-resource": True},
    },
}
DATA = {
    "minReplicas": 1,
    "replicas": 3,
    "maxReplicas": 5,
    "x-dash": 7,
    "namespace": "default",
    "ratio": 1,
    "port": "25%",
    "created": "2024-01-02T03:04:05.5+01:00",
    "day": "2024-02-29",
    "timeout": "90m",
    "secret": "aGk=",
    "tags": ["a", "b"],
    "labels": {"app": "web", "tier": "front"},
    "ports": [{"name": "http", "port": 80}, {"name": "https", "port": 443}],
    "ratios": [1, 2.5],
    "free": {"x": 1},
    "nullable": None,
    "template": {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "n"}},
}


def rule(expression: str, data: Any = DATA, schema: Any = SCALER) -> Any:
    kind = type_from_schema(schema)
    assert kind is not None
    return compile(expression, Declarations({"self": kind})).evaluate({"self": data})


@pytest.mark.parametrize(
    "expression",
    [
        "self.minReplicas <= self.replicas && self.replicas <= self.maxReplicas",
        "self.x__dash__dash == 7 && self.__namespace__ == 'default' && self.namespace == 'default'",
        "self.`x-dash` == 7",
        "self.ratio / 2.0 == 0.5 && type(self.ratio) == double",
        "type(self.port) == string && self.port.endsWith('%')",
        "type(self.port) == int ? self.port < 5 : self.port.matches('^[0-9]+%$')",
        "self.created.getHours() == 2 && self.created.getHours('+01:00') == 3",
        "self.created < timestamp('2025-01-01T00:00:00Z')",
        "self.day.getDate() == 29",
        "self.timeout == duration('1h30m') && self.timeout.getMinutes() == 90",
        "self.secret == b'hi' && size(self.secret) == 2",
        "self.tags == ['b', 'a'] && self.tags + ['b', 'c'] == ['c', 'b', 'a']",
        "self.ports == [self.ports[1], self.ports[0]]",
        "self.ports.all(p, p.port > 0 && p.name.size() < 10)",
        "self.ports.exists_one(p, p.name == 'http')",
        "self.ports.map(p, p.port) == [80, 443]",
        "'app' in self.labels && self.labels.app == 'web' && self.labels['tier'] == 'front'",
        "self.labels.all(key, self.labels[key] != '')",
        "self.ratios.all(r, type(r) == double) && self.ratios[0] + 0.5 == 1.5",
        "!has(self.nullable) && has(self.replicas) && !has(self.labels.missing)",
        "self.template.metadata.name == 'p' && self.template.kind == 'Pod'",
        "has(self.free)",
        "self.?replicas.orValue(0) == 3 && !self.?nullable.hasValue()",
        "self.labels[?'app'].orValue('') == 'web' && !self.labels[?'none'].hasValue()",
    ],
)
def test_a_rule_that_holds(expression: str) -> None:
    assert rule(expression) is True


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("self.replica > 1", "ERROR: <input>:1:5: undefined field 'replica'\n | self.replica > 1\n | ....^"),
        (
            "self.replicas",
            "ERROR: <input>:1:5: must evaluate to bool, but evaluates to int\n | self.replicas\n | ....^",
        ),
        (
            "self.replicas + 'x' == ''",
            "ERROR: <input>:1:15: found no matching overload for '_+_' applied to '(int, string)'\n"
            " | self.replicas + 'x' == ''\n | ..............^",
        ),
        (
            "has(self.free.x)",
            "ERROR: <input>:1:4: undefined field 'x'\n | has(self.free.x)\n | ...^",
        ),
        ("self.anything == 1", "ERROR: <input>:1:5: undefined field 'anything'\n | self.anything == 1\n | ....^"),
        (
            "self.template.metadata.namespace == ''",
            "ERROR: <input>:1:23: undefined field 'namespace'\n"
            " | self.template.metadata.namespace == ''\n | ......................^",
        ),
        (
            "foo.bar && baz(1)",
            "ERROR: <input>:1:1: undeclared reference to 'foo' (in container '')\n | foo.bar && baz(1)\n | ^\n"
            "ERROR: <input>:1:15: undeclared reference to 'baz' (in container '')\n"
            " | foo.bar && baz(1)\n | ..............^",
        ),
        (
            "self.replicas.foo",
            "ERROR: <input>:1:14: type 'int' does not support field selection\n | self.replicas.foo\n | .............^",
        ),
        (
            "[1, 'a'].size() == 2",
            "ERROR: <input>:1:5: expected type 'int' but found 'string'\n | [1, 'a'].size() == 2\n | ....^",
        ),
        (
            "self.labels.app.startsWith(1)",
            "ERROR: <input>:1:27: found no matching overload for 'startsWith' applied to 'string.(int)'\n"
            " | self.labels.app.startsWith(1)\n | ..........................^",
        ),
        (
            "true &&\n  self.nope",
            "ERROR: <input>:2:7: undefined field 'nope'\n |   self.nope\n | ......^",
        ),
    ],
)
def test_a_rule_that_does_not_compile_says_where_and_why(expression: str, message: str) -> None:
    with pytest.raises(CelCompileError) as caught:
        rule(expression)
    assert str(caught.value) == message


@pytest.mark.parametrize("argument", ["duration('1 hour')", "timestamp('today')", "'a'.matches('(')"])
def test_a_literal_that_can_never_be_right_does_not_compile(argument: str) -> None:
    with pytest.raises(CelCompileError, match=r"invalid (duration|timestamp|matches) argument"):
        compile(f"type({argument}) == int", Declarations())


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("self.labels.none == ''", "no such key: none"),
        ("self.nullable == ''", "no such key: nullable"),
        ("self.tags[5] == ''", "index out of bounds: 5"),
        ("self.replicas / (self.replicas - 3) == 1", "division by zero"),
        ("self.replicas % (self.replicas - 3) == 1", "modulus by zero"),
        ("self.replicas * 9223372036854775807 > 0", "integer overflow"),
        ("int(self.port) == 1", "type conversion error from 'string' to 'int': it is not a decimal number"),
        ("optional.none().value() == 1", "optional.none() dereference"),
    ],
)
def test_a_rule_that_fails_says_why(expression: str, message: str) -> None:
    with pytest.raises(CelError) as caught:
        rule(expression)
    assert str(caught.value) == message


def test_a_rule_that_reads_the_old_value_is_a_transition_rule() -> None:
    kind = type_from_schema(SCALER)
    assert kind is not None
    declarations = Declarations({"self": kind, "oldSelf": kind})
    assert compile("self.replicas >= oldSelf.replicas", declarations).uses("oldSelf")
    assert not compile("[1].all(oldSelf, oldSelf > 0) && self.replicas > 0", declarations).uses("oldSelf")


def test_data_that_breaks_its_schema_is_an_error_and_not_a_crash() -> None:
    with pytest.raises(CelError, match="no such overload"):
        rule("self.replicas < 5", {"replicas": "three"})
    with pytest.raises(CelError):
        rule("self.labels.app == 'x'", {"labels": 5})
    with pytest.raises(CelError, match=r"no such attribute\(s\): self"):
        compile("self > 1", Declarations({"self": type_from_schema(NUMBER) or pytest.fail()})).evaluate({})


def test_the_root_of_a_resource_shows_its_names_only() -> None:
    kind = type_from_schema({"type": "object", "properties": {"spec": {"type": "object"}}}, is_resource=True)
    assert kind is not None
    declarations = Declarations({"self": kind})
    resource = {"apiVersion": "a/v1", "kind": "A", "metadata": {"name": "n", "labels": {}}}
    assert compile("self.metadata.name == 'n' && self.kind == 'A'", declarations).evaluate({"self": resource})
    with pytest.raises(CelCompileError, match="undefined field 'labels'"):
        compile("size(self.metadata.labels) == 0", declarations)


def test_what_a_schema_does_not_describe_has_no_type() -> None:
    assert type_from_schema({"x-kubernetes-preserve-unknown-fields": True}) is None
    assert type_from_schema({"type": "array"}) is None
    assert type_from_schema({"type": "object", "additionalProperties": {}}) is None


def test_names_are_escaped_and_back() -> None:
    for name, identifier in {
        "plain": "plain",
        "x-dash": "x__dash__dash",
        "a.b/c": "a__dot__b__slash__c",
        "two__lines": "two__underscores__lines",
        "namespace": "__namespace__",
        "true": "__true__",
    }.items():
        assert (escape(name), unescape(identifier)) == (identifier, name)
    assert escape("1st") is None
    assert escape("a b") is None


def test_the_public_names_are_these() -> None:
    assert sorted(cel.__all__) == [
        *("BOOL", "CelCompileError", "CelCostExceeded", "CelError", "DYN", "Declarations", "INT", "Issue"),
        *("LazyVariables", "Outcome", "Program", "STRING", "Type", "compile", "escape", "optional_of"),
        *("type_from_schema", "unescape", "variables_type"),
    ]
