"""What is kept in the repository for other Kubernetes is what the operators declare today."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

from fleetplane.client.http import HttpTransport
from fleetplane.client.kubeconfig import Access
from fleetplane.client.rest import RestClient
from fleetplane.controller import load_operators
from fleetplane.interfaces.cli.deployment import parts_of, webhooks_of
from fleetplane.interfaces.cli.kustomize import bases, write_bases
from fleetplane.model import yaml
from fleetplane.model.objects import Object

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "config"
CLIENT = RestClient(HttpTransport(Access("https://127.0.0.1")))


def documents(path: Path) -> list[Object]:
    return [one.value for one in yaml.load_all(path.read_bytes())]


def test_the_bases_are_what_the_operators_declare() -> None:
    wanted = bases(parts_of(load_operators(), CLIENT))
    kept = {str(path.relative_to(CONFIG)): path.read_text() for path in CONFIG.rglob("*.yaml")}

    stale = sorted(path for path, text in wanted.items() if kept.get(path) != text)
    left = sorted(path for path in kept if path not in wanted and not path.startswith("samples/"))
    assert (stale, left) == ([], []), "run `make manifests` and commit config/"


def test_every_kind_has_a_sample() -> None:
    kinds = {str(one["spec"]["names"]["kind"]) for operator in load_operators() for one in operator.manifests()}
    shown = {str(one["kind"]) for path in (CONFIG / "samples").rglob("*.yaml") for one in documents(path)}

    assert kinds | {"LogicalCluster"} <= shown


@pytest.mark.parametrize(
    "folder", sorted(path.parent.name for path in (CONFIG / "samples").glob("*/kustomization.yaml"))
)
def test_no_sample_is_left_out(folder: str) -> None:
    (listed,) = documents(CONFIG / "samples" / folder / "kustomization.yaml")
    (folders,) = documents(CONFIG / "samples" / "kustomization.yaml")

    assert sorted(listed["resources"]) == sorted(
        path.name for path in (CONFIG / "samples" / folder).glob("*.yaml") if path.name != "kustomization.yaml"
    )
    assert folder in folders["resources"]


def test_what_was_made_before_and_is_no_more_is_removed_and_what_others_put_there_stays(tmp_path: Path) -> None:
    write_bases(parts_of(load_operators(), CLIENT), tmp_path)
    mine = tmp_path / "crd" / "bases" / "mine.yaml"
    mine.write_text("kind: Mine\n")
    write_bases(parts_of(load_operators(["vehicles"]), CLIENT), tmp_path)

    names = {path.name for path in (tmp_path / "crd" / "bases").iterdir()}
    assert "mine.yaml" in names
    assert "vehpods.crd.piccolo.org.yaml" in names
    assert not [name for name in names if "confidentialcontainers" in name]


def test_no_right_is_wider_than_it_is_named() -> None:
    """Rights to everything would make least rights a word."""
    for one in parts_of(load_operators(), CLIENT).rbac:
        for rule in one.get("rules", ()):
            assert not {"*"} & {*rule["verbs"], *rule["resources"], *rule["apiGroups"]}, rule


def test_nothing_is_asked_about_pods_where_the_operators_themselves_must_start() -> None:
    for configuration in webhooks_of(load_operators(), "mine"):
        for webhook in configuration["webhooks"]:
            if any("pods" in rule["resources"] for rule in webhook["rules"]):
                (last,) = webhook["namespaceSelector"]["matchExpressions"][-1:]
                assert (last["operator"], last["values"]) == ("NotIn", ["kube-system", "mine"])


def test_what_only_our_server_needs_is_no_webhook() -> None:
    names = {
        one["name"] for configuration in webhooks_of(load_operators(), "mine") for one in configuration["webhooks"]
    }

    assert "pods.vclusters.fleetplane.io" not in names
    assert {"check.vclusters.fleetplane.io", "pods.peerpods.fleetplane.io"} <= names


def test_the_chart_has_what_the_operators_declare() -> None:
    files = runpy.run_path(str(ROOT / "tools" / "write_chart.py"))["files"]()
    folder = ROOT / "deploy" / "charts" / "fleetplane-operators" / "files"
    kept = {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*.yaml")}

    stale = sorted(path for path in {*files, *kept} if files.get(path) != kept.get(path))
    assert stale == [], "run `make manifests` and commit deploy/charts/"


def test_the_chart_offers_every_operator() -> None:
    (values,) = documents(ROOT / "deploy" / "charts" / "fleetplane-operators" / "values.yaml")

    assert values["operators"] == sorted(one.name for one in load_operators())
