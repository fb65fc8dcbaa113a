from __future__ import annotations

import copy
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fleetplane.apiserver.kinds import canonicalise

json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["name", "spec", "x"]), inner, max_size=2)
    ),
    max_leaves=5,
)


def canonical(obj: dict[str, Any]) -> dict[str, Any]:
    made = copy.deepcopy(obj)
    canonicalise(made)
    return made


def pod(**spec: Any) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}, "spec": spec}


def test_quantities_have_one_spelling() -> None:
    container = {"name": "c", "resources": {"limits": {"cpu": 0.5, "memory": "1024Mi", "bad": "x"}}}

    found = canonical(pod(containers=[container]))["spec"]["containers"][0]["resources"]["limits"]

    assert found == {"cpu": "500m", "memory": "1Gi", "bad": "x"}


def test_times_are_told_in_utc_and_whole_seconds() -> None:
    obj = pod() | {"metadata": {"name": "a", "deletionTimestamp": "2026-01-01T02:00:00.5+02:00"}}

    assert canonical(obj)["metadata"]["deletionTimestamp"] == "2026-01-01T00:00:00Z"


def test_optional_zero_values_are_absent() -> None:
    found = canonical(pod(hostNetwork=False, nodeName="", tolerations=[], nodeSelector={}))

    assert found["spec"] == {"containers": []} or found["spec"] == {}


def test_zero_is_kept_where_it_differs_from_absence() -> None:
    obj = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {}, "spec": {"replicas": 0}}

    assert canonical(obj)["spec"]["replicas"] == 0


def test_required_counters_are_told_even_when_nobody_set_them() -> None:
    obj = {"apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {}}

    assert canonical(obj)["status"] == {
        "currentNumberScheduled": 0,
        "numberMisscheduled": 0,
        "desiredNumberScheduled": 0,
        "numberReady": 0,
    }


def test_custom_resources_are_left_alone() -> None:
    car = {"apiVersion": "example.com/v1", "kind": "Car", "spec": {"doors": 0, "tags": []}}

    assert canonical(car) == car


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(json_values, json_values)
def test_anything_at_all_can_be_made_canonical_and_twice_is_once(spec: Any, metadata: Any) -> None:
    obj = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": {"template": spec}}
    once = canonical(obj)

    assert canonical(once) == once
