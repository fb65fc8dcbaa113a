"""``apply``: files become objects, in an order that works, and messages say what to do when it does not."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

CRD = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "baskets.shop.example.org"},
    "spec": {
        "group": "shop.example.org",
        "scope": "Namespaced",
        "names": {"plural": "baskets", "kind": "Basket"},
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "schema": {
                    "openAPIV3Schema": {
                        "type": "object",
                        "properties": {
                            "spec": {
                                "type": "object",
                                "description": "What is in it.",
                                "properties": {"size": {"type": "integer", "description": "How many things fit."}},
                            }
                        },
                    }
                },
            }
        ],
    },
}


def test_created_then_unchanged_then_configured(cli: Any, namespace: str, config_map: Callable[..., str]) -> None:
    def applied(**data: str) -> str:
        return str(cli("apply", "-n", namespace, "-f", "-", stdin=config_map("one", **data)).out)

    assert applied(a="1") == "configmap/one created\n"
    assert applied(a="1") == "configmap/one unchanged\n"
    assert applied(a="2") == "configmap/one configured\n"


def test_a_folder_goes_in_an_order_that_works(cli: Any, tmp_path: Path) -> None:
    """An object stands in a file before its namespace and before the definition of its kind."""
    folder = tmp_path / "set"
    folder.mkdir()
    basket = {"apiVersion": "shop.example.org/v1", "kind": "Basket", "metadata": {"name": "a", "namespace": "shop"}}
    (folder / "1.json").write_text(json.dumps(basket))
    (folder / "2.yaml").write_text("kind: Namespace\napiVersion: v1\nmetadata: {name: shop}\n---\n" + json.dumps(CRD))

    applied = cli("apply", "-f", str(folder))

    assert applied.code == 0, applied.err
    assert [line.split()[0] for line in applied.lines] == [
        "namespace/shop",
        "customresourcedefinition.apiextensions.k8s.io/baskets.shop.example.org",
        "basket.shop.example.org/a",
    ]


def test_folders_below_a_folder_only_with_recursive(
    cli: Any, namespace: str, config_map: Callable[..., str], tmp_path: Path
) -> None:
    below = tmp_path / "set" / "below"
    below.mkdir(parents=True)
    (below / "one.yaml").write_text(config_map("one"))

    without = cli("apply", "-n", namespace, "-f", str(tmp_path / "set"))
    recursive = cli("apply", "-n", namespace, "-R", "-f", str(tmp_path / "set"))

    assert (without.code, "use -R" in without.err) == (1, True)
    assert recursive.out == "configmap/one created\n"


def test_a_field_of_somebody_else_is_not_taken_without_saying_so(
    cli: Any, namespace: str, config_map: Callable[..., str]
) -> None:
    first, second = config_map("one", a="1"), config_map("one", a="2")
    cli("apply", "-n", namespace, "-f", "-", "--field-manager", "alice", stdin=first)

    refused = cli("apply", "-n", namespace, "-f", "-", "--field-manager", "bob", stdin=second)
    forced = cli("apply", "-n", namespace, "-f", "-", "--field-manager", "bob", "--force-conflicts", stdin=second)

    assert refused.code == 1
    assert ".data.a" in refused.err
    assert "alice" in refused.err
    assert "--force-conflicts" in refused.err
    assert forced.out == "configmap/one configured\n"


def test_a_dry_run_on_the_server_checks_and_changes_nothing(
    cli: Any, namespace: str, config_map: Callable[..., str]
) -> None:
    tried = cli("apply", "-n", namespace, "-f", "-", "--dry-run=server", stdin=config_map("one"))

    assert tried.out == "configmap/one created (server dry run)\n"
    assert cli("get", "cm/one", "-n", namespace).code == 1


def test_a_diff_shows_only_what_people_wrote(cli: Any, namespace: str, config_map: Callable[..., str]) -> None:
    cli("apply", "-n", namespace, "-f", "-", stdin=config_map("one", a="1"))

    shown = cli("apply", "-n", namespace, "-f", "-", "--diff", "--dry-run", stdin=config_map("one", a="2"))

    assert "-  a: '1'" in shown.out.replace('"', "'")
    assert "+  a: '2'" in shown.out.replace('"', "'")
    assert "resourceVersion" not in shown.out


def test_pruning_deletes_what_left_the_set_and_nothing_else(
    cli: Any, namespace: str, config_map: Callable[..., str]
) -> None:
    labels = {"set": namespace}
    both = config_map("one", labels=labels) + "\n---\n" + config_map("two", labels=labels)
    cli("apply", "-n", namespace, "-f", "-", stdin=both)
    cli("apply", "-n", namespace, "-f", "-", "--field-manager", "else", stdin=config_map("three", labels=labels))

    applied = cli(
        "apply", "-n", namespace, "-f", "-", "--prune", "-l", f"set={namespace}", stdin=config_map("one", labels=labels)
    )

    assert applied.lines == ["configmap/one unchanged", "configmap/two pruned"]
    assert cli("get", "cm/three", "-n", namespace).code == 0


def test_waiting_for_what_was_applied(cli: Any, namespace: str, deployment: Callable[..., str]) -> None:
    applied = cli("apply", "-n", namespace, "-f", "-", "--wait", "--timeout", "20s", stdin=deployment(replicas=2))

    assert applied.code == 0, applied.err
    status = cli("get", "deploy/web", "-n", namespace, "-o", "json").json["status"]
    assert status["availableReplicas"] == 2


def test_from_an_address(cli: Any, namespace: str, config_map: Callable[..., str]) -> None:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/one.yaml" else 404)
            self.end_headers()
            self.wfile.write(config_map("one").encode())

        def log_message(self, format: str, *args: Any) -> None:
            """Quiet."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        found = cli("apply", "-n", namespace, "-f", f"{address}/one.yaml")
        missing = cli("apply", "-n", namespace, "-f", f"{address}/two.yaml")
        server.shutdown()

    assert found.out == "configmap/one created\n"
    assert missing.err == f"fleetplane: cannot read {address}/two.yaml: the server answered 404 Not Found\n"


def test_one_refused_object_does_not_stop_the_others(cli: Any, namespace: str, config_map: Callable[..., str]) -> None:
    bad = json.dumps({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "bad"}, "dato": {}})

    applied = cli("apply", "-n", namespace, "-f", "-", stdin=bad + "\n---\n" + config_map("good"))

    assert applied.code == 1
    assert applied.out == "configmap/good created\n"
    assert "ConfigMap bad of standard input was refused" in applied.err
    assert "dato" in applied.err


def test_errors_name_the_file_and_what_to_do(cli: Any, tmp_path: Path, namespace: str) -> None:
    cases = {
        "a: [": "cannot be read",
        "kind: Pod\nmetadata: {name: a}": "has no apiVersion",
        "kind: Pod\napiVersion: v1\nmetadata: {}": "has no metadata.name",
        "kind: Pod\nkind: Pod\napiVersion: v1\nmetadata: {name: a}": "sets a key twice",
        "kind: Foo\napiVersion: foo.example.org/v1\nmetadata: {name: a}": "has no kind Foo",
        "kind: Pod\napiVersion: v1\nmetadata: {name: a, namespace: other}": "puts Pod a into namespace 'other'",
    }
    for text, expected in cases.items():
        path = tmp_path / "bad.yaml"
        path.write_text(text)
        found = cli("apply", "-n", namespace, "-f", str(path))
        assert found.code == 1
        assert expected in found.err
        assert "bad.yaml" in found.err
        assert found.err.count("\n") == 1, found.err


def test_the_objects_can_be_had_as_json(cli: Any, namespace: str, config_map: Callable[..., str]) -> None:
    applied = cli("apply", "-n", namespace, "-f", "-", "-o", "json", stdin=config_map("one", a="1"))

    assert applied.json["data"] == {"a": "1"}
    assert applied.json["metadata"]["uid"]
