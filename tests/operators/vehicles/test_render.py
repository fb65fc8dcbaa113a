"""Plain manifests of vehicle manifests: what the plane would run, for those who run it without one."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from tests.contract.test_container_runtime import why_not_podman
from tests.node import image
from tests.operators.vehicles.stage import pod_spec, veh_deployment, veh_pod
from tests.operators.vehicles.test_plan import conf, dev

from fleetplane.interfaces.cli.main import run
from fleetplane.model import yaml
from fleetplane.operators.vehicles.render import FORMATS, RenderError, Rendering, render

API = "crd.piccolo.org/v1alpha1"


def of(kind: str, obj: dict[str, Any]) -> dict[str, Any]:
    return {**obj, "apiVersion": API, "kind": kind}


def camera(**more: Any) -> list[dict[str, Any]]:
    app = veh_pod(
        "camera",
        devResInfo=[{"devName": "cam", "devDestPath": "/dev/video0"}],
        vehContainerConfigInfo=["window"],
        **more,
    )
    config = conf("window", piccoloEnv=[{"name": "DISPLAY", "value": ":1"}])
    return [
        of("DevRes", dev("cam", path="/dev/zero", allowedAppTypes=["3rd-party"])),
        of("VehContainerConfig", config),
        of("VehPod", app),
    ]


def documents(rendering: Rendering, *files: str) -> list[dict[str, Any]]:
    return [one.value for file in files or rendering.files for one in yaml.load_all(rendering.files[file])]


def test_for_kubernetes_come_namespace_class_and_pod_in_this_order() -> None:
    made = render(camera(appType="3rd-party", criticality="QM"), "kubernetes")
    kinds = [one["kind"] for one in documents(made)]
    assert kinds == ["Namespace", "LimitRange", "ResourceQuota", "PriorityClass", "Pod"]
    pod = documents(made)[-1]
    assert (pod["metadata"]["namespace"], pod["metadata"]["name"]) == ("3rd-party-application", "camera")
    assert pod["metadata"]["labels"] == {"application-type": "3rd-party"}
    assert [one["hostPath"] for one in pod["spec"]["volumes"]] == [{"path": "/dev/zero"}]
    assert not {key for key in pod["metadata"]["annotations"] if key.endswith(("hash", "owner"))}


def test_for_podman_a_device_is_a_device_and_limits_are_written_out() -> None:
    made = render(camera(appType="3rd-party", criticality="QM"), "podman")
    (pod,) = documents(made)
    assert "namespace" not in pod["metadata"]
    assert [one["hostPath"] for one in pod["spec"]["volumes"]] == [{"path": "/dev/zero", "type": "CharDevice"}]
    (container,) = pod["spec"]["containers"]
    assert container["resources"]["limits"] == {"cpu": "100m", "memory": "128Mi"}
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert made.notes == ("VehPod camera: Podman does not know priorityClassName",)


def test_units_of_an_application_start_in_the_order_of_its_dependencies() -> None:
    services = [
        {"name": "view", "dependsOn": ["signals"], "spec": veh_pod("x")["spec"]},
        {"name": "signals", "spec": veh_pod("x", criticality="B")["spec"]},
    ]
    app = {"metadata": {"name": "cockpit"}, "spec": {"microservices": services}}
    made = render([of("VehApplication", app)], "quadlet")
    assert list(made.files) == [
        "cockpit-signals.yaml",
        "cockpit-signals.kube",
        "cockpit-view.yaml",
        "cockpit-view.kube",
    ]
    unit = made.files["cockpit-view.kube"]
    assert "Requires=cockpit-signals.service\nAfter=cockpit-signals.service\n" in unit
    assert "[Kube]\nYaml=cockpit-view.yaml\n" in unit
    assert "criticality B" in made.files["cockpit-signals.kube"]


def test_config_maps_come_along_and_what_is_left_out_is_told() -> None:
    containers = [{"name": "c", "image": "i", "envFrom": [{"configMapRef": {"name": "settings"}}]}]
    objects = [
        of("VehPod", veh_pod("a", podSpec=pod_spec(containers=containers), reservation={"cpuSet": "0"})),
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings"}, "data": {"A": "1"}},
        {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "key"}},
        of("LifecycleManagingRule", {"metadata": {"name": "on"}, "spec": {}}),
        of("VehPod", veh_pod("later", state="Stopped")),
    ]
    made = render(objects, "podman")
    assert [one["kind"] for one in documents(made)] == ["ConfigMap", "Pod"]
    assert made.notes == (
        "LifecycleManagingRule on is not rendered: it needs the plane",
        "VehPod later is not rendered: its state is Stopped",
        "Secret key is not rendered: Podman is not given it",
        "VehPod a: its reservation is not applied",
    )


NODE_NAME = conf("where", piccoloEnv=[{"name": "WHERE", "value": "${NODE_NAME}"}])
TWO = [{"name": "a", "image": "i"}, {"name": "b", "image": "i"}]
WATCHED = {"primaryContainer": TWO[:1], "watcherContainer": TWO[1]}
REFUSED: list[tuple[list[dict[str, Any]], str]] = [
    ([of("VehDeployment", veh_deployment("brake", "PassiveRedundant"))], "which only the plane can do"),
    (
        [of("VehPod", veh_pod("a", deploymentPolicy="passiveRedundant", podSpec={"containers": TWO}))],
        "only the plane can",
    ),
    ([of("VehDeployment", veh_deployment("a", "Monitoring", monitoring=WATCHED))], "there is none to ask"),
    ([of("VehPod", veh_pod("a", "3rd-party", podSpec=pod_spec(hostNetwork=True)))], "rule no-host-namespaces"),
    ([of("VehPod", veh_pod("a", devResInfo=[{"devName": "x", "devDestPath": "/x"}]))], "names DevRes/x; give"),
    ([of("VehPod", veh_pod("a", "unknown"))], "rule app-type"),
    ([of("VehPod", veh_pod("../../etc/cron.d/x"))], "is refused"),
    ([of("VehPod", veh_pod("a", state="Stopped"))], "its state is Stopped"),
    ([of("VehPod", veh_pod("a")), of("VehPod", veh_pod("a", "3rd-party"))], "two pods are called a"),
    (
        [of("VehContainerConfig", NODE_NAME), of("VehPod", veh_pod("a", vehContainerConfigInfo=["where"]))],
        "the pod's spec.nodeName, which Podman cannot say",
    ),
]


@pytest.mark.parametrize(("objects", "says"), REFUSED)
def test_what_would_be_refused_or_unsafe_is_not_rendered(objects: list[dict[str, Any]], says: str) -> None:
    with pytest.raises(RenderError, match=says):
        render(objects, "podman")


@pytest.mark.parametrize("form", FORMATS)
def test_redundant_instances_are_pods_of_their_own(form: str) -> None:
    made = render([of("VehDeployment", veh_deployment("radar", "NModularRedundant"))], form)
    pods = documents(made, *[key for key in made.files if "radar" in key and "yaml" in key])
    assert [one["metadata"]["name"] for one in pods] == ["radar-a", "radar-b", "radar-c"]
    assert "VehDeployment radar: its voters run, and nobody counts what they say" in made.notes


def test_the_command_prints_or_writes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "camera.yaml"
    file.write_text(yaml.dump_all(camera()))
    assert run(["vehicles", "render", "-f", str(file)]) == 0
    assert [one.value["kind"] for one in yaml.load_all(capsys.readouterr().out)] == ["Namespace", "Pod"]

    into = tmp_path / "units"
    assert run(["vehicles", "render", "-f", str(file), "--format", "quadlet", "--into", str(into)]) == 0
    assert sorted(one.name for one in into.iterdir()) == ["camera.kube", "camera.yaml"]

    assert run(["vehicles", "render", "-f", str(file), "--format", "quadlet"]) == 2
    file.write_text(yaml.dump_all(camera()[2:]))
    capsys.readouterr()
    assert run(["vehicles", "render", "-f", str(file)]) == 1
    assert "give the manifests of these too" in capsys.readouterr().err


@pytest.mark.podman
def test_podman_plays_what_was_rendered_and_the_device_can_be_read(tmp_path: Path) -> None:
    if reason := why_not_podman():
        pytest.skip(reason)
    podman, called = shutil.which("podman") or "", "localhost/fleetplane-rendered:1"
    root = image.write_root(tmp_path / "root.tar")
    subprocess.run([podman, "import", "-q", str(root), called], check=True, stdout=subprocess.DEVNULL)
    command = ["/bin/sh", "-c", "head -c 8 /dev/video0 | wc -c; echo display $DISPLAY"]
    containers = [{"name": "c", "image": called, "command": command}]
    spec = pod_spec(containers=containers, hostNetwork=True, restartPolicy="Never")
    file = tmp_path / "camera.yaml"
    file.write_text("---\n".join(render(camera(podSpec=spec), "podman").files.values()))
    # By itself Podman asks for more than a container that runs this test may have.
    settings = tmp_path / "containers.conf"
    settings.write_text('[containers]\ndefault_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]\n')

    def do(*words: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "CONTAINERS_CONF": str(settings)}
        return subprocess.run(
            [podman, *words], check=False, capture_output=True, text=True, timeout=60, env=environment
        )

    try:
        played = do("kube", "play", str(file))
        assert played.returncode == 0, played.stderr
        do("wait", "camera-c")
        said = do("logs", "camera-c")
        assert said.stdout.split() == ["8", "display", ":1"], said.stderr
    finally:
        do("pod", "rm", "-f", "camera")
        do("rmi", "-f", called)
