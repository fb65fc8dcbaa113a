"""Moving the pods of a node away by eviction, which respects disruption budgets (policy/v1).

What must not be moved stops a drain before it begins; a budget that forbids an eviction now is asked again until it
allows it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from fleetplane.interfaces.cli.connection import Session
from fleetplane.interfaces.cli.errors import CommandError
from fleetplane.interfaces.cli.podselect import PODS
from fleetplane.interfaces.cli.progress import Progress, progress
from fleetplane.interfaces.cli.reporting import Report
from fleetplane.model.errors import ApiError
from fleetplane.model.objects import Object, controller_of, metadata, name, namespace, uid

_MIRROR: Final = "kubernetes.io/config.mirror"
_RETRY_SECONDS: Final = 1.0
_ENDED: Final = frozenset({"Succeeded", "Failed"})


@dataclass(frozen=True, slots=True)
class Rules:
    ignore_daemonsets: bool
    delete_local_data: bool
    force: bool
    by_deletion: bool
    grace: int | None


async def pods_on(session: Session, node: str) -> list[Object]:
    """Those that a drain concerns: static pods live and die with their node."""
    found = [pod async for pod in session.client.iterate(PODS, None, fields=f"spec.nodeName={node}")]
    return [pod for pod in found if _MIRROR not in (metadata(pod).get("annotations") or {})]


def obstacles(pods: Sequence[Object], rules: Rules) -> list[str]:
    """Why these pods must not be moved as things are, each with the option that allows it."""
    alive = [pod for pod in pods if (pod.get("status") or {}).get("phase") not in _ENDED]
    found = []
    if not rules.ignore_daemonsets and (kept := [pod for pod in alive if is_of_daemon_set(pod)]):
        found.append(f"{_listed(kept)} belong to DaemonSets (leave them with --ignore-daemonsets)")
    if not rules.force and (lost := [pod for pod in alive if controller_of(pod) is None]):
        found.append(f"nobody would make {_listed(lost)} again (delete them with --force)")
    if not rules.delete_local_data and (
        local := [pod for pod in alive if _has_local_data(pod) and not is_of_daemon_set(pod)]
    ):
        found.append(f"{_listed(local)} would lose local data (accept that with --delete-emptydir-data)")
    return found


def is_of_daemon_set(pod: Object) -> bool:
    owner = controller_of(pod)
    return owner is not None and owner.kind == "DaemonSet"


def _has_local_data(pod: Object) -> bool:
    return any("emptyDir" in volume for volume in (pod.get("spec") or {}).get("volumes") or [])


def _listed(pods: Sequence[Object]) -> str:
    shown = ", ".join(f"{namespace(pod)}/{name(pod)}" for pod in pods[:3])
    return f"{shown} and {len(pods) - 3} more" if len(pods) > 3 else shown


async def drain_node(
    session: Session,
    node: Object,
    pods: Sequence[Object],
    rules: Rules,
    report: Report,
    limit: float | None,
    *,
    dry_run: bool,
) -> None:
    moved = [pod for pod in pods if not is_of_daemon_set(pod)]
    if dry_run:
        for pod in moved:
            report.add(PODS, pod, "evicted")
        return
    remaining = {uid(pod): pod for pod in moved}
    async with progress(session.out, f"draining {name(node)}") as shown:
        try:
            async with asyncio.timeout(limit), asyncio.TaskGroup() as group:
                for pod in moved:
                    group.create_task(_move(session, pod, rules, report, shown, remaining))
        except TimeoutError:
            left = _listed(list(remaining.values()))
            raise CommandError(
                f"{limit:g} seconds were not enough to move {left}; wait longer with --timeout"
            ) from None


async def _move(
    session: Session, pod: Object, rules: Rules, report: Report, shown: Progress, remaining: dict[str, Object]
) -> None:
    while True:
        try:
            await _evict(session, pod, rules)
            break
        except ApiError as error:
            if error.code == 404:
                break
            if error.code != 429:
                raise
            shown.say(f"{namespace(pod)}/{name(pod)} stays for now: {error.message}")
        await asyncio.sleep(_RETRY_SECONDS)
    while not await _is_gone(session, pod):
        shown.say(f"waiting for {len(remaining)} pods to stop, first {namespace(pod)}/{name(pod)}")
        await asyncio.sleep(_RETRY_SECONDS / 4)
    remaining.pop(uid(pod), None)
    report.add(PODS, pod, "evicted")


async def _evict(session: Session, pod: Object, rules: Rules) -> None:
    if rules.by_deletion:
        await session.client.delete(PODS, name(pod), namespace(pod), grace_period_seconds=rules.grace, uid=uid(pod))
        return
    options: Object = {"preconditions": {"uid": uid(pod)}}
    if rules.grace is not None:
        options["gracePeriodSeconds"] = rules.grace
    eviction: Object = {
        "apiVersion": "policy/v1",
        "kind": "Eviction",
        "metadata": {"name": name(pod), "namespace": namespace(pod)},
        "deleteOptions": options,
    }
    await session.client.create(PODS, eviction, namespace(pod), subresource="eviction", name=name(pod))


async def _is_gone(session: Session, pod: Object) -> bool:
    try:
        found = await session.client.get(PODS, name(pod), namespace(pod))
    except ApiError as error:
        if error.code == 404:
            return True
        raise
    return uid(found) != uid(pod)
