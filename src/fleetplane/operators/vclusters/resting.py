"""Policies and lifetimes at work: clusters without room wait, idle ones sleep, old ones end.

Everything is decided in ``policy`` and ``lifetimes``; here is where the facts come from and what becomes of the answer.
"""

from __future__ import annotations

from typing import Final

from fleetplane.client.snapshot import ObjectKey
from fleetplane.controller import Condition, Context, Manager
from fleetplane.model.environment import parse_timestamp, timestamp
from fleetplane.model.errors import ApiError
from fleetplane.model.objects import Object, condition, metadata
from fleetplane.operators.vclusters import lifetimes, policy
from fleetplane.operators.vclusters.guests import delete
from fleetplane.operators.vclusters.kinds import LOGICAL_CLUSTERS, USED_AT, Vk8s, Vk8sPolicy, mode_of
from fleetplane.operators.vclusters.lifetimes import Limits, Rest, Seen
from fleetplane.operators.vclusters.logical import LogicalMode
from fleetplane.operators.vclusters.observing import not_yet
from fleetplane.operators.vclusters.podsmode import PodsMode
from fleetplane.operators.vclusters.steps import StepFailed, StepPending

ROOM_AGAIN: Final = 15.0


class Resting:
    def __init__(self, manager: Manager, logical: LogicalMode, pods: PodsMode) -> None:
        self._policies = manager.informer(Vk8sPolicy)
        self._vclusters = manager.informer(Vk8s)
        self._logical = logical
        self._pods = pods
        self._asked: dict[str, tuple[float, float | None]] = {}

    async def has_room(self, context: Context[Vk8s], vcluster: Vk8s) -> bool:
        """Whether it may be built. What is built already stays, whatever its tenant's policies say by now."""
        policies = self._policies_of(context)
        if not policies or self._is_built(context, vcluster):
            return True
        here = [one.object for one in self._vclusters.snapshots() if _is_beside(one.key, context.request)]
        why = policy.beyond(policies, here, vcluster.uid)
        known = condition(context.object, "WithinQuota") is not None
        if why or known:
            told = Condition("WithinQuota", not why, "QuotaExceeded" if why else "WithinQuota", why)
            waiting = {"phase": "Waiting", "message": "creating node", "mode": mode_of(vcluster.spec)}
            await context.set_status(waiting if why else None, told)
        return not why

    async def rest(self, context: Context[Vk8s], vcluster: Vk8s) -> Rest:
        """Let it fall asleep, wake or end, if it is time. ``context.object`` says how it is then."""
        limits = lifetimes.limits_of(vcluster.spec.lifetime, self._policies_of(context))
        if limits == Limits(None, None) and not vcluster.status.asleep_since:
            return Rest(False, False, None)
        seen = await self._seen(context, vcluster, limits)
        found = lifetimes.rest(limits, seen)
        if found.ended:
            context.event("Expired", "its time is over; it is deleted")
            await delete(context.client, Vk8s, context.object)
            return found
        await self._tell(context, vcluster, limits, seen, found)
        if limits.sleep_after is None or found.asleep:
            return found
        looks = [lifetimes.look_after(limits), *([found.again] if found.again is not None else [])]
        return found._replace(again=max(1.0, min(looks)))

    def forget(self, vcluster: Vk8s) -> None:
        self._asked.pop(vcluster.uid, None)

    # -- facts

    def _policies_of(self, context: Context[Vk8s]) -> list[Object]:
        return [one.object for one in self._policies.snapshots() if _is_beside(one.key, context.request)]

    def _is_built(self, context: Context[Vk8s], vcluster: Vk8s) -> bool:
        if mode_of(vcluster.spec) == "logical":
            return self._logical.cluster_of(vcluster.uid) is not None
        return any(one.get("kind") == "StatefulSet" for one in context.children())

    async def _seen(self, context: Context[Vk8s], vcluster: Vk8s, limits: Limits) -> Seen:
        now = context.now().timestamp()
        ready = condition(context.object, "Ready")
        since = ready["lastTransitionTime"] if ready is not None and ready.get("status") == "True" else None
        used = [_seconds(vcluster.annotations.get(USED_AT, "")), _seconds(vcluster.status.last_used)]
        if limits.sleep_after is not None:
            used.append(await self._last_used(context, vcluster, limits, now, is_ready=since is not None))
        return Seen(
            now,
            parse_timestamp(metadata(context.object)["creationTimestamp"]).timestamp(),
            max((one for one in used if one is not None), default=None),
            _seconds(since or ""),
            _seconds(vcluster.status.asleep_since),
        )

    async def _last_used(
        self, context: Context[Vk8s], vcluster: Vk8s, limits: Limits, now: float, *, is_ready: bool
    ) -> float | None:
        every = lifetimes.look_after(limits)
        if mode_of(vcluster.spec) == "logical":
            return await self._reported(context, vcluster, round(every))
        known = self._asked.get(vcluster.uid)
        if not is_ready or (known is not None and now - known[0] < every):
            return known[1] if known is not None else None
        try:
            found = await self._pods.steps.last_used(self._pods.site(context, vcluster))
        except (ApiError, StepFailed, StepPending, TimeoutError):
            found = now  # nobody can tell just now, so it may be in use
        self._asked[vcluster.uid] = now, found
        return found

    async def _reported(self, context: Context[Vk8s], vcluster: Vk8s, every: int) -> float | None:
        """As the API server saw it, once it has been asked to report it; at first, since it was made."""
        cluster = self._logical.cluster_of(vcluster.uid)
        if cluster is None:
            return None
        if (cluster.get("spec") or {}).get("reportUseSeconds") != every:
            patch = {"metadata": {"uid": metadata(cluster)["uid"]}, "spec": {"reportUseSeconds": every}}
            await context.client.patch(LOGICAL_CLUSTERS, metadata(cluster)["name"], patch)
        used = (cluster.get("status") or {}).get("lastUsed") or metadata(cluster)["creationTimestamp"]
        return parse_timestamp(used).timestamp()

    # -- what becomes of it

    async def _tell(self, context: Context[Vk8s], vcluster: Vk8s, limits: Limits, seen: Seen, found: Rest) -> None:
        was = bool(vcluster.status.asleep_since)
        status: Object = {}
        if seen.used is not None and limits.sleep_after is not None:
            used = timestamp(context.now().fromtimestamp(seen.used, context.now().tzinfo))
            if used != vcluster.status.last_used:
                status["lastUsed"] = used
        if found.asleep != was:
            status["asleepSince"] = timestamp(context.now()) if found.asleep else None
            reason, words = ("FellAsleep", "nobody has used it") if found.asleep else ("WokeUp", "somebody uses it")
            context.event(reason, words)
        if not (status or condition(context.object, "Asleep") is None):
            return
        status |= not_yet(context.object)
        told = [Condition("Asleep", found.asleep, "Idle" if found.asleep else "InUse")]
        await context.set_status(status, *(told if limits.sleep_after is not None or was else []))


def _is_beside(key: ObjectKey, other: ObjectKey) -> bool:
    return (key.cluster, key.namespace) == (other.cluster, other.namespace)


def _seconds(text: str) -> float | None:
    try:
        return parse_timestamp(text).timestamp() if text else None
    except ValueError:
        return None
