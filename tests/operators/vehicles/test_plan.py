"""Expansion as a pure function: it keeps order, changes nothing it was given, and can be run again."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleetplane.operators.vehicles.kinds import AppTypeSpec
from fleetplane.operators.vehicles.limits import Profile, profile_of
from fleetplane.operators.vehicles.plan import (
    Dependencies,
    Refused,
    container_index,
    device_volume_name,
    expand,
    resolve,
)

_FOUND = profile_of("system", None)
assert _FOUND is not None
SYSTEM: Profile = _FOUND


def known(spec: dict[str, Any], *objects: dict[str, Any]) -> Dependencies:
    table = {(one["kind"], one["metadata"]["name"]): one for one in objects}
    return resolve(spec, lambda kind, name: table.get((kind, name)))


def dev(name: str, **spec: Any) -> dict[str, Any]:
    return {"kind": "DevRes", "metadata": {"name": name}, "spec": spec}


def conf(name: str, **spec: Any) -> dict[str, Any]:
    return {"kind": "VehContainerConfig", "metadata": {"name": name}, "spec": spec}


def app(count: int = 1, **spec: Any) -> dict[str, Any]:
    return {"podSpec": {"containers": [{"name": f"c{n}", "image": "i"} for n in range(count)]}, **spec}


def test_the_volume_of_a_device_is_named_as_the_original_did() -> None:
    assert device_volume_name("a.b.c", 2) == "a-b-c-mount-path-2"
    assert len(device_volume_name("a" * 200, 3)) <= 63


@pytest.mark.parametrize(("index", "count", "expected"), [(0, 1, 0), (1, 1, 0), (1, 2, 1), (2, 2, 1)])
def test_container_indices(index: int, count: int, expected: int) -> None:
    assert container_index(index, count)[0] == expected


def test_a_device_with_several_nodes_gives_them_all() -> None:
    spec = app(devResInfo=[{"devName": "cams", "devDestPath": "/dev/cam"}])
    made, notes = expand("x", spec, known(spec, dev("cams", path=["/dev/video0", "/dev/video1"])), SYSTEM)
    assert [m["mountPath"] for m in made["containers"][0]["volumeMounts"]] == ["/dev/cam", "/dev/video1"]
    assert '"/dev/video1"' in notes["node.fleetplane.io/devices"]


def test_volumes_are_taken_under_the_name_of_the_code_and_of_the_documents() -> None:
    def volume(name: str) -> dict[str, Any]:
        return {
            "volume": {"name": name, "emptyDir": {}},
            "volumeMount": {"name": name, "mountPath": f"/{name}"},
        }

    spec = app(vehContainerConfigInfo=["both"])
    config = conf("both", piccoloVolumes=[volume("code")], piccoloVolume=[volume("documents")])
    made, _ = expand("x", spec, known(spec, config), SYSTEM)
    assert [one["name"] for one in made["volumes"]] == ["code", "documents"]


def test_placeholders_are_filled_from_the_allow_list_and_the_node() -> None:
    profile = Profile("p", "p-application", AppTypeSpec.view({"limited": False, "placeholders": {"DISPLAY": ":1"}}))
    spec = app(vehContainerConfigInfo=["c"])
    env = [{"name": "WHERE", "value": "${DISPLAY} on ${NODE_NAME}"}]
    made, _ = expand("x", spec, known(spec, conf("c", piccoloEnv=env)), profile)
    assert [one["name"] for one in made["containers"][0]["env"]] == ["VEHICLE_NODE_NAME", "WHERE"]
    assert made["containers"][0]["env"][1]["value"] == ":1 on $(VEHICLE_NODE_NAME)"


def test_a_placeholder_nobody_allowed_is_refused_by_name() -> None:
    spec = app(vehContainerConfigInfo=["c"])
    with pytest.raises(Refused, match="rule placeholder"):
        expand("x", spec, known(spec, conf("c", piccoloEnv=[{"name": "A", "value": "${HOME}"}])), SYSTEM)


@pytest.mark.parametrize(
    ("first", "second", "rule"),
    [
        ({"piccoloEnv": [{"name": "A", "value": "1"}]}, {"piccoloEnv": [{"name": "A", "value": "2"}]}, "env-conflict"),
        (
            {
                "piccoloVolumes": [
                    {"volume": {"name": "v", "emptyDir": {}}, "volumeMount": {"name": "v", "mountPath": "/a"}}
                ]
            },
            {
                "piccoloVolumes": [
                    {
                        "volume": {"name": "v", "hostPath": {"path": "/"}},
                        "volumeMount": {"name": "v", "mountPath": "/b"},
                    }
                ]
            },
            "volume-conflict",
        ),
        (
            {
                "piccoloVolumes": [
                    {"volume": {"name": "v", "emptyDir": {}}, "volumeMount": {"name": "v", "mountPath": "/a"}}
                ]
            },
            {
                "piccoloVolumes": [
                    {"volume": {"name": "w", "emptyDir": {}}, "volumeMount": {"name": "w", "mountPath": "/a"}}
                ]
            },
            "mount-conflict",
        ),
    ],
)
def test_different_claims_to_the_same_thing_are_refused(first: Any, second: Any, rule: str) -> None:
    spec = app(vehContainerConfigInfo=["a", "b"])
    with pytest.raises(Refused, match=f"rule {rule}"):
        expand("x", spec, known(spec, conf("a", **first), conf("b", **second)), SYSTEM)


names = st.sampled_from(["a", "b", "c"])


@settings(max_examples=60, deadline=None)
@given(
    count=st.integers(1, 3),
    devices=st.lists(names, max_size=3, unique=True),
    configs=st.lists(names, max_size=4),
    index=st.integers(0, 3),
)
def test_expansion_is_pure_and_repeatable(count: int, devices: list[str], configs: list[str], index: int) -> None:
    spec = app(
        count,
        devResInfo=[{"devName": name, "devDestPath": f"/dev/{name}"} for name in devices],
        vehContainerConfigInfo=configs,
        devContainerIdx=min(index, count - 1),
        vehContainerConfigIdx=min(index, count - 1),
    )
    objects = [dev(name, path=f"/dev/{name}") for name in "abc"]
    objects += [conf(name, piccoloEnv=[{"name": name.upper(), "value": "1"}]) for name in "abc"]
    before = copy.deepcopy((spec, objects))
    first = expand("x", spec, known(spec, *objects), SYSTEM)
    second = expand("x", spec, known(spec, *objects), SYSTEM)
    assert first == second
    assert (spec, objects) == before
    again = expand("x", {**spec, "podSpec": first[0]}, known(spec, *objects), SYSTEM)
    assert again[0] == first[0]
    target = first[0]["containers"][min(index, count - 1)]
    assert [m["mountPath"] for m in target.get("volumeMounts", [])] == [f"/dev/{name}" for name in devices]
    assert [e["name"] for e in target.get("env", [])] == [name.upper() for name in dict.fromkeys(configs)]
