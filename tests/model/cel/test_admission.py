"""Expressions of admission policies: their variables, the authorizer, mutations."""

from __future__ import annotations

from typing import Any

import pytest

from fleetplane.model.cel import (
    DYN,
    CelCompileError,
    CelCostExceeded,
    CelError,
    Declarations,
    LazyVariables,
    Program,
    Type,
    compile,
    optional_of,
    type_from_schema,
)
from fleetplane.model.cel.admission import match_declarations, mutation_declarations, policy_declarations
from fleetplane.model.cel.library.authorization import (
    RESOURCE_CHECK,
    AuthorizationCheck,
    AuthorizationDecision,
    Authorizer,
)
from fleetplane.model.cel.values import NONE, some

REQUEST: dict[str, Any] = {
    "operation": "UPDATE",
    "kind": {"group": "apps", "version": "v1", "kind": "Deployment"},
    "userInfo": {"username": "ann", "groups": ["dev", "system:authenticated"]},
    "namespace": "shop",
}
DEPLOYMENT = {"metadata": {"name": "web", "namespace": "shop", "labels": {"env": "prod"}}, "spec": {"replicas": 7}}


def inputs(**more: Any) -> dict[str, Any]:
    return {
        "object": DEPLOYMENT,
        "oldObject": None,
        "request": REQUEST,
        "params": None,
        "namespaceObject": {"metadata": {"name": "shop", "labels": {"tier": "gold"}}},
        **more,
    }


@pytest.mark.parametrize(
    "expression",
    [
        "object.spec.replicas <= 10 && object.metadata.namespace == request.namespace",
        "oldObject == null || object.spec.replicas >= oldObject.spec.replicas",
        "request.operation in ['CREATE', 'UPDATE'] && request.kind.kind == 'Deployment'",
        "!request.userInfo.groups.exists(g, g == 'system:masters')",
        "namespaceObject.metadata.labels.tier == 'gold' && params == null",
        "object.metadata.?labels[?'env'].orValue('') == 'prod'",
        "!has(object.spec.template) && has(request.userInfo)",
        "!('exclude' in object.metadata.labels)",
    ],
)
def test_a_policy_that_holds(expression: str) -> None:
    assert compile(expression, policy_declarations()).evaluate(inputs()) is True


def test_a_misspelt_field_of_the_request_is_found_when_compiling() -> None:
    with pytest.raises(CelCompileError, match="undefined field 'verb'"):
        compile("request.verb == 'x'", match_declarations())


class Policy:
    """The variables of a policy, compiled in their order."""

    def __init__(self, **sources: str) -> None:
        self.programs: dict[str, Program] = {}
        self.types: dict[str, Type] = {}
        for name, source in sources.items():
            self.programs[name] = compile(source, policy_declarations(self.types), result=None)
            self.types[name] = self.programs[name].result

    def evaluate(self, expression: str, *, cost_limit: int = 1000) -> tuple[Any, LazyVariables]:
        lazy = LazyVariables(self.programs, inputs(), cost_limit=cost_limit)
        return compile(expression, policy_declarations(self.types)).evaluate(inputs(variables=lazy)), lazy


def test_variables_are_computed_when_read_and_once() -> None:
    """Given a variable on another and one that fails, only what is read is computed, and paid, once."""
    policy = Policy(
        replicas="object.spec.replicas",
        twice="variables.replicas * 2",
        broken="object.spec.nothing",
    )
    result, lazy = policy.evaluate("variables.twice == 14 && variables.twice > variables.replicas")
    assert result is True
    assert lazy.cost == 3 + 3


def test_a_variable_that_fails_says_its_name() -> None:
    with pytest.raises(CelError, match="composited variable 'broken' fails to evaluate: no such key: nothing"):
        Policy(broken="object.spec.nothing").evaluate("variables.broken == 1")


def test_variables_have_types() -> None:
    with pytest.raises(CelCompileError, match="undefined field 'later'"):
        Policy(first="variables.later")
    with pytest.raises(CelCompileError, match="found no matching overload"):
        Policy(name="string(object.metadata.name)").evaluate("variables.name > 5")


def test_variables_count_against_their_limit() -> None:
    with pytest.raises(CelCostExceeded):
        Policy(long="lists.range(1000).map(x, x)").evaluate("variables.long.size() == 1 || true")


def test_the_authorizer_asks_the_server() -> None:
    asked: list[AuthorizationCheck] = []

    def authorize(check: AuthorizationCheck, /) -> AuthorizationDecision:
        asked.append(check)
        return AuthorizationDecision(check.verb == "get", reason="because")

    authorizer = Authorizer(authorize)
    values = inputs(authorizer=authorizer)
    values["authorizer.requestResource"] = authorizer.with_(RESOURCE_CHECK, resource="pods", namespace="shop")

    def run(expression: str) -> Any:
        return compile(expression, match_declarations(), result=None).evaluate(values)

    assert run("authorizer.group('apps').resource('deployments').namespace('x').name('y').check('get').allowed()")
    assert asked[-1] == AuthorizationCheck("get", group="apps", resource="deployments", namespace="x", name="y")
    assert run("authorizer.path('/healthz').check('post').reason()") == "because"
    assert asked[-1] == AuthorizationCheck("post", path="/healthz")
    assert run("authorizer.serviceAccount('a', 'b').group('').resource('pods').check('list').allowed()") is False
    assert asked[-1] == AuthorizationCheck("list", resource="pods", service_account=("a", "b"))
    assert run("authorizer.requestResource.subresource('log').check('get').errored()") is False
    assert asked[-1] == AuthorizationCheck("get", resource="pods", subresource="log", namespace="shop")
    with pytest.raises(CelError, match="path must not be empty"):
        run("authorizer.path(' ').check('get').allowed()")


def test_one_evaluation_affords_two_checks_only() -> None:
    def allow(check: AuthorizationCheck, /) -> AuthorizationDecision:
        return AuthorizationDecision(allowed=True)

    checks = " && ".join(["authorizer.path('/x').check('get').allowed()"] * 3)
    with pytest.raises(CelCostExceeded):
        compile(checks, match_declarations()).evaluate(inputs(authorizer=Authorizer(allow)))


def test_a_mutation_builds_an_object() -> None:
    expression = (
        "Object{metadata: Object.metadata{labels: {'a': 'b'}}, spec: Object.spec{replicas: object.spec.replicas + 1}}"
    )
    program = compile(expression, mutation_declarations(), result=None)
    assert program.evaluate(inputs()) == {"metadata": {"labels": {"a": "b"}}, "spec": {"replicas": 8}}


def test_a_mutation_builds_patches() -> None:
    expression = """[JSONPatch{op: 'add', path: '/metadata/labels/' + jsonpatch.escapeKey('a/b'), value: 'x'}]"""
    program = compile(expression, mutation_declarations(), result=None)
    assert program.evaluate(inputs()) == [{"op": "add", "path": "/metadata/labels/a~1b", "value": "x"}]
    with pytest.raises(CelCompileError, match="undefined field 'verb'"):
        compile("JSONPatch{verb: 'add'}", mutation_declarations(), result=None)
    with pytest.raises(CelCompileError, match="expected type of field 'op' is 'string' but provided type is 'int'"):
        compile("JSONPatch{op: 1}", mutation_declarations(), result=None)
    with pytest.raises(CelCompileError, match="undeclared reference to 'Other'"):
        compile("Other{op: 1}", mutation_declarations(), result=None)


def test_an_optional_old_value_is_absent_on_create() -> None:
    kind = type_from_schema({"type": "object", "properties": {"day": {"type": "string", "format": "date"}}})
    assert kind is not None
    declarations = Declarations({"self": kind, "oldSelf": optional_of(kind)})
    rule = compile("oldSelf.optMap(old, old.day <= self.day).orValue(true)", declarations)
    assert rule.uses("oldSelf")
    assert rule.evaluate({"self": {"day": "2024-01-02"}, "oldSelf": NONE}) is True
    assert rule.evaluate({"self": {"day": "2024-01-02"}, "oldSelf": some({"day": "2024-01-03"})}) is False


def test_an_old_value_of_a_scalar_is_converted_too() -> None:
    kind = type_from_schema({"type": "string", "format": "date-time"})
    assert kind is not None
    declarations = Declarations({"self": kind, "oldSelf": optional_of(kind)})
    rule = compile("oldSelf.optMap(old, old < self).orValue(false)", declarations)
    assert rule.evaluate({"self": "2024-01-02T00:00:00Z", "oldSelf": some("2024-01-01T00:00:00+05:00")}) is True


def test_a_message_may_be_of_any_wanted_type() -> None:
    declarations = Declarations({"object": DYN})
    message = compile("'replicas is ' + string(object.spec.replicas)", declarations, result=None)
    assert message.evaluate({"object": DEPLOYMENT}) == "replicas is 7"
