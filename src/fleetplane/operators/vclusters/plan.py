"""Mode ``pods``: from what is wanted and what is seen, the steps to take now, and what to call it. Pure.

An installation is a set of chains of steps. Each step has a record, written before it begins: a crash in between leaves
``Running``, which is never simply run again but looked at first (see ``steps``). Chains do not wait for each other more
than they must: a worker that is not there delays itself only, and a late failure leaves what is done done.

The phase is derived, never stored for later: Terminating, Paused, Fail, Restarting, Waiting, Waiting Network Connection,
Installing, Running, the first that holds.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

MAX_ATTEMPTS: Final = 5
CLUSTER: Final = ""
"""The node name under which steps of the whole cluster are kept."""

NODE_INIT: Final = "NodeInit"
CONTROL_PLANE: Final = "ControlPlaneInit"
UNTAINT: Final = "Untaint"
LABEL: Final = "Label"
JOINED: Final = "Joined"
KUBECONFIG: Final = "Kubeconfig"
MASQUERADE: Final = "MasqueradeLabel"
TAINT: Final = "Taint"
KUBEFLOW: Final = "Kubeflow"
KUBEFLOW_READY: Final = "KubeflowReady"
RESERVED: Final = "Reserved"


class Step(NamedTuple):
    """``node`` is empty for steps of the whole cluster, which run on the master."""

    name: str
    node: str = CLUSTER


@dataclass(frozen=True, slots=True)
class Record:
    """How far a step is. ``state``: empty, Running, Retrying, Done or Failed; ``started`` is in seconds."""

    state: str = ""
    attempt: int = 0
    started: float = 0.0
    pod: str = ""
    generation: int = 0
    error: str = ""


@dataclass(frozen=True, slots=True)
class PodSeen:
    """A node's pod: the original's words for its state, and which pod it is."""

    status: str
    message: str = ""
    uid: str = ""
    host: str = ""
    stale: bool = False
    """It runs what its StatefulSet no longer says."""

    @property
    def runs(self) -> bool:
        return self.status == "Running"


@dataclass(frozen=True, slots=True)
class NodeWanted:
    name: str
    role: str


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the steps depend on. ``kubeflow`` and ``access`` say whether these are wanted."""

    name: str
    nodes: tuple[NodeWanted, ...]
    kubeflow: bool = False
    generation: int = 1
    paused: bool = False
    network: bool = True
    deleting: bool = False

    @property
    def master(self) -> str:
        return next((node.name for node in self.nodes if node.role == "master"), "")


@dataclass(frozen=True, slots=True)
class Observed:
    pods: Mapping[str, PodSeen] = field(default_factory=dict)
    records: Mapping[Step, Record] = field(default_factory=dict)
    now: float = 0.0


@dataclass(frozen=True, slots=True)
class Decision:
    """``steps`` may be taken side by side. ``restart`` is a node whose pod should be replaced now."""

    phase: str
    message: str
    steps: tuple[Step, ...] = ()
    restart: str = ""
    again: float | None = None


_FAILED: Final[Mapping[str, str]] = {
    NODE_INIT: "configuring {role} node {node}",
    CONTROL_PLANE: "initializing kubernetes",
    UNTAINT: "initializing kubernetes",
    LABEL: "initializing kubernetes",
    JOINED: "joining worker node {node} to kubernetes",
    KUBECONFIG: "configuring ssh",
    MASQUERADE: "configuring kubernetes",
    TAINT: "configuring multi node cluster",
    KUBEFLOW: "installing kubeflow",
    KUBEFLOW_READY: "checking kubeflow state",
    RESERVED: "allocating resource",
}


def chains(wanted: Wanted) -> Iterator[tuple[Step, ...]]:
    """The steps in order; the master's first, then what may go side by side once it is done."""
    master = wanted.master
    workers = [node.name for node in wanted.nodes if node.role == "worker"]
    yield tuple(Step(name, master) for name in (NODE_INIT, CONTROL_PLANE, UNTAINT, LABEL))
    yield (Step(KUBECONFIG),)
    for worker in workers:
        yield Step(NODE_INIT, worker), Step(JOINED, worker), Step(RESERVED, worker)
    settings = [Step(RESERVED, master), Step(MASQUERADE)]
    if workers:
        settings.append(Step(TAINT))
    if wanted.kubeflow:
        settings += [Step(KUBEFLOW), Step(KUBEFLOW_READY)]
    yield tuple(settings)


def is_done(step: Step, wanted: Wanted, seen: Observed) -> bool:
    """Node initialisation lasts as long as the pod; everything else is kept on the node's volume."""
    record = seen.records.get(step, Record())
    if record.state != "Done":
        return False
    if step.name == NODE_INIT:
        pod = seen.pods.get(step.node)
        return pod is None or record.pod == pod.uid
    return True


def is_installed(wanted: Wanted, seen: Observed) -> bool:
    """Whether everything that outlives pods is done: what is missing now is a restart, not an installation."""
    steps = [step for chain in chains(wanted) for step in chain if step.name != NODE_INIT]
    return all(seen.records.get(step, Record()).state == "Done" for step in steps)


def is_failed(step: Step, wanted: Wanted, seen: Observed) -> bool:
    """For good, until the spec changes."""
    record = seen.records.get(step, Record())
    return record.state == "Failed" and record.generation == wanted.generation


def delay(record: Record) -> float:
    """Seconds before a step that failed is tried again."""
    return float(min(300, 5 * 2 ** max(0, record.attempt - 1)))


def plan(wanted: Wanted, seen: Observed) -> Decision:
    """See the module. The same arguments always give the same answer."""
    if wanted.deleting:
        return Decision("Terminating", "")
    if wanted.paused:
        return Decision("Paused", f"{wanted.name} is paused")
    pods = {node.name: seen.pods.get(node.name, PodSeen("Not Found")) for node in wanted.nodes}
    complete = all(is_done(step, wanted, seen) for chain in chains(wanted) for step in chain)
    ready, failed, left = _steps(wanted, seen, pods)
    if failed is not None:
        role = next((node.role for node in wanted.nodes if node.name == failed.node), "master")
        why = _FAILED[failed.name].format(role=role, node=failed.node)
        steps = ready if wanted.network else ()
        return Decision("Fail", f"error on {why}", steps, again=left)
    restart = _restart(wanted, pods) if complete else ""
    was_running = is_installed(wanted, seen)
    absent = [name for name, pod in pods.items() if not pod.runs]
    if restart or (absent and was_running):
        return Decision("Restarting", "resume kubeflow", ready, restart=restart, again=left)
    if absent and not _is_begun(seen):
        return Decision("Waiting", "creating node", again=left)
    if complete and not absent:
        return Decision("Running", "Running", again=left)
    if not wanted.network:
        return Decision("Waiting Network Connection", "Connecting Network")
    if was_running:
        return Decision("Restarting", "resume kubeflow", ready, again=left)
    return Decision("Installing", _doing(wanted, seen), ready, again=left)


def _steps(
    wanted: Wanted, seen: Observed, pods: Mapping[str, PodSeen]
) -> tuple[tuple[Step, ...], Step | None, float | None]:
    """The steps to take now, one that has failed for good, and seconds until one may be tried again."""
    ready: list[Step] = []
    failed: Step | None = None
    waits: list[float] = []
    for number, chain in enumerate(chains(wanted)):
        step = next((one for one in chain if not is_done(one, wanted, seen)), None)
        if step is None:
            continue
        record = seen.records.get(step, Record())
        if is_failed(step, wanted, seen):
            failed = failed or step
        elif pods[step.node or wanted.master].runs and pods[wanted.master].runs:
            left = record.started + delay(record) - seen.now if record.state == "Retrying" else 0.0
            if left > 0:
                waits.append(left)
            else:
                ready.append(step)
        if number == 0:
            break  # nothing can be done before the master is
    return tuple(ready), failed, min(waits, default=None)


def _restart(wanted: Wanted, pods: Mapping[str, PodSeen]) -> str:
    """The next node to be replaced: workers one by one, the master last, and nobody while another is away."""
    if not all(pod.runs for pod in pods.values()):
        return ""
    for role in ("worker", "master"):
        for node in wanted.nodes:
            if node.role == role and pods[node.name].stale:
                return node.name
    return ""


def _is_begun(seen: Observed) -> bool:
    return any(record.state for record in seen.records.values())


def _doing(wanted: Wanted, seen: Observed) -> str:
    for chain in chains(wanted):
        for step in chain:
            if not is_done(step, wanted, seen):
                if step.name in {KUBEFLOW, KUBEFLOW_READY}:
                    return "installing kubeflow"
                worker = any(node.name == step.node and node.role == "worker" for node in wanted.nodes)
                return "configuring worker node" if worker else "configuring master node"
    return "configuring master node"


def started(record: Record, wanted: Wanted, now: float, pod: str) -> Record:
    """The record to write before a step begins."""
    fresh = record.state not in {"Running", "Retrying"} or record.generation != wanted.generation
    attempt = 1 if fresh else record.attempt + (record.state == "Retrying")
    begun = record.started if record.state == "Running" else now
    return Record("Running", attempt, begun, pod, wanted.generation)


def ended(record: Record, error: str, now: float, *, permanent: bool = False) -> Record:
    """The record to write after it ended; ``error`` is empty when it went well."""
    if not error:
        return Record("Done", record.attempt, record.started, record.pod, record.generation)
    state = "Failed" if permanent or record.attempt >= MAX_ATTEMPTS else "Retrying"
    return Record(state, record.attempt, now, record.pod, record.generation, error[:1024])
