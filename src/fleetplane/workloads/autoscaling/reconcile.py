"""Every fifteen seconds per autoscaler: measures, proposes, limits, scales, and says what it saw."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import orjson

from fleetplane.client.discovery import Discovered
from fleetplane.client.informer import Informer
from fleetplane.client.snapshot import ObjectKey
from fleetplane.controller.conditions import Condition, with_conditions
from fleetplane.controller.controller import Controller, Request, Result
from fleetplane.model.builtin.types import HORIZONTAL_POD_AUTOSCALERS
from fleetplane.model.environment import timestamp
from fleetplane.model.errors import ApiError
from fleetplane.model.objects import Object, generation, is_deleting, name, namespace, uid
from fleetplane.model.resources import ResourceType
from fleetplane.model.selectors import LabelSelector
from fleetplane.workloads.autoscaling.behavior import History, Limited, limit, rules
from fleetplane.workloads.autoscaling.metrics import TOLERANCE, Measured, Proposal, milli, propose
from fleetplane.workloads.scheduler.shape import amount, pod_requests
from fleetplane.workloads.shared.actor import Actor
from fleetplane.workloads.shared.podcache import PodCache

PERIOD: Final = 15.0
POD_METRICS: Final = ResourceType("metrics.k8s.io", "v1beta1", "PodMetrics", "pods")
Usage = Mapping[str, Mapping[str, Mapping[str, int]]]
"""pod -> container -> resource -> thousandths."""


class Autoscalers:
    def __init__(self, actor: Actor, autoscalers: Informer, pods: PodCache) -> None:
        self._actor = actor
        self._autoscalers = autoscalers
        self._pods = pods
        self._histories: dict[str, History] = {}

    def controller(self) -> Controller:
        return Controller(
            "horizontalpodautoscaler", HORIZONTAL_POD_AUTOSCALERS, self.reconcile, max_concurrent=4, resync=None
        )

    async def reconcile(self, request: Request) -> Result | None:
        scaler = self._autoscalers.get_key(request)
        if scaler is None or is_deleting(scaler):
            return None
        await _Pass(self, request.cluster, scaler).run()
        return Result(requeue_after=PERIOD)

    # what a pass needs

    @property
    def actor(self) -> Actor:
        return self._actor

    def history(self, scaler: Object) -> History:
        found = self._histories.setdefault(uid(scaler), History())
        found.forget(self._actor.environment.monotonic())
        return found

    async def target(self, cluster: str, scaler: Object) -> Discovered:
        reference = scaler["spec"]["scaleTargetRef"]
        discovery = self._actor.discovery(cluster)
        return await discovery.by_kind(str(reference.get("apiVersion") or "v1"), str(reference.get("kind")))

    async def usage(self, cluster: str, space: str, selector: str) -> Usage:
        page = await self._actor.client(cluster).list(POD_METRICS, space, labels=selector)
        return {
            name(one): {
                str(container.get("name")): {
                    resource: milli(value) for resource, value in (container.get("usage") or {}).items()
                }
                for container in one.get("containers") or ()
            }
            for one in page.items
        }

    def measured(
        self, cluster: str, space: str, selector: LabelSelector, metric: Mapping[str, Any], usage: Usage
    ) -> list[Measured]:
        source = metric.get("resource") or metric.get("containerResource") or {}
        resource, container = str(source.get("name")), str(source.get("container") or "")
        found = []
        for pod in self._pods.in_namespace(cluster, space):
            if not pod.is_active or not selector.matches(pod.labels):
                continue
            snapshot = self._pods.informer.snapshot(ObjectKey(cluster, space, pod.name))
            if snapshot is None:
                continue
            spec = orjson.loads(snapshot.encoded).get("spec") or {}
            found.append(
                Measured(
                    pod.name,
                    ready=pod.phase == "Running" and (resource != "cpu" or pod.ready),
                    request=_request(spec, resource, container),
                    usage=_used(usage.get(pod.name), resource, container),
                )
            )
        return found


class _Pass:
    """One look at one autoscaler."""

    def __init__(self, scalers: Autoscalers, cluster: str, scaler: Object) -> None:
        self._scalers = scalers
        self._actor = scalers.actor
        self._cluster = cluster
        self._scaler = scaler
        self._spec = scaler["spec"]
        self._conditions: list[Condition] = []
        self._metrics: list[Object] = []

    async def run(self) -> None:
        reference = self._spec["scaleTargetRef"]
        try:
            target = await self._scalers.target(self._cluster, self._scaler)
            client = self._actor.client(self._cluster)
            scale = await client.get_subresource(target.type, reference["name"], "scale", namespace(self._scaler))
        except ApiError as error:
            self._fail(
                "AbleToScale",
                "FailedGetScale",
                f"the HPA controller was unable to get the target's current scale: {error.message}",
            )
            await self._write(None, None)
            return
        current = int((scale.get("spec") or {}).get("replicas") or 0)
        self._say(
            "AbleToScale", True, "SucceededGetScale", "the HPA controller was able to get the target's current scale"
        )
        desired = await self._decide(scale, current)
        if desired is None or desired == current:
            await self._write(scale, current if desired is None else desired)
            return
        await self._scale(target.type, scale, current, desired)

    async def _decide(self, scale: Object, current: int) -> int | None:
        minimum = int(self._spec["minReplicas"]) if self._spec.get("minReplicas") is not None else 1
        if current == 0 and minimum != 0:
            self._say(
                "ScalingActive",
                False,
                "ScalingDisabled",
                "scaling is disabled since the replica count of the target is zero",
            )
            return None
        if current > int(self._spec["maxReplicas"]):
            return int(self._spec["maxReplicas"])
        if current < minimum:
            return minimum
        proposal = await self._propose(scale, current)
        if proposal is None:
            return None
        now = self._actor.environment.monotonic()
        history = self._scalers.history(self._scaler)
        limited = limit(self._spec, current, proposal, history, now)
        history.recommended.append((now, proposal))
        self._say_limits(limited)
        return limited.replicas

    async def _propose(self, scale: Object, current: int) -> int | None:
        """The largest proposal of all metrics; None when there is none to rely on."""
        text = str((scale.get("status") or {}).get("selector") or "")
        if not text:
            self._fail("ScalingActive", "InvalidSelector", "the HPA target's scale is missing a selector")
            return None
        metrics = self._spec.get("metrics") or ()
        try:
            selector = LabelSelector.parse(text)
            usage: Usage = {}
            if any(str(one.get("type")).endswith("Resource") for one in metrics):
                usage = await self._scalers.usage(self._cluster, namespace(self._scaler), text)
        except (ApiError, ValueError) as error:
            message = error.message if isinstance(error, ApiError) else str(error)
            self._fail(
                "ScalingActive",
                "FailedGetResourceMetric",
                f"the HPA was unable to compute the replica count: {message}",
            )
            return None
        proposals = [self._one(metric, selector, usage, current) for metric in metrics]
        return self._largest(proposals, current)

    def _one(self, metric: Mapping[str, Any], selector: LabelSelector, usage: Usage, current: int) -> Proposal:
        pods = self._scalers.measured(self._cluster, namespace(self._scaler), selector, metric, usage)
        tolerances = (self._tolerance("scaleDown"), self._tolerance("scaleUp"))
        return propose(metric, pods, current, tolerances)

    def _tolerance(self, direction: str) -> float:
        given = rules(self._spec, direction).get("tolerance")
        return milli(given) / 1000 if given is not None else TOLERANCE

    def _largest(self, proposals: Sequence[Proposal], current: int) -> int | None:
        good = [one for one in proposals if one.problem is None]
        bad = [one.problem for one in proposals if one.problem is not None]
        self._metrics = [one.current for one in good if one.current is not None]
        best = max((one.replicas for one in good), default=None)
        # One metric that cannot be read must not make the target smaller.
        if best is None or (bad and best < current):
            reason, message = bad[0] if bad else ("InvalidMetrics", "the autoscaler names no metrics")
            self._fail("ScalingActive", reason, f"the HPA was unable to compute the replica count: {message}")
            return None
        text = "the HPA was able to successfully calculate a replica count from resource metrics"
        self._say("ScalingActive", True, "ValidMetricFound", text)
        return best

    async def _scale(self, target: ResourceType, scale: Object, current: int, desired: int) -> None:
        changed = {**scale, "spec": {**(scale.get("spec") or {}), "replicas": desired}}
        client = self._actor.client(self._cluster)
        try:
            await client.update(target, changed, namespace(self._scaler), subresource="scale")
        except ApiError as error:
            self._fail(
                "AbleToScale",
                "FailedUpdateScale",
                f"the HPA controller was unable to update the target scale: {error.message}",
            )
            await self._write(scale, current)
            raise
        now = self._actor.environment.monotonic()
        self._scalers.history(self._scaler).changes.append((now, desired - current))
        self._say(
            "AbleToScale",
            True,
            "SucceededRescale",
            f"the HPA controller was able to update the target scale to {desired}",
        )
        way = "above" if desired > current else "below"
        text = f"New size: {desired}; reason: resource metrics {way} target"
        self._actor.tell(self._cluster, self._scaler, "Normal", "SuccessfulRescale", text)
        await self._write(scale, desired, scaled=True)

    # words

    def _say(self, kind: str, holds: bool, reason: str, message: str) -> None:
        self._conditions = [one for one in self._conditions if one.type != kind]
        self._conditions.append(Condition(kind, holds, reason, message))

    def _fail(self, kind: str, reason: str, message: str) -> None:
        self._say(kind, False, reason, message)
        self._actor.tell(self._cluster, self._scaler, "Warning", reason, message)

    def _say_limits(self, limited: Limited) -> None:
        self._say("ScalingLimited", limited.is_limited, limited.reason, limited.message)
        if limited.stabilized:
            text = "recent recommendations were different from the current one, applying the most cautious of them"
            self._say("AbleToScale", True, limited.stabilized, text)
        else:
            self._say("AbleToScale", True, "ReadyForNewScale", "recommended size matches current size")

    async def _write(self, scale: Object | None, desired: int | None, *, scaled: bool = False) -> None:
        old = self._scaler.get("status") or {}
        now = self._actor.environment.now()
        status: Object = {
            "observedGeneration": generation(self._scaler),
            "currentReplicas": int(((scale or {}).get("status") or {}).get("replicas") or 0),
            "desiredReplicas": desired if desired is not None else int(old.get("desiredReplicas") or 0),
            "conditions": with_conditions(old.get("conditions"), self._conditions, now=now),
        }
        if self._metrics:
            status["currentMetrics"] = self._metrics
        if scaled:
            status["lastScaleTime"] = timestamp(now)
        elif old.get("lastScaleTime"):
            status["lastScaleTime"] = old["lastScaleTime"]
        await self._actor.write_status(self._cluster, HORIZONTAL_POD_AUTOSCALERS, self._scaler, status)


def _request(spec: Mapping[str, Any], resource: str, container: str) -> int | None:
    """What a pod (or one container of it) asks for, in thousandths."""
    if container:
        found = [one for one in _containers(spec) if one.get("name") == container]
        written = ((found[0].get("resources") or {}).get("requests") or {}).get(resource) if found else None
        return None if written is None else _thousandths(resource, amount(resource, written))
    total = pod_requests(spec).get(resource)
    return None if total is None else _thousandths(resource, total)


def _thousandths(resource: str, value: int) -> int:
    return value if resource == "cpu" else value * 1000


def _containers(spec: Mapping[str, Any]) -> Iterable[Mapping[str, Any]]:
    return (*(spec.get("containers") or ()), *(spec.get("initContainers") or ()))


def _used(containers: Mapping[str, Mapping[str, int]] | None, resource: str, container: str) -> int | None:
    if not containers:
        return None
    if container:
        return containers.get(container, {}).get(resource)
    found = [one[resource] for one in containers.values() if resource in one]
    return sum(found) if len(found) == len(containers) else None
