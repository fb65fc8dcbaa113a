"""What the adaptor is told, and what is said when that is not enough."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from fleetplane.operators.peerpods.adaptor import daemon_set, settings_of

CONFIG: Any = {"metadata": {"name": "one", "namespace": "default"}, "spec": {"nodeSelector": {"a": "b"}}}


def config_map(**data: str) -> Any:
    return {"data": data}


def secret(**data: str) -> Any:
    return {"data": {key: base64.b64encode(value.encode()).decode() for key, value in data.items()}}


@pytest.mark.parametrize(
    ("plain", "hidden", "reason"),
    [
        (None, secret(), "Missing"),
        (config_map(), None, "Missing"),
        (config_map(), secret(), "NoProvider"),
        (config_map(CLOUD_PROVIDER="aws"), secret(CLOUD_PROVIDER="azure"), "Contradiction"),
        (config_map(CLOUD_PROVIDER="nimbus"), secret(), "UnknownProvider"),
        (config_map(CLOUD_PROVIDER="aws"), secret(), "Incomplete"),
        (config_map(CLOUD_PROVIDER="aws"), secret(PODVM_AMI_ID="ami-1"), ""),
        (config_map(), secret(CLOUD_PROVIDER="libvirt"), ""),
    ],
)
def test_settings_that_are_not_enough_say_why(plain: Any, hidden: Any, reason: str) -> None:
    found = settings_of(CONFIG, plain, hidden)

    assert found.reason == reason
    assert bool(found.problems) == bool(reason)


def test_a_problem_never_shows_a_credential() -> None:
    found = settings_of(CONFIG, config_map(CLOUD_PROVIDER="aws"), secret(AWS_SECRET_ACCESS_KEY="hush"))

    assert "hush" not in " ".join(found.problems)
    assert "hush" not in found.digest


def test_the_config_map_wins_and_files_in_the_secret_are_no_settings() -> None:
    hidden = {"data": {**secret(A="secret", CLOUD_PROVIDER="libvirt")["data"], "file": "////"}}

    assert settings_of(CONFIG, config_map(A="plain"), hidden).values == {"A": "plain", "CLOUD_PROVIDER": "libvirt"}


def test_the_digest_changes_with_any_setting() -> None:
    found = {settings_of(CONFIG, config_map(A=value), secret()).digest for value in ("1", "2", "1")}

    assert len(found) == 2


def test_nodes_of_another_config_are_left_out() -> None:
    pod = daemon_set(CONFIG, "d", "image", "digest", ["n2", "n1"])["spec"]["template"]["spec"]

    (term,) = pod["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    assert [one["values"] for one in term["matchFields"]] == [["n1"], ["n2"]]
    assert pod["nodeSelector"] == {"a": "b"}


def test_the_adaptor_does_not_advertise_capacity_of_its_own() -> None:
    (container,) = daemon_set(CONFIG, "d", "image", "digest")["spec"]["template"]["spec"]["containers"]

    assert {"name": "PEERPODS_LIMIT_PER_NODE", "value": "-1"} in container["env"]
