from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from fleetplane.model.objects import Object
from fleetplane.model.user import UserInfo
from fleetplane.testing.plane import TestServer

REGISTRATION = "/apis/admissionregistration.k8s.io/v1"
CONFIG_MAPS = "/api/v1/namespaces/default/configmaps"
DEPLOYMENTS = "/apis/apps/v1/namespaces/default/deployments"
MERGE = {"content-type": "application/merge-patch+json"}
RULE = {"operations": ["CREATE", "UPDATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"]}


async def policy(
    api: TestServer, *validations: Object, name: str = "p", actions: tuple[str, ...] = ("Deny",), **spec: Any
) -> None:
    """A policy and a binding of the same name; ``binding`` adds to the binding."""
    binding = spec.pop("binding", {})
    made = {"matchConstraints": {"resourceRules": [RULE]}, "validations": list(validations), **spec}
    code, answer = await api.call(
        "POST", f"{REGISTRATION}/validatingadmissionpolicies", {"metadata": {"name": name}, "spec": made}
    )
    assert code == 201, answer
    bound = {"policyName": name, "validationActions": list(actions), **binding}
    code, answer = await api.call(
        "POST", f"{REGISTRATION}/validatingadmissionpolicybindings", {"metadata": {"name": f"{name}-b"}, "spec": bound}
    )
    assert code == 201, answer


def config_map(name: str = "m", **data: str) -> Object:
    return {"metadata": {"name": name}, "data": data}


# -- validating ------------------------------------------------------------------------------------------------------


async def test_a_policy_refuses_what_does_not_hold(api: TestServer) -> None:
    await policy(api, {"expression": "object.data.size() < 2"})

    fine, _ = await api.call("POST", CONFIG_MAPS, config_map("a", x="1"))
    code, status = await api.call("POST", CONFIG_MAPS, config_map("b", x="1", y="2"))

    assert (fine, code) == (201, 422)
    assert status["message"] == (
        "configmaps \"b\" is forbidden: ValidatingAdmissionPolicy 'p' with binding 'p-b' denied request: "
        "failed expression: object.data.size() < 2"
    )
    assert status["reason"] == "Invalid"
    assert status["details"]["causes"][0]["message"].startswith("ValidatingAdmissionPolicy 'p'")


@pytest.mark.parametrize(
    ("validation", "code", "told"),
    [
        ({"message": "too much"}, 422, "denied request: too much"),
        ({"messageExpression": "'has ' + string(object.data.size())", "reason": "Forbidden"}, 403, "denied request: has 2"),
        ({"messageExpression": "string(object.nothing)", "message": "plain"}, 422, "denied request: plain"),
        ({"messageExpression": "'a\\nb'"}, 422, "denied request: failed expression: object.data.size() < 2"),
        ({"reason": "RequestEntityTooLarge"}, 413, "failed expression"),
    ],
)  # fmt: skip
async def test_messages_and_reasons(api: TestServer, validation: Object, code: int, told: str) -> None:
    await policy(api, {"expression": "object.data.size() < 2", **validation})

    answered, status = await api.call("POST", CONFIG_MAPS, config_map(x="1", y="2"))

    assert (answered, status["reason"]) == (code, validation.get("reason", "Invalid"))
    assert told in status["message"]


async def test_variables_are_shared_by_expressions(api: TestServer) -> None:
    await policy(
        api,
        {"expression": "variables.twice < 4", "messageExpression": "'twice is ' + string(variables.twice)"},
        variables=[
            {"name": "count", "expression": "object.data.size()"},
            {"name": "twice", "expression": "variables.count * 2"},
        ],
    )

    _, status = await api.call("POST", CONFIG_MAPS, config_map(x="1", y="2"))

    assert status["message"].endswith("denied request: twice is 4")


async def test_an_update_may_be_compared_with_what_was(api: TestServer) -> None:
    await policy(api, {"expression": "oldObject == null || object.data.x >= oldObject.data.x"})
    await api.call("POST", CONFIG_MAPS, config_map(x="2"))

    down, _ = await api.call("PATCH", f"{CONFIG_MAPS}/m", {"data": {"x": "1"}}, headers=MERGE)
    up, _ = await api.call("PATCH", f"{CONFIG_MAPS}/m", {"data": {"x": "3"}}, headers=MERGE)

    assert (down, up) == (422, 200)


async def test_the_namespace_the_user_and_their_rights_count(api: TestServer) -> None:
    await policy(api, {"expression": "namespaceObject.metadata.name == 'default'"}, name="where")
    await policy(api, {"expression": "request.userInfo.username == 'admin'"}, name="who")
    await policy(api, {"expression": "authorizer.requestResource.check('delete').allowed()"}, name="may")
    await api.call("POST", "/api/v1/namespaces", {"metadata": {"name": "other"}})

    fine, _ = await api.call("POST", CONFIG_MAPS, config_map())
    elsewhere, _ = await api.call("POST", "/api/v1/namespaces/other/configmaps", config_map())
    other = UserInfo("ann", groups=("system:masters",))
    somebody, _ = await api.call("POST", CONFIG_MAPS, config_map("n"), user=other)

    assert (fine, elsewhere, somebody) == (201, 422, 422)


async def test_match_conditions_take_requests_out(api: TestServer) -> None:
    await policy(
        api,
        {"expression": "false"},
        matchConditions=[{"name": "only-big", "expression": "has(object.data) && object.data.size() > 1"}],
    )

    small, _ = await api.call("POST", CONFIG_MAPS, config_map("a", x="1"))
    big, _ = await api.call("POST", CONFIG_MAPS, config_map("b", x="1", y="2"))

    assert (small, big) == (201, 422)


async def test_a_policy_may_warn_instead(api: TestServer) -> None:
    await policy(api, {"expression": "false", "message": "not nice"}, actions=("Warn", "Audit"))

    response = await api.respond("POST", CONFIG_MAPS, config_map())

    assert response.status == 201
    assert response.headers["Warning"] == (
        "299 - \"Validation failed for ValidatingAdmissionPolicy 'p' with binding 'p-b': not nice\""
    )


@pytest.mark.parametrize(("mode", "code"), [("Fail", 422), ("Ignore", 201)])
async def test_an_error_is_what_the_failure_policy_says(api: TestServer, mode: str, code: int) -> None:
    await policy(api, {"expression": "object.nothing == 1"}, failurePolicy=mode)

    answered, status = await api.call("POST", CONFIG_MAPS, config_map())

    assert answered == code
    if code != 201:
        assert "expression 'object.nothing == 1' resulted in error: no such key: nothing" in status["message"]


async def test_an_expensive_policy_is_stopped(api: TestServer) -> None:
    loop = "lists.range(1000).all(a, lists.range(1000).all(b, lists.range(1000).all(c, a + b + c >= 0)))"
    await policy(api, {"expression": loop})

    code, status = await api.call("POST", CONFIG_MAPS, config_map())

    assert code == 422
    assert "running out of cost budget" in status["message"]


async def test_bindings_choose_where_a_policy_holds(api: TestServer) -> None:
    chosen = {"matchResources": {"namespaceSelector": {"matchLabels": {"strict": "yes"}}}}
    await policy(api, {"expression": "false"}, binding=chosen)
    await api.call("POST", "/api/v1/namespaces", {"metadata": {"name": "s", "labels": {"strict": "yes"}}})

    free, _ = await api.call("POST", CONFIG_MAPS, config_map())
    strict, _ = await api.call("POST", "/api/v1/namespaces/s/configmaps", config_map())

    assert (free, strict) == (201, 422)


async def test_rules_may_name_and_exclude_objects(api: TestServer) -> None:
    rules = {
        "resourceRules": [{**RULE, "resourceNames": ["a", "b"]}],
        "excludeResourceRules": [{**RULE, "resourceNames": ["b"]}],
    }
    await policy(api, {"expression": "false"}, matchConstraints=rules)

    codes = [(await api.call("POST", CONFIG_MAPS, config_map(name)))[0] for name in ("a", "b", "c")]

    assert codes == [422, 201, 201]


async def test_a_policy_without_a_binding_does_nothing(api: TestServer) -> None:
    spec = {"matchConstraints": {"resourceRules": [RULE]}, "validations": [{"expression": "false"}]}
    await api.call("POST", f"{REGISTRATION}/validatingadmissionpolicies", {"metadata": {"name": "p"}, "spec": spec})

    code, _ = await api.call("POST", CONFIG_MAPS, config_map())

    assert code == 201


async def test_policies_are_not_held_against_policies(api: TestServer) -> None:
    everything = {"operations": ["*"], "apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*"]}
    await policy(api, {"expression": "false"}, matchConstraints={"resourceRules": [everything]})

    refused, _ = await api.call("POST", CONFIG_MAPS, config_map())
    removed, _ = await api.call("DELETE", f"{REGISTRATION}/validatingadmissionpolicies/p")
    allowed, _ = await api.call("POST", CONFIG_MAPS, config_map())

    assert (refused, removed, allowed) == (422, 200, 201)


# -- parameters ------------------------------------------------------------------------------------------------------

LIMIT = {"expression": "object.data.size() <= int(params.data.most)"}
PARAM_KIND = {"apiVersion": "v1", "kind": "ConfigMap"}
NOT_PARAMS = [{"name": "no-params", "expression": "!has(object.data.most)"}]


async def test_a_parameter_is_an_object_a_binding_names(api: TestServer) -> None:
    reference = {"name": "limit", "namespace": "kube-system", "parameterNotFoundAction": "Deny"}
    await policy(api, LIMIT, paramKind=PARAM_KIND, binding={"paramRef": reference})

    code, status = await api.call("POST", CONFIG_MAPS, config_map("a", x="1"))
    assert code == 422
    assert status["message"].endswith(
        "denied request: failed to configure binding: no params found for policy binding with `Deny` "
        "parameterNotFoundAction"
    )

    await api.call("DELETE", f"{REGISTRATION}/validatingadmissionpolicybindings/p-b")
    await api.call("POST", "/api/v1/namespaces/kube-system/configmaps", config_map("limit", most="1"))
    bound = {"policyName": "p", "validationActions": ["Deny"], "paramRef": reference}
    await api.call(
        "POST", f"{REGISTRATION}/validatingadmissionpolicybindings", {"metadata": {"name": "p-b"}, "spec": bound}
    )
    one, _ = await api.call("POST", CONFIG_MAPS, config_map("a", x="1"))
    two, _ = await api.call("POST", CONFIG_MAPS, config_map("b", x="1", y="2"))
    assert (one, two) == (201, 422)


async def test_all_parameters_of_a_selector_must_hold(api: TestServer) -> None:
    for name, most in (("wide", "9"), ("narrow", "1")):
        made = config_map(name, most=most)
        made["metadata"]["labels"] = {"limits": "yes"}
        await api.call("POST", "/api/v1/namespaces/kube-system/configmaps", made)
    reference = {
        "selector": {"matchLabels": {"limits": "yes"}},
        "namespace": "kube-system",
        "parameterNotFoundAction": "Deny",
    }
    await policy(api, LIMIT, paramKind=PARAM_KIND, binding={"paramRef": reference}, matchConditions=NOT_PARAMS)

    code, _ = await api.call("POST", CONFIG_MAPS, config_map("b", x="1", y="2"))

    assert code == 422


async def test_a_parameter_kind_nobody_serves_is_told(api: TestServer) -> None:
    await policy(
        api,
        {"expression": "true"},
        paramKind={"apiVersion": "example.com/v1", "kind": "Limit"},
        binding={"paramRef": {"name": "x", "parameterNotFoundAction": "Deny"}},
    )

    _, status = await api.call("POST", CONFIG_MAPS, config_map())

    assert status["message"].endswith(
        "failed to configure binding: paramKind kind `example.com/v1, Kind=Limit` not known"
    )


# -- written ---------------------------------------------------------------------------------------------------------


async def test_an_expression_that_makes_no_sense_is_refused(api: TestServer) -> None:
    spec = {
        "matchConstraints": {"resourceRules": [RULE]},
        "variables": [{"name": "v", "expression": "request.verb"}],
        "validations": [{"expression": "object.x ==", "messageExpression": "1"}],
    }

    code, status = await api.call(
        "POST", f"{REGISTRATION}/validatingadmissionpolicies", {"metadata": {"name": "p"}, "spec": spec}
    )

    assert code == 422
    fields = [one["field"] for one in status["details"]["causes"]]
    assert fields == [
        "spec.variables[0].expression",
        "spec.validations[0].expression",
        "spec.validations[0].messageExpression",
    ]
    assert "compilation failed: ERROR: <input>:1:" in status["details"]["causes"][1]["message"]


async def test_expressions_are_checked_against_the_kinds_they_name(api: TestServer) -> None:
    rule = {**RULE, "apiGroups": ["apps"], "resources": ["deployments"]}
    await policy(
        api,
        {"expression": "object.spec.replicas < 5 && object.metadata.labels.size() > 0 && oldObject == null"},
        {"expression": "object.spec.replica < 5"},
        matchConstraints={"resourceRules": [rule]},
    )

    status: Object = {}
    for _ in range(200):
        _, found = await api.call("GET", f"{REGISTRATION}/validatingadmissionpolicies/p")
        status = found.get("status") or {}
        if status.get("observedGeneration"):
            break
        await asyncio.sleep(0.01)

    (warning,) = status["typeChecking"]["expressionWarnings"]
    assert warning["fieldRef"] == "spec.validations[1].expression"
    assert warning["warning"].startswith("apps/v1, Kind=Deployment: ERROR: <input>:1:12: undefined field 'replica'")


# -- mutating --------------------------------------------------------------------------------------------------------


async def mutation(api: TestServer, *mutations: Object, name: str = "mp", **spec: Any) -> None:
    made = {
        "matchConstraints": {"resourceRules": [RULE]},
        "mutations": list(mutations),
        "reinvocationPolicy": "Never",
        **spec,
    }
    code, answer = await api.call(
        "POST", f"{REGISTRATION}/mutatingadmissionpolicies", {"metadata": {"name": name}, "spec": made}
    )
    assert code == 201, answer
    code, answer = await api.call(
        "POST",
        f"{REGISTRATION}/mutatingadmissionpolicybindings",
        {"metadata": {"name": f"{name}-b"}, "spec": {"policyName": name}},
    )
    assert code == 201, answer


def applying(expression: str) -> Object:
    return {"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": expression}}


def patching(expression: str) -> Object:
    return {"patchType": "JSONPatch", "jsonPatch": {"expression": expression}}


async def test_a_policy_changes_objects_by_applying_or_patching(api: TestServer) -> None:
    await mutation(
        api,
        applying("Object{metadata: Object.metadata{labels: {'team': 'blue'}}}"),
        patching("[JSONPatch{op: 'add', path: '/data/count', value: string(object.data.size())}]"),
    )
    made = config_map(x="1")
    made["metadata"]["labels"] = {"mine": "kept"}

    code, answer = await api.call("POST", CONFIG_MAPS, made)

    assert code == 201
    assert answer["metadata"]["labels"] == {"mine": "kept", "team": "blue"}
    assert answer["data"] == {"x": "1", "count": "1"}


async def test_lists_are_merged_as_server_side_apply_does(api: TestServer, pod: Callable[..., Object]) -> None:
    rule = {**RULE, "resources": ["pods"], "operations": ["CREATE"]}
    sidecar = "Object{spec: Object.spec{containers: [Object.spec.containers{name: 'side', image: 'i'}]}}"
    await mutation(api, applying(sidecar), matchConstraints={"resourceRules": [rule]})

    code, made = await api.call("POST", "/api/v1/namespaces/default/pods", pod())

    assert code == 201
    assert sorted(one["name"] for one in made["spec"]["containers"]) == ["c", "side"]
    side = next(one for one in made["spec"]["containers"] if one["name"] == "side")
    assert side["imagePullPolicy"] == "Always"
    assert side["volumeMounts"]


async def test_what_is_changed_is_validated_afterwards(api: TestServer) -> None:
    await mutation(api, applying("Object{data: {'x': 'changed'}}"))
    await policy(api, {"expression": "object.data.x == 'changed'"})

    code, _ = await api.call("POST", CONFIG_MAPS, config_map(x="1"))

    assert code == 201


async def test_a_mutation_may_not_rename(api: TestServer) -> None:
    await mutation(api, applying("Object{metadata: Object.metadata{name: 'other'}}"))

    code, status = await api.call("POST", CONFIG_MAPS, config_map())

    assert code == 422
    assert "MutatingAdmissionPolicy 'mp' with binding 'mp-b' denied request" in status["message"]
