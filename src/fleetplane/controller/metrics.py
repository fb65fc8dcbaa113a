"""What controllers count, under the names that dashboards for controller-runtime and client-go already know.

One ``Metrics`` belongs to one registry that the caller owns; there is no default registry, so two managers in one process
(or in one test) never meet.
"""

from __future__ import annotations

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_SHORT: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_QUEUE: Final = (1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1, 10, 100, 1000)


class Metrics:
    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.registry = registry if registry is not None else CollectorRegistry()
        self.reconciles = self._counter("controller_runtime_reconcile_total", "Reconciles by result.", "result")
        self.errors = self._counter("controller_runtime_reconcile_errors_total", "Reconciles that failed.")
        self.terminal_errors = self._counter(
            "controller_runtime_terminal_reconcile_errors_total", "Reconciles that failed for good."
        )
        self.timeouts = self._counter("controller_runtime_reconcile_timeouts_total", "Reconciles that took too long.")
        self.reconcile_seconds = self._histogram(
            "controller_runtime_reconcile_time_seconds", "Duration of a reconcile.", "controller", _SHORT
        )
        self.max_concurrent = self._gauge("controller_runtime_max_concurrent_reconciles", "Workers.", "controller")
        self.active_workers = self._gauge("controller_runtime_active_workers", "Workers at work.", "controller")
        self.adds = Counter("workqueue_adds_total", "Keys added.", ["name"], registry=self.registry)
        self.retries = Counter(
            "workqueue_retries_total", "Keys added after a failure.", ["name"], registry=self.registry
        )
        self.depth = self._gauge("workqueue_depth", "Keys waiting.", "name")
        self.queue_seconds = self._histogram(
            "workqueue_queue_duration_seconds", "How long a key waits before it is worked on.", "name", _QUEUE
        )
        self.work_seconds = self._histogram(
            "workqueue_work_duration_seconds", "How long a key is worked on.", "name", _QUEUE
        )
        self.unfinished_seconds = self._gauge(
            "workqueue_unfinished_work_seconds", "Time spent so far on keys being worked on.", "name"
        )
        self.longest_seconds = self._gauge(
            "workqueue_longest_running_processor_seconds", "The longest that any key has been worked on.", "name"
        )
        self.leader = self._gauge("leader_election_master_status", "1 while this instance leads.", "name")

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(name, text, ["controller", *labels], registry=self.registry)

    def _gauge(self, name: str, text: str, label: str) -> Gauge:
        return Gauge(name, text, [label], registry=self.registry)

    def _histogram(self, name: str, text: str, label: str, buckets: tuple[float, ...]) -> Histogram:
        return Histogram(name, text, [label], buckets=buckets, registry=self.registry)


class QueueMetrics:
    """The series of one queue, looked up once instead of at every add."""

    def __init__(self, metrics: Metrics, name: str) -> None:
        self.adds = metrics.adds.labels(name)
        self.retries = metrics.retries.labels(name)
        self.depth = metrics.depth.labels(name)
        self.queue_seconds = metrics.queue_seconds.labels(name)
        self.work_seconds = metrics.work_seconds.labels(name)
        self.unfinished_seconds = metrics.unfinished_seconds.labels(name)
        self.longest_seconds = metrics.longest_seconds.labels(name)


class ControllerMetrics:
    """The series of one controller."""

    def __init__(self, metrics: Metrics, name: str) -> None:
        self.succeeded = metrics.reconciles.labels(name, "success")
        self.failed = metrics.reconciles.labels(name, "error")
        self.requeued = metrics.reconciles.labels(name, "requeue_after")
        self.errors = metrics.errors.labels(name)
        self.terminal_errors = metrics.terminal_errors.labels(name)
        self.timeouts = metrics.timeouts.labels(name)
        self.seconds = metrics.reconcile_seconds.labels(name)
        self.max_concurrent = metrics.max_concurrent.labels(name)
        self.active_workers = metrics.active_workers.labels(name)
