"""A tenant's pod in a real container: logs, exec, port-forward, its token and eviction, all through the tenant's own API."""

from __future__ import annotations

import asyncio
import json
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from tests.node import image

from fleetplane.client.http import tls_context
from fleetplane.client.kubeconfig import find_access
from fleetplane.model import yaml as kube_yaml
from fleetplane.node.podman import look_at_host

from .conftest import RunningPlane, kubectls, start_plane
from .test_join import CLI

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.podman,
    pytest.mark.skipif(not look_at_host().podman, reason="Podman is not installed"),
]


@dataclass
class Tenants:
    plane: RunningPlane
    mine: Path
    other: Path

    def run(self, *words: str, stdin: str = "", who: Path | None = None) -> subprocess.CompletedProcess[str]:
        line = [*CLI, "--kubeconfig", str(who or self.mine), *words]
        return subprocess.run(line, input=stdin, capture_output=True, text=True, timeout=60, check=False)

    def output(self, *words: str, stdin: str = "", who: Path | None = None) -> str:
        done = self.run(*words, stdin=stdin, who=who)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def pod(self) -> Any:
        return json.loads(self.output("get", "pod", "web", "-o", "json"))


@pytest.fixture(scope="module")
def tenants(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tenants]:
    """Two virtual clusters on one plane; a web server in one of them."""
    place = tmp_path_factory.mktemp("guests")
    plane = start_plane(place / "data", "--operators", "vclusters", runtime="podman")
    try:
        made = Tenants(plane, place / "mine", place / "other")
        for name, file in (("mine", made.mine), ("other", made.other)):
            made.output("vcluster", "create", name, who=plane.kubeconfig)
            made.output("vcluster", "kubeconfig", name, "--file", str(file), who=plane.kubeconfig)
        root = image.write_root(place / "root.tar")
        subprocess.run(
            ["podman", "import", "--quiet", str(root), image.NAME], check=True, timeout=60, capture_output=True
        )
        command = ["sh", "-c", "echo hello; exec nc -ll -p 8080 -e echo served"]
        main = {"name": "main", "image": image.NAME, "imagePullPolicy": "Never", "command": command}
        manifest = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "web", "labels": {"app": "web"}},
            "spec": {"containers": [main], "terminationGracePeriodSeconds": 0},
        }
        made.output("apply", "-f", "-", stdin=json.dumps(manifest))
        made.output("wait", "pod/web", "--timeout", "60s")
        yield made
        made.run("delete", "pod", "web", "--ignore-not-found")
        for name in ("mine", "other"):
            made.run("vcluster", "delete", name, who=plane.kubeconfig)
    finally:
        plane.stop()


def test_logs_and_exec_reach_the_container(tenants: Tenants) -> None:
    assert tenants.output("logs", "web") == "hello\n"
    assert tenants.output("exec", "web", "--", "hostname") == "web\n"
    assert tenants.output("exec", "-i", "web", "--", "cat", stdin="through\n") == "through\n"
    assert tenants.run("exec", "web", "--", "sh", "-c", "exit 5").returncode == 5


def test_kubectl_sees_an_ordinary_cluster(tenants: Tenants) -> None:
    for kubectl in kubectls():
        access = [kubectl, "--kubeconfig", str(tenants.mine)]
        shown = subprocess.run([*access, "logs", "web"], capture_output=True, text=True, timeout=60, check=True)
        assert shown.stdout == "hello\n"
        inside = subprocess.run(
            [*access, "exec", "web", "--", "echo", "in"], capture_output=True, text=True, timeout=60, check=True
        )
        assert inside.stdout == "in\n"


def test_port_forward_reaches_the_containers_port(tenants: Tenants) -> None:
    async def forwarded() -> bytes:
        access = find_access(tenants.mine)
        context = tls_context(access, access.certificate, access.key)
        url = f"{access.server}/api/v1/namespaces/default/pods/web/portforward?ports=8080"
        data = b""
        async with (
            aiohttp.ClientSession() as session,
            session.ws_connect(url, protocols=["v4.channel.k8s.io"], ssl=context) as socket,
        ):
            await socket.send_bytes(b"\x00\n")
            async for message in socket:
                if message.type == aiohttp.WSMsgType.BINARY and message.data[0] == 0:
                    data += message.data[1:]
                if data.endswith(b"served\n"):
                    break
        return data

    assert asyncio.run(asyncio.wait_for(forwarded(), 30)) == (8080).to_bytes(2, "little") + b"served\n"


def test_the_token_in_the_container_opens_this_cluster_and_no_other(tenants: Tenants) -> None:
    """Also at the plain address, which is what a client in a pod finds in its environment."""
    binding = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": "look"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"},
        "subjects": [{"kind": "ServiceAccount", "name": "default", "namespace": "default"}],
    }
    tenants.output("apply", "-f", "-", stdin=json.dumps(binding))
    token = tenants.output("exec", "web", "--", "cat", "/var/run/secrets/kubernetes.io/serviceaccount/token")

    async def asked(prefix: str) -> tuple[int, str]:
        access = find_access(tenants.mine)
        context = tls_context(access, None, None)
        headers = {"authorization": f"Bearer {token}"}
        url = f"{tenants.plane.url}{prefix}/api/v1/namespaces/default/pods/web"
        async with aiohttp.ClientSession() as session, session.get(url, headers=headers, ssl=context) as got:
            return got.status, (await got.json()).get("metadata", {}).get("uid", "")

    mine = tenants.pod()["metadata"]["uid"]
    assert asyncio.run(asked("/clusters/mine")) == (200, mine)
    assert asyncio.run(asked("")) == (200, mine)
    assert asyncio.run(asked("/clusters/other"))[0] == 401
    assert asyncio.run(asked("/clusters/root"))[0] == 401


def test_nobody_else_gets_in(tenants: Tenants) -> None:
    for words in (("logs", "web"), ("exec", "web", "--", "true"), ("get", "pod", "web")):
        done = tenants.run(*words, who=tenants.other)
        assert done.returncode == 1
        assert "not found" in done.stderr
    config = kube_yaml.load(tenants.other.read_bytes())
    config["clusters"][0]["cluster"]["server"] = f"{tenants.plane.url}/clusters/mine"
    crossed = tenants.other.with_name("crossed")
    crossed.write_text(json.dumps(config))
    assert "does not accept the credentials" in tenants.run("logs", "web", who=crossed).stderr


def test_eviction_by_the_tenant_ends_the_container(tenants: Tenants) -> None:
    """The last one: the pod is gone afterwards."""
    budget = {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": {"name": "web"},
        "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "web"}}},
    }
    tenants.output("apply", "-f", "-", stdin=json.dumps(budget))
    node = tenants.pod()["spec"]["nodeName"]
    for _ in range(50):
        seen = json.loads(tenants.output("get", "pdb", "web", "-o", "json")).get("status") or {}
        if seen.get("currentHealthy") == 1:
            break
        time.sleep(0.1)
    refused = tenants.run("drain", node, "--timeout", "1s", "--force")
    assert refused.returncode == 1
    assert tenants.pod()["status"]["phase"] == "Running"

    tenants.output("delete", "pdb", "web")
    tenants.output("drain", node, "--timeout", "30s", "--force")

    assert tenants.run("get", "pod", "web").returncode == 1
    listed = json.loads(tenants.output("get", "pods", "-o", "json", who=tenants.plane.kubeconfig))
    assert listed["items"] == []
