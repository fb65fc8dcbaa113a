"""Making it so: a VehDeployment becomes several pods, arranged by its policy.

Plain replicas, ActiveRedundant and NModularRedundant run all their instances; Monitoring starts its watcher first;
PassiveRedundant keeps one active by the protocol of ``redundancy``. There the caches are never believed: every step
that could make a second active is decided on the object and the pods as the server has them at that moment.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from fleetplane.controller import Condition, Context, Controller, Manager, Result, controller_for
from fleetplane.controller.children import OWNER_UID_LABEL, owned_by
from fleetplane.controller.status import update_status
from fleetplane.model import objects
from fleetplane.model.builtin.types import NODES, PODS
from fleetplane.model.errors import ApiError
from fleetplane.model.objects import Object, is_deleting, labels, metadata, uid
from fleetplane.operators.vehicles import monitoring, plan, redundancy
from fleetplane.operators.vehicles.kinds import VehDeployment, VehMonitor
from fleetplane.operators.vehicles.limits import Profile, Violation, canonical
from fleetplane.operators.vehicles.monitors import Watched, Watcher
from fleetplane.operators.vehicles.reconcile import (
    ADMITTED,
    AGAIN,
    DEPENDENCIES_RESOLVED,
    READY,
    SOON,
    YIELD_SECONDS,
    Platform,
    delete_pod,
    instance,
    pods_of,
    refuse,
    waiting,
)
from fleetplane.operators.vehicles.redundancy import (
    ACTIVE,
    MONITORING,
    N_MODULAR,
    PASSIVE,
    PAUSED,
    WATCHER,
    Planned,
    Seen,
)
from fleetplane.operators.vehicles.voting import Rounds, is_undecided, read_output

DEPLOYMENT: Final = plan.PREFIX + "deployment"
INSTANCE: Final = plan.PREFIX + "instance"
ROLE: Final = plan.PREFIX + "role"
OUTPUT: Final = plan.PREFIX + "output"
"""Annotation an instance (or its side process) writes on its own pod: {"round": n, "value": x}."""
REDUNDANT: Final = "Redundant"
FENCE_GRACE: Final = 1
"""Seconds. Not 0: that would take the pod away before its node has stopped it."""


class VehDeployments:
    """The controller of VehDeployments."""

    def __init__(self, manager: Manager, platform: Platform) -> None:
        self._manager = manager
        self._platform = platform
        self._nodes = manager.informer(NODES)
        self._monitors = platform.monitors
        self._rounds = Rounds(manager.environment.monotonic)
        self._noticed: dict[str, float] = {}

    def controller(self) -> Controller:
        return controller_for(
            self._manager,
            VehDeployment,
            self.reconcile,
            owns=[PODS, VehMonitor],
            watches=self._platform.watches(self._manager.informer(VehDeployment)),
            finalizer=plan.FINALIZER,
            cleanup=self.cleanup,
            resync=60.0,
        )

    async def cleanup(self, context: Context[VehDeployment], _app: VehDeployment) -> Result | None:
        self._noticed.pop(uid(context.object), None)
        self._rounds.forget(uid(context.object))
        if await context.delete_children():
            return None
        await context.set_status({"phase": "Terminating"})
        return Result(requeue_after=AGAIN)

    async def reconcile(self, context: Context[VehDeployment], app: VehDeployment) -> Result | None:
        if self._platform.gives_way(context.request, app.spec.criticality):
            return Result(requeue_after=YIELD_SECONDS)
        profile = self._platform.profile(context, app.spec.app_type)
        if profile is None:
            await refuse(
                context, [Violation("app-type", "spec.appType", f"no AppType {canonical(app.spec.app_type)!r}")]
            )
            return None
        if app.spec.state == "Stopped":
            gone = await context.delete_children()
            over: Object = {
                "phase": "Stopped",
                "instances": [],
                "active": "",
                "successor": "",
                "rule": "",
                "monitor": None,
            }
            await context.set_status(over)
            return None if gone else Result(requeue_after=1.0)
        known = self._platform.dependencies(context, app.spec.object)
        if known.missing:
            await waiting(context, known, next(iter(pods_of(context)), None))
            return None
        try:
            broken = [
                *plan.violations(profile, app.name, app.spec.object, known),
                *redundancy.arrangement_violations(profile, app.spec.object),
            ]
            wanted = [] if broken else self._wanted(app, known, profile)
        except plan.Refused as error:
            broken, wanted = [error.violation], []
        if broken:
            await refuse(context, broken)
            return None
        try:
            if not await self._platform.prepare(context, profile, app.spec.criticality):
                return Result(requeue_after=1.0)
            if redundancy.policy_of(app.spec.deployment_policy) == PASSIVE:
                return await self._passive(context, app, profile, wanted)
            if await _leave(context, profile, pods_of(context)):
                return Result(requeue_after=1.0)
            return await self._together(context, app, profile, wanted)
        except plan.Refused as error:
            await refuse(context, [error.violation])
            return Result(requeue_after=AGAIN)
        except ApiError as error:
            if error.code == 403 and "serviceaccount" in error.message:
                return Result(requeue_after=SOON)
            if error.code in {403, 422}:
                await refuse(context, [Violation("server", "spec.podSpec", error.message)])
                return Result(requeue_after=AGAIN)
            raise

    def _wanted(self, app: VehDeployment, known: plan.Dependencies, profile: Profile) -> list[Object]:
        planned = redundancy.instances_of(app.spec.object)
        apart = len([one for one in self._nodes.list() if not redundancy.is_lost(one)]) >= len(planned)
        return [pod_of(app, one, known, profile, apart=apart) for one in planned]

    # -- all instances run

    async def _together(
        self, context: Context[VehDeployment], app: VehDeployment, profile: Profile, wanted: list[Object]
    ) -> Result | None:
        there = {metadata(one)["name"]: one for one in pods_of(context)}
        policy = redundancy.policy_of(app.spec.deployment_policy)
        due, watched = wanted, None
        if policy == MONITORING:
            watched = await self._watch(context, app, profile, wanted, there)
            if watched is None:
                return Result(requeue_after=SOON)
            due = _watched(wanted, there, app.spec.watcher_loss, watched)
        else:
            await self._monitors.leave(context)
        settled = all(metadata(one)["name"] in there and plan.is_ready(there[metadata(one)["name"]]) for one in due)
        to_apply: list[Object] = []
        for one in due:
            current = there.get(metadata(one)["name"])
            if current is None:
                to_apply.append(one)
            elif is_deleting(current):
                continue
            elif plan.must_replace(current, one, app.spec.on_dependency_change):
                # One at a time, while the others are well; what has failed need not wait.
                if settled or not plan.is_ready(current):
                    settled = False
                    await delete_pod(context, current)
                else:
                    to_apply.append(_as_it_is(current, one))
            else:
                to_apply.append(one)
        names = {metadata(one)["name"] for one in due}
        for name, current in there.items():
            if name not in names:
                await delete_pod(context, current)
        await context.apply_children(to_apply, prune=False)
        there = {metadata(one)["name"]: one for one in pods_of(context)}
        votes = self._vote(app, there, wanted) if policy == N_MODULAR else None
        if votes is not None and votes != app.status.votes and not votes.get("open"):
            await self._replace_dissenters(context, app, there, votes)
        await self._report(context, app, wanted, there, votes, watched)
        if watched is not None:
            return None if watched.again is None else Result(requeue_after=watched.again)
        return Result(requeue_after=app.spec.voting.timeout_seconds) if votes and votes.get("open") else None

    async def _watch(
        self,
        context: Context[VehDeployment],
        app: VehDeployment,
        profile: Profile,
        wanted: Sequence[Object],
        there: Mapping[str, Object],
    ) -> Watched | None:
        """Serve the watcher's interface; ``None`` while it cannot be. Carries out restarts, of the watcher too."""
        names = [str(metadata(one)["name"]) for one in wanted]
        watcher, primaries = names[0], names[1:]  # as ``instances_of`` orders them
        notes = {plan.OWNER: f"VehDeployment/{app.namespace}/{app.name}"}
        mine = {plan.APP_TYPE_LABEL: profile.name, **plan.unit_labels(app)}
        monitor = monitoring.monitor_of(watcher, profile.namespace, mine, notes)
        found = await self._monitors.prepare(context, monitor, primaries)
        await self._monitors.leave(context, (profile.namespace, watcher))
        if found is None:
            return None
        pod = there.get(watcher)
        ready = pod is not None and not is_deleting(pod) and plan.is_ready(pod)
        watched = await self._monitors.look(
            context,
            found,
            app.spec.object.get("monitoring") or {},
            Watcher(uid(pod) if pod is not None else "", ready),
            {name: uid(there[name]) if name in there else "" for name in primaries},
            [_primary(name, there.get(name)) for name in primaries],
        )
        if watched.restarting:
            await delete_pod(context, there[watched.restarting])
        if watched.pulse == monitoring.LOST and app.spec.watcher_loss != "Degrade" and pod is not None:
            context.event("WatcherLost", f"{watcher} is silent and started anew", warning=True)
            await delete_pod(context, pod)
        return watched

    def _vote(self, app: VehDeployment, there: Mapping[str, Object], wanted: Sequence[Object]) -> Object | None:
        voters = [str(metadata(one)["name"]) for one in wanted]
        said = {
            name: found
            for name in voters
            if (found := read_output(objects.annotations(there.get(name) or {}).get(OUTPUT))) is not None
        }
        rules = app.spec.voting
        before: Object = dict(app.status.votes or {})
        return self._rounds.look(
            app.uid, before, said, voters, tolerance=rules.tolerance, timeout=rules.timeout_seconds
        )

    async def _replace_dissenters(
        self, context: Context[VehDeployment], app: VehDeployment, there: Mapping[str, Object], votes: Object
    ) -> None:
        for name, count in list(votes["strikes"].items()):
            if count >= app.spec.voting.disagree_limit and name in there:
                context.event("Dissenter", f"{name} disagreed {count} times in a row and is replaced", warning=True)
                await delete_pod(context, there[name])
                votes["strikes"][name] = 0

    async def _report(
        self,
        context: Context[VehDeployment],
        app: VehDeployment,
        wanted: Sequence[Object],
        there: Mapping[str, Object],
        votes: Object | None,
        watched: Watched | None,
    ) -> None:
        instances, healthy = [], 0
        for one in wanted:
            name = str(metadata(one)["name"])
            pod, verdict = there.get(name), {} if watched is None else watched.verdicts.get(name, {})
            if pod is None:
                if watched is not None and name in watched.held:
                    instances.append({"name": name, "role": "primary", "state": "Stopped", **verdict})
                continue
            phase = plan.phase_of(pod)
            healthy += phase == "Running"
            instances.append({**instance(pod, labels(pod).get(ROLE, ""), phase), **verdict})
        total = len(wanted)
        phase = "Running" if healthy == total else "Degraded" if healthy else "Starting"
        # Below a majority nothing can be believed: the outcome is withheld, which is the fail-safe of a voter.
        if is_undecided(votes) or (votes and healthy * 2 <= total):
            phase = "SafeState"
        if watched is not None:
            phase = watched.phase(phase, app.spec.watcher_loss)
        message = f"{healthy} of {total} healthy"
        redundant = healthy >= min(2, total)
        await context.set_status(
            {
                "phase": phase,
                "criticality": app.spec.criticality or "QM",
                "rule": "",
                "instances": instances,
                **({} if votes is None else {"votes": votes}),
                "monitor": None if watched is None else watched.summary(),
            },
            Condition(DEPENDENCIES_RESOLVED, True, "Resolved"),
            Condition(ADMITTED, True, "Admitted"),
            Condition(REDUNDANT, redundant, "Redundant" if redundant else "NotRedundant", message),
            self._platform.freedom(context, there.values()),
            Condition(READY, healthy == total and phase == "Running", phase, message),
        )

    # -- one is active

    async def _passive(
        self, context: Context[VehDeployment], app: VehDeployment, profile: Profile, wanted: Sequence[Object]
    ) -> Result | None:
        live = await context.client.get(VehDeployment, app.name, app.namespace)
        if uid(live) != app.uid or is_deleting(live):
            return None
        selector = f"{OWNER_UID_LABEL}={app.uid}"
        pods = (await context.client.list(PODS, None, labels=selector)).items
        if await _leave(context, profile, pods):
            return Result(requeue_after=1.0)
        there = {str(metadata(one)["name"]): one for one in pods}
        active = str((live.get("status") or {}).get("active") or "")
        await self._monitors.leave(context)
        for one in wanted:
            if metadata(one)["name"] not in there:
                await _create_frozen(context, one)
        seen = self._seen(context, there, wanted, active)
        successor = str((live.get("status") or {}).get("successor") or "")
        safe = self._gone_is_safe(context, live)
        step = redundancy.decide(active, seen, gone_is_safe=safe, successor=successor)
        by_uid = {uid(one): one for one in pods}
        self._notice(app.uid, seen, active)
        for target in step.fence:
            await delete_pod(context, by_uid[target], grace=FENCE_GRACE)
        surplus = {metadata(one)["name"] for one in wanted}
        for name, pod in there.items():
            if name not in surplus:
                await delete_pod(context, pod, grace=FENCE_GRACE)
        if step.claim is not None:
            await self._claim(context, live, by_uid[step.claim], first=not active)
            return Result(requeue_after=0.0)
        if step.thaw is not None:
            await _thaw(context, by_uid[step.thaw])
            await self._switched(context, app, first=not app.status.instances)
            return Result(requeue_after=0.0)
        named = redundancy.successor_of(active, seen, successor, gone_is_safe=safe)
        if named != successor:
            await self._name(context, live, named)
            return Result(requeue_after=0.0)
        holder = next((one for one in seen if one.uid == active), None)
        if named and holder is not None and holder.well:
            await _bind(context, by_uid[active], named)
        await self._report_passive(context, app, wanted, there, active, seen)
        waits = any(one.failing and not one.stopped for one in seen) or (active and active not in by_uid)
        return Result(requeue_after=1.0) if waits else None

    def _seen(
        self, context: Context[Any], there: Mapping[str, Object], wanted: Sequence[Object], active: str
    ) -> list[Seen]:
        now = context.now()
        result = []
        ready_new = False
        for one in wanted:
            pod = there.get(metadata(one)["name"])
            if pod is None:
                continue
            node = self._node(context, (pod.get("spec") or {}).get("nodeName"))
            found = redundancy.seen_of(str(metadata(one)["name"]), pod, node, now)
            if plan.must_replace(pod, one, "Restart") and found.uid != active:
                found = found._replace(failing=True)  # a standby of an older making is made anew at once
            elif found.uid != active and found.ready and found.paused:
                ready_new = True
            result.append(found)
        for index, found in enumerate(result):
            pod = next(one for one in there.values() if uid(one) == found.uid)
            target = next(one for one in wanted if metadata(one)["name"] == metadata(pod)["name"])
            if found.uid == active and ready_new and plan.must_replace(pod, target, "Restart"):
                result[index] = found._replace(failing=True)  # the standby is new and ready: it takes over
        return result

    def _node(self, context: Context[Any], name: Any) -> Object | None:
        return self._nodes.get(str(name), cluster=context.request.cluster) if name else None

    def _gone_is_safe(self, context: Context[Any], live: Object) -> bool:
        """Whether the absence of the active's pod proves that it stopped: its node could say so, or is known to be off."""
        for one in (live.get("status") or {}).get("instances") or ():
            if one.get("role") == "active" and one.get("node"):
                node = self._node(context, one["node"])
                return not redundancy.is_lost(node) or redundancy.is_fenced(node, context.now())
        return True

    def _notice(self, app: str, seen: Sequence[Seen], active: str) -> None:
        holder = next((one for one in seen if one.uid == active), None)
        if active and (holder is None or holder.failing or holder.stopped or holder.deleting):
            self._noticed.setdefault(app, self._manager.environment.monotonic())

    async def _claim(self, context: Context[VehDeployment], live: Object, pod: Object, *, first: bool) -> None:
        """Compare and swap: fails when anybody wrote the object since the decision was made on it."""
        status: Object = {"active": uid(pod), "successor": ""}
        if not first:
            status["switchovers"] = int((live.get("status") or {}).get("switchovers") or 0) + 1
            context.event("Switchover", f"{metadata(pod)['name']} takes over", warning=True)
        await self._swap(context, live, status)

    async def _name(self, context: Context[VehDeployment], live: Object, successor: str) -> None:
        """Before the node is told: from now on nobody else is chosen."""
        await self._swap(context, live, {"successor": successor})

    async def _swap(self, context: Context[VehDeployment], live: Object, status: Object) -> None:
        meta = metadata(live)
        guard = {"uid": meta["uid"], "resourceVersion": meta["resourceVersion"]}
        context.object = await context.client.patch(
            VehDeployment, meta["name"], {"metadata": guard, "status": status}, meta["namespace"], subresource="status"
        )

    async def _switched(self, context: Context[VehDeployment], app: VehDeployment, *, first: bool) -> None:
        begun = self._noticed.pop(app.uid, None)
        if begun is None or first:
            return
        took = round((self._manager.environment.monotonic() - begun) * 1000)
        context.object = await update_status(
            context.client, VehDeployment, context.object, lambda _current: {"lastSwitchMs": took}
        )

    async def _report_passive(
        self,
        context: Context[VehDeployment],
        app: VehDeployment,
        wanted: Sequence[Object],
        there: Mapping[str, Object],
        active: str,
        seen: Sequence[Seen],
    ) -> None:
        instances, standbys, runs, measured = [], 0, False, {}
        known = {one.uid: one for one in seen}
        for one in wanted:
            pod = there.get(metadata(one)["name"])
            if pod is None:
                continue
            found = known[uid(pod)]
            role = "active" if uid(pod) == active else "passive"
            well = not (found.failing or found.stopped or found.deleting)
            if role == "active" and (took := redundancy.switch_milliseconds(pod)) is not None:
                measured = {"lastSwitchMs": took}
            if role == "active":
                runs = well and not found.paused and plan.phase_of(pod) == "Running"
            standbys += role == "passive" and well
            state = "Standby" if role == "passive" and well and found.paused else plan.phase_of(pod)
            shown = instance(pod, role, state)
            if role == "active" and (last := measured.get("lastSwitchMs", app.status.last_switch_ms)) is not None:
                shown["lastSwitchMs"] = last
            instances.append(shown)
        before = (context.object.get("status") or {}).get("instances") or []
        if not any(one.get("role") == "active" for one in instances):
            # Where the active was must not be forgotten before it is known to have stopped.
            instances += [one for one in before if one.get("role") == "active"]
        phase = "Running" if runs and standbys else "Degraded" if runs else "Starting" if not active else "Failed"
        message = f"{'one active' if runs else 'none active'}, {standbys} standing by"
        await context.set_status(
            {
                "phase": phase,
                "criticality": app.spec.criticality or "QM",
                "rule": "",
                "instances": instances,
                **measured,
            },
            Condition(DEPENDENCIES_RESOLVED, True, "Resolved"),
            Condition(ADMITTED, True, "Admitted"),
            Condition(REDUNDANT, runs and standbys > 0, "StandingBy" if standbys else "NoStandby", message),
            self._platform.freedom(context, there.values()),
            Condition(READY, runs, "Active" if runs else "NoActive", message),
        )


def pod_of(app: VehDeployment, planned: Planned, known: plan.Dependencies, profile: Profile, *, apart: bool) -> Object:
    """One instance's pod. Raises Refused."""
    if planned.role == WATCHER:
        name = f"{app.name}-{planned.suffix}"
        primaries = [f"{app.name}-{one.suffix}" for one in redundancy.instances_of(app.spec.object)[1:]]
        known_to = monitoring.environment(name, profile.namespace, primaries)
        planned = planned._replace(spec=monitoring.watching(planned.spec, name, known_to))
    spec = {**app.spec.object, "podSpec": planned.spec}
    count = len(planned.spec.get("containers") or ())
    for key in ("devContainerIdx", "vehContainerConfigIdx"):
        spec[key] = min(int(spec.get(key) or 0), max(count - 1, 0))  # an instance may hold one container of several
    injected, annotations = plan.expand(app.name, spec, known, profile)
    group = {DEPLOYMENT: plan.digest([app.namespace, app.name])}
    placement = app.spec.placement
    if placement == "Any" and redundancy.policy_of(app.spec.deployment_policy) in {ACTIVE, N_MODULAR}:
        injected = redundancy.spread(injected, group, "Spread", must=apart)
    else:
        injected = redundancy.spread(injected, group, placement, must=apart)
    made: Object = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": f"{app.name}-{planned.suffix}",
            "namespace": profile.namespace,
            "labels": {
                plan.APP_TYPE_LABEL: profile.name,
                **plan.unit_labels(app),
                **group,
                INSTANCE: planned.suffix,
                ROLE: planned.role,
            },
            "annotations": {
                **annotations,
                plan.OWNER: f"VehDeployment/{app.namespace}/{app.name}",
                plan.SPEC_HASH: plan.digest(planned.spec),
            },
        },
        "spec": injected,
    }
    if redundancy.policy_of(app.spec.deployment_policy) == PASSIVE:
        made["spec"] = injected = redundancy.where_it_freezes(injected)
        made["metadata"]["annotations"][redundancy.GROUP] = app.uid
    made["metadata"]["annotations"][plan.DEPENDENCY_HASH] = plan.digest(_without_affinity(injected))
    return made


def _without_affinity(spec: Mapping[str, Any]) -> Object:
    """Whether instances must or should be apart depends on how many nodes there are; that alone replaces nothing."""
    return {key: value for key, value in spec.items() if key != "affinity"}


def _as_it_is(current: Object, wanted: Object) -> Object:
    """What is applied to a pod that waits to be replaced: identity and labels, nothing that cannot change."""
    meta = metadata(current)
    kept = {key: value for key, value in (meta.get("annotations") or {}).items() if key.startswith(plan.PREFIX)}
    return {**wanted, "metadata": {**wanted["metadata"], "annotations": kept}, "spec": current["spec"]}


def _watched(wanted: list[Object], there: Mapping[str, Object], on_loss: str, watched: Watched) -> list[Object]:
    """The watcher first; the primaries once it is there. Losing it later stops them only in the safe state."""
    watcher, *others = wanted
    primaries = [one for one in others if metadata(one)["name"] not in watched.held]
    if watched.pulse == monitoring.ALIVE:
        return [watcher, *primaries]
    if on_loss == "SafeState":
        return [watcher]
    return [watcher, *(one for one in primaries if metadata(one)["name"] in there)]


def _primary(name: str, pod: Object | None) -> Object:
    """What the watcher is told of a primary."""
    if pod is None:
        return {"name": name, "pod": name}
    found = instance(pod, "", plan.phase_of(pod))
    return {**found, "pod": name}


async def _leave(context: Context[Any], profile: Profile, pods: Sequence[Object]) -> bool:
    """Pods in another namespace are of an earlier AppType, and may be active: all are gone before others begin."""
    strays = [one for one in pods if metadata(one).get("namespace") != profile.namespace]
    for pod in strays:
        await delete_pod(context, pod, grace=FENCE_GRACE)
    return bool(strays)


async def _create_frozen(context: Context[Any], pod: Object) -> None:
    meta = pod["metadata"]
    frozen = {**pod, "metadata": {**meta, "annotations": {**meta["annotations"], PAUSED: "true"}}}
    try:
        await context.client.create(PODS, owned_by(frozen, context.owner, namespaced=True), meta["namespace"])
    except ApiError as error:
        if error.reason != "AlreadyExists":
            raise


async def _bind(context: Context[Any], active: Object, successor: str) -> None:
    """Tell the node who follows this pod. A pod that has changed since it was looked at is not told: it may have ended."""
    if objects.annotations(active).get(redundancy.SUCCESSOR) == successor:
        return
    meta = metadata(active)
    patch = {
        "metadata": {
            "uid": meta["uid"],
            "resourceVersion": meta["resourceVersion"],
            "annotations": {redundancy.SUCCESSOR: successor},
        }
    }
    await context.client.patch(PODS, meta["name"], patch, meta["namespace"])


async def _thaw(context: Context[Any], pod: Object) -> None:
    """Only this pod, and only as it was when it was decided."""
    meta = metadata(pod)
    patch = {
        "metadata": {
            "uid": meta["uid"],
            "resourceVersion": meta["resourceVersion"],
            "annotations": {PAUSED: None},
            "labels": {ROLE: "active"},
        }
    }
    await context.client.patch(PODS, meta["name"], patch, meta["namespace"])


__all__ = ["VehDeployments", "pod_of"]
