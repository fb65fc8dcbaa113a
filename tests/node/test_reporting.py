"""What goes to the API and what need not: status patches, node capacity, registry credentials, the host's ways."""

from __future__ import annotations

import base64
import json
import tomllib
from pathlib import Path

import pytest
from tests.node.made import NOW, at

from fleetplane.model.environment import SystemEnvironment
from fleetplane.node.check import as_text, check_cgroups, check_limits, check_node
from fleetplane.node.podman.host import HostFacts, cgroup_layout, choose_oci_runtime
from fleetplane.node.podman.service import PodmanService, to_toml
from fleetplane.node.pull_secrets import credentials_for, registry_of
from fleetplane.node.registration import NodeDescription, node_status, says_the_same
from fleetplane.node.reporter import is_dull, status_patch

# Status patches


def test_only_what_differs_is_sent() -> None:
    before = {"phase": "Pending", "hostIP": "192.0.2.1", "reason": "X"}

    assert status_patch({"phase": "Running", "hostIP": "192.0.2.1"}, before) == {"phase": "Running", "reason": None}
    assert status_patch(before, before) == {}


def test_conditions_of_others_stay_and_old_reasons_go() -> None:
    before = {
        "conditions": [
            {"type": "Ready", "status": "False", "reason": "ContainersNotReady"},
            {"type": "Initialized", "status": "True"},
            {"type": "example.org/theirs", "status": "True"},
        ]
    }
    now = {"conditions": [{"type": "Ready", "status": "True"}, {"type": "Initialized", "status": "True"}]}

    assert status_patch(now, before) == {"conditions": [{"type": "Ready", "status": "True", "reason": None}]}


def test_a_changed_address_replaces_the_old_one() -> None:
    patch = status_patch({"podIPs": [{"ip": "10.0.0.3"}]}, {"podIPs": [{"ip": "10.0.0.2"}]})

    assert patch["podIPs"] == [{"$patch": "replace"}, {"ip": "10.0.0.3"}]


def test_creating_is_dull_and_everything_else_is_news() -> None:
    def waiting(reason: str) -> dict:
        return {"phase": "Pending", "containerStatuses": [{"state": {"waiting": {"reason": reason}}}]}

    assert is_dull(waiting("ContainerCreating"))
    assert not is_dull(waiting("ErrImagePull"))
    assert not is_dull({"phase": "Running"})


# Nodes


NODE = NodeDescription("n", {"cpu": "4", "memory": "8Gi", "pods": "110"}, {"memory": "7Gi"})


def test_resources_of_others_are_kept_and_mirrored() -> None:
    before = node_status(NODE, {}, NOW)
    before["capacity"]["example.org/vm"] = "5"
    after = node_status(NODE, before, at(10))

    assert after["capacity"]["example.org/vm"] == after["allocatable"]["example.org/vm"] == "5"
    assert after["allocatable"]["memory"] == "7Gi"


def test_a_heartbeat_alone_says_nothing_new() -> None:
    before = node_status(NODE, {}, NOW)
    pressed = NodeDescription("n", NODE.capacity, unhealthy={"MemoryPressure": ("KubeletHasMemoryPressure", "low")})

    assert says_the_same(node_status(NODE, before, at(60)), before)
    after = node_status(pressed, before, at(60))
    assert not says_the_same(after, before)
    changed = {c["type"]: (c["status"], c["lastTransitionTime"]) for c in after["conditions"]}
    assert changed["MemoryPressure"] == ("True", "2026-01-01T12:01:00Z")
    assert changed["Ready"] == ("True", "2026-01-01T12:00:00Z")


# Registries


@pytest.mark.parametrize(
    ("image", "registry"),
    [("nginx", "docker.io"), ("org/app:1", "docker.io"), ("example.org/app", "example.org"), ("a:5000/x", "a:5000")],
)
def test_registries(image: str, registry: str) -> None:
    assert registry_of(image) == registry


def secret(**auths: object) -> dict:
    text = json.dumps({"auths": auths}).encode()
    return {"data": {".dockerconfigjson": base64.b64encode(text).decode()}}


def test_the_longest_match_comes_first() -> None:
    pair = base64.b64encode(b"u:p").decode()
    made = secret(**{"example.org": {"username": "all", "password": "x"}, "https://example.org/team": {"auth": pair}})

    assert [one.username for one in credentials_for("example.org/team/app:1", [made])] == ["u", "all"]
    assert [one.username for one in credentials_for("example.org/other", [made])] == ["all"]
    assert credentials_for("elsewhere.org/app", [made]) == []
    assert credentials_for("nginx", [{"data": {".dockerconfigjson": "bm90IGpzb24="}}]) == []
    assert "p" not in repr(credentials_for("example.org/team/app:1", [made])[0]).replace("password", "").replace(
        "RegistryAuth(username='u'", ""
    )


# The host


def test_cgroup_layouts(tmp_path: Path) -> None:
    assert cgroup_layout(tmp_path) == "none"
    (tmp_path / "memory").mkdir()
    assert cgroup_layout(tmp_path) == "v1"
    (tmp_path / "unified").mkdir()
    (tmp_path / "unified" / "cgroup.procs").touch()
    assert cgroup_layout(tmp_path) == "hybrid"
    (tmp_path / "cgroup.controllers").touch()
    assert cgroup_layout(tmp_path) == "v2"


def test_runc_where_crun_would_refuse() -> None:
    assert choose_oci_runtime("hybrid", {"crun", "runc"}) == "runc"
    assert choose_oci_runtime("v2", {"crun", "runc"}) == ""
    assert choose_oci_runtime("v2", {"runc"}) == "runc"
    assert choose_oci_runtime("hybrid", {"crun"}) == ""


def test_configuration_as_toml() -> None:
    text = to_toml(
        {"containers": {"default_ulimits": ["nofile=1:1"], "a": True, "b": 'x"y'}, "engine": {"r": {"c": ["/x"]}}}
    )

    assert (
        text
        == '[containers]\ndefault_ulimits = ["nofile=1:1"]\na = true\nb = "x\\"y"\n[engine]\n[engine.r]\n"c" = ["/x"]\n'
    )


def facts(**more: object) -> HostFacts:
    usual = {
        "podman": "/usr/bin/podman",
        "cgroups": "v2",
        "cgroup_manager": "systemd",
        "oci_runtime": "",
        "root": True,
        "may_raise_limits": True,
        "rlimits": {"nofile": 1, "nproc": 2},
    }
    return HostFacts(**{**usual, **more})  # type: ignore[arg-type]


def test_the_services_configuration_keeps_what_the_machine_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    (tmp_path / "containers").mkdir()
    (tmp_path / "containers/containers.conf").write_text('[engine]\nevents_logger = "file"\n')

    path = PodmanService(facts(root=False, may_raise_limits=False), tmp_path)._write_configuration()

    made = tomllib.loads(path.read_text())
    assert made["engine"] == {**made["engine"], "events_logger": "file", "exit_command_delay": 30}
    assert made["containers"]["default_ulimits"] == ["nofile=1:1", "nproc=2:2"]


def test_findings_say_what_to_do() -> None:
    assert check_cgroups(facts()).verdict == "works"
    assert check_cgroups(facts(cgroups="hybrid")).advice.startswith("Install runc")
    assert check_cgroups(facts(cgroups="v1", root=False)).verdict == "limited"
    assert check_cgroups(facts(cgroups="hybrid", root=False, oci_runtime="runc")).verdict == "limited"
    assert "nofile 1, nproc 2" in check_limits(facts(may_raise_limits=False)).words
    assert not facts().needs_flags
    assert facts(may_raise_limits=False).needs_flags


async def test_this_machine_can_be_checked(tmp_path: Path) -> None:
    findings = await check_node(tmp_path, SystemEnvironment(), run_container=False)

    assert [finding.subject for finding in findings][:2] == ["Podman", "Resource limits"]
    assert all(finding.words.endswith(".") for finding in findings)
    assert len(as_text(findings).splitlines()) >= len(findings)
