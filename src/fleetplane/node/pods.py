"""From a watch over pods to the engine: which changes matter to which worker.

Most changes a node sees are echoes of its own status writes; those are recognised by what they did not change
(generation, deletion, labels, annotations) and cost nothing. A pod that vanishes from the API is stopped with its own
grace, and nobody is told at the end.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fleetplane.client.informer import Change
from fleetplane.client.snapshot import Snapshot
from fleetplane.node.engine import PodEngine
from fleetplane.node.pod import CONFIG_MIRROR, DEFAULT_GRACE_SECONDS, PodView
from fleetplane.node.reporter import StatusReporter
from fleetplane.node.worker import PodWorker

_FINAL = {"Succeeded", "Failed"}


class PodFeed:
    """See the module.

    ``is_ours`` tells by a node's name whether its pods are run here; ``keep_encoded`` lets many pods at rest be bytes.
    """

    def __init__(
        self,
        engine: PodEngine,
        reporter: StatusReporter,
        is_ours: Callable[[str], bool],
        cluster: str | None,
        *,
        keep_encoded: bool = False,
        on_mirror: Callable[[Change], None] = lambda change: None,
    ) -> None:
        self._engine = engine
        self._reporter = reporter
        self._is_ours = is_ours
        self._cluster = cluster or "root"
        self._keep_encoded = keep_encoded
        self._on_mirror = on_mirror
        self._gone: set[str] = set()
        self._ended: set[str] = set()
        """Pods whose end was reported: what the watch still brings of them is from before that."""

    def changed(self, change: Change) -> None:
        new = change.new
        if CONFIG_MIRROR in new.annotations:
            self._on_mirror(change)
            return
        worker = self._engine.workers.get(new.uid)
        if change.event == "DELETED":
            self.vanished(new.uid)
            return
        if worker is not None and change.old is not None and _is_echo(change.old, new):
            worker.same_pod(new.encoded)
            return
        obj = new.object
        spec = obj.get("spec") or {}
        if not self._is_ours(str(spec.get("nodeName") or "")):
            return
        if worker is None and (new.uid in self._ended or not self._worth_a_worker(obj)):
            return
        self._engine.set_pod(PodView(obj, new.key.cluster), encoded=new.encoded if self._keep_encoded else b"")

    @staticmethod
    def _worth_a_worker(obj: dict[str, Any]) -> bool:
        """A pod that has ended, or only waits for its finalizers, needs nothing of a node that holds none of it."""
        metadata = obj["metadata"]
        if metadata.get("deletionTimestamp"):
            return bool(metadata.get("deletionGracePeriodSeconds"))
        return (obj.get("status") or {}).get("phase") not in _FINAL

    def vanished(self, uid: str) -> None:
        """The pod is gone from the API: stop what runs of it."""
        self._reporter.forget(uid)
        self._ended.discard(uid)
        worker = self._engine.workers.get(uid)
        if worker is None:
            return
        self._gone.add(uid)
        worker.set_pod(removed(worker.pod))

    def ended(self, worker: PodWorker) -> None:
        """Nothing of the pod is left on the node."""
        uid = worker.uid
        if uid in self._gone:
            self._gone.discard(uid)
            self._reporter.forget(uid)
        else:
            self._ended.add(uid)
            self._reporter.ended(worker)


def removed(pod: PodView, grace_seconds: int | None = None) -> PodView:
    """The pod as if it had just been deleted, with its own grace or this one."""
    metadata = dict(pod.object.get("metadata") or {})
    if grace_seconds is None:
        grace_seconds = metadata.get("deletionGracePeriodSeconds")
    if grace_seconds is None:
        grace_seconds = pod.spec.get("terminationGracePeriodSeconds", DEFAULT_GRACE_SECONDS)
    metadata.setdefault("deletionTimestamp", "1970-01-01T00:00:00Z")
    metadata["deletionGracePeriodSeconds"] = grace_seconds
    return PodView({**pod.object, "metadata": metadata}, pod.cluster)


def _is_echo(old: Snapshot, new: Snapshot) -> bool:
    """Whether nothing a node acts on has changed. Without generations (older servers) everything may have."""
    one, other = old.meta, new.meta
    return (
        other.generation > 0
        and one.generation == other.generation
        and one.deletion_timestamp == other.deletion_timestamp
        and one.annotations == other.annotations
        and one.labels == other.labels
        and one.finalizers == other.finalizers
        and b'"readinessGates"' not in new.encoded
    )
