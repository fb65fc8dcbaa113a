"""The admission contract: who is asked, and what answers mean."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import pytest

from fleetplane.model.admission import (
    ALLOWED,
    AdmissionPlugin,
    AdmissionRequest,
    AdmissionRule,
    Decision,
    Reader,
    decide,
    denied,
    mutating,
    validating,
)
from fleetplane.model.errors import FieldError, not_found
from fleetplane.model.objects import Object
from fleetplane.model.resources import ResourceRef, ResourceType
from fleetplane.model.user import UserInfo

PODS = ResourceType("", "v1", "Pod", "pods")
DEPLOYMENTS = ResourceType("apps", "v1", "Deployment", "deployments")
REQUEST = AdmissionRequest("CREATE", PODS, UserInfo("eve"), new={"spec": {}}, namespace="n", name="p")


class Nothing:
    async def get(self, resource: ResourceRef, name: str, namespace: str | None = None) -> Object | None:
        return None

    async def list(
        self, resource: ResourceRef, namespace: str | None = None, *, labels: str | None = None
    ) -> Sequence[Object]:
        return []


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (AdmissionRule([PODS]), True),
        (AdmissionRule(["pods"]), True),
        (AdmissionRule(["*"]), True),
        (AdmissionRule([DEPLOYMENTS]), False),
        (AdmissionRule([PODS], operations=["DELETE"]), False),
        (AdmissionRule([PODS], operations=["*"]), True),
        (AdmissionRule([PODS], subresources=["status"]), False),
    ],
)
def test_a_rule_says_which_writes_are_seen(rule: AdmissionRule, expected: bool) -> None:
    assert rule.matches("CREATE", PODS, "") is expected


async def test_a_check_that_finds_nothing_allows() -> None:
    plugin = validating("v.example.org", [AdmissionRule([PODS])], lambda _: [])

    assert (await decide(plugin, REQUEST, Nothing())).allowed


async def test_a_check_that_finds_something_refuses_by_field() -> None:
    plugin = validating("v.example.org", [AdmissionRule([PODS])], lambda _: [FieldError.required("spec.image")])

    decision = await decide(plugin, REQUEST, Nothing())

    assert decision.denial is not None
    assert decision.denial.code == 422
    assert 'Pod "p" is invalid: spec.image: Required value' in decision.denial.message


async def test_a_fill_that_returns_the_same_object_changes_nothing() -> None:
    plugin = mutating("m.example.org", [AdmissionRule([PODS])], lambda request: request.object)

    assert (await decide(plugin, REQUEST, Nothing())).object is None


async def test_raising_an_api_error_is_a_denial() -> None:
    async def admit(request: AdmissionRequest, reader: Reader) -> Decision:
        raise not_found("sites", "x")

    decision = await decide(plugin_of(admit), REQUEST, Nothing())

    assert decision.denial is not None
    assert decision.denial.code == 404


async def test_a_failure_is_fatal_or_a_warning_as_the_policy_says() -> None:
    async def admit(request: AdmissionRequest, reader: Reader) -> Decision:
        raise RuntimeError("boom")

    strict = plugin_of(admit)
    lenient = replace(strict, failure_policy="Ignore")

    assert not (await decide(strict, REQUEST, Nothing())).allowed
    assert "boom" in (await decide(lenient, REQUEST, Nothing())).warnings[0]


async def test_an_overrun_is_a_failure() -> None:
    async def admit(request: AdmissionRequest, reader: Reader) -> Decision:
        await asyncio.sleep(60)
        return ALLOWED

    decision = await decide(replace(plugin_of(admit), timeout=0.01), REQUEST, Nothing())

    assert decision.denial is not None
    assert "took longer than 0.01 s" in decision.denial.message


def test_a_denial_names_its_object_when_told_the_request() -> None:
    decision = denied("not on Sundays", request=REQUEST)

    assert decision.denial is not None
    assert decision.denial.message == 'pods "p" is forbidden: not on Sundays'


def plugin_of(admit) -> AdmissionPlugin:  # type: ignore[no-untyped-def]
    return AdmissionPlugin("p.example.org", "validate", [AdmissionRule([PODS])], admit)
