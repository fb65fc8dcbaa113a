"""Reading off managedFields whether an apply would change anything."""

from __future__ import annotations

from typing import Any

import pytest

from fleetplane.controller.applied import is_applied
from fleetplane.model.objects import Object


def observed(fields: Object, manager: str = "me", **content: Any) -> Object:
    entry = {"manager": manager, "operation": "Apply", "fieldsV1": fields}
    metadata = {
        "name": "a",
        "uid": "1",
        "resourceVersion": "7",
        **content.pop("metadata", {}),
        "managedFields": [entry],
    }
    return {"apiVersion": "v1", "kind": "X", "metadata": metadata, **content}


def desired(**content: Any) -> Object:
    return {"apiVersion": "v1", "kind": "X", "metadata": {"name": "a", **content.pop("metadata", {})}, **content}


CONTAINERS: Object = {
    "f:spec": {
        "f:containers": {
            'k:{"name":"a"}': {
                ".": {},
                "f:name": {},
                "f:image": {},
                "f:args": {},
                "f:ports": {'k:{"containerPort":80,"protocol":"TCP"}': {"f:containerPort": {}, "f:protocol": {}}},
            }
        }
    }
}


def pod(image: str = "x", args: tuple[str, ...] = ("1",), port: int = 80) -> Object:
    container = {"name": "a", "image": image, "args": list(args), "ports": [{"containerPort": port}]}
    return {"containers": [container]}


OBSERVED_POD = {
    "containers": [
        {"name": "sidecar", "image": "theirs"},
        {
            "name": "a",
            "image": "x",
            "args": ["1"],
            "imagePullPolicy": "Always",
            "ports": [{"containerPort": 80, "protocol": "TCP"}],
        },
    ]
}


@pytest.mark.parametrize(
    ("there", "wanted", "expected"),
    [
        pytest.param(observed({"f:data": {"f:k": {}}}, data={"k": "1"}), desired(data={"k": "1"}), True, id="same"),
        pytest.param(
            observed({"f:data": {"f:k": {}}}, data={"k": "1", "x": "2"}),
            desired(data={"k": "1"}),
            True,
            id="others add",
        ),
        pytest.param(observed({"f:data": {"f:k": {}}}, data={"k": "2"}), desired(data={"k": "1"}), False, id="drift"),
        pytest.param(
            observed({"f:data": {"f:k": {}, "f:x": {}}}, data={"k": "1", "x": "2"}),
            desired(data={"k": "1"}),
            False,
            id="ours no longer wanted",
        ),
        pytest.param(
            observed({"f:data": {"f:k": {}}}, data={"k": "1"}),
            desired(data={"k": "1", "x": "2"}),
            False,
            id="new field",
        ),
        pytest.param(observed({}, "them", data={"k": "1"}), desired(data={"k": "1"}), False, id="never ours"),
        pytest.param(observed({"f:spec": {}}, spec={}), desired(spec={}), True, id="empty"),
        pytest.param(
            observed({"f:spec": {"f:n": {}}}, spec={"n": 1}), desired(spec={"n": True}), False, id="1 is not true"
        ),
        pytest.param(
            observed({"f:spec": {"f:s": {'v:"a"': {}, 'v:"b"': {}}}}, spec={"s": ["b", "c", "a"]}),
            desired(spec={"s": ["a", "b"]}),
            True,
            id="set with more from others",
        ),
        pytest.param(observed(CONTAINERS, spec=OBSERVED_POD), desired(spec=pod()), True, id="list by key, defaults"),
        pytest.param(observed(CONTAINERS, spec=OBSERVED_POD), desired(spec=pod("y")), False, id="list by key, drift"),
        pytest.param(observed(CONTAINERS, spec=OBSERVED_POD), desired(spec=pod(port=81)), False, id="another key"),
        pytest.param(observed(CONTAINERS, spec=OBSERVED_POD), desired(spec=pod(args=())), False, id="atomic list"),
        pytest.param(
            observed(
                {"f:metadata": {"f:labels": {"f:a": {}}, "f:ownerReferences": {'k:{"uid":"9"}': {}}}},
                metadata={"labels": {"a": "b"}, "ownerReferences": [{"uid": "8"}, {"uid": "9", "name": "o"}]},
            ),
            desired(metadata={"labels": {"a": "b"}, "ownerReferences": [{"uid": "9", "name": "o"}]}),
            True,
            id="metadata",
        ),
        pytest.param(
            observed({"f:metadata": {"f:labels": {"f:a": {}}}}, metadata={"labels": {"a": "b"}}),
            desired(),
            False,
            id="label no longer wanted",
        ),
    ],
)
def test_an_apply_would_change_nothing(there: Object, wanted: Object, expected: bool) -> None:
    assert is_applied(there, wanted, "me") is expected


def test_what_was_applied_to_a_subresource_does_not_count() -> None:
    there = observed({"f:data": {"f:k": {}}}, data={"k": "1"})
    there["metadata"]["managedFields"][0]["subresource"] = "status"

    assert not is_applied(there, desired(data={"k": "1"}), "me")
