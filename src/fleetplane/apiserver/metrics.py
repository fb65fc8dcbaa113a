"""What the server counts, under kube-apiserver's names, cheap enough to do on every request.

Counts live in plain dictionaries and become Prometheus samples only when somebody asks for them.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from fleetplane.apiserver.http import Request, Response
from fleetplane.apiserver.routing import Target

_BUCKETS = (
    0.005,
    0.025,
    0.05,
    0.1,
    0.2,
    0.4,
    0.6,
    0.8,
    1.0,
    1.25,
    1.5,
    2.0,
    3.0,
    4.0,
    5.0,
    6.0,
    8.0,
    10.0,
    15.0,
    20.0,
    30.0,
    45.0,
    60.0,
)
_VERBS = {
    "create": "POST",
    "update": "PUT",
    "patch": "PATCH",
    "delete": "DELETE",
    "get": "GET",
    "list": "LIST",
    "watch": "WATCH",
    "deletecollection": "DELETECOLLECTION",
}

Key = tuple[str, str, str, str, str, str]
"""(verb, group, version, resource, subresource, scope)"""


class ServerMetrics:
    """A Prometheus collector; ``observe`` is told of every finished request."""

    def __init__(self, in_flight: Callable[[], dict[str, int]], known: Callable[[Target], bool]) -> None:
        """``known`` tells whether a target names something that is served."""
        self._in_flight = in_flight
        self._known = known
        self._requests: dict[tuple[Key, int], int] = {}
        self._durations: dict[Key, list[float]] = {}

    def observe(self, _request: Request, target: Target, response: Response, seconds: float) -> None:
        """Count a request. Watches and streams count when they begin; their duration says nothing."""
        if response.status == 404 and target.is_resource and not self._known(target):
            return  # made-up names must not make new time series
        key = _key(target)
        counted = (key, response.status)
        self._requests[counted] = self._requests.get(counted, 0) + 1
        if response.stream is not None or response.upgrade is not None:
            return
        row = self._durations.get(key)
        if row is None:
            row = self._durations[key] = [0.0] * (len(_BUCKETS) + 2)
        row[bisect_left(_BUCKETS, seconds)] += 1
        row[-1] += seconds

    def collect(self) -> Iterator[Metric]:
        names = ["verb", "group", "version", "resource", "subresource", "scope"]
        requests = CounterMetricFamily(
            "apiserver_request",
            "Requests by what was asked for and how it was answered.",
            labels=[*names, "component", "code"],
        )
        for (key, code), count in self._requests.items():
            requests.add_metric([*key, "apiserver", str(code)], count)
        yield requests
        durations = HistogramMetricFamily(
            "apiserver_request_duration_seconds", "How long requests took.", labels=[*names, "component"]
        )
        for key, row in self._durations.items():
            total, buckets = 0.0, []
            for bound, seen in zip((*map(str, _BUCKETS), "+Inf"), row, strict=False):
                total += seen
                buckets.append((bound, total))
            durations.add_metric([*key, "apiserver"], buckets, row[-1])
        yield durations
        current = GaugeMetricFamily(
            "apiserver_current_inflight_requests", "Requests being answered now.", labels=["request_kind"]
        )
        for kind, now in self._in_flight().items():
            current.add_metric([kind], now)
        yield current


def _key(target: Target) -> Key:
    if not target.is_resource:
        return "GET", "", "", "", target.path if target.path in _PATHS else "", ""
    scope = "resource" if target.name else "namespace" if target.namespace else "cluster"
    return (
        _VERBS.get(target.verb, "OTHER"),
        target.group,
        target.version,
        target.resource,
        target.subresource,
        scope,
    )


_PATHS = frozenset(
    {"/livez", "/readyz", "/healthz", "/version", "/metrics", "/openapi/v2", "/openapi/v3", "/api", "/apis"}
)
