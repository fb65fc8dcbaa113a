"""A pod becomes a peer pod: one VM asked of the node, the size of it in annotations, and the same when asked again."""

from __future__ import annotations

import copy
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.operators.peerpods.stage import Stage, staged

from fleetplane.model.builtin.types import NAMESPACES, PODS, RUNTIME_CLASSES
from fleetplane.operators.peerpods.adaptor import runtime_class
from fleetplane.operators.peerpods.admission import GPUS, MEMORY, ORIGINAL, VCPUS, as_peer_pod
from fleetplane.operators.peerpods.kinds import VM_RESOURCE

ONE_VM = {"requests": {VM_RESOURCE: "1"}, "limits": {VM_RESOURCE: "1"}}


def container(name: str = "a", requests: Any = None, limits: Any = None, **more: Any) -> Any:
    resources = {key: value for key, value in (("requests", requests), ("limits", limits)) if value}
    return {"name": name, "image": "x", **({"resources": resources} if resources else {}), **more}


def pod(*containers: Any, init: Any = (), annotations: Any = None, **spec: Any) -> Any:
    made: Any = {"metadata": {"name": "p"}, "spec": {"runtimeClassName": "kata-remote", **spec}}
    made["spec"]["containers"] = list(containers)
    if init:
        made["spec"]["initContainers"] = list(init)
    if annotations:
        made["metadata"]["annotations"] = annotations
    return made


def size(made: Any) -> tuple[Any, Any, Any]:
    given = made["metadata"]["annotations"]
    return given.get(VCPUS), given.get(MEMORY), given.get(GPUS)


@pytest.mark.parametrize(
    ("requests", "limits", "expected"),
    [
        ({"cpu": "1", "memory": "1Gi"}, {"cpu": "2", "memory": "2Gi"}, ("2", "2048", None)),
        ({"cpu": "500m"}, None, ("1", None, None)),
        ({"memory": "100M"}, None, (None, "96", None)),
        (None, {"cpu": "1500m"}, ("2", None, None)),
        (None, {"nvidia.com/gpu": "2"}, (None, None, "2")),
        ({"nvidia.com/gpu": "1"}, {"nvidia.com/gpu": "1"}, (None, None, "1")),
        (None, None, (None, None, None)),
    ],
)
def test_the_size_is_the_limit_or_the_request_rounded_up(requests: Any, limits: Any, expected: Any) -> None:
    made = as_peer_pod(pod(container("a", requests, limits)))

    assert size(made) == expected
    assert made["spec"]["containers"][0]["resources"] == ONE_VM


def test_init_containers_count_by_the_largest_and_sidecars_for_all_time() -> None:
    asked = pod(
        container("a", {"cpu": "1"}),
        container("b", {"cpu": "1"}),
        init=[
            container("side", {"cpu": "1"}, restartPolicy="Always"),
            container("i1", {"cpu": "5"}),
            container("i2", {"cpu": "4"}),
        ],
    )

    assert size(as_peer_pod(asked))[0] == "6"


def test_only_the_first_container_asks_for_the_vm() -> None:
    made = as_peer_pod(pod(container("a"), container("b", {"cpu": "1"}), init=[container("i", {"cpu": "1"})]))

    assert made["spec"]["containers"][0]["resources"] == ONE_VM
    assert not made["spec"]["containers"][1]["resources"]
    assert not made["spec"]["initContainers"][0]["resources"]


def test_other_resources_are_remembered() -> None:
    asked = pod(container("a", {"ephemeral-storage": "1Gi", "hugepages-2Mi": "4Mi"}, {"hugepages-2Mi": "4Mi"}))

    note = orjson.loads(as_peer_pod(asked)["metadata"]["annotations"][ORIGINAL])

    assert note["resources"]["a"] == {
        "requests": {"ephemeral-storage": "1Gi", "hugepages-2Mi": "4Mi"},
        "limits": {"hugepages-2Mi": "4Mi"},
    }


def test_what_users_wrote_wins_also_the_second_time() -> None:
    once = as_peer_pod(pod(container("a", {"cpu": "1", "memory": "1Gi"}), annotations={VCPUS: "8"}))

    assert size(once) == ("8", "1024", None)
    assert as_peer_pod(once) is once


def test_a_sidecar_injected_later_counts_too() -> None:
    once = as_peer_pod(pod(container("a", {"cpu": "2"})))
    again = copy.deepcopy(once)
    again["spec"]["containers"].append(container("injected", {"cpu": "1"}))

    assert size(as_peer_pod(again))[0] == "3"


def test_a_forged_note_is_as_nothing() -> None:
    for note in ("{", "[]", '{"resources": 1, "annotations": {}}', '{"resources": {"a": 3}, "annotations": {}}'):
        made = as_peer_pod(pod(container("a", {"cpu": "2"}), annotations={ORIGINAL: note}))
        assert size(made)[0] == "2"


AMOUNTS = st.dictionaries(
    st.sampled_from(["cpu", "memory", "ephemeral-storage", "x.io/y"]), st.sampled_from(["1", "250m", "3Gi", "7"])
)
CONTAINERS = st.lists(st.tuples(AMOUNTS, AMOUNTS), min_size=1, max_size=3)


@given(CONTAINERS, CONTAINERS)
def test_any_pod_asked_again_stays_as_it_is(main: Any, init: Any) -> None:
    asked = pod(
        *(container(f"c{i}", *one) for i, one in enumerate(main)),
        init=[container(f"i{i}", *one) for i, one in enumerate(init)],
    )
    before = copy.deepcopy(asked)

    once = as_peer_pod(asked)

    assert as_peer_pod(once) is once
    assert asked == before


@staged(nodes=1)
async def test_on_the_server_only_pods_of_the_class_are_changed(stage: Stage) -> None:
    await stage.client.create(RUNTIME_CLASSES, runtime_class())
    await stage.client.create(NAMESPACES, {"metadata": {"name": "mine"}})
    limits = {"type": "Container", "default": {"cpu": "3"}, "defaultRequest": {"cpu": "1"}}
    from fleetplane.model.builtin.types import LIMIT_RANGES

    await stage.client.create(LIMIT_RANGES, {"metadata": {"name": "l"}, "spec": {"limits": [limits]}}, "mine")
    plain = pod(container())
    del plain["spec"]["runtimeClassName"]
    plain["metadata"]["name"] = "plain"

    made = await stage.client.create(PODS, pod(container()), "mine")
    other = await stage.client.create(PODS, plain, "mine")

    assert made["spec"]["containers"][0]["resources"] == ONE_VM
    assert made["metadata"]["annotations"][VCPUS] == "3"
    assert other["spec"]["containers"][0]["resources"]["limits"] == {"cpu": "3"}


@staged(nodes=1)
async def test_a_node_takes_as_many_peer_pods_as_it_has_capacity(stage: Stage) -> None:
    await stage.config(limit="1")
    await stage.has("1")

    async def there() -> Any:
        return await stage.find(RUNTIME_CLASSES, "kata-remote", None)

    await stage.until(there)
    for name in ("p", "q"):
        wanted = pod(container())
        wanted["metadata"]["name"] = name
        await stage.client.create(PODS, wanted, "default")

    async def one_is_left_over() -> bool:
        placed = [(await stage.find(PODS, name))["spec"].get("nodeName") for name in ("p", "q")]
        return sorted(map(bool, placed)) == [False, True]

    await stage.until(one_is_left_over)
