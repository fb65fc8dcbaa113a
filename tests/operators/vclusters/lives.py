"""Lives of clusters of pods, one seed each: people, hosts and the operator do what they do, in any order, and crash.

The plan, the records and the steps are the real ones; the host's API and the nodes are small models. The operator's steps
are advanced command by command, side by side, so that it can die between any two of them and begin again with what it had
written. After every move the invariants hold, or ``Broken`` is raised with the seed.
"""

from __future__ import annotations

import random
from collections.abc import Generator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from tests.operators.vclusters.kubeadm import BEGUN, BUSY, LOCK, TOKEN, FakeNodes, without_lock

from fleetplane.model.errors import ApiError
from fleetplane.operators.vclusters import plan
from fleetplane.operators.vclusters.images import minor_of
from fleetplane.operators.vclusters.observing import record_object, record_of, status_of
from fleetplane.operators.vclusters.plan import NodeWanted, Observed, PodSeen, Record, Step, Wanted
from fleetplane.operators.vclusters.steps import (
    Outcome,
    Site,
    StepFailed,
    StepPending,
    Steps,
    reservation,
    without_reservation,
)

HOSTS = {"a": {"cpu": 16_000, "memory": 64_000 << 30}, "b": {"cpu": 8_000, "memory": 32_000 << 30}}
LIMITS = {"cpu": 2_000, "memory": 4_000 << 30}


class Broken(AssertionError):
    """An invariant does not hold."""


class _Turn:
    """Where a step stops, so that something else may happen."""

    def __await__(self) -> Generator[None, None, None]:
        yield


@dataclass
class Pod:
    uid: str
    image: str
    revision: int
    host: str
    running: bool = False
    stopping: bool = False


@dataclass
class NodeSet:
    role: str
    image: str
    revision: int = 1
    replicas: int = 1


@dataclass
class Life:
    seed: int
    faults: float = 0.05
    crashes: float = 0.03
    nodes: dict[str, tuple[str, str]] = field(default_factory=dict)
    sets: dict[str, NodeSet] = field(default_factory=dict)
    pods: dict[str, Pod] = field(default_factory=dict)
    volumes: set[str] = field(default_factory=set)
    records: dict[Step, Record] = field(default_factory=dict)
    machines: FakeNodes = field(default_factory=FakeNodes)
    versions: dict[str, int] = field(default_factory=dict)
    generation: int = 1
    request: str = ""
    network: bool = False
    paused: bool = False
    kubeflow: bool = False
    deleting: bool = False
    gone: bool = False
    phase: str = ""
    now: float = 0.0
    counter: int = 0
    identities: int = 0
    calm: bool = False
    dying: bool = False
    phases: set[str] = field(default_factory=set)
    due: dict[Step, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        self.nodes = {"m": ("master", self.image(20)), "w0": ("worker", self.image(20))}
        self.kubeflow = self.random.random() < 0.2
        self.network = self.random.random() < 0.5
        self.steps = Steps(self)
        self.machines.fails = lambda _pod, _name: not self.calm and self.random.random() < self.faults

    @staticmethod
    def image(minor: int) -> str:
        return f"registry:5000/kink:v1.{minor}-ubuntu"

    # -- the nodes, as the steps reach them (steps.Machines)

    async def run(
        self, namespace: str, pod: str, command: Sequence[str], *, stdin: bytes = b"", timeout: float = 60.0
    ) -> Outcome:
        if self.dying:
            raise ApiError(503, "the operator is no more")
        await _Turn()
        node = pod.removesuffix("-0")
        there = self.pods.get(node)
        if there is None or not there.running:
            raise ApiError(404, "no such pod")
        if TOKEN in " ".join(command):
            raise Broken(f"seed {self.seed}: a token among a command's words")
        words = tuple(command)
        if words[:5] == LOCK:
            if pod in self.machines.busy:
                return BUSY
            words = without_lock(words)
            if self.machines.is_in_vain(pod, words):
                return BEGUN
            if words[0] == "./init-kubernetes.sh":
                return await self._init(pod, words)
            if words[0] == "./upgrade-kubernetes.sh":
                return self._upgrade(node, words)
        outcome = self.machines.execute(pod, words, stdin)
        if words[0] == "kubeadm" and words[1] == "join" and outcome.code == 0:
            self.versions[node] = minor_of(there.image) or 0
        if not self.calm and self.random.random() < self.faults / 2:
            raise TimeoutError  # it was done, and nobody heard of it
        return outcome

    async def _init(self, pod: str, words: tuple[str, ...]) -> Outcome:
        """It takes its time, and goes on when nobody listens any more."""
        if pod in self.machines.begun:
            raise Broken(f"seed {self.seed}: kubeadm init where one has begun")
        self.identities += 1
        self.machines.log.append((pod, words))
        self.machines.busy.add(pod)
        node = pod.removesuffix("-0")
        uid = self.pods[node].uid
        while pod in self.machines.busy:
            await _Turn()
            if node not in self.pods or self.pods[node].uid != uid:
                raise ApiError(404, "the pod has gone")
        return Outcome(0 if pod in self.machines.up else 1, "", "" if pod in self.machines.up else "it broke")

    def _upgrade(self, node: str, words: tuple[str, ...]) -> Outcome:
        outcome = self.machines.execute(f"{node}-0", words)
        if outcome.code == 0:
            minor = minor_of(self.pods[node].image) or 0
            if node != "m" and minor > self.versions.get("m", 0):
                raise Broken(f"seed {self.seed}: a kubelet is newer than its API server")
            if minor - self.versions.get(node, minor) not in (0, 1):
                raise Broken(f"seed {self.seed}: an upgrade over several versions")
            self.versions[node] = minor
        return outcome

    # -- what others do

    def happen(self) -> None:
        """One thing in the world outside the operator."""
        self.now += self.random.choice((1, 1, 5, 30))
        self._init_goes_on()
        for node in list(self.pods):
            self._pod_goes_on(node)
        if self.calm:
            return
        chance = self.random.random()
        if chance < 0.04:
            self.network = not self.network
        elif chance < 0.08:
            self.paused = not self.paused
        elif chance < 0.11:
            self._scale()
        elif chance < 0.13:
            self.request = f"again-{self._new()}"
        elif chance < 0.15:
            self._upgrade_images()
        elif chance < 0.19 and self.pods:
            self._lose(self.random.choice(sorted(self.pods)))
        elif chance < 0.21:
            self.generation += 1
        elif chance < 0.22:
            self.deleting = True

    def _init_goes_on(self) -> None:
        pod = "m-0"
        if pod not in self.machines.busy or self.random.random() < 0.4:
            return
        if pod not in self.machines.begun:
            self.machines.begun.add(pod)
        elif not self.calm and self.random.random() < 0.1:
            self.machines.busy.discard(pod)
        else:
            self.machines.busy.discard(pod)
            self.machines.up.add(pod)
            self.machines.configs.setdefault(pod, "kind: KubeletConfiguration\n")
            self.versions["m"] = minor_of(self.pods["m"].image) or 0

    def _pod_goes_on(self, node: str) -> None:
        pod = self.pods[node]
        if pod.stopping and self.random.random() < 0.7:
            self._stop(node)
        elif not pod.running and not pod.stopping and self.random.random() < 0.7:
            pod.running = True

    def _stop(self, node: str) -> None:
        del self.pods[node]
        self.machines.busy.discard(f"{node}-0")
        wanted = self.sets.get(node)
        if wanted is not None and wanted.replicas:
            self._start(node, wanted)

    def _start(self, node: str, wanted: NodeSet) -> None:
        self.volumes.add(node)
        host = self.random.choice(sorted(HOSTS))
        self.pods[node] = Pod(f"uid-{self._new()}", wanted.image, wanted.revision, host)

    def _lose(self, node: str) -> None:
        self.pods[node].stopping = True
        self.pods[node].running = False

    def _scale(self) -> None:
        workers = [name for name, (role, _) in self.nodes.items() if role == "worker"]
        self.generation += 1
        if workers and self.random.random() < 0.5:
            del self.nodes[self.random.choice(workers)]
        elif len(workers) < 4:
            name = next(f"w{number}" for number in range(9) if f"w{number}" not in self.nodes)
            self.nodes[name] = ("worker", self.nodes["m"][1])

    def _upgrade_images(self) -> None:
        """As admission allows it: one version at a time, for all nodes."""
        now = minor_of(self.nodes["m"][1]) or 0
        if now < 23 and all(minor_of(image) == now for _, image in self.nodes.values()):
            settled = {self.versions.get(name) for name in self.nodes} == {now}
            if settled:
                self.generation += 1
                self.nodes = {name: (role, self.image(now + 1)) for name, (role, _) in self.nodes.items()}

    def _new(self) -> int:
        self.counter += 1
        return self.counter

    # -- the operator

    def reconcile(self) -> None:
        """One pass, which may be cut off anywhere; nothing but what it wrote is left of it then."""
        if self.deleting:
            self._clean_up()
            return
        if not self._scale_in():
            return
        wanted, seen = self.wanted(), self.observed()
        for node in wanted.nodes:
            self._apply(node.name, node.role, plan.image_for(node, wanted, seen))
        decision = self._decide()
        if decision.restart and decision.restart in self.pods:
            self._lose(decision.restart)
            return
        self._take([step for step in decision.steps if self.due.get(step, 0.0) <= self.now])
        self._decide()

    def _decide(self) -> plan.Decision:
        wanted, seen = self.wanted(), self.observed()
        decision = plan.plan(wanted, seen)
        if decision != plan.plan(wanted, seen):
            raise Broken(f"seed {self.seed}: two plans for the same")
        self.phase = decision.phase
        self.phases.add(decision.phase)
        if decision.phase == "Running":
            self._check_running()
        if decision.steps and (self.paused or self.deleting):
            raise Broken(f"seed {self.seed}: steps in a cluster that is stopped")
        return decision

    def _apply(self, node: str, role: str, image: str) -> None:
        known = self.sets.setdefault(node, NodeSet(role, image))
        if known.image != image:
            known.image, known.revision = image, known.revision + 1
        known.replicas = 0 if self.paused else 1
        if self.paused and node in self.pods:
            self.pods[node].stopping, self.pods[node].running = True, False
        elif not self.paused and node not in self.pods:
            self._start(node, known)

    def _scale_in(self) -> bool:
        for node in [name for name in self.sets if name not in self.nodes]:
            self.records = {step: record for step, record in self.records.items() if step.node != node}
            if self.pods.get("m") and self.pods["m"].running and not self.paused:
                leaving = self.steps.remove_node(self.site(), node)
                if not self._drive(leaving):
                    return False
            del self.sets[node]
            self.pods.pop(node, None)
            self.volumes.discard(node)
            self._forget(f"{node}-0")
            self.versions.pop(node, None)
            if len(self.nodes) == 1:
                self.records.pop(Step(plan.TAINT), None)
                self.records.pop(Step(plan.UNTAINT, "m"), None)
        return True

    def _forget(self, pod: str) -> None:
        for known in (self.machines.begun, self.machines.accounts, self.machines.up, self.machines.busy):
            known.discard(pod)
        self.machines.configs.pop(pod, None)

    def _drive(self, step: Any) -> bool:
        """To its end, unless the operator dies."""
        try:
            while True:
                step.send(None)
                if not self.calm and self.random.random() < self.crashes:
                    self._die([step])
                    return False
        except (StopIteration, StepFailed, StepPending, ApiError, TimeoutError):
            return True

    def _take(self, steps: Sequence[Step]) -> None:
        """Side by side, a command at a time. Every record is written before and after."""
        wanted, seen = self.wanted(), self.observed()
        active: dict[Step, tuple[Any, Record]] = {}
        for step in steps:
            before = seen.records.get(step, Record())
            begun = plan.started(step, before, wanted, self.now, seen.pods[step.node or wanted.master])
            self._save(step, begun)
            if not self.calm and self.random.random() < self.crashes:
                self._die([taken for taken, _ in active.values()])
                return
            anew = plan.is_asked_anew(before, wanted)
            active[step] = (self.steps.take(step, self.site(), before, self.now, anew=anew), begun)
        turns = 0
        while active and turns < 200:
            turns += 1
            step = self.random.choice(sorted(active))
            taken, begun = active[step]
            try:
                taken.send(None)
            except StepPending as pending:
                self.due[step] = self.now + pending.seconds
                del active[step]
            except (StopIteration, StepFailed, ApiError, TimeoutError) as end:
                error = "" if isinstance(end, StopIteration) else str(end) or "it did not work"
                permanent = isinstance(end, StepFailed) and end.permanent
                self._save(step, plan.ended(begun, error, self.now, permanent=permanent))
                del active[step]
            if turns % 4 == 0:
                self._init_goes_on()
                self.now += 1
            if not self.calm and self.random.random() < self.crashes:
                break  # the operator dies
        self._die([taken for taken, _ in active.values()])

    def _die(self, steps: Sequence[Any]) -> None:
        self.dying = True
        for step in steps:
            with suppress(ApiError):
                step.close()
        self.dying = False

    def _save(self, step: Step, record: Record) -> None:
        """As it goes through the API: what cannot be said there is lost."""
        self.records[step] = record_of(record_object(record))

    def _clean_up(self) -> None:
        if plan.plan(self.wanted(), self.observed()).steps:
            raise Broken(f"seed {self.seed}: steps in a cluster that is being deleted")
        if self.sets:
            self.sets.clear()
            for pod in self.pods.values():
                pod.stopping, pod.running = True, False
        elif not self.pods:
            self.volumes.clear()
            self.gone = True

    # -- what it sees and wants

    def site(self) -> Site:
        reservations = {node: self._reservation(node) for node in self.nodes}
        minor = minor_of(self.nodes["m"][1])
        return Site("default", "m", "10.244.0.0/16", "10.96.0.0/12", minor, reservations=reservations)

    def _reservation(self, node: str) -> str | None:
        pod = self.pods.get(node)
        return reservation(HOSTS[pod.host], LIMITS) if pod is not None else None

    def wanted(self) -> Wanted:
        nodes = tuple(
            NodeWanted(name, role, image, self._reservation(name)) for name, (role, image) in self.nodes.items()
        )
        return Wanted(
            "one", nodes, self.kubeflow, self.generation, self.request, self.paused, False, self.network, self.deleting
        )

    def observed(self) -> Observed:
        return Observed({node: self._seen(node) for node in self.nodes}, dict(self.records), self.now)

    def _seen(self, node: str) -> PodSeen:
        pod = self.pods.get(node)
        if pod is None:
            return PodSeen("Not Found")
        status = "Terminating" if pod.stopping else "Running" if pod.running else "Pending"
        stale = node in self.sets and self.sets[node].revision != pod.revision
        return PodSeen(status, "", pod.uid, pod.host, "10.0.0.1", pod.image, stale)

    # -- what always holds

    def check(self) -> None:
        if len(str(status_of(self.records))) > 40_000:
            raise Broken(f"seed {self.seed}: the status grows")
        if TOKEN in str(self.records):
            raise Broken(f"seed {self.seed}: a token in the status")
        if self.gone and (self.sets or self.pods or self.volumes):
            raise Broken(f"seed {self.seed}: something is left of a deleted cluster")
        if not self.deleting and any(node in self.nodes and node not in self.volumes for node in self.pods):
            raise Broken(f"seed {self.seed}: a node has lost its volume")

    def _check_running(self) -> None:
        """Running says that everything is as it should be."""
        for node, (role, image) in self.nodes.items():
            pod, name = self.pods.get(node), f"{node}-0"
            if pod is None or not pod.running or pod.image != image:
                raise Broken(f"seed {self.seed}: Running, and the pod of {node} is not as it should be")
            if role == "worker" and (name not in self.machines.joined or name not in self.machines.accounts):
                raise Broken(f"seed {self.seed}: Running, and {node} has not joined")
            if self.versions.get(node) != minor_of(image):
                raise Broken(f"seed {self.seed}: Running, and {node} has version {self.versions.get(node)}")
            config = self.machines.configs.get(name, "")
            if config != without_reservation(config) + (self._reservation(node) or ""):
                raise Broken(f"seed {self.seed}: Running, and {node} offers another size")
        if "m-0" not in self.machines.up:
            raise Broken(f"seed {self.seed}: Running without a control plane")
        if self.machines.tokens and self.calm:
            raise Broken(f"seed {self.seed}: a token is left")


def live(seed: int, moves: int = 40) -> Life:
    """A whole life: chaos, then calm in which it must come to what is wanted. Raises Broken."""
    life = Life(seed)
    for _ in range(moves):
        life.happen()
        life.reconcile()
        life.check()
    if not life.deleting:
        _settle(life)
        life.deleting = life.random.random() < 0.5
    if life.deleting:
        for _ in range(100):
            life.happen()
            life.reconcile()
            life.check()
            if life.gone:
                return life
        raise Broken(f"seed {seed}: it is never gone")
    return life


def _settle(life: Life) -> None:
    life.calm, life.network, life.paused = True, True, False
    life.request = f"again-{life._new()}"
    life.machines.tokens.clear()
    for _ in range(400):
        life.happen()
        life.reconcile()
        life.check()
        if life.phase == "Running":
            return
        if life.phase == "Fail":
            life.request = f"again-{life._new()}"  # somebody has looked at it
        life.now += 60
    raise Broken(f"seed {life.seed}: it never runs, but is {life.phase}: {errors_of(life)}")


def errors_of(life: Life) -> dict[Step, str]:
    return {step: f"{one.state} {one.error}" for step, one in life.records.items() if one.state != "Done"}
