"""The two clusters that are compared: a real control plane 1.20 with its controllers, and ours.

Both have the same simulated nodes, and are told the same by the same kubectl, the one built with the real control plane.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..conftest import start_plane
from ..differential.peers import real_home, real_kube_missing, spawn, start_real, stop_all

NODES = 3
START_SECONDS = 60.0
PATIENCE = 40.0
_PROGRAMS = ("kube-controller-manager", "kube-scheduler", "kubectl")


def missing() -> str:
    """Why there is nothing to compare with, empty when there is."""
    lacking = [one for one in _PROGRAMS if not (real_home() / "bin" / one).exists()]
    return real_kube_missing() or (f"no {lacking[0]} has been built in $REAL_KUBE/bin" if lacking else "")


@dataclass(frozen=True, slots=True)
class Cluster:
    """kubectl and where it goes; ``namespace`` is the story's own."""

    name: str
    kubeconfig: Path
    namespace: str = "default"

    def __call__(self, *arguments: str, stdin: str | None = None, check: bool = True) -> str:
        """What kubectl says, with its complaints where it may fail and does."""
        program = str(real_home() / "bin" / "kubectl")
        done = subprocess.run(
            [program, "--kubeconfig", str(self.kubeconfig), "--namespace", self.namespace, *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )
        if check and done.returncode:
            raise AssertionError(f"{self.name}: kubectl {' '.join(arguments)}: {done.stderr}")
        return done.stdout if check else done.stdout + (done.stderr if done.returncode else "")

    def apply(self, manifest: str) -> None:
        self("apply", "-f", "-", stdin=manifest)

    def get(self, *what: str) -> Any:
        return json.loads(self("get", *what, "-o", "json"))

    def within(self, namespace: str) -> Cluster:
        return replace(self, namespace=namespace)

    def until(self, holds: Callable[[], Any], what: str = "", seconds: float = PATIENCE) -> None:
        deadline = time.monotonic() + seconds
        while not holds():
            assert time.monotonic() < deadline, f"{self.name}: it never came true: {what}"
            time.sleep(0.4)

    def until_is(self, one: str, path: str, value: str) -> None:
        """Wait until a field of an object, as jsonpath, has a value."""
        self.until(
            lambda: self("get", one, "-o", f"jsonpath={{{path}}}", check=False) == value, f"{one} {path}={value}"
        )


@contextmanager
def both_clusters(directory: Path) -> Iterator[tuple[Cluster, Cluster]]:
    """(the real one, ours)"""
    with ExitStack() as stack:
        real = _start_real(directory / "real", stack)
        plane = start_plane(directory / "ours", "--nodes", str(NODES), "--operators", "none")
        stack.callback(plane.stop)
        yield Cluster("real", real), Cluster("ours", plane.kubeconfig)


def _start_real(directory: Path, stack: ExitStack) -> Path:
    peer = start_real(directory)
    stack.callback(peer.stop)
    kubeconfig = directory / "kubeconfig"
    kubeconfig.write_text(
        json.dumps(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "clusters": [{"name": "k", "cluster": {"server": peer.url, "insecure-skip-tls-verify": True}}],
                "users": [{"name": "a", "user": {"token": peer.token}}],
                "contexts": [{"name": "k", "context": {"cluster": "k", "user": "a"}}],
                "current-context": "k",
            }
        )
    )
    kubeconfig.chmod(0o600)
    programs = real_home() / "bin"
    common = (f"--kubeconfig={kubeconfig}", "--leader-elect=false", f"--cert-dir={directory / 'certs'}", "--port=0")
    running = [
        spawn(
            directory / "controllers.log",
            str(programs / "kube-controller-manager"),
            *common,
            "--secure-port=0",
            f"--service-account-private-key-file={directory / 'sa.key'}",
            f"--root-ca-file={directory / 'certs' / 'apiserver.crt'}",
            "--controllers=*,-csrsigning,-csrapproving,-csrcleaner,-bootstrapsigner,-tokencleaner,-service",
        ),
        spawn(directory / "scheduler.log", str(programs / "kube-scheduler"), *common, "--secure-port=0"),
    ]
    stack.callback(stop_all, running)
    with (directory / "fleet.log").open("w") as log:
        script = Path(__file__).with_name("fleet.py")
        fleet = subprocess.Popen(
            [sys.executable, str(script), str(kubeconfig), str(NODES)], stdout=subprocess.PIPE, stderr=log, text=True
        )
    stack.callback(stop_all, [fleet])
    assert fleet.stdout is not None
    if fleet.stdout.readline() != "ready\n":
        raise RuntimeError(f"the simulated nodes did not start: {(directory / 'fleet.log').read_text()[-2000:]}")
    return kubeconfig
