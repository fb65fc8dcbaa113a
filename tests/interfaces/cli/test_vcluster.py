"""``fleetplane vcluster``: from create to delete, against a plane with the operator of virtual clusters."""

from __future__ import annotations

import itertools
import re
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.interfaces.cli.conftest import Cli, Served, serving

from fleetplane.client.kubeconfig import find_access
from fleetplane.interfaces.cli import vclusters
from fleetplane.interfaces.cli.errors import CommandError, UsageError
from fleetplane.model import yaml as kube_yaml
from fleetplane.model.objects import Object

_numbers = itertools.count(1)
CLI = (sys.executable, "-m", "fleetplane.interfaces.cli")
IMAGE = "registry:5000/kink:v1.23-ubuntu"


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """One with the operator, in the place of the session's."""
    with serving(tmp_path_factory.mktemp("vclusters"), "vclusters") as served:
        yield served


@pytest.fixture
def made(cli: Cli) -> str:
    """A logical cluster of the test's own."""
    name = f"team-{next(_numbers)}"
    result = cli("vcluster", "create", name, "-o", "json")
    assert result.code == 0, result.err
    assert result.json["status"]["phase"] == "Running"
    return name


def test_a_cluster_is_used_through_its_kubeconfig(cli: Cli, made: str, tmp_path: Path) -> None:
    file = tmp_path / "sub" / "kubeconfig"

    written = cli("vcluster", "kubeconfig", made, "--file", str(file))
    printed = cli("vcluster", "kubeconfig", made)

    assert written.code == 0, written.err
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert kube_yaml.load(printed.out.encode()) == kube_yaml.load(file.read_bytes())
    assert find_access(file).server.endswith(f"/clusters/{made}")
    assert "default" in cli("get", "namespaces", "--kubeconfig", str(file), "-o", "name").out


def test_kubeconfig_speaks_json_and_knows_another_address(cli: Cli, made: str) -> None:
    found = cli("vcluster", "kubeconfig", made, "-o", "json", "--server", "https://plane.example.com:6443/").json

    assert found["clusters"][0]["cluster"]["server"] == f"https://plane.example.com:6443/clusters/{made}"


def test_rotation_gives_other_credentials_that_work(cli: Cli, made: str, tmp_path: Path) -> None:
    before = cli("vcluster", "kubeconfig", made, "-o", "json").json
    file = tmp_path / "rotated"

    assert cli("vcluster", "kubeconfig", made, "--rotate", "--file", str(file)).code == 0

    after = kube_yaml.load(file.read_bytes())
    key = "client-key-data"
    assert after["users"][0]["user"][key] != before["users"][0]["user"][key]
    assert cli("get", "namespaces", "--kubeconfig", str(file)).code == 0


def test_connect_runs_a_command_in_the_cluster_and_ends_with_its_code(cli: Cli, made: str) -> None:
    show = "import os; print(os.environ['KUBECONFIG'], os.path.exists(os.environ['KUBECONFIG'])); raise SystemExit(7)"

    result = cli("vcluster", "connect", made, "--", sys.executable, "-c", show)

    path, existed = result.out.split()
    assert (result.code, existed) == (7, "True")
    assert not Path(path).exists()
    assert cli("vcluster", "connect", made, "--", "/no/such/program").code == 1
    assert cli("vcluster", "connect", made).code == 2


def test_pausing_and_resuming_wait_for_their_end(cli: Cli, made: str) -> None:
    paused = cli("vcluster", "pause", made, "-o", "json")
    again = cli("vcluster", "pause", made)
    resumed = cli("vcluster", "resume", made, "-o", "json")

    assert paused.json["status"]["phase"] == "Paused"
    assert "unchanged" in again.out
    assert resumed.json["status"]["phase"] == "Running"


def test_list_and_delete(cli: Cli, made: str) -> None:
    assert made in cli("vcluster", "list").out
    names = [one["metadata"]["name"] for one in cli("vcluster", "list", "-A", "-o", "json").json["items"]]
    assert made in names

    deleted = cli("vcluster", "delete", made)

    assert (deleted.code, "deleted" in deleted.out) == (0, True)
    assert made not in cli("vcluster", "list").out


def test_a_snapshot_becomes_another_cluster_with_its_content(cli: Cli, made: str) -> None:
    assert cli("vcluster", "connect", made, "--", *CLI, "label", "namespace", "default", "kept=yes").code == 0

    taken = cli("vcluster", "snapshot", made, "--name", "before", "-o", "json")
    restored = cli("vcluster", "restore", "copy", "--from", "before", "-o", "json")

    assert (taken.code, taken.json["status"]["phase"]) == (0, "Done")
    assert (restored.code, restored.json["spec"]["restoreFrom"]) == (0, "before")
    assert "kept=yes" in cli("vcluster", "connect", "copy", "--", *CLI, "get", "namespaces", "--show-labels").out
    assert cli("vcluster", "delete", "copy").code == 0


def test_what_cannot_be_done_is_said_in_one_sentence(cli: Cli, made: str) -> None:
    for words, code, sentence in (
        (("kubeconfig", "nobody"), 1, "there is no virtual cluster 'nobody' in namespace default; there are: "),
        (("delete", "nobody"), 1, "there is no virtual cluster"),
        (("scale", made, "--workers", "2"), 1, "no nodes of its own"),
        (("upgrade", made, "--image", "x"), 1, "upgraded with the server"),
        (("restore", "new", "--from", "nothing"), 1, "there is no snapshot 'nothing'"),
        (("create", "x", "--workers", "2"), 2, "name their node image with --image"),
        (("create", "x", "--image", IMAGE, "--port", "web"), 2, "--port 'web' is not"),
        (("create", "x", "--ttl", "soon"), 2, "--ttl 'soon' is not a length of time"),
        (("kubeconfig", made, "--server", "example.com"), 2, "--server 'example.com' is not an address"),
    ):
        result = cli("vcluster", *words)
        assert result.code == code, (words, result)
        assert sentence in result.err, (words, result.err)
        assert len(result.err.splitlines()) == 1


def test_a_server_without_virtual_clusters_is_told_of(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(tmp_path / "bare") as bare:
        monkeypatch.setenv("KUBECONFIG", str(bare.kubeconfig))
        for words in (("create", "x"), ("pause", "x")):
            result = cli("vcluster", *words)
            assert result.code == 1
            assert "run it with the operator vclusters" in result.err


def test_ports_that_somebody_has_are_told_before_anything_is_made(cli: Cli) -> None:
    first = ("vcluster", "create", "lab", "--image", IMAGE, "--port", "web=80:30123", "--no-wait")
    assert cli(*first).code == 0

    rehearsed = cli("vcluster", "create", "lab2", "--image", IMAGE, "--port", "web=80:30123", "--dry-run")

    assert rehearsed.code == 0
    assert re.search(r"warning: NodePort 30123.* lab\b", rehearsed.err)
    assert cli("get", "vk8s", "lab2").code == 1
    assert cli("vcluster", "delete", "lab").code == 0


def test_waiting_ends_with_what_is_missing(cli: Cli) -> None:
    assert cli("vcluster", "create", "slow", "--image", IMAGE, "--no-wait").code == 0

    result = cli("vcluster", "resume", "slow", "--timeout", "100ms")

    assert result.code == 1
    assert "were not enough for vk8s.vk8s.sktelecom.com/slow" in result.err
    assert cli("vcluster", "delete", "slow", "--no-wait").code == 0


# -- changes, which are pure


def cluster(*nodes: tuple[str, str], image: str = IMAGE) -> Object:
    made = [{"name": name, "role": role, "image": image, "resources": {"limits": {"cpu": "3"}}} for name, role in nodes]
    return {"metadata": {"name": "lab"}, "spec": {"nodes": made, "ports": [{"port": 80, "nodePort": 30080}]}}


def test_scaling_out_copies_the_last_worker_under_free_names_and_in_removes_the_latest() -> None:
    obj = cluster(("m", "master"), ("lab-w1", "worker"))

    more = (vclusters.scaled(3)(obj) or {})["spec"]["nodes"]
    fewer = (vclusters.scaled(0)(obj) or {})["spec"]["nodes"]

    assert [one["name"] for one in more] == ["m", "lab-w1", "lab-w0", "lab-w2"]
    assert all(one["resources"] == {"limits": {"cpu": "3"}} for one in more)
    assert [one["name"] for one in fewer] == ["m"]
    assert vclusters.scaled(1)(obj) is None


def test_upgrading_changes_every_image_and_nothing_else() -> None:
    obj = cluster(("m", "master"), ("w", "worker"))

    nodes = (vclusters.upgraded("new:v1.24")(obj) or {})["spec"]["nodes"]

    assert {one["image"] for one in nodes} == {"new:v1.24"}
    assert vclusters.upgraded(IMAGE)(obj) is None
    with pytest.raises(CommandError, match="upgraded with the server"):
        vclusters.upgraded("x")({"metadata": {"name": "a"}, "spec": {}})


def test_a_copy_of_a_cluster_takes_no_name_and_no_port_of_the_original() -> None:
    obj = cluster(("lab-m", "master"), ("w", "worker"))

    spec = vclusters.copied_spec(obj, "copy")

    assert [one["name"] for one in spec["nodes"]] == ["copy-m", "copy-w"]
    assert spec["ports"] == [{"port": 80}]


def test_resuming_wakes_one_that_sleeps() -> None:
    asleep = {"metadata": {"name": "a"}, "status": {"asleepSince": "2026-01-01T00:00:00Z"}}

    patch = vclusters.paused(False, "2026-01-02T00:00:00Z")(asleep) or {}

    assert patch["metadata"]["annotations"][vclusters.USED_AT] == "2026-01-02T00:00:00Z"
    assert vclusters.paused(False, "x")({"metadata": {"name": "a"}}) is None


@pytest.mark.parametrize(("text", "port"), [("80", 80), ("web=80", 80), ("web=80:30080", 80)])
def test_ports_are_read(text: str, port: int) -> None:
    assert vclusters.parse_port(text)["port"] == port


def test_what_is_no_port_is_refused() -> None:
    for text in ("", "web", "80:", "Web=80", "1:2:3"):
        with pytest.raises(UsageError):
            vclusters.parse_port(text)


def test_names_are_the_operators() -> None:
    """They stand in two places so that commands start quickly; they must be the same."""
    from fleetplane.operators.vclusters import kinds

    assert kinds.Vk8s.resource.plural == vclusters.VCLUSTERS.plural
    assert kinds.Vk8sSnapshot.resource.plural == vclusters.SNAPSHOTS.plural
    assert kinds.Vk8s.resource.api_version == vclusters.VCLUSTERS.api_version
    assert (kinds.NETWORK, kinds.STOPPED, kinds.ROTATE) == (vclusters.NETWORK, vclusters.STOPPED, vclusters.ROTATE)
    assert kinds.USED_AT == vclusters.USED_AT
