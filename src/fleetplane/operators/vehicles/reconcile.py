"""Making it so: a VehPod becomes one pod in the namespace of its class.

The order of a pass is the original's with its defects taken out: being deleted is looked at first (by the framework, with
a finalizer that is there before anything is made), then what is missing is named, then rules, then the pod. A pod that
has to change in a way pods cannot is deleted and, once it is gone, made anew. What others changed on a pod is put back.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from fleetplane.client.informer import Change, Informer
from fleetplane.client.snapshot import ObjectKey, Snapshot
from fleetplane.controller import Condition, Context, Controller, Manager, Request, Result, Watch, controller_for
from fleetplane.controller.applied import is_applied
from fleetplane.controller.children import OWNER_UID_LABEL
from fleetplane.model import objects
from fleetplane.model.builtin.types import (
    LIMIT_RANGES,
    NAMESPACES,
    NETWORK_POLICIES,
    PODS,
    PRIORITY_CLASSES,
    RESOURCE_QUOTAS,
)
from fleetplane.model.errors import ApiError
from fleetplane.model.objects import Object, is_deleting, labels, metadata, uid
from fleetplane.model.resources import ResourceRef
from fleetplane.operators.vehicles import arrangement, interference, limits, plan
from fleetplane.operators.vehicles.arrangement import Arranged
from fleetplane.operators.vehicles.containers import Containers, Within, hold_patch, with_held
from fleetplane.operators.vehicles.kinds import AppType, DevRes, VehContainerConfig, VehDeployment, VehMonitor, VehPod
from fleetplane.operators.vehicles.limits import Profile, Violation, canonical, profile_of
from fleetplane.operators.vehicles.monitors import Monitors, asks

DEPENDENCIES_RESOLVED: Final = "DependenciesResolved"
ADMITTED: Final = "Admitted"
DEVICES_BOUND: Final = "DevicesBound"
SCHEDULED: Final = "Scheduled"
READY: Final = "Ready"

FREEDOM: Final = "FreedomFromInterference"

ON_NODE: Final = "vehicles.node"
"""Index of pods by where they run: ``cluster/node``."""
NAMED: Final = "vehicles.named"
"""Index of workloads by what they name: ``cluster/namespace/Kind/name``, and ``cluster/AppType/name``."""
_LIMITS: Final[Mapping[str, ResourceRef]] = {
    "Namespace": NAMESPACES,
    "LimitRange": LIMIT_RANGES,
    "ResourceQuota": RESOURCE_QUOTAS,
    "NetworkPolicy": NETWORK_POLICIES,
}
_NODE_NAME: Final = re.compile(rb'"nodeName":"([^"\\\\]+)"')
SOON: Final = 0.2
YIELD_SECONDS: Final = 0.05
MOST_YIELDS: Final = 20
AGAIN: Final = 30.0


class Platform:
    """What both workload controllers need: dependencies, profiles, namespaces. Reads caches, writes namespaces."""

    def __init__(self, manager: Manager) -> None:
        self.manager = manager
        self._dependencies: Mapping[str, Informer] = {
            "DevRes": manager.informer(DevRes),
            "VehContainerConfig": manager.informer(VehContainerConfig),
        }
        self._app_types = manager.informer(AppType)
        self._limits = {kind: manager.informer(resource) for kind, resource in _LIMITS.items()}
        self._classes = manager.informer(PRIORITY_CLASSES)
        self._pods = manager.informer(PODS)
        self._pods.add_index(ON_NODE, _node_of)
        self.monitors = Monitors(manager)
        self._workloads = [manager.informer(VehPod), manager.informer(VehDeployment)]
        self._yielded: dict[Request, int] = {}

    def dependencies(self, context: Context[Any], spec: Mapping[str, Any]) -> plan.Dependencies:
        cluster, namespace = context.request.cluster, context.request.namespace

        def find(kind: str, name: str) -> Object | None:
            found = self._dependencies[kind].get_key(ObjectKey(cluster, namespace, name))
            return None if found is None or is_deleting(found) else found

        return plan.resolve(spec, find)

    def profile(self, context: Context[Any], app_type: str) -> Profile | None:
        return profile_of(app_type, self._app_types.get(canonical(app_type), cluster=context.request.cluster))

    async def prepare(self, context: Context[Any], profile: Profile, level: str) -> bool:
        """Have the class's namespace, limits and priority class; false while the namespace cannot be used yet.

        Raises plan.Refused where what its AppType says cannot be.
        """
        try:
            if not await self._limit(context, profile):
                return False
        except ApiError as error:
            if error.code != 422:
                raise
            shown = f"what AppType {profile.name} says cannot be: {error.message}"
            raise plan.Refused(Violation("app-type-limits", "spec.appType", shown)) from None
        if level:
            name = plan.priority_class(level)
            if self._classes.get(name, cluster=context.request.cluster) is None:
                made = {
                    "metadata": {"name": name},
                    "value": plan.PRIORITY_CLASSES[name],
                    "description": f"Vehicle workloads of criticality {level}.",
                }
                await _create_if_absent(context, PRIORITY_CLASSES, made)
        return True

    async def _limit(self, context: Context[Any], profile: Profile) -> bool:
        """The namespace with its limits as they are wanted, and without those that no longer are."""
        cluster, unwanted = context.request.cluster, set(_LIMITS) - {"Namespace"}
        for wanted in plan.namespace_objects(profile):
            kind, meta = str(wanted["kind"]), wanted["metadata"]
            unwanted.discard(kind)
            found = self._limits[kind].get_key(ObjectKey(cluster, str(meta.get("namespace") or ""), str(meta["name"])))
            if found is not None and kind == "Namespace" and is_deleting(found):
                return False
            if found is None or not is_applied(found, wanted, self.manager.name):
                if found is not None and _same_spec(found, wanted):
                    continue
                await context.client.apply(
                    _LIMITS[kind], wanted, meta.get("namespace"), field_manager=self.manager.name
                )
        for kind in sorted(unwanted):
            found = self._limits[kind].get_key(ObjectKey(cluster, profile.namespace, plan.LIMITS_NAME))
            if found is not None and labels(found).get(plan.CLASS_LABEL) == profile.name:
                await _delete_if_there(context, _LIMITS[kind], found)
        return True

    def gives_way(self, request: Request, level: str) -> bool:
        """Whether a workload waits a moment because one of higher criticality has not been looked at yet.

        Not for long: what cannot be looked at must not hold up everything below it.
        """
        rank = limits.rank(level)
        before = rank < len(limits.LEVELS) - 1 and any(
            limits.rank(str((one.get("spec") or {}).get("criticality") or "")) > rank and _is_fresh(one)
            for informer in self._workloads
            for one in informer.list(cluster=request.cluster)
        )
        turns = self._yielded.get(request, 0)
        if before and turns < MOST_YIELDS:
            self._yielded[request] = turns + 1
            return True
        self._yielded.pop(request, None)
        return False

    def freedom(self, context: Context[Any], pods: Iterable[Object]) -> Condition:
        """Whether anything of lower criticality could disturb these pods where they run (see ``interference``)."""
        found: list[str] = []
        for pod in pods:
            node = (pod.get("spec") or {}).get("nodeName")
            if node and interference.level_of_pod(pod) != "QM":
                there = self._pods.by_index(ON_NODE, f"{context.request.cluster}/{node}")
                found += interference.findings(pod, there)
        text = interference.told(sorted(set(found)))
        return Condition(FREEDOM, not found, "Interference" if found else "NoneFound", text)

    def watches(self, workloads: Informer) -> list[Watch]:
        """What wakes a workload besides itself: what it names, and its pods, which live in another namespace."""
        workloads.add_index(NAMED, _named)
        kind = workloads.resource.kind

        def by(what: str) -> Callable[[Snapshot], Iterable[Request]]:
            def requests(snapshot: Snapshot) -> Iterable[Request]:
                key = snapshot.key
                value = f"{key.cluster}/{key.namespace}/{what}/{key.name}"
                return [one.key for one in workloads.snapshots_by_index(NAMED, value)]

            return requests

        def owner(snapshot: Snapshot) -> Iterable[Request]:
            parts = snapshot.annotations.get(plan.OWNER, "").split("/")
            return [Request(snapshot.key.cluster, parts[1], parts[2])] if len(parts) == 3 and parts[0] == kind else []

        def neighbours(snapshot: Snapshot) -> Iterable[Request]:
            """Vehicle pods of a level, where another pod has come or gone."""
            for key in _node_of(snapshot):
                for one in self._pods.snapshots_by_index(ON_NODE, key):
                    if one.annotations.get(plan.LEVEL, "QM") != "QM":
                        yield from owner(one)

        return [
            Watch(DevRes, by("DevRes")),
            Watch(VehContainerConfig, by("VehContainerConfig")),
            Watch(AppType, by("AppType")),
            Watch(PODS, owner),
            Watch(VehMonitor, owner, asks),
            Watch(PODS, neighbours, _moved),
        ]


def _is_fresh(workload: Mapping[str, Any]) -> bool:
    """Whether nobody has looked at it since it was written."""
    seen = int((workload.get("status") or {}).get("observedGeneration") or 0)
    return seen < objects.generation(workload) and not is_deleting(workload)


def _moved(change: Change) -> bool:
    """Whether a pod came to a node or left it."""
    return change.event != "MODIFIED" or change.old is None or _node_of(change.old) != _node_of(change.new)


def _node_of(snapshot: Snapshot) -> Iterable[str]:
    """Read off the bytes: all pods of a plane pass here, and few of them are ever decoded."""
    found = _NODE_NAME.findall(snapshot.encoded)
    if not found:
        return []
    node = found[0].decode() if len(found) == 1 else (snapshot.object.get("spec") or {}).get("nodeName")
    return [f"{snapshot.key.cluster}/{node}"] if node else []


def _same_spec(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    """What is wanted already holds, whoever wrote it; quantities may be written in other words by the server."""
    if any(labels(found).get(key) != value for key, value in labels(wanted).items()):
        return False
    return objects.annotations(found).get(plan.SPEC_HASH) is None and found.get("spec") == wanted.get(
        "spec", found.get("spec")
    )


def _named(snapshot: Snapshot) -> Iterable[str]:
    key, spec = snapshot.key, snapshot.object.get("spec") or {}
    values = [f"{key.cluster}/{key.namespace}/{kind}/{name}" for kind, name in plan.dependencies_of(spec)]
    return [*values, f"{key.cluster}//AppType/{canonical(str(spec.get('appType') or ''))}"]


async def _delete_if_there(context: Context[Any], resource: ResourceRef, obj: Object) -> None:
    meta = metadata(obj)
    try:
        await context.client.delete(resource, meta["name"], meta["namespace"], uid=uid(obj))
    except ApiError as error:
        if error.code not in {404, 409}:
            raise


async def _create_if_absent(context: Context[Any], resource: ResourceRef, obj: Object) -> None:
    try:
        await context.client.create(resource, obj)
    except ApiError as error:
        if error.reason != "AlreadyExists":
            raise


class VehPods:
    """The controller of VehPods."""

    def __init__(self, manager: Manager, platform: Platform) -> None:
        self._manager = manager
        self._platform = platform
        self._pods = manager.informer(PODS)
        self._containers = Containers(manager, platform.monitors)

    def controller(self) -> Controller:
        return controller_for(
            self._manager,
            VehPod,
            self.reconcile,
            owns=[PODS, VehMonitor],
            watches=self._platform.watches(self._manager.informer(VehPod)),
            finalizer=plan.FINALIZER,
            cleanup=self.cleanup,
        )

    async def cleanup(self, context: Context[VehPod], app: VehPod) -> Result | None:
        self._containers.forget(app.uid)
        if await context.delete_children():
            return None
        await context.set_status({"phase": "Terminating"})
        return Result(requeue_after=AGAIN)

    async def reconcile(self, context: Context[VehPod], app: VehPod) -> Result | None:
        if self._platform.gives_way(context.request, app.spec.criticality):
            return Result(requeue_after=YIELD_SECONDS)
        profile = self._platform.profile(context, app.spec.app_type)
        if profile is None:
            broken = Violation("app-type", "spec.appType", f"there is no AppType {canonical(app.spec.app_type)!r}")
            await refuse(context, [broken])
            return None
        current = self._current(context, profile)
        if current is None and await self._leave(context, profile, app):
            return Result(requeue_after=AGAIN)
        if app.spec.state == "Stopped":
            await context.delete_children()
            await context.set_status({"phase": "Stopped", "pod": "", "instances": [], "rule": "", "monitor": None})
            return None
        known = self._platform.dependencies(context, app.spec.object)
        if known.missing:
            await waiting(context, known, current)
            return None
        spec = app.spec.object
        broken_rules = [*plan.violations(profile, app.name, spec, known), *arrangement.violations(profile, spec)]
        arranged = None if broken_rules else arrangement.arrange(spec)
        broken_rules += plan.index_violations(arrangement.effective(spec, arranged))
        try:
            wanted = plan.pod_of(app, known, profile) if not broken_rules else {}
        except plan.Refused as error:
            broken_rules.append(error.violation)
        if broken_rules:
            await refuse(context, broken_rules)
            return None
        try:
            return await self._run(context, app, profile, wanted, current, arranged)
        except plan.Refused as error:
            await refuse(context, [error.violation])
            return Result(requeue_after=AGAIN)

    async def _run(
        self,
        context: Context[VehPod],
        app: VehPod,
        profile: Profile,
        wanted: Object,
        current: Object | None,
        arranged: Arranged | None,
    ) -> Result | None:
        if current is not None and labels(current).get(OWNER_UID_LABEL) not in {app.uid, None}:
            holder = objects.annotations(current).get(plan.OWNER, "somebody else")
            await refuse(context, [Violation("name-taken", "metadata.name", f"the pod belongs to {holder}")])
            return Result(requeue_after=AGAIN)
        if not await self._platform.prepare(context, profile, app.spec.criticality):
            return Result(requeue_after=1.0)
        within: Within | None = Within()
        if arranged is not None:
            within = await self._containers.look(context, app, profile, arranged, current)
        if within is None:
            return Result(requeue_after=SOON)
        wanted = with_held(wanted, within.held)
        if within.replace and current is not None:
            await delete_pod(context, current)  # its node would not restart, or stop, a container of it
        waits = False
        if current is not None and not is_deleting(current):
            if plan.must_replace(current, wanted, app.spec.on_dependency_change):
                await delete_pod(context, current)
                context.event("Replacing", f"pod {profile.namespace}/{app.name} is replaced by its new form")
            else:
                waits = plan.may_keep(current, wanted)
        if waits and current is not None and (patch := hold_patch(current, within.held)) is not None:
            await context.client.patch(PODS, app.name, patch, profile.namespace)
        if not within.stays_away and (current is None or not (is_deleting(current) or waits)):
            others = [] if within.monitor is None else [within.monitor]
            if await self._apply(context, wanted, current, others) is not None:
                return Result(requeue_after=SOON)
            current = self._current(context, profile)
        await self._report(context, app, profile, current, waits, arranged, within)
        return None if within.again is None else Result(requeue_after=within.again)

    async def _apply(
        self, context: Context[VehPod], wanted: Object, current: Object | None, others: list[Object]
    ) -> Result | None:
        """The pod as it should be, drift put back. A result means: again soon."""
        if current is not None and is_deleting(current):
            return None
        if current is not None and (current.get("status") or {}).get("phase") in {"Succeeded", "Failed"}:
            return None
        try:
            await context.apply_children([wanted, *others])
        except ApiError as error:
            if error.code == 403 and "serviceaccount" in error.message:
                return Result(requeue_after=SOON)  # the namespace is new: its account is on the way
            if error.code == 422 and current is not None:
                await delete_pod(context, current)  # somebody changed what cannot be changed back
                return None
            if error.code in {403, 422}:
                await refuse(context, [Violation("server", "spec.podSpec", error.message)])
                return Result(requeue_after=AGAIN)
            raise
        return None

    async def _leave(self, context: Context[VehPod], profile: Profile, app: VehPod) -> bool:
        """A pod in another namespace than that of the class is of an earlier AppType: gone before the new one comes."""
        strays = [one for one in pods_of(context) if metadata(one).get("namespace") != profile.namespace]
        for pod in strays:
            await delete_pod(context, pod)
        return bool(strays)

    def _current(self, context: Context[VehPod], profile: Profile) -> Object | None:
        return self._pods.get_key(ObjectKey(context.request.cluster, profile.namespace, context.request.name))

    async def _report(
        self,
        context: Context[VehPod],
        app: VehPod,
        profile: Profile,
        pod: Object | None,
        waits: bool,
        arranged: Arranged | None,
        within: Within,
    ) -> None:
        phase = plan.phase_of(pod)
        status: Object = {
            "phase": phase,
            "pod": f"{profile.namespace}/{app.name}",
            "criticality": app.spec.criticality or "QM",
            "rule": "",
            "instances": [] if pod is None else [instance(pod, "", phase)],
            "monitor": None,
        }
        told = pod_conditions(pod)
        if arranged is not None:
            fields, more = self._containers.report(context, app, arranged, within, pod)
            status |= fields
            told = [*(one for one in told if one.type != READY), *more]
        await context.set_status(
            status,
            Condition(
                DEPENDENCIES_RESOLVED,
                True,
                "WaitingForNextStart" if waits else "Resolved",
                "a dependency changed; it takes effect at the next start" if waits else "",
            ),
            Condition(ADMITTED, True, "Admitted"),
            *told,
            self._platform.freedom(context, [] if pod is None else [pod]),
        )


def pod_conditions(pod: Object | None) -> list[Condition]:
    placed = bool(pod and (pod.get("spec") or {}).get("nodeName"))
    ready = bool(pod and plan.is_ready(pod))
    why = ""
    for one in ((pod or {}).get("status") or {}).get("conditions") or ():
        if one.get("type") == "PodScheduled" and one.get("status") == "False":
            why = str(one.get("message") or "")
    return [
        Condition(SCHEDULED, placed, "Scheduled" if placed else "NotScheduled", why),
        Condition(DEVICES_BOUND, ready, "Bound" if ready else "NotStarted"),
        Condition(READY, ready, "Ready" if ready else plan.phase_of(pod)),
    ]


def instance(pod: Mapping[str, Any], role: str, state: str) -> Object:
    statuses = (pod.get("status") or {}).get("containerStatuses") or ()
    made: Object = {
        "name": metadata(pod)["name"],
        "state": state,
        "restarts": sum(int(one.get("restartCount") or 0) for one in statuses),
    }
    if node := (pod.get("spec") or {}).get("nodeName"):
        made["node"] = node
    if role:
        made["role"] = role
    return made


def pods_of(context: Context[Any]) -> list[Object]:
    return [one for one in context.children() if one.get("kind") == "Pod"]


async def delete_pod(context: Context[Any], pod: Object, *, grace: int | None = None) -> None:
    meta = metadata(pod)
    if is_deleting(pod):
        return
    try:
        await context.client.delete(
            PODS, meta["name"], meta["namespace"], uid=uid(pod), grace_period_seconds=grace, propagation="Background"
        )
    except ApiError as error:
        if error.code not in {404, 409}:
            raise


async def waiting(context: Context[Any], known: plan.Dependencies, current: Object | None) -> None:
    """Something it names is missing. A pod that already runs goes on."""
    message = f"missing: {', '.join(known.missing)}"
    phase = "Resolving" if current is None else plan.phase_of(current)
    await context.set_status(
        {"phase": phase, "rule": ""},
        Condition(DEPENDENCIES_RESOLVED, False, "Missing", message),
        *([] if current is not None else [Condition(READY, False, "DependenciesMissing", message)]),
    )


async def refuse(context: Context[Any], broken: list[Violation]) -> None:
    """A rule says no: told on the object, by the rule's name. What runs already goes on."""
    message = "; ".join(str(one) for one in broken)
    rules = ",".join(dict.fromkeys(one.rule for one in broken))
    known = (context.object.get("status") or {}).get("rule")
    if known != rules:
        context.event("Refused", message, warning=True)
    running = bool(pods_of(context))
    await context.set_status(
        {"rule": rules} if running else {"phase": "Failed", "rule": rules},
        Condition(ADMITTED, False, "Refused", message),
        *([] if running else [Condition(READY, False, "Refused", message)]),
    )


__all__ = ["Platform", "VehDeployment", "VehPods"]
