"""Which container a log request means, and what is refused in which words."""

from __future__ import annotations

from typing import Any

import pytest

from fleetplane.model.errors import ApiError
from fleetplane.node.streams import logged_container


def status(state: dict[str, Any], last: dict[str, Any] | None = None, container_id: str = "") -> dict[str, Any]:
    one = {"name": "main", "state": state, "lastState": {"terminated": last} if last else {}}
    if container_id:
        one["containerID"] = container_id
    return {"containerStatuses": [one]}


ENDED = {"exitCode": 1, "containerID": "podman://old"}


@pytest.mark.parametrize(
    ("given", "previous", "expected"),
    [
        (status({"running": {}}, container_id="podman://now"), False, "now"),
        (status({"running": {}}, ENDED, "podman://now"), True, "old"),
        (status({"terminated": ENDED}), False, "old"),
        (status({"waiting": {"reason": "CrashLoopBackOff"}}, ENDED), False, "old"),
    ],
)
def test_the_container_meant(given: dict[str, Any], previous: bool, expected: str) -> None:
    assert logged_container(given, "web", "main", previous=previous) == expected


@pytest.mark.parametrize(
    ("given", "previous", "message"),
    [
        (
            status({"waiting": {"reason": "ContainerCreating"}}),
            False,
            'container "main" in pod "web" is waiting to start: ContainerCreating',
        ),
        (
            status({"waiting": {"reason": "ImagePullBackOff"}}),
            False,
            'container "main" in pod "web" is waiting to start: trying and failing to pull image',
        ),
        (status({"running": {}}), True, 'previous terminated container "main" in pod "web" not found'),
        ({}, False, 'container "main" in pod "web" is not available'),
    ],
)
def test_what_is_refused(given: dict[str, Any], previous: bool, message: str) -> None:
    with pytest.raises(ApiError) as caught:
        logged_container(given, "web", "main", previous=previous)
    assert (caught.value.code, caught.value.message) == (400, message)
