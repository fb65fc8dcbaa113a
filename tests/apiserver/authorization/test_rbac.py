"""RBAC: the index gives the answers that the rules, read one by one, would give."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleetplane.apiserver.authorization.attributes import (
    EVERY_CLUSTER,
    Attributes,
    Decision,
    Verdict,
    first_of,
    forbidden,
)
from fleetplane.apiserver.authorization.defaults import default_objects
from fleetplane.apiserver.authorization.rbac import RbacIndex
from fleetplane.apiserver.authorization.rules import rules_of
from fleetplane.model.user import UserInfo, anonymous, service_account_user

Obj = dict[str, Any]


def role(name: str, *rules: Obj, namespace: str = "", labels: dict[str, str] | None = None, **more: Any) -> Obj:
    metadata: Obj = {"name": name, "labels": labels or {}}
    if namespace:
        metadata["namespace"] = namespace
    return {"kind": "Role" if namespace else "ClusterRole", "metadata": metadata, "rules": list(rules), **more}


def binding(name: str, kind: str, ref: str, *subjects: Obj, namespace: str = "") -> Obj:
    metadata = {"name": name, **({"namespace": namespace} if namespace else {})}
    kind_of_binding = "RoleBinding" if namespace else "ClusterRoleBinding"
    return {
        "kind": kind_of_binding,
        "metadata": metadata,
        "roleRef": {"kind": kind, "name": ref},
        "subjects": list(subjects),
    }


def user(name: str) -> Obj:
    return {"kind": "User", "name": name}


def rule(verbs: str, groups: str, resources: str, names: str = "") -> Obj:
    made: Obj = {
        "verbs": verbs.split(),
        "apiGroups": [g.strip('"') for g in groups.split()],
        "resources": resources.split(),
    }
    if names:
        made["resourceNames"] = names.split()
    return made


def index_of(*objs: Obj, defaults: bool = False) -> RbacIndex:
    index = RbacIndex(default_objects() if defaults else ())
    for obj in objs:
        index.apply_event("root", obj, deleted=False)
    return index


ANN = UserInfo("ann", groups=("dev", "system:authenticated"))
READ_PODS = rule("get list", '""', "pods")


def may(index: RbacIndex, who: UserInfo, verb: str, resource: str, **more: str) -> bool:
    plural, _, subresource = resource.partition("/")
    return index.authorize(Attributes(who, verb, resource=plural, subresource=subresource, **more)).allowed  # type: ignore[arg-type]


def test_a_role_binding_grants_in_its_namespace_only() -> None:
    index = index_of(role("r", READ_PODS), binding("b", "ClusterRole", "r", user("ann"), namespace="a"))

    assert may(index, ANN, "get", "pods", namespace="a")
    assert not may(index, ANN, "get", "pods", namespace="b")
    assert not may(index, ANN, "list", "pods")


def test_the_reason_names_binding_role_and_subject() -> None:
    group = {"kind": "Group", "name": "dev"}
    index = index_of(role("r", READ_PODS), binding("b", "ClusterRole", "r", group, namespace="a"))

    decision = index.authorize(Attributes(ANN, "get", resource="pods", namespace="a"))

    assert decision == Decision(Verdict.ALLOW, 'RBAC: allowed by RoleBinding "b/a" of ClusterRole "r" to Group "dev"')


def test_resource_names_narrow_and_never_allow_a_nameless_request() -> None:
    index = index_of(
        role("r", rule("get delete", '""', "secrets", "one two")), binding("b", "ClusterRole", "r", user("ann"))
    )

    assert may(index, ANN, "get", "secrets", namespace="a", name="two")
    assert not may(index, ANN, "get", "secrets", namespace="a", name="three")
    assert not may(index, ANN, "delete", "secrets", namespace="a")


def test_subresources_need_their_own_grant() -> None:
    index = index_of(
        role("r", READ_PODS, rule("update", "*", "*/scale")), binding("b", "ClusterRole", "r", user("ann"))
    )

    assert not may(index, ANN, "get", "pods/log", namespace="a")
    assert may(index, ANN, "update", "deployments/scale", group="apps", namespace="a")


def test_paths_match_exactly_or_by_prefix() -> None:
    urls = {"verbs": ["get"], "nonResourceURLs": ["/metrics", "/logs/*"]}
    index = index_of(role("r", urls), binding("b", "ClusterRole", "r", user("ann")))

    allowed = {
        p
        for p in ("/metrics", "/metrics/x", "/logs/a/b", "/logs")
        if index.authorize(Attributes(ANN, "get", path=p)).allowed
    }

    assert allowed == {"/metrics", "/logs/a/b"}


def test_a_service_account_subject_takes_the_namespace_of_its_binding() -> None:
    subject = {"kind": "ServiceAccount", "name": "bot"}
    index = index_of(role("r", READ_PODS, namespace="a"), binding("b", "Role", "r", subject, namespace="a"))

    assert may(index, service_account_user("a", "bot"), "get", "pods", namespace="a")
    assert not may(index, service_account_user("b", "bot"), "get", "pods", namespace="a")


def test_a_binding_to_a_missing_role_grants_nothing_and_says_so() -> None:
    index = index_of(binding("b", "ClusterRole", "gone", user("ann")))

    decision = index.authorize(Attributes(ANN, "get", resource="pods"))

    assert decision.verdict is Verdict.NO_OPINION
    assert decision.reason == 'RBAC: clusterrole.rbac.authorization.k8s.io "gone" not found'


def test_a_change_counts_at_once_and_an_older_version_never_returns() -> None:
    granted = role("r", READ_PODS)
    granted["metadata"]["resourceVersion"] = "10"
    revoked = role("r")
    revoked["metadata"]["resourceVersion"] = "12"
    index = index_of(granted, binding("b", "ClusterRole", "r", user("ann")))
    assert may(index, ANN, "get", "pods")

    index.apply_event("root", revoked, deleted=False)
    index.apply_event("root", granted, deleted=False)

    assert not may(index, ANN, "get", "pods")


def test_deleting_a_binding_takes_its_grants() -> None:
    bound = binding("b", "ClusterRole", "r", user("ann"))
    index = index_of(role("r", READ_PODS), bound)
    assert may(index, ANN, "get", "pods")

    index.apply_event("root", bound, deleted=True)

    assert not may(index, ANN, "get", "pods")


def test_logical_clusters_share_defaults_and_nothing_else() -> None:
    index = index_of(role("r", READ_PODS), binding("b", "ClusterRole", "r", user("ann")), defaults=True)
    ask = Attributes(ANN, "get", resource="pods", cluster="other")

    assert not index.authorize(ask).allowed
    assert index.authorize(Attributes(ANN, "get", path="/api", cluster="other")).allowed


def test_a_stored_object_hides_the_default_of_the_same_name() -> None:
    hiding = binding("system:discovery", "ClusterRole", "system:discovery")
    index = index_of(hiding, defaults=True)
    assert not index.authorize(Attributes(ANN, "get", path="/api")).allowed

    index.apply_event("root", hiding, deleted=True)

    assert index.authorize(Attributes(ANN, "get", path="/api")).allowed


def test_aggregated_roles_gather_what_their_selectors_match_at_once() -> None:
    label = {"rbac.authorization.k8s.io/aggregate-to-view": "true"}
    index = index_of(binding("b", "ClusterRole", "admin", user("ann"), namespace="a"), defaults=True)
    assert may(index, ANN, "delete", "pods", namespace="a")
    assert not may(index, ANN, "list", "crontabs", group="stable.example.com", namespace="a")

    index.apply_event("root", role("more", rule("list", "stable.example.com", "crontabs"), labels=label), deleted=False)

    assert may(index, ANN, "list", "crontabs", group="stable.example.com", namespace="a")


def test_roles_that_aggregate_each_other_do_not_hang() -> None:
    def gather(name: str, mine: str, theirs: str) -> Obj:
        selectors = {"clusterRoleSelectors": [{"matchLabels": {theirs: "x"}}]}
        return role(name, labels={mine: "x"}, aggregationRule=selectors)

    index = index_of(
        gather("one", "a", "b"),
        gather("two", "b", "a"),
        role("leaf", READ_PODS, labels={"a": "x"}),
        binding("b", "ClusterRole", "one", user("ann")),
    )

    assert may(index, ANN, "get", "pods")


def test_a_shown_aggregated_role_has_the_gathered_rules() -> None:
    label = {"rbac.authorization.k8s.io/aggregate-to-view": "true"}
    index = index_of(role("more", rule("list", "acme.com", "things"), labels=label), defaults=True)
    view = next(o for o in default_objects() if o["metadata"]["name"] == "view")

    shown = index.effective("root", view)

    assert any("pods" in r["resources"] for r in view["rules"])
    assert rule("list", "acme.com", "things") in shown["rules"]
    assert len(shown["rules"]) == len(view["rules"]) + 1


def test_a_follower_that_starts_over_forgets_one_kind_only() -> None:
    index = index_of(role("r", READ_PODS), binding("b", "ClusterRole", "r", user("ann")), defaults=True)

    index.reset("ClusterRoleBinding")
    assert not may(index, ANN, "get", "pods")

    index.apply_event("root", binding("b", "ClusterRole", "r", user("ann")), deleted=False)
    assert may(index, ANN, "get", "pods")


def test_no_cluster_reaches_over_all_clusters() -> None:
    index = index_of(role("r", READ_PODS), binding("b", "ClusterRole", "r", user("ann")), defaults=True)
    everywhere = Attributes(ANN, "list", resource="pods", cluster=EVERY_CLUSTER)

    assert not index.authorize(everywhere).allowed
    everywhere.user = UserInfo("r", groups=("system:masters",))
    assert index.authorize(everywhere).allowed


@pytest.mark.parametrize("path", ["/healthz", "/livez", "/readyz", "/version", "/version/"])
def test_anyone_may_ask_for_health_and_version(path: str) -> None:
    assert index_of(defaults=True).authorize(Attributes(anonymous(), "get", path=path)).allowed


def test_masters_may_do_everything() -> None:
    index = index_of(defaults=True)
    root = UserInfo("r", groups=("system:masters",))

    assert may(index, root, "explode", "moons", group="space", namespace="far")
    assert index.authorize(Attributes(root, "post", path="/anything")).allowed


def test_defaults_are_well_formed_and_every_binding_has_its_role() -> None:
    found = {(o["kind"], o["metadata"].get("namespace"), o["metadata"]["name"]) for o in default_objects()}
    assert len(found) == len(default_objects()) == len({o["metadata"]["uid"] for o in default_objects()})
    for obj in default_objects():
        if "roleRef" in obj:
            assert (obj["roleRef"]["kind"], obj["metadata"].get("namespace"), obj["roleRef"]["name"]) in found
        for one in rules_of(obj):
            assert one.verbs
            assert bool(one.urls) != bool(one.groups and one.resources)


# --- the index against the definition ---------------------------------------------------------------------------------

VERBS, GROUPS, RESOURCES, NAMES = (
    ["get", "list", "*"],
    ["", "apps", "*"],
    ["pods", "pods/log", "*/log", "*"],
    ["x", "y"],
)


def some(values: list[str]) -> st.SearchStrategy[list[str]]:
    return st.lists(st.sampled_from(values), min_size=1, max_size=2)


RULES = st.one_of(
    st.builds(
        lambda v, g, r, n: {"verbs": v, "apiGroups": g, "resources": r, "resourceNames": n},
        some(VERBS),
        some(GROUPS),
        some(RESOURCES),
        st.lists(st.sampled_from(NAMES), max_size=2),
    ),
    st.builds(lambda v, u: {"verbs": v, "nonResourceURLs": u}, some(VERBS), some(["/a", "/a/*", "*"])),
)
SUBJECTS = st.sampled_from(
    [
        user("ann"),
        user("bob"),
        {"kind": "Group", "name": "dev"},
        {"kind": "ServiceAccount", "name": "s", "namespace": "a"},
    ]
)
ROLES = st.lists(
    st.tuples(st.sampled_from(["", "a"]), st.sampled_from(["r", "s"]), st.lists(RULES, max_size=3)), max_size=4
)
BINDINGS = st.lists(
    st.tuples(
        st.sampled_from(["", "a", "b"]),
        st.sampled_from(["Role", "ClusterRole"]),
        st.sampled_from(["r", "s"]),
        st.lists(SUBJECTS, max_size=2),
    ),
    max_size=4,
)
ASKS = st.builds(
    Attributes,
    user=st.sampled_from([ANN, UserInfo("bob"), service_account_user("a", "s")]),
    verb=st.sampled_from(["get", "list"]),
    group=st.sampled_from(["", "apps"]),
    resource=st.sampled_from(["pods", "nodes", ""]),
    subresource=st.sampled_from(["", "log"]),
    namespace=st.sampled_from(["", "a", "b"]),
    name=st.sampled_from(["", "x", "z"]),
    path=st.sampled_from(["/a", "/a/b"]),
)


def naive(roles: list[Obj], bindings: list[Obj], a: Attributes) -> bool:
    """The definition, as slowly as it reads."""

    def is_subject(one: Obj) -> bool:
        if one["kind"] == "User":
            return bool(one["name"] == a.user.name)
        if one["kind"] == "Group":
            return one["name"] in a.user.groups
        return a.user.name == f"system:serviceaccount:{one['namespace']}:{one['name']}"

    def has(values: list[str], value: str) -> bool:
        return "*" in values or value in values

    def allows(r: Obj) -> bool:
        if not has(r["verbs"], a.verb):
            return False
        if not a.resource:
            urls = r.get("nonResourceURLs", [])
            return any(u in ("*", a.path) or (u.endswith("*") and a.path.startswith(u[:-1])) for u in urls)
        wanted = [a.resource] if not a.subresource else [f"{a.resource}/{a.subresource}", f"*/{a.subresource}"]
        return (
            has(r.get("apiGroups", []), a.group)
            and any(has(r.get("resources", []), w) for w in wanted)
            and (not r.get("resourceNames") or a.name in r["resourceNames"])
        )

    namespace = a.namespace if a.resource else ""
    for b in bindings:
        home = b["metadata"].get("namespace", "")
        if (home and home != namespace) or not any(is_subject(s) for s in b["subjects"]):
            continue
        where = home if b["roleRef"]["kind"] == "Role" else ""
        if b["roleRef"]["kind"] == "Role" and not home:
            continue
        for r in roles:
            if (r["metadata"].get("namespace", ""), r["metadata"]["name"]) == (where, b["roleRef"]["name"]) and any(
                allows(x) for x in r["rules"]
            ):
                return True
    return False


@settings(max_examples=250, deadline=None)
@given(ROLES, BINDINGS, st.lists(ASKS, min_size=1, max_size=6))
def test_the_index_answers_as_the_definition(
    roles: list[tuple[str, str, list[Obj]]], bindings: list[tuple[str, str, str, list[Obj]]], asks: list[Attributes]
) -> None:
    role_objects = list({(ns, n): role(n, *rs, namespace=ns) for ns, n, rs in roles}.values())
    binding_objects = [binding(f"b{i}", k, n, *ss, namespace=ns) for i, (ns, k, n, ss) in enumerate(bindings)]
    index = index_of(*role_objects, *binding_objects)

    for ask in asks:
        assert index.authorize(ask).allowed == naive(role_objects, binding_objects, ask), ask


# --- words ------------------------------------------------------------------------------------------------------------


def test_refusals_are_worded_as_kubernetes_words_them() -> None:
    x = UserInfo("x")
    in_namespace = forbidden(Attributes(x, "list", resource="pods", namespace="default"))
    named = forbidden(Attributes(x, "get", group="apps", resource="deployments", subresource="scale", name="d"), "why")
    path = forbidden(Attributes(anonymous(), "get", path="/"))

    assert in_namespace.message == (
        'pods is forbidden: User "x" cannot list resource "pods" in API group "" in the namespace "default"'
    )
    assert named.message == (
        'deployments.apps "d" is forbidden: User "x" cannot get resource "deployments/scale" in API group "apps" '
        "at the cluster scope: why"
    )
    assert path.message == 'forbidden: User "system:anonymous" cannot get path "/"'
    assert path.to_status()["reason"] == "Forbidden"


def test_the_first_authorizer_with_an_opinion_decides() -> None:
    def shy(_: Attributes) -> Decision:
        return Decision(Verdict.NO_OPINION, "shy")

    def strict(_: Attributes) -> Decision:
        return Decision(Verdict.DENY, "no")

    def kind(_: Attributes) -> Decision:
        return Decision(Verdict.ALLOW, "yes")

    ask = Attributes(ANN, "get", path="/")
    assert first_of([shy, strict, kind])(ask).reason == "no"
    assert first_of([shy, shy])(ask) == Decision(Verdict.NO_OPINION, "shy\nshy")
