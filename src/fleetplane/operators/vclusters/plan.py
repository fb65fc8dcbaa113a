"""Mode ``pods``: from what is wanted and what is seen, the steps to take now, and what to call it. Pure.

An installation is a set of chains of steps. Each step has a record, written before it begins: a crash in between leaves
``Running``, which is never simply run again but looked at first (see ``steps``). Chains do not wait for each other more
than they must: a worker that is not there delays itself only, and a late failure leaves what is done done.

The phase is derived, never stored for later: Terminating, Paused, Fail, Restarting, Waiting, Waiting Network Connection,
Installing, Running, the first that holds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Final, NamedTuple

from fleetplane.operators.vclusters.images import minor_of

MAX_ATTEMPTS: Final = 5
MAX_ERROR: Final = 256
"""Characters of an error that are kept: status stays small, whatever a node says."""
CLUSTER: Final = ""
"""The node name under which steps of the whole cluster are kept."""

NODE_INIT: Final = "NodeInit"
CONTROL_PLANE: Final = "ControlPlaneInit"
UPGRADED: Final = "Upgraded"
ANSWERS: Final = "Answers"
NODE_READY: Final = "NodeReady"
UNTAINT: Final = "Untaint"
LABEL: Final = "Label"
JOINED: Final = "Joined"
KUBECONFIG: Final = "Kubeconfig"
MASQUERADE: Final = "MasqueradeLabel"
TAINT: Final = "Taint"
KUBEFLOW: Final = "Kubeflow"
KUBEFLOW_READY: Final = "KubeflowReady"
RESERVED: Final = "Reserved"


OF_A_POD: Final = frozenset({NODE_INIT, ANSWERS, NODE_READY, KUBECONFIG})
"""Steps that last as long as the pod (a new one may have another address); all else is kept on the node's volume."""


class Step(NamedTuple):
    """``node`` is empty for steps of the whole cluster, which run on the master."""

    name: str
    node: str = CLUSTER


@dataclass(frozen=True, slots=True)
class Record:
    """How far a step is. ``state``: empty, Running, Retrying, Done or Failed; ``started`` is in seconds.

    ``generation`` and ``request`` tell which asking the last try answered; ``inputs`` what it was done with.
    """

    state: str = ""
    attempt: int = 0
    started: float = 0.0
    pod: str = ""
    generation: int = 0
    error: str = ""
    request: str = ""
    inputs: str = ""


@dataclass(frozen=True, slots=True)
class PodSeen:
    """A node's pod: the original's words for its state, and which pod it is."""

    status: str
    message: str = ""
    uid: str = ""
    host: str = ""
    address: str = ""
    image: str = ""
    stale: bool = False
    """It runs what its StatefulSet no longer says."""

    @property
    def runs(self) -> bool:
        return self.status == "Running"


@dataclass(frozen=True, slots=True)
class NodeWanted:
    """``reservation``: what its kubelet keeps back of its host; None while the host is not known."""

    name: str
    role: str
    image: str = ""
    reservation: str | None = None


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the steps depend on. ``kubeflow`` and ``access`` say whether these are wanted."""

    name: str
    nodes: tuple[NodeWanted, ...]
    kubeflow: bool = False
    generation: int = 1
    request: str = ""
    """Changes when somebody asks for a restart, which is also asking to try anew what has failed."""
    paused: bool = False
    asleep: bool = False
    """Of those that are paused: because nobody uses it, not because somebody said so."""
    network: bool = True
    deleting: bool = False

    @property
    def master(self) -> str:
        return next((node.name for node in self.nodes if node.role == "master"), "")

    def node(self, name: str) -> NodeWanted:
        """The node of that name; the master for steps of the whole cluster."""
        return next(node for node in self.nodes if node.name == (name or self.master))


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
    UPGRADED: "configuring {role} node {node}",
    ANSWERS: "initializing kubernetes",
    NODE_READY: "configuring {role} node {node}",
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


def chains(wanted: Wanted) -> tuple[tuple[Step, ...], ...]:
    """The steps in order; the master's first, then what may go side by side once it is done."""
    workers = tuple(node.name for node in wanted.nodes if node.role == "worker")
    return _chains(wanted.master, workers, wanted.kubeflow)


@lru_cache(256)
def _chains(master: str, workers: tuple[str, ...], kubeflow: bool) -> tuple[tuple[Step, ...], ...]:
    settings = [Step(NODE_READY, master), Step(RESERVED, master), Step(MASQUERADE)]
    if workers:
        settings.append(Step(TAINT))
    if kubeflow:
        settings += [Step(KUBEFLOW), Step(KUBEFLOW_READY)]
    return (
        tuple(Step(name, master) for name in (NODE_INIT, CONTROL_PLANE, UPGRADED, ANSWERS, UNTAINT, LABEL)),
        (Step(KUBECONFIG),),
        *(
            tuple(Step(name, worker) for name in (NODE_INIT, JOINED, UPGRADED, NODE_READY, RESERVED))
            for worker in workers
        ),
        tuple(settings),
    )


def is_done(step: Step, wanted: Wanted, seen: Observed) -> bool:
    """Whether nothing is left to do; an upgrade only where the pod's image brings another version than was installed."""
    record = seen.records.get(step, Record())
    pod = seen.pods.get(step.node or wanted.master)
    if step.name == UPGRADED:
        there, brought = minor_of(installed_with(step.node, wanted, seen)), minor_of(pod.image if pod else "")
        return there is None or brought is None or there == brought
    if record.state != "Done":
        return False
    if step.name in OF_A_POD:
        return pod is None or record.pod == pod.uid
    if step.name == RESERVED:
        reservation = wanted.node(step.node).reservation
        return reservation is None or record.inputs == reservation
    return True


def installed_with(node: str, wanted: Wanted, seen: Observed) -> str:
    """The image whose Kubernetes is on a node's volume; empty where nothing is yet."""
    upgraded = seen.records.get(Step(UPGRADED, node), Record())
    if upgraded.state == "Done":
        return upgraded.inputs
    base = seen.records.get(Step(CONTROL_PLANE if node == wanted.master else JOINED, node), Record())
    return base.inputs if base.state == "Done" else ""


def is_installed(wanted: Wanted, seen: Observed) -> bool:
    """Whether everything that outlives pods is done: what is missing now is a restart, not an installation."""
    steps = [step for chain in chains(wanted) for step in chain if step.name not in OF_A_POD | {UPGRADED}]
    return all(seen.records.get(step, Record()).state == "Done" for step in steps)


def is_failed(step: Step, wanted: Wanted, seen: Observed) -> bool:
    """For good, until somebody changes the spec or asks for a restart."""
    record = seen.records.get(step, Record())
    return record.state == "Failed" and not is_asked_anew(record, wanted)


def is_asked_anew(record: Record, wanted: Wanted) -> bool:
    """Whether somebody has asked for something since the last try."""
    return record.generation != wanted.generation or record.request != wanted.request


def delay(record: Record) -> float:
    """Seconds before a step that failed is tried again."""
    return float(min(300, 5 * 2 ** max(0, record.attempt - 1)))


def plan(wanted: Wanted, seen: Observed) -> Decision:
    """See the module. The same arguments always give the same answer."""
    if wanted.deleting:
        return Decision("Terminating", "")
    if wanted.paused:
        return Decision("Paused", f"{wanted.name} is {'asleep' if wanted.asleep else 'paused'}")
    pods = {node.name: seen.pods.get(node.name, PodSeen("Not Found")) for node in wanted.nodes}
    complete = all(is_done(step, wanted, seen) for chain in chains(wanted) for step in chain)
    ready, failed, left = _steps(wanted, seen, pods)
    held = {node.name for node in wanted.nodes if node.role == "worker" and _is_held(node, wanted, seen, pods)}
    settled = all(is_done(step, wanted, seen) or step.node in held for chain in chains(wanted) for step in chain)
    restart = _restart(wanted, seen, pods, settled)
    if failed is not None:
        role = next((node.role for node in wanted.nodes if node.name == failed.node), "master")
        why = _FAILED[failed.name].format(role=role, node=failed.node)
        steps = ready if wanted.network else ()
        return Decision("Fail", f"error on {why}", steps, restart=restart, again=left)
    was_running = is_installed(wanted, seen)
    absent = [name for name, pod in pods.items() if not pod.runs]
    if (restart and complete) or (absent and was_running):
        return Decision("Restarting", "resume kubeflow", ready, restart=restart, again=left)
    if absent and not _is_begun(seen):
        return Decision("Waiting", "creating node", restart=restart, again=left)
    if complete and not absent and _is_behind(wanted, pods):
        return Decision("Restarting", "resume kubeflow", again=1.0)
    if complete and not absent:
        return Decision("Running", "Running", again=left)
    if not wanted.network:
        return Decision("Waiting Network Connection", "Connecting Network", restart=restart)
    if was_running:
        return Decision("Restarting", "resume kubeflow", ready, restart=restart, again=left)
    return Decision("Installing", _doing(wanted, seen), ready, restart=restart, again=left)


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
        elif _is_ahead(pods[step.node or wanted.master].image, wanted, seen) and number > 0:
            continue  # the master is upgraded first
        elif pods[step.node or wanted.master].runs and pods[wanted.master].runs:
            left = record.started + delay(record) - seen.now if record.state == "Retrying" else 0.0
            if left > 0:
                waits.append(left)
            else:
                ready.append(step)
        if number == 0:
            break  # nothing can be done before the master is
    return tuple(ready), failed, min(waits, default=None)


def _restart(wanted: Wanted, seen: Observed, pods: Mapping[str, PodSeen], settled: bool) -> str:
    """The next node whose pod is to be replaced by one as its StatefulSet now says.

    At once where there is nothing to lose: it does not run, or nothing is on it yet. Otherwise one by one and only when
    everything stands: workers first, the master last.
    """
    stale = [node for node in wanted.nodes if pods[node.name].stale]
    for node in stale:
        pod = pods[node.name]
        if pod.status != "Terminating" and (not pod.runs or _is_empty(node, seen)):
            return node.name
    if not settled or not all(pod.runs for pod in pods.values()):
        return ""
    ordered = sorted(stale, key=lambda node: node.role == "master")
    return ordered[0].name if ordered else ""


def image_for(node: NodeWanted, wanted: Wanted, seen: Observed) -> str:
    """The image a node's StatefulSet should have now.

    A worker is given a newer Kubernetes only when the master has it, however often its pod is made anew meanwhile: no
    kubelet may be newer than its API server.
    """
    if node.role == "worker" and _is_ahead(node.image, wanted, seen):
        return installed_with(node.name, wanted, seen) or node.image
    return node.image


def _is_ahead(image: str, wanted: Wanted, seen: Observed) -> bool:
    there, brought = minor_of(installed_with(wanted.master, wanted, seen)), minor_of(image)
    return there is not None and brought is not None and brought > there


def _is_held(node: NodeWanted, wanted: Wanted, seen: Observed, pods: Mapping[str, PodSeen]) -> bool:
    """A new worker that waits for the master to be upgraded."""
    return not installed_with(node.name, wanted, seen) and _is_ahead(pods[node.name].image, wanted, seen)


def _is_behind(wanted: Wanted, pods: Mapping[str, PodSeen]) -> bool:
    """A pod still brings another version than its node should have."""
    return any(
        (there := minor_of(pods[node.name].image)) is not None and there != (minor_of(node.image) or there)
        for node in wanted.nodes
    )


def _is_empty(node: NodeWanted, seen: Observed) -> bool:
    """Nothing is installed on it, and nothing is being installed."""
    records = [record for step, record in seen.records.items() if step.node == node.name]
    base = seen.records.get(Step(CONTROL_PLANE if node.role == "master" else JOINED, node.name), Record())
    return base.state != "Done" and all(record.state != "Running" for record in records)


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


def started(step: Step, record: Record, wanted: Wanted, now: float, pod: PodSeen) -> Record:
    """The record to write before a step begins."""
    fresh = record.state not in {"Running", "Retrying"} or is_asked_anew(record, wanted)
    attempt = 1 if fresh else record.attempt + (record.state == "Retrying")
    begun = record.started if record.state == "Running" else now
    inputs = inputs_of(step, wanted, pod)
    if step.name in {CONTROL_PLANE, JOINED} and record.inputs:
        inputs = record.inputs  # an earlier try may turn out to have worked, with the image it had
    return Record("Running", attempt, begun, pod.uid, wanted.generation, "", wanted.request, inputs)


def inputs_of(step: Step, wanted: Wanted, pod: PodSeen) -> str:
    """What a step is done with, where that decides later whether it is to be done again."""
    if step.name == RESERVED:
        return wanted.node(step.node).reservation or ""
    return pod.image if step.name in {CONTROL_PLANE, JOINED, UPGRADED} else ""


def ended(record: Record, error: str, now: float, *, permanent: bool = False) -> Record:
    """The record to write after it ended; ``error`` is empty when it went well."""
    if not error:
        return replace(record, state="Done", error="")
    state = "Failed" if permanent or record.attempt >= MAX_ATTEMPTS else "Retrying"
    return replace(record, state=state, started=now, error=error[:MAX_ERROR])
