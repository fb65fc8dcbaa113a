"""What kubeconfig files and pods say becomes an Access."""

from __future__ import annotations

import base64
from pathlib import Path
from unittest import mock

import pytest

from fleetplane.client.kubeconfig import ConfigError, in_cluster, load, merge, parse

FIRST = """
apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: "https://first:6443", certificate-authority: ca.pem, tls-server-name: api}}]
users: [{name: u, user: {token: secret-1, as: eve, as-groups: [a]}}]
contexts: [{name: x, context: {cluster: c, user: u, namespace: shop}}]
current-context: x
"""

SECOND = """
clusters: [{name: c, cluster: {server: "https://second:6443"}}, {name: d, cluster: {server: "https://d", proxy-url: "http://p:1"}}]
users: [{name: v, user: {tokenFile: token, exec: null}}]
contexts: [{name: y, context: {cluster: d, user: v}}]
current-context: y
"""


def test_the_current_context_is_resolved(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("CA")
    (tmp_path / "config").write_text(FIRST)

    access = load([tmp_path / "config"]).access()

    assert (access.server, access.namespace, access.token) == ("https://first:6443", "shop", "secret-1")
    assert access.ca == b"CA"
    assert access.tls_server_name == "api"
    assert (access.act_as, access.act_as_groups) == ("eve", ("a",))


def test_of_several_files_the_first_to_name_something_wins(tmp_path: Path) -> None:
    merged = merge([(parse(FIRST.encode(), "1"), tmp_path), (parse(SECOND.encode(), "2"), tmp_path / "other")])

    assert merged.current_context == "x"
    assert merged.clusters["c"].data["server"] == "https://first:6443"
    access = merged.access("y")
    assert access.proxy_url == "http://p:1"
    assert access.token_file == tmp_path / "other" / "token"


def test_the_variable_lists_files_and_absent_ones_are_passed_over(tmp_path: Path) -> None:
    (tmp_path / "b").write_text(SECOND)

    found = load(environment={"KUBECONFIG": f"{tmp_path}/a:{tmp_path}/b"})

    assert found.current_context == "y"


def test_inline_data_wins_over_files_and_is_decoded(tmp_path: Path) -> None:
    data = base64.b64encode(b"PEM").decode()
    text = f"""
clusters: [{{name: c, cluster: {{server: "https://x", certificate-authority-data: {data}, certificate-authority: none}}}}]
contexts: [{{name: x, context: {{cluster: c}}}}]
current-context: x
"""
    assert merge([(parse(text.encode(), "f"), tmp_path)]).access().ca == b"PEM"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("contexts: []", "no current context"),
        ("current-context: x", "no context 'x'"),
        ("{current-context: x, contexts: [{name: x, context: {cluster: c}}]}", "does not define"),
        (FIRST.replace("https://first:6443", "ftp://x"), "not an https://"),
        (FIRST.replace("token: secret-1", "auth-provider: {name: gcp}"), "exec plug-in"),
        (FIRST, "cannot be read"),
        (FIRST.replace("certificate-authority: ca.pem", "certificate-authority-data: '*'"), "not base64"),
        ("- 1", "should be a mapping"),
        ("a: [", "is not YAML"),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        merge([(parse(text.encode(), "file"), tmp_path)]).access()


def test_secrets_do_not_show(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("CA")

    assert "secret-1" not in repr(merge([(parse(FIRST.encode(), "f"), tmp_path)]).access())


def test_a_plugin_given_by_path_is_relative_to_its_file(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("CA")
    text = FIRST.replace("token: secret-1", "exec: {command: ./bin/login, args: [a], env: [{name: K, value: V}]}")

    plugin = merge([(parse(text.encode(), "f"), tmp_path)]).access().exec_plugin

    assert plugin is not None
    assert Path(plugin.command) == tmp_path / "bin/login"
    assert plugin.arguments == ("a",)
    assert plugin.environment == (("K", "V"),)


def test_a_pod_finds_its_own_access(tmp_path: Path) -> None:
    for name, text in (("token", "t"), ("ca.crt", "CA"), ("namespace", "fleet")):
        (tmp_path / name).write_text(text)

    access = in_cluster({"KUBERNETES_SERVICE_HOST": "fd00::1", "KUBERNETES_SERVICE_PORT": "443"}, tmp_path)

    assert access.server == "https://[fd00::1]:443"
    assert (access.namespace, access.token_file) == ("fleet", tmp_path / "token")


def test_outside_a_pod_there_is_none(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="give a kubeconfig"):
        in_cluster({}, tmp_path)


def test_a_file_that_cannot_be_read_or_parsed_is_told_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "bad").write_text("a: b\nnot: yaml: [")
    with pytest.raises(ConfigError, match=r"bad is not YAML: .* \(line 2\)$"):
        load([tmp_path / "bad"])

    forbidden = tmp_path / "forbidden"
    forbidden.touch()
    with (
        mock.patch.object(Path, "read_bytes", side_effect=PermissionError(13, "Permission denied")),
        pytest.raises(ConfigError, match=r"cannot read the kubeconfig .*forbidden: it belongs to another user"),
    ):
        load([forbidden])
