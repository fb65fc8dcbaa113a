"""Nodes of a cluster of pods, as far as an installation can tell: what its commands would find and leave behind."""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import orjson

from fleetplane.operators.vclusters.steps import Outcome

TOKEN = "abcdef.0123456789abcdef"
JOIN = f"kubeadm join 10.0.0.1:6443 --token {TOKEN} --discovery-token-ca-cert-hash sha256:{'a' * 64}\n"
CONFIG = "apiVersion: v1\nkind: Config\n"
KUBELET = "kind: KubeletConfiguration\n"
LOCK = ("flock", "--nonblock", "--close", "--conflict-exit-code=75", "/run/vk8s.lock")
BUSY = Outcome(75)
BEGUN = Outcome(76)


def without_lock(words: tuple[str, ...]) -> tuple[str, ...]:
    """The command itself."""
    words = words[5:] if words[:5] == LOCK else words
    return (f"./{words[3]}", *words[4:]) if words[:2] == ("sh", "-c") else words


@dataclass
class FakeNodes:
    """``fails`` decides, by (pod, command), whether a command fails now. ``inits`` counts kubeadm init for each pod.

    What is kept here is what is on the nodes' volumes; a pod that is replaced finds it again.
    """

    fails: Callable[[str, str], bool] = lambda _pod, _command: False
    seconds: float = 0.0
    up: set[str] = field(default_factory=set)
    begun: set[str] = field(default_factory=set)
    busy: set[str] = field(default_factory=set)
    accounts: set[str] = field(default_factory=set)
    joined: set[str] = field(default_factory=set)
    configs: dict[str, str] = field(default_factory=dict)
    inits: Counter[str] = field(default_factory=Counter)
    tokens: set[str] = field(default_factory=set)
    log: list[tuple[str, tuple[str, ...]]] = field(default_factory=list)
    kubeflow_says: str = "True"
    old_scripts: bool = False
    last_used: str = ""
    password: bytes = b""
    state: dict[str, bytes] = field(default_factory=dict)
    files: dict[tuple[str, str], bytes] = field(default_factory=dict)
    takes_snapshots: bool = True
    largest: int = 0
    remote: set[asyncio.Task[Outcome]] = field(default_factory=set)

    async def run(
        self, namespace: str, pod: str, command: Sequence[str], *, stdin: bytes = b"", timeout: float = 60.0
    ) -> Outcome:
        words = tuple(command)
        is_locked = words[:5] == LOCK
        words = without_lock(words)
        if is_locked and pod in self.busy:
            return BUSY
        if self.is_in_vain(pod, words):
            return BEGUN
        if self.seconds:
            await asyncio.sleep(self.seconds)
        if words[0] == "./init-kubernetes.sh" and self.seconds:
            self.begin(pod)
            remote = asyncio.ensure_future(self._slowly(pod, words))
            self.remote.add(remote)
            return await asyncio.shield(remote)
        return self.execute(pod, words, stdin)

    async def _slowly(self, pod: str, words: tuple[str, ...]) -> Outcome:
        """What has begun in a node goes on, whoever watches."""
        await asyncio.sleep(30)
        return self.execute(pod, words)

    def is_in_vain(self, pod: str, words: tuple[str, ...]) -> bool:
        """What is looked at once more under the lock."""
        match words:
            case ("./init-kubernetes.sh", *_):
                return pod in self.begun
            case ("./reset-kubernetes.sh",):
                return pod in self.up
        return False

    def begin(self, pod: str) -> None:
        """kubeadm init has begun, and goes on whoever watches."""
        self.begun.add(pod)
        self.busy.add(pod)

    def execute(self, pod: str, words: tuple[str, ...], stdin: bytes = b"") -> Outcome:
        """One command, at once."""
        self.log.append((pod, words))
        name = words[0].removeprefix("./")
        if self.fails(pod, name):
            self.busy.discard(pod)
            return Outcome(1, "", "it does not work today")
        match words:
            case ("./init-kubernetes.sh", _, _, *file):
                assert pod not in self.up, "kubeadm init on a running control plane"
                self.state[pod] = self.files[pod, file[0]] if file else b""
                self.inits[pod] += 1
                self.begun.add(pod)
                self.up.add(pod)
                self.busy.discard(pod)
                self.configs.setdefault(pod, KUBELET)
            case ("./reset-kubernetes.sh",):
                assert pod not in self.up, "a running control plane is reset"
                self.begun.discard(pod)
                self.accounts.discard(pod)
                self.configs.pop(pod, None)
            case ("test", "-x", "./snapshot.sh") | ("grep", "-q", "vk8s-begins-with-snapshot", _):
                return Outcome(0 if self.takes_snapshots else 1)
            case ("./snapshot.sh", file):
                self.files[pod, file] = self.state[pod]
            case ("stat", _, _, file):
                return Outcome(0, str(len(self.files[pod, file])))
            case ("dd", source, size, at, *_) if source.startswith("if="):
                length, number = int(size.removeprefix("bs=")), int(at.removeprefix("skip="))
                data = self.files[pod, source.removeprefix("if=")][length * number : length * (number + 1)]
                self.largest = max(self.largest, len(data))
                return Outcome(0, data=data)
            case ("dd", target, size, at, "conv=notrunc"):
                begin = int(size.removeprefix("bs=")) * int(at.removeprefix("seek="))
                file = target.removeprefix("of=")
                self.files[pod, file] = self.files[pod, file][:begin] + stdin
            case ("./make-file", file):
                self.files[pod, file] = b""
            case ("sha256sum", file):
                return Outcome(0, f"{hashlib.sha256(self.files[pod, file]).hexdigest()}  {file}\n")
            case ("rm", "-f", file):
                self.files.pop((pod, file), None)
            case ("test", "-e", "/etc/kubernetes/kubelet.conf"):
                return Outcome(0 if pod in self.accounts else 1)
            case ("test", "-e", _):
                return Outcome(0 if pod in self.begun else 1)
            case ("kubectl", _, "get", "--raw=/livez" | "--raw=/readyz"):
                return Outcome(0 if pod in self.up else 1)
            case ("kubectl", _, "get", "node", node, *path):
                known = node in self.joined | self.up
                return Outcome(0 if known else 1, "True" if path and known else "")
            case ("kubectl", _, "delete", "node", node, *_):
                self.joined.discard(node)
            case ("kubeadm", "token", "create", *_):
                self.tokens.add(TOKEN.partition(".")[0])
                return Outcome(0, JOIN)
            case ("kubeadm", "token", "delete", token):
                self.tokens.discard(token)
            case ("kubeadm", "join", *_):
                wanted = orjson.loads(stdin)
                assert wanted["discovery"]["bootstrapToken"]["token"] == TOKEN
                assert pod not in self.accounts, "a node that has joined joins again"
                self.accounts.add(pod)
                self.configs.setdefault(pod, KUBELET)
                self.joined.add(wanted["nodeRegistration"]["name"])
            case ("cat", "/var/lib/kubelet/config.yaml"):
                return Outcome(0, self.configs[pod]) if pod in self.configs else Outcome(1, "", "no such file")
            case ("cat", _):
                return Outcome(0, CONFIG)
            case ("grep", *_):
                return Outcome(1 if self.old_scripts else 0)
            case ("tee", *_):
                self.configs[pod] = stdin.decode()
            case ("./install-kubeflow.sh", *_):
                self.password = stdin
            case ("./check-running-state.sh",):
                return Outcome(0, self.kubeflow_says)
            case ("./last-used.sh",):
                return Outcome(0 if self.last_used else 127, self.last_used)
        return Outcome(0)

    def count(self, name: str) -> int:
        return sum(words[0].removeprefix("./") == name for _, words in self.log)
