"""What a class of applications may not do is refused at the door, by the name of the rule."""

from __future__ import annotations

from typing import Any

import pytest
from tests.operators.vehicles.stage import (
    DEVELOPER,
    DevRes,
    Stage,
    VehContainerConfig,
    VehDeployment,
    VehPod,
    config,
    device,
    pod_spec,
    staged,
    veh_pod,
)

from fleetplane.model.builtin.types import LIMIT_RANGES, NAMESPACES, NETWORK_POLICIES, PODS, ROLE_BINDINGS
from fleetplane.model.errors import ApiError
from fleetplane.operators.vehicles.kinds import AppType
from fleetplane.operators.vehicles.limits import canonical


def main(**more: Any) -> dict[str, Any]:
    return pod_spec(containers=[{"name": "main", "image": "app:1", **more}])


BAD = [
    ("no-privileged", main(securityContext={"privileged": True})),
    ("no-host-namespaces", pod_spec(hostNetwork=True)),
    ("no-host-namespaces", pod_spec(hostPID=True)),
    ("no-host-path", pod_spec(volumes=[{"name": "v", "hostPath": {"path": "/etc"}}])),
    ("capabilities", main(securityContext={"capabilities": {"add": ["SYS_ADMIN"]}})),
    ("no-runtime-class", pod_spec(runtimeClassName="kata")),
    ("allowed-nodes", pod_spec(nodeName="sim-0")),
    ("allowed-nodes", pod_spec(nodeSelector={"kubernetes.io/hostname": "sim-0"})),
    ("no-priority", pod_spec(priorityClassName="system-node-critical")),
    ("no-unconfined", main(securityContext={"seccompProfile": {"type": "Unconfined"}})),
    ("no-unconfined", main(securityContext={"procMount": "Unmasked"})),
    ("no-unconfined", pod_spec(securityContext={"appArmorProfile": {"type": "Unconfined"}})),
    ("no-unconfined", pod_spec(securityContext={"seLinuxOptions": {"type": "spc_t"}})),
    ("no-unconfined", pod_spec(securityContext={"sysctls": [{"name": "kernel.panic", "value": "1"}]})),
    ("host-ports", main(ports=[{"containerPort": 80, "hostPort": 80}])),
]


@staged(nodes=1)
async def test_every_refusal_of_a_third_party_names_its_rule_and_system_may(stage: Stage) -> None:
    for number, (rule, spec) in enumerate(BAD):
        with pytest.raises(ApiError, match=rf"rule {rule}\)") as refused:
            await stage.client.create(VehPod, veh_pod(f"bad-{number}", "3rd-party", podSpec=spec), "default")
        assert refused.value.code == 403
        await stage.client.create(VehPod, veh_pod(f"fine-{number}", podSpec=spec), "default", dry_run=True)
    with pytest.raises(ApiError, match="rule max-level"):
        await stage.client.create(VehPod, veh_pod("d", "3rd-party", criticality="D"), "default")
    with pytest.raises(ApiError, match="rule app-type"):
        await stage.client.create(VehPod, veh_pod("x", ""), "default")
    with pytest.raises(ApiError, match="rule app-type"):
        await stage.client.create(VehPod, veh_pod("x", "no-such"), "default")


@staged(nodes=1)
async def test_every_container_of_a_third_party_starts_without_capabilities(stage: Stage) -> None:
    spec = main()
    spec["initContainers"] = [{"name": "before", "image": "app:1"}]
    await stage.client.create(VehPod, veh_pod("a", "3rd-party", podSpec=spec), "default")
    await stage.running("a")
    pod = (await stage.pod("a", "3rd-party-application") or {})["spec"]
    confined = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    assert [one["securityContext"] for one in pod["initContainers"] + pod["containers"]] == [confined] * 2


@staged(nodes=1)
async def test_the_device_matrix_says_who_may_use_which_device(stage: Stage) -> None:
    await stage.client.create(DevRes, device("cam"), "default")
    await stage.client.create(DevRes, device("open", allowedAppTypes=["thirdParty"]), "default")
    await stage.client.create(DevRes, device("named", allowedApps=["friend"]), "default")

    def wants(app: str, name: str) -> dict[str, Any]:
        return veh_pod(app, "3rd-party", devResInfo=[{"devName": name, "devDestPath": "/dev/x"}])

    with pytest.raises(ApiError, match="rule device-permission"):
        await stage.client.create(VehPod, wants("stranger", "cam"), "default")
    with pytest.raises(ApiError, match="rule device-permission"):
        await stage.client.create(VehPod, wants("stranger", "named"), "default")
    await stage.client.create(VehPod, wants("stranger", "open"), "default")
    await stage.client.create(VehPod, wants("friend", "named"), "default")
    await stage.running("friend")


@staged(nodes=1)
async def test_a_device_that_arrives_late_is_held_against_the_rules_too(stage: Stage) -> None:
    app = veh_pod("early", "3rd-party", devResInfo=[{"devName": "cam", "devDestPath": "/dev/x"}])
    await stage.client.create(VehPod, app, "default")
    await stage.client.create(DevRes, device("cam"), "default")
    told = await stage.says("early", "Admitted", "False")
    assert "rule device-permission" in told["message"]
    assert (await stage.client.get(VehPod, "early", "default"))["status"]["rule"] == "device-permission"
    assert await stage.pod("early", "3rd-party-application") is None


@staged(nodes=1)
async def test_a_snippet_with_host_paths_is_for_whom_the_integrator_says(stage: Stage) -> None:
    pair = {"volume": {"name": "x", "hostPath": {"path": "/tmp/x"}}, "volumeMount": {"name": "x", "mountPath": "/x"}}
    await stage.client.create(VehContainerConfig, config("host", piccoloVolumes=[pair]), "default")
    with pytest.raises(ApiError, match="rule config-host-path"):
        await stage.client.create(VehPod, veh_pod("a", "3rd-party", vehContainerConfigInfo=["host"]), "default")
    await stage.client.patch(VehContainerConfig, "host", {"spec": {"allowedAppTypes": ["3rd-party"]}}, "default")
    await stage.client.create(VehPod, veh_pod("a", "3rd-party", vehContainerConfigInfo=["host"]), "default")


@staged(nodes=1)
async def test_an_integrator_edits_a_profile(stage: Stage) -> None:
    spec = {"images": ["registry.car/"], "ddsDomains": [100], "devices": ["front-camera"], "maxLevel": "A"}
    await stage.client.create(AppType, {"metadata": {"name": "3rd-party"}, "spec": spec})
    await stage.client.create(DevRes, device("cam"), "default")
    good = main(image="registry.car/app:1", env=[{"name": "ROS_DOMAIN_ID", "value": "100"}])
    wants = [{"devName": "cam", "devDestPath": "/dev/x"}]
    await stage.client.create(
        VehPod, veh_pod("good", "3rd-party", podSpec=good, devResInfo=wants, criticality="A"), "default"
    )
    with pytest.raises(ApiError, match="rule image-policy"):
        await stage.client.create(VehPod, veh_pod("bad", "3rd-party"), "default")
    other = main(image="registry.car/app:1", env=[{"name": "ROS_DOMAIN_ID", "value": "101"}])
    with pytest.raises(ApiError, match="rule dds-domains"):
        await stage.client.create(VehPod, veh_pod("bad", "3rd-party", podSpec=other), "default")


@staged(nodes=1)
async def test_limits_come_with_their_class_and_go_with_it(stage: Stage) -> None:
    spec = {
        "limitRange": {"limits": [{"type": "Container", "default": {"cpu": "1"}}]},
        "networkPolicy": {"podSelector": {}, "policyTypes": ["Egress"]},
    }
    await stage.client.create(AppType, {"metadata": {"name": "guest"}, "spec": spec})
    await stage.client.create(VehPod, veh_pod("a", "guest"), "default")
    await stage.running("a")
    space = "guest-application"
    assert (await stage.client.get(NETWORK_POLICIES, "vehicles", space))["spec"]["policyTypes"] == ["Egress"]
    await stage.client.get(LIMIT_RANGES, "vehicles", space)
    await stage.client.create(LIMIT_RANGES, {"metadata": {"name": "own"}, "spec": {"limits": []}}, space)

    await stage.client.patch(AppType, "guest", {"spec": {"limitRange": None, "networkPolicy": None}})

    async def left() -> list[str]:
        every = [*(await stage.client.list(NETWORK_POLICIES, space)).items]
        every += (await stage.client.list(LIMIT_RANGES, space)).items
        return [one["metadata"]["name"] for one in every]

    async def gone() -> bool:
        return await left() == ["own"]

    await stage.until(gone)


@pytest.mark.parametrize("kind", [VehPod, VehDeployment])
def test_a_class_whose_limits_cannot_be_is_told_of_on_what_is_of_it(kind: Any) -> None:
    @staged(nodes=1)
    async def story(stage: Stage) -> None:
        nonsense = {"limits": [{"type": "Container", "max": {"cpu": "plenty"}}]}
        await stage.client.create(AppType, {"metadata": {"name": "odd"}, "spec": {"limitRange": nonsense}})
        await stage.client.create(kind, veh_pod("a", "odd"), "default")
        told = await stage.says("a", "Admitted", "False", kind)
        assert "what AppType odd says cannot be" in told["message"]
        assert "rule app-type-limits" in told["message"]
        await stage.client.patch(AppType, "odd", {"spec": {"limitRange": None}})
        await stage.says("a", "Admitted", "True", kind)
        with pytest.raises(ApiError, match="rule app-type-namespace"):
            await stage.client.create(AppType, {"metadata": {"name": "worse"}, "spec": {"namespace": "Not_Valid"}})

    story()


@staged(nodes=1)
async def test_there_is_no_back_door_into_the_namespace_of_a_class(stage: Stage) -> None:
    await stage.client.create(VehPod, veh_pod("a", "3rd-party"), "default")
    await stage.running("a")
    space = await stage.client.get(NAMESPACES, "3rd-party-application")
    assert space["metadata"]["labels"]["vehicles.fleetplane.io/app-type"] == "3rd-party"
    bad = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "by-hand"}, "spec": pod_spec(hostNetwork=True)}
    await stage.client.create(  # who may make pods there at all is RBAC's business; here somebody may
        ROLE_BINDINGS, _edit("developer"), "3rd-party-application"
    )
    with pytest.raises(ApiError, match="rule no-host-namespaces"):
        await stage.server.client(DEVELOPER).create(PODS, bad, "3rd-party-application")


@staged(nodes=1)
async def test_a_pod_that_runs_is_not_given_more_than_its_class_may_have(stage: Stage) -> None:
    await stage.client.create(AppType, {"metadata": {"name": "3rd-party"}, "spec": {"images": ["app"]}})
    await stage.client.create(VehPod, veh_pod("a", "3rd-party"), "default")
    await stage.running("a")
    binding = _edit("developer")
    binding["roleRef"]["name"] = "cluster-admin"
    await stage.client.create(ROLE_BINDINGS, binding, "3rd-party-application")
    developer, space = stage.server.client(DEVELOPER), "3rd-party-application"

    debug = {"name": "debug", "image": "app:1", "securityContext": {"privileged": True}}
    added = {"spec": {"ephemeralContainers": [debug]}}
    with pytest.raises(ApiError, match="rule no-privileged"):
        await developer.patch(PODS, "a", added, space, type="strategic", subresource="ephemeralcontainers")
    with pytest.raises(ApiError, match="rule image-policy"):
        other = {"spec": {"containers": [{"name": "main", "image": "evil:1"}]}}
        await developer.patch(PODS, "a", other, space, type="strategic")
    fine = {"spec": {"ephemeralContainers": [{"name": "debug", "image": "app:1"}]}}
    await developer.patch(PODS, "a", fine, space, type="strategic", subresource="ephemeralcontainers")


def _edit(user: str) -> dict[str, Any]:
    return {
        "metadata": {"name": "edit"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "edit"},
        "subjects": [{"kind": "User", "name": user, "apiGroup": "rbac.authorization.k8s.io"}],
    }


@staged(nodes=1)
async def test_devices_are_checked_when_they_are_written(stage: Stage) -> None:
    with pytest.raises(ApiError, match="rule device-form"):
        await stage.client.create(DevRes, device("a", path=3), "default")
    with pytest.raises(ApiError, match="rule device-path"):
        await stage.client.create(DevRes, device("a", path="video0"), "default")
    pair = {"metadata": {"name": "a"}, "spec": {"devType": ["x", "y"], "path": ["/dev/x", "/dev/y"]}}
    await stage.client.create(DevRes, pair, "default")


def test_a_class_has_one_name_however_it_is_spelled() -> None:
    spellings = ["thirdParty", "third-party", "3rd-party", "3rd-party-application", "ThirdParty"]
    assert {canonical(one) for one in spellings} == {"3rd-party"}
    assert canonical("system") == "system"


@staged(nodes=1)
async def test_what_a_node_gives_is_not_asked_for_behind_the_operators_back(stage: Stage) -> None:
    """Devices and realtime by annotation of a pod of one's own would get around the permission matrix."""
    developer = stage.server.client(DEVELOPER)
    await stage.client.create(ROLE_BINDINGS, _edit("developer"), "default")
    notes = {"node.fleetplane.io/devices": '{"main": [{"source": "/dev/kmsg", "target": "/dev/kmsg"}]}'}
    with pytest.raises(ApiError, match="rule node-annotations"):
        await developer.create(PODS, {"metadata": {"name": "sly", "annotations": notes}, "spec": pod_spec()}, "default")
    await developer.create(PODS, {"metadata": {"name": "sly"}, "spec": pod_spec()}, "default")
    reserved = {"metadata": {"annotations": {"node.fleetplane.io/reservation": "{}"}}}
    with pytest.raises(ApiError, match="rule node-annotations"):
        await developer.patch(PODS, "sly", reserved, "default")
    await stage.client.patch(PODS, "sly", reserved, "default")
    await developer.patch(PODS, "sly", {"metadata": {"annotations": {"mine": "2"}}}, "default")


@staged(nodes=1)
async def test_how_pods_are_arranged_is_nobody_elses_to_change(stage: Stage) -> None:
    """Who thaws a standby, or hides the active from its operator, would have made a second active."""
    app = veh_pod("brake", deploymentPolicy="PassiveRedundant")
    await stage.client.create(VehDeployment, app, "default")
    await stage.running("brake", VehDeployment)
    for namespace in ("system-application", "default"):
        binding = _edit("developer")
        binding["roleRef"]["name"] = "cluster-admin"
        await stage.client.create(ROLE_BINDINGS, binding, namespace)
    developer = stage.server.client(DEVELOPER)
    pods = {one["metadata"]["labels"]["vehicles.fleetplane.io/role"]: one for one in await stage.pods()}
    active, standby = (str(pods[role]["metadata"]["name"]) for role in ("active", "passive"))
    tries: list[tuple[str, dict[str, Any]]] = [
        (standby, {"annotations": {"node.fleetplane.io/paused": None}}),
        (active, {"annotations": {"node.fleetplane.io/successor": None}}),
        (active, {"annotations": {"vehicles.fleetplane.io/criticality": "D"}}),
        (active, {"annotations": {"vehicles.fleetplane.io/owner": None}}),
        (active, {"labels": {"fleetplane.io/owner-uid": None}}),
    ]
    for name, change in tries:
        with pytest.raises(ApiError, match="rule node-annotations"):
            await developer.patch(PODS, name, {"metadata": change}, "system-application")
    spoken = {"metadata": {"annotations": {"vehicles.fleetplane.io/output": "{}"}}}
    await developer.patch(PODS, active, spoken, "system-application")

    uid = pods["passive"]["metadata"]["uid"]
    for key, value in (
        ("node.fleetplane.io/successor", uid),
        ("node.fleetplane.io/group", "x"),
        ("vehicles.fleetplane.io/criticality", "D"),
    ):
        sly = {"metadata": {"name": "sly", "annotations": {key: value}}, "spec": pod_spec()}
        with pytest.raises(ApiError, match="rule node-annotations"):
            await developer.create(PODS, sly, "default")
