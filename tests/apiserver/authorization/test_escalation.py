"""Nobody gives away what they do not have."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from fleetplane.apiserver.authorization.attributes import NO_OPINION, Attributes, Decision, Verdict
from fleetplane.apiserver.authorization.defaults import default_objects
from fleetplane.apiserver.authorization.escalation import check
from fleetplane.apiserver.authorization.rbac import CLUSTER_ROLE_BINDINGS, CLUSTER_ROLES, ROLE_BINDINGS, RbacIndex
from fleetplane.apiserver.authorization.rules import Rule, allows_path, allows_resource, uncovered
from fleetplane.model.admission import AdmissionRequest
from fleetplane.model.errors import ApiError
from fleetplane.model.resources import ResourceType
from fleetplane.model.user import UserInfo

Obj = dict[str, Any]
BOB = UserInfo("bob", groups=("dev", "system:authenticated"))
PODS = {"verbs": ["get", "list"], "apiGroups": [""], "resources": ["pods"]}


def index(*rules: Obj) -> RbacIndex:
    made = RbacIndex(default_objects())
    made.apply_event("root", {"kind": "ClusterRole", "metadata": {"name": "has"}, "rules": list(rules)}, deleted=False)
    made.apply_event(
        "root",
        {
            "kind": "ClusterRoleBinding", "metadata": {"name": "b"},
            "roleRef": {"kind": "ClusterRole", "name": "has"}, "subjects": [{"kind": "User", "name": "bob"}],
        },
        deleted=False,
    )  # fmt: skip
    return made


def writing(
    resource: ResourceType,
    new: Obj,
    known: RbacIndex,
    *,
    user: UserInfo = BOB,
    old: Obj | None = None,
    namespace: str = "",
) -> ApiError | None:
    operation: Any = "UPDATE" if old else "CREATE"
    new = {"metadata": {"name": "new"}, **new}
    request = AdmissionRequest(operation, resource, user, new, old, namespace, "new")
    return check(request, known, known.authorize, "root")


def role(*rules: Obj, **more: Any) -> Obj:
    return {"rules": list(rules), **more}


def bind(name: str, kind: str = "ClusterRole") -> Obj:
    return {"roleRef": {"kind": kind, "name": name}, "subjects": []}


def test_what_one_holds_one_may_grant() -> None:
    assert writing(CLUSTER_ROLES, role({**PODS, "verbs": ["get"]}), index(PODS)) is None
    assert writing(CLUSTER_ROLE_BINDINGS, bind("has"), index(PODS)) is None


def test_what_is_missing_is_named_in_kubernetes_words() -> None:
    wanted = role(
        {"verbs": ["get", "delete"], "apiGroups": [""], "resources": ["pods", "secrets"]},
        {"verbs": ["get"], "nonResourceURLs": ["/metrics"]},
    )

    refused = writing(CLUSTER_ROLES, wanted, index(PODS))

    assert refused is not None
    assert refused.code == 403
    assert refused.message == (
        'clusterroles.rbac.authorization.k8s.io "new" is forbidden: user "bob" (groups=["dev" "system:authenticated"]) '
        "is attempting to grant RBAC permissions not currently held:\n"
        '{APIGroups:[""], Resources:["pods"], Verbs:["delete"]}\n'
        '{APIGroups:[""], Resources:["secrets"], Verbs:["get" "delete"]}\n'
        '{NonResourceURLs:["/metrics"], Verbs:["get"]}'
    )


def test_a_binding_is_held_to_the_rules_of_its_role() -> None:
    refused = writing(CLUSTER_ROLE_BINDINGS, bind("cluster-admin"), index(PODS))

    assert refused is not None
    assert "not currently held" in refused.message


def test_the_verbs_escalate_and_bind_allow_more() -> None:
    rbac = {"apiGroups": ["rbac.authorization.k8s.io"], "resources": ["clusterroles"]}

    assert writing(CLUSTER_ROLES, role(PODS), index({**rbac, "verbs": ["escalate"]})) is None
    assert (
        writing(
            ROLE_BINDINGS, bind("admin"), index({**rbac, "verbs": ["bind"], "resourceNames": ["admin"]}), namespace="a"
        )
        is None
    )
    assert writing(
        ROLE_BINDINGS,
        bind("cluster-admin"),
        index({**rbac, "verbs": ["bind"], "resourceNames": ["admin"]}),
        namespace="a",
    )


def test_a_missing_role_is_not_found() -> None:
    refused = writing(CLUSTER_ROLE_BINDINGS, bind("none"), index(PODS))

    assert refused is not None
    assert refused.code == 404


def test_an_aggregation_rule_takes_everything() -> None:
    gathers = role(aggregationRule={"clusterRoleSelectors": [{"matchLabels": {"x": "y"}}]})
    everything = ({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}, {"verbs": ["*"], "nonResourceURLs": ["*"]})

    refused = writing(CLUSTER_ROLES, gathers, index(PODS))

    assert refused is not None
    assert refused.message.endswith("must have cluster-admin privileges to use the aggregationRule")
    assert writing(CLUSTER_ROLES, gathers, index(*everything)) is None


def test_masters_and_housekeeping_pass() -> None:
    old = {"metadata": {"name": "new", "finalizers": ["x"]}, **role(PODS)}
    new = {"metadata": {"name": "new"}, **role(PODS)}

    assert writing(CLUSTER_ROLES, role(PODS), index(), user=UserInfo("r", groups=("system:masters",))) is None
    assert writing(CLUSTER_ROLES, new, index(), old=old) is None
    assert writing(CLUSTER_ROLES, {**new, **role(PODS, PODS)}, index(), old=old) is not None


# --- covering means: whatever the wanted rules allow, the owned rules allow -------------------------------------------

some = st.lists
RULE = st.one_of(
    st.builds(
        Rule,
        some(st.sampled_from(["get", "list", "*"]), min_size=1, max_size=2).map(tuple),
        some(st.sampled_from(["", "apps", "*"]), min_size=1, max_size=2).map(tuple),
        some(st.sampled_from(["pods", "pods/log", "*/log", "*"]), min_size=1, max_size=2).map(tuple),
        some(st.sampled_from(["x", "y"]), max_size=2).map(tuple),
    ),
    st.builds(
        lambda verbs, urls: Rule(verbs=tuple(verbs), urls=tuple(urls)),
        some(st.sampled_from(["get", "*"]), min_size=1, max_size=1),
        some(st.sampled_from(["/a", "/a/*", "*"]), min_size=1, max_size=2),
    ),
)


@settings(max_examples=200, deadline=None)
@given(some(RULE, max_size=3), some(RULE, max_size=3))
def test_covered_rules_allow_nothing_new(owned: list[Rule], wanted: list[Rule]) -> None:
    if uncovered(owned, wanted):
        return
    for verb in ("get", "list", "other"):
        for resource, subresource in (("pods", ""), ("pods", "log"), ("nodes", "log"), ("nodes", "")):
            for group in ("", "apps", "batch"):
                for name in ("", "x", "y", "z"):
                    question = (verb, group, resource, subresource, name)
                    if any(allows_resource(one, *question) for one in wanted):
                        assert any(allows_resource(one, *question) for one in owned)
        for path in ("/a", "/a/b", "/c"):
            if any(allows_path(one, verb, path) for one in wanted):
                assert any(allows_path(one, verb, path) for one in owned)


@given(some(RULE, max_size=3))
def test_everybody_covers_themselves(rules: list[Rule]) -> None:
    assert uncovered(rules, rules) == []


def test_the_authorizer_is_asked_with_the_any_version() -> None:
    asked: list[Attributes] = []

    def authorize(a: Attributes) -> Decision:
        asked.append(a)
        return Decision(Verdict.ALLOW) if a.verb == "escalate" else NO_OPINION

    request = AdmissionRequest(
        "CREATE", CLUSTER_ROLES, BOB, {"metadata": {"name": "new"}, **role(PODS)}, None, "", "new"
    )

    assert check(request, RbacIndex(), authorize, "c1") is None
    assert (asked[0].version, asked[0].cluster, asked[0].name) == ("*", "c1", "new")
