"""The two places, each without any operator of its own, and what runs there under the shipped account.

A real control plane here has no kubelet and no network to Services. So the operators run as a process beside it, with a
token of the ServiceAccount that was installed and nothing else, and their webhooks are asked at an address.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..conftest import start_plane
from ..differential.peers import (
    free_port,
    real_home,
    real_kube_missing,
    spawn,
    start_real,
    stop_all,
)

NAME = "fleetplane-operators"
NAMESPACE = "fleetplane-system"
PATIENCE = 60.0


@dataclass(slots=True)
class Place:
    """kubectl as administrator, and where it goes."""

    kubectl_path: str
    kubeconfig: Path
    folder: Path

    def kubectl(self, *arguments: str, stdin: str | None = None, check: bool = True) -> str:
        """What it says, with its errors if they are no failure of the test."""
        done = subprocess.run(
            [self.kubectl_path, "--kubeconfig", str(self.kubeconfig), *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )
        if check and done.returncode:
            raise AssertionError(f"kubectl {' '.join(arguments)}: {done.stderr}")
        return done.stdout if check else done.stdout + done.stderr

    def get(self, *what: str) -> Any:
        return json.loads(self.kubectl("get", *what, "-o", "json"))

    def until(self, holds: Callable[[], Any], what: str) -> None:
        deadline = time.monotonic() + PATIENCE
        while not holds():
            assert time.monotonic() < deadline, f"it never came true: {what}; the operators said: {self.log()[-3000:]}"
            time.sleep(0.2)

    def until_is(self, one: str, path: str, value: str, namespace: str = "default") -> None:
        """Wait until a field of an object, as jsonpath, has a value."""

        def shown() -> bool:
            arguments = ("-n", namespace, "get", one, "-o", f"jsonpath={{{path}}}")
            return self.kubectl(*arguments, check=False).strip() == value

        self.until(shown, f"{one} {path} is {value}")

    def log(self) -> str:
        path = self.folder / "operators.log"
        return path.read_text() if path.exists() else ""

    # -- the shipped account

    def token(self) -> str:
        path = f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts/{NAME}/token"
        request = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {},
        }
        answer = self.kubectl("create", "--raw", path, "-f", "-", stdin=json.dumps(request))
        return str(json.loads(answer)["status"]["token"])

    def as_account(self) -> Path:
        """A kubeconfig with the token of the shipped ServiceAccount and nothing else."""
        view = json.loads(self.kubectl("config", "view", "--raw", "-o", "json"))
        user = {"name": "operators", "user": {"token": self.token()}}
        context = {
            "cluster": view["clusters"][0]["name"],
            "user": "operators",
            "namespace": NAMESPACE,
        }
        made = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": view["clusters"][:1],
            "users": [user],
            "contexts": [{"name": "operators", "context": context}],
            "current-context": "operators",
        }
        path = self.folder / "account.kubeconfig"
        path.write_text(json.dumps(made))
        path.chmod(0o600)
        return path

    @contextmanager
    def operators(self, arguments: list[str], webhooks: int) -> Iterator[None]:
        """Run them as the installed Deployment says, save addresses; ``webhooks`` is a port."""
        health = free_port()
        kept = [one for one in arguments if not one.startswith(("--health-port", "--webhook-port"))]
        command = [
            sys.executable,
            "-m",
            "fleetplane.interfaces.cli",
            *kept,
            "--kubeconfig",
            str(self.as_account()),
        ]
        command += [
            "--host",
            "127.0.0.1",
            "--health-port",
            str(health),
            "--webhook-port",
            str(webhooks),
        ]
        environment = {name: value for name, value in os.environ.items() if name != "KUBECONFIG"}
        with (self.folder / "operators.log").open("w") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log, text=True, env=environment)
        try:
            url = f"http://127.0.0.1:{health}/readyz"
            self.until(lambda: answers(url) or process.poll() is not None, "the operators are ready")
            assert process.poll() is None, self.log()[-3000:]
            yield
        finally:
            process.send_signal(signal.SIGTERM)
            code = process.wait(45)
        assert code == 0, self.log()[-3000:]

    def arguments(self) -> list[str]:
        """The command line of the installed Deployment."""
        deployment = self.get("deployment", NAME, "-n", NAMESPACE)
        return list(deployment["spec"]["template"]["spec"]["containers"][0]["args"])

    def lead_webhooks_to(self, port: int) -> None:
        for kind in ("mutatingwebhookconfiguration", "validatingwebhookconfiguration"):
            patch = []
            for index, webhook in enumerate(self.get(kind, NAME)["webhooks"]):
                at = f"/webhooks/{index}/clientConfig"
                url = f"https://127.0.0.1:{port}{webhook['clientConfig']['service']['path']}"
                patch += [
                    {"op": "remove", "path": f"{at}/service"},
                    {"op": "add", "path": f"{at}/url", "value": url},
                ]
            self.kubectl("patch", kind, NAME, "--type=json", "-p", json.dumps(patch))


def answers(url: str) -> bool:
    from urllib.request import urlopen

    try:
        with urlopen(url, timeout=3) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


# --- places ----------------------------------------------------------------------------------------------------------


@contextmanager
def fleetplane(folder: Path, kubectl: str) -> Iterator[Place]:
    """Our server with simulated nodes, and no operator of its own."""
    folder.mkdir(parents=True)
    plane = start_plane(folder / "data", "--operators", "none", "--nodes", "2")
    try:
        yield Place(kubectl, plane.kubeconfig, folder)
    finally:
        plane.stop()


def kubernetes_missing() -> str:
    """Why there is no real control plane here; empty when there is one."""
    if not (real_home() / "bin" / "kube-controller-manager").exists():
        return "no kube-controller-manager has been built in $REAL_KUBE/bin"
    return real_kube_missing()


@contextmanager
def kubernetes(folder: Path, kubectl: str) -> Iterator[Place]:
    """etcd, kube-apiserver and the controllers; two nodes that are only objects."""
    with ExitStack() as stack:
        peer = start_real(folder)
        stack.callback(peer.stop)
        kubeconfig = folder / "kubeconfig"
        kubeconfig.write_text(
            json.dumps(
                {
                    "apiVersion": "v1",
                    "kind": "Config",
                    "clusters": [
                        {
                            "name": "k",
                            "cluster": {
                                "server": peer.url,
                                "insecure-skip-tls-verify": True,
                            },
                        }
                    ],
                    "users": [{"name": "a", "user": {"token": peer.token}}],
                    "contexts": [{"name": "k", "context": {"cluster": "k", "user": "a"}}],
                    "current-context": "k",
                }
            )
        )
        kubeconfig.chmod(0o600)
        controllers = spawn(
            folder / "controllers.log",
            str(real_home() / "bin" / "kube-controller-manager"),
            f"--kubeconfig={kubeconfig}",
            "--leader-elect=false",
            f"--cert-dir={folder / 'certs'}",
            "--port=0",
            "--secure-port=0",
            f"--service-account-private-key-file={folder / 'sa.key'}",
            f"--root-ca-file={folder / 'certs' / 'apiserver.crt'}",
            "--controllers=*,-nodelifecycle,-csrsigning,-csrapproving,-csrcleaner,-bootstrapsigner,-tokencleaner,-service",
        )
        stack.callback(stop_all, [controllers])
        place = Place(kubectl, kubeconfig, folder)
        for number in (1, 2):
            node = {
                "apiVersion": "v1",
                "kind": "Node",
                "metadata": {"name": f"node-{number}"},
            }
            place.kubectl("apply", "-f", "-", stdin=json.dumps(node))
        place.until(
            lambda: "default" in place.kubectl("get", "serviceaccounts", check=False),
            "accounts are made",
        )
        yield place


def refuses_empty_text(place: Place) -> bool:
    """Whether it takes an empty text in a custom object for null, as a kube-apiserver 1.20 built with Go 1.18 or later does.

    (Its copy of go-openapi/validate compares with ``reflect.Zero``; the binaries of the Kubernetes project do not have that.)
    """
    definition = {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "probes.example.org"},
        "spec": {
            "group": "example.org",
            "names": {"kind": "Probe", "plural": "probes"},
            "scope": "Cluster",
            "versions": [
                {
                    "name": "v1",
                    "served": True,
                    "storage": True,
                    "schema": {
                        "openAPIV3Schema": {
                            "type": "object",
                            "properties": {"text": {"type": "string"}},
                        }
                    },
                }
            ],
        },
    }
    probe = {
        "apiVersion": "example.org/v1",
        "kind": "Probe",
        "metadata": {"name": "a"},
        "text": "",
    }
    place.kubectl("create", "-f", "-", stdin=json.dumps(definition))
    said = ""

    def told() -> bool:
        nonlocal said
        said = place.kubectl(
            "create",
            "--validate=false",
            "-f",
            "-",
            stdin=json.dumps(probe),
            check=False,
        )
        return "created" in said or "must be of type string" in said

    place.until(told, "custom objects are served")
    place.kubectl("delete", "crd", "probes.example.org", "--wait=false")
    return "created" not in said
