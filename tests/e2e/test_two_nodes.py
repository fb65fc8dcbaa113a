"""Two machines, made of network namespaces: pods on one reach pods and Services on the other."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.contract.test_container_runtime import why_not_podman
from tests.e2e.conftest import RunningPlane, start_plane
from tests.e2e.test_join import CLI
from tests.node import image

from fleetplane.model.environment import SystemEnvironment
from fleetplane.node.local import remove_local_node
from fleetplane.node.network import why_no_bridge

pytestmark = [pytest.mark.e2e, pytest.mark.podman]

NETWORK = "198.18.77"
"""Of a range for tests of networks (RFC 2544)."""

SERVER = r"""
mkdir -p /www/cgi-bin
printf '#!/bin/sh\necho\necho "$REMOTE_ADDR"\n' > /www/cgi-bin/who
chmod 755 /www/cgi-bin/who
exec httpd -f -p 8080 -h /www
"""


def ip(*words: str, check: bool = True) -> None:
    subprocess.run(["ip", *words], check=check, capture_output=True, timeout=30)


@contextmanager
def machines(tag: str) -> Iterator[list[str]]:
    """Two namespaces behind a bridge of the host's; their addresses end in 1 and 2, the host's in 254."""
    names = [f"{tag}a", f"{tag}b"]
    try:
        ip("link", "add", tag, "type", "bridge")
        ip("addr", "add", f"{NETWORK}.254/24", "dev", tag)
        ip("link", "set", tag, "up")
        for number, name in enumerate(names, 1):
            ip("netns", "add", name)
            ip("link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", name)
            ip("link", "set", name, "master", tag, "up")
            ip("-n", name, "addr", "add", f"{NETWORK}.{number}/24", "dev", "eth0")
            ip("-n", name, "link", "set", "lo", "up")
            ip("-n", name, "link", "set", "eth0", "up")
            ip("-n", name, "route", "add", "default", "via", f"{NETWORK}.254")
        yield names
    finally:
        for name in names:
            ip("netns", "delete", name, check=False)
        ip("link", "delete", tag, check=False)


@contextmanager
def nodes(plane: RunningPlane, names: list[str], tmp: Path) -> Iterator[None]:
    made = subprocess.run(
        [*CLI, "token", "-o", "json", "--kubeconfig", str(plane.kubeconfig)],
        check=True,
        capture_output=True,
        timeout=60,
    )
    token = json.loads(made.stdout)["token"]
    authority = str(plane.data_dir / "pki" / "ca.crt")
    running = []
    try:
        for name in names:
            words = ["nsenter", f"--net=/run/netns/{name}", *CLI, "node", "--server", plane.url, "--ca-file", authority]
            log = (tmp / f"{name}.log").open("w")
            running.append(
                subprocess.Popen(
                    [*words, "--name", name, "--data-dir", str(tmp / name)],
                    env=os.environ | {"FLEETPLANE_TOKEN": token},
                    stderr=log,
                )
            )
        yield
    finally:
        for process in running:
            process.send_signal(signal.SIGTERM)
            process.wait(30)


class Cluster:
    def __init__(self, plane: RunningPlane, tmp: Path) -> None:
        self.plane, self.tmp = plane, tmp

    def cli(self, *words: str) -> Any:
        done = subprocess.run(
            [*CLI, *words, "-o", "json", "--kubeconfig", str(self.plane.kubeconfig)],
            capture_output=True,
            timeout=60,
            check=False,
        )
        return json.loads(done.stdout) if done.returncode == 0 and done.stdout.strip() else {}

    def apply(self, *wanted: dict[str, Any]) -> None:
        path = self.tmp / "wanted.json"
        path.write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": list(wanted)}))
        words = [*CLI, "apply", "-f", str(path), "--kubeconfig", str(self.plane.kubeconfig)]
        subprocess.run(words, check=True, capture_output=True, timeout=60)

    def inside(self, pod: str, *command: str) -> str:
        words = [*CLI, "exec", pod, "--kubeconfig", str(self.plane.kubeconfig), "--", *command]
        done = subprocess.run(words, check=False, capture_output=True, text=True, timeout=60)
        return done.stdout.strip()


def until(wanted: Callable[[], Any], what: str, seconds: float = 45) -> Any:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := wanted():
            return found
        time.sleep(0.1)
    pytest.fail(f"{what}: it never came to that")


def pod(name: str, node: str, *command: str) -> dict[str, Any]:
    main = {"name": "main", "image": image.NAME, "command": list(command)}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {
            "nodeName": node,
            "terminationGracePeriodSeconds": 0,
            "automountServiceAccountToken": False,
            "containers": [main],
        },
    }


def load_image(tmp: Path) -> None:
    if subprocess.run(["podman", "image", "exists", image.NAME], check=False, timeout=30).returncode:
        archive = str(image.write_root(tmp / "root.tar"))
        subprocess.run(["podman", "import", "-q", archive, image.NAME], check=True, capture_output=True, timeout=60)


def test_pods_and_services_are_reached_across_nodes(tmp_path: Path) -> None:
    if reason := why_not_podman() or why_no_bridge() or ("" if shutil.which("nsenter") else "nsenter is not installed"):
        pytest.skip(reason)
    load_image(tmp_path)
    with machines(f"fpt{os.urandom(3).hex()}") as (first, second):
        plane = start_plane(tmp_path / "plane", "--host", f"{NETWORK}.254", "--operators", "none", runtime="none")
        cluster = Cluster(plane, tmp_path)
        try:
            with nodes(plane, [first, second], tmp_path):
                _reach_each_other(cluster, first, second)
        finally:
            for name in (first, second):
                asyncio.run(remove_local_node(tmp_path / name / "nodes" / name, SystemEnvironment()))
            plane.stop()


def _reach_each_other(cluster: Cluster, first: str, second: str) -> None:
    until(lambda: len(cluster.cli("get", "nodes").get("items", [])) == 2, "two nodes")
    ports = [{"port": 80, "targetPort": 8080}]
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}}
    cluster.apply(
        pod("web", first, "sh", "-c", SERVER),
        pod("asking", second, "sleep", "1000"),
        {**service, "spec": {"type": "NodePort", "selector": {"app": "web"}, "ports": ports}},
    )

    def running(name: str) -> Any:
        status = cluster.cli("get", "pods", name).get("status", {})
        return status if status.get("phase") == "Running" and status.get("podIP") else None

    web, asking = until(lambda: running("web"), "the server"), until(lambda: running("asking"), "the client")
    networks = [one["spec"]["podCIDR"] for one in cluster.cli("get", "nodes")["items"]]
    assert len(set(networks)) == 2, "two nodes took the same pod network"

    def ask(where: str, port: int = 80) -> str:
        # busybox's wget falls over when it is linked statically and given a time limit.
        request = f"printf 'GET /cgi-bin/who HTTP/1.0\\r\\n\\r\\n' | nc -w 2 {where} {port}"
        return _who(cluster.inside("asking", "sh", "-c", request))

    # The server sees the client's own address: between nodes nothing is masqueraded.
    assert until(lambda: ask(web["podIP"], 8080), "a pod on the other node") == asking["podIP"]
    found = cluster.cli("get", "services", "web")["spec"]
    assert until(lambda: ask(found["clusterIP"]), "the Service's address") == asking["podIP"]
    name = ("nslookup", "-type=a", "web.default.svc.cluster.local")
    assert until(lambda: found["clusterIP"] in cluster.inside("asking", *name), "the Service's name")
    # A NodePort of the node that has no endpoint: the answer comes back the way the question went.
    url = f"http://{NETWORK}.2:{found['ports'][0]['nodePort']}/cgi-bin/who"
    assert until(lambda: _from_outside(url), "the NodePort") == f"{NETWORK}.2"


def _who(answer: str) -> str:
    """The address in the last line; IPv4 comes as part of an IPv6 one."""
    return answer.strip().rpartition("\n")[2].strip().strip("[]").removeprefix("::ffff:")


def _from_outside(url: str) -> str:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=2) as answer:
            return _who(answer.read().decode())
    except OSError:
        return ""
