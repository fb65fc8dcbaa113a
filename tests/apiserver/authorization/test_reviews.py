"""Reviews answer what the authorizer would."""

from __future__ import annotations

from typing import Any

import pytest

from fleetplane.apiserver.authorization import reviews
from fleetplane.apiserver.authorization.attributes import NO_OPINION, Attributes, Decision, Verdict
from fleetplane.apiserver.authorization.defaults import default_objects
from fleetplane.apiserver.authorization.rbac import RbacIndex
from fleetplane.model.errors import ApiError
from fleetplane.model.selectors import FieldRequirement
from fleetplane.model.user import UserInfo

Obj = dict[str, Any]
ANN = UserInfo("ann", "7", ("dev", "system:authenticated"), {"scopes": ("a",)})


class Judge:
    """Allows what it is told to, and remembers what it was asked."""

    def __init__(self, decision: Decision = NO_OPINION) -> None:
        self.decision = decision
        self.asked: list[Attributes] = []

    def __call__(self, attributes: Attributes) -> Decision:
        self.asked.append(attributes)
        return self.decision


POD = {"verb": "list", "version": "v1", "resource": "pods", "namespace": "a"}


def test_may_i() -> None:
    judge = Judge(Decision(Verdict.ALLOW, "because"))

    answer = reviews.self_subject_access_review({"spec": {"resourceAttributes": POD}}, ANN, judge, "c1")

    assert answer["status"] == {"allowed": True, "reason": "because"}
    assert answer["kind"] == "SelfSubjectAccessReview"
    assert answer["spec"] == {"resourceAttributes": POD}
    assert judge.asked == [Attributes(ANN, "list", "", "v1", "pods", "", "a", "", cluster="c1")]


def test_a_denial_is_told_from_no_opinion() -> None:
    spec = {"spec": {"nonResourceAttributes": {"path": "/metrics", "verb": "GET"}}}

    assert reviews.self_subject_access_review(spec, ANN, Judge())["status"] == {"allowed": False}
    denied = reviews.self_subject_access_review(spec, ANN, Judge(Decision(Verdict.DENY, "no")))
    assert denied["status"] == {"allowed": False, "denied": True, "reason": "no"}


def test_may_they() -> None:
    judge = Judge()
    spec = {"user": "bob", "groups": ["ops"], "uid": "1", "extra": {"Scopes": ["x"]}, "resourceAttributes": POD}

    reviews.subject_access_review({"spec": spec}, judge)

    assert judge.asked[0].user == UserInfo("bob", "1", ("ops",), {"scopes": ("x",)})


def test_field_selectors_reach_the_authorizer() -> None:
    for selector in (
        {"rawSelector": "spec.nodeName=n1"},
        {"requirements": [{"key": "spec.nodeName", "operator": "In", "values": ["n1"]}]},
    ):
        judge = Judge()
        reviews.self_subject_access_review(
            {"spec": {"resourceAttributes": {**POD, "fieldSelector": selector}}}, ANN, judge
        )
        assert judge.asked[0].field_selector == (FieldRequirement("spec.nodeName", "n1"),)


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({}, "spec.resourceAttributes"),
        ({"resourceAttributes": POD, "nonResourceAttributes": {}}, "spec.nonResourceAttributes"),
    ],
)
def test_bad_questions_are_422(spec: Obj, field: str) -> None:
    with pytest.raises(ApiError) as caught:
        reviews.self_subject_access_review({"spec": spec}, ANN, Judge())

    assert (caught.value.code, caught.value.causes[0].field) == (422, field)


def test_a_review_of_nobody_is_422() -> None:
    with pytest.raises(ApiError) as caught:
        reviews.subject_access_review({"spec": {"resourceAttributes": POD}}, Judge())

    assert caught.value.causes[0].field == "spec.user"


def test_a_local_review_stays_in_its_namespace() -> None:
    spec = {"spec": {"user": "bob", "resourceAttributes": POD}}

    assert reviews.local_subject_access_review(spec, "a", Judge())["kind"] == "LocalSubjectAccessReview"
    with pytest.raises(ApiError) as caught:
        reviews.local_subject_access_review(spec, "b", Judge())
    assert caught.value.code == 400


def test_who_am_i() -> None:
    assert reviews.self_subject_review({}, ANN)["status"] == {
        "userInfo": {
            "username": "ann",
            "uid": "7",
            "groups": ["dev", "system:authenticated"],
            "extra": {"scopes": ["a"]},
        }
    }


def test_all_i_may_do() -> None:
    index = RbacIndex(default_objects())

    status = reviews.self_subject_rules_review({"spec": {"namespace": "a"}}, ANN, index)["status"]

    assert not status["incomplete"]
    assert any("selfsubjectreviews" in rule["resources"] for rule in status["resourceRules"])
    assert any("/healthz" in rule["nonResourceURLs"] for rule in status["nonResourceRules"])
    with pytest.raises(ApiError):
        reviews.self_subject_rules_review({}, ANN, index)


def test_nodes_are_told_that_their_rules_are_not_all() -> None:
    node = UserInfo("system:node:n1", groups=("system:nodes",))

    status = reviews.self_subject_rules_review({"spec": {"namespace": "a"}}, node, RbacIndex())["status"]

    assert status["incomplete"]
    assert "node authorizer" in status["evaluationError"]
