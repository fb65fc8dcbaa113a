"""From client-side to server-side apply."""

from __future__ import annotations

import json
from copy import deepcopy

import pytest

from fleetplane.model.apply import apply, track_update, upgraded
from fleetplane.model.apply.lastapplied import ANNOTATION
from fleetplane.model.errors import ApiError
from fleetplane.model.objects import Object

from .kinds import SCHEMA, VERSION, thing

T1, T2 = "2024-01-01T00:00:01Z", "2024-01-01T00:00:02Z"
FIRST = thing({"replicas": 1, "name": "x"})


def client_side_applied() -> Object:
    """As ``kubectl apply`` leaves it: everything updated by one manager, and the annotation."""
    obj = thing({"replicas": 1, "name": "x"}, annotations={ANNOTATION: json.dumps(FIRST)})
    return track_update(SCHEMA, None, obj, manager="kubectl-client-side-apply", now=T1, api_version=VERSION)


def applied(live: Object, config: Object, manager: str = "kubectl") -> Object:
    return apply(SCHEMA, live, config, manager=manager, now=T2, api_version=VERSION)


def test_kubectl_takes_over_what_it_had_applied() -> None:
    obj = applied(client_side_applied(), thing({"replicas": 2, "name": "x"}))

    assert obj["spec"] == {"replicas": 2, "name": "x"}
    mine = next(one for one in obj["metadata"]["managedFields"] if one["manager"] == "kubectl")
    assert mine["fieldsV1"] == {"f:spec": {"f:replicas": {}, "f:name": {}}}


def test_not_what_someone_changed_since() -> None:
    live = client_side_applied()
    scaled = deepcopy(live)
    scaled["spec"]["replicas"] = 5
    live = track_update(SCHEMA, live, scaled, manager="hpa", now=T1, api_version=VERSION)

    with pytest.raises(ApiError, match=r'1 conflict: conflict with "hpa" using test.io/v1: \.spec\.replicas'):
        applied(live, thing({"replicas": 2, "name": "x"}))


def test_nobody_but_kubectl_may() -> None:
    with pytest.raises(ApiError, match='conflict with "kubectl-client-side-apply"'):
        applied(client_side_applied(), thing({"replicas": 2, "name": "x"}), "alice")


@pytest.mark.parametrize("text", ["", "{", "[]", '{"spec": {"set": ["a", "a"]}}'])
def test_an_annotation_that_cannot_be_read_allows_nothing(text: str) -> None:
    live = client_side_applied()
    live["metadata"]["annotations"][ANNOTATION] = text

    with pytest.raises(ApiError, match="conflict"):
        applied(live, thing({"replicas": 2}))


def test_the_annotation_is_kept_up_to_date() -> None:
    config = thing({"replicas": 1, "name": "x"})

    obj = applied(client_side_applied(), config)

    kept = json.loads(obj["metadata"]["annotations"][ANNOTATION])
    assert kept == config | {"metadata": {"name": "a", "annotations": {}}}
    assert applied(obj, config) == obj


def test_objects_without_the_annotation_get_none() -> None:
    obj = apply(SCHEMA, None, FIRST, manager="kubectl", now=T1, api_version=VERSION)

    assert "annotations" not in obj["metadata"]


def test_upgrading_hands_the_updates_to_the_applier() -> None:
    live = upgraded(client_side_applied(), "kubectl")

    (entry,) = live["metadata"]["managedFields"]
    assert (entry["manager"], entry["operation"]) == ("kubectl", "Apply")

    obj = applied(live, thing({"name": "x"}))
    assert obj["spec"] == {"name": "x"}
    assert upgraded(obj, "kubectl") is obj
