"""Nodes of a cluster of pods, as far as an installation can tell: what its commands would find and leave behind."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import orjson

from fleetplane.operators.vclusters.steps import Outcome

TOKEN = "abcdef.0123456789abcdef"
JOIN = f"kubeadm join 10.0.0.1:6443 --token {TOKEN} --discovery-token-ca-cert-hash sha256:{'a' * 64}\n"
CONFIG = "apiVersion: v1\nkind: Config\n"


@dataclass
class FakeNodes:
    """``fails`` decides, by (pod, command), whether a command fails now. ``inits`` counts kubeadm init for each pod."""

    fails: Callable[[str, str], bool] = lambda _pod, _command: False
    seconds: float = 0.0
    up: set[str] = field(default_factory=set)
    begun: set[str] = field(default_factory=set)
    joined: set[str] = field(default_factory=set)
    reserved: dict[str, str] = field(default_factory=dict)
    inits: Counter[str] = field(default_factory=Counter)
    log: list[tuple[str, tuple[str, ...]]] = field(default_factory=list)
    kubeflow_says: str = "True"
    password: bytes = b""

    async def run(
        self, namespace: str, pod: str, command: Sequence[str], *, stdin: bytes = b"", timeout: float = 60.0
    ) -> Outcome:
        words = tuple(command)
        self.log.append((pod, words))
        if self.seconds:
            await asyncio.sleep(self.seconds)
        if self.fails(pod, words[0].removeprefix("./")):
            return Outcome(1, "", "it does not work today")
        match words:
            case ("./init-kubernetes.sh", _, _):
                assert pod not in self.up, "kubeadm init on a running control plane"
                self.inits[pod] += 1
                self.begun.add(pod)
                if self.seconds:
                    await asyncio.sleep(30)
                self.up.add(pod)
            case ("./reset-kubernetes.sh",):
                self.begun.discard(pod)
            case ("test", "-e", _):
                return Outcome(0 if pod in self.begun else 1)
            case ("kubectl", _, "get", "--raw=/livez"):
                return Outcome(0 if pod in self.up else 1)
            case ("kubectl", _, "get", "node", name):
                return Outcome(0 if name in self.joined else 1)
            case ("kubectl", _, "delete", "node", name, *_):
                self.joined.discard(name)
            case ("kubeadm", "token", "create", *_):
                return Outcome(0, JOIN)
            case ("kubeadm", "join", *_):
                wanted = orjson.loads(stdin)
                assert wanted["discovery"]["bootstrapToken"]["token"] == TOKEN
                self.joined.add(wanted["nodeRegistration"]["name"])
            case ("cat", _):
                return Outcome(0, CONFIG)
            case ("grep", *_):
                return Outcome(0 if pod in self.reserved else 1)
            case ("tee", *_):
                self.reserved[pod] = stdin.decode()
            case ("./install-kubeflow.sh", *_):
                self.password = stdin
            case ("./check-running-state.sh",):
                return Outcome(0, self.kubeflow_says)
        return Outcome(0)

    def count(self, name: str) -> int:
        return sum(words[0].removeprefix("./") == name for _, words in self.log)
