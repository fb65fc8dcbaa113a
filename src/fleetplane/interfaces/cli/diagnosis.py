"""What keeps an object from being ready, followed down to where one can do something about it.

An object that is not ready is looked at together with what it owns and what it needs: a Deployment's newest ReplicaSet,
its pods, their volumes and node; for kinds we do not know, whatever names them as owner. Only what is not ready is
followed. The answer is a tree of findings in plain words, with the newest warning and, for the usual causes, advice.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import orjson

from fleetplane.client.discovery import Discovered
from fleetplane.interfaces.cli.advice import advice
from fleetplane.interfaces.cli.connection import Session
from fleetplane.interfaces.cli.happenings import events_of, last_seen
from fleetplane.interfaces.cli.needs import CLAIMS, claims_of_pod, needed_by_pod
from fleetplane.interfaces.cli.podselect import PODS, selector_of
from fleetplane.interfaces.cli.readiness import Readiness, readiness
from fleetplane.interfaces.cli.resources import reference
from fleetplane.interfaces.cli.revisions import REPLICA_SETS, REVISION
from fleetplane.model.errors import ApiError
from fleetplane.model.objects import (
    Object,
    finalizers,
    is_deleting,
    metadata,
    name,
    namespace,
    owner_references,
    uid,
)
from fleetplane.model.resources import ResourceType

_MAX_DEPTH: Final = 8
_AT_ONCE: Final = 8
_LAST_LINES: Final = 3
_METADATA: Final = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io,application/json"

NODES: Final = ResourceType("", "v1", "Node", "nodes", namespaced=False)
JOBS: Final = ResourceType("batch", "v1", "Job", "jobs")

_CHILDREN: Final[Mapping[tuple[str, str], ResourceType]] = {
    ("apps", "Deployment"): REPLICA_SETS,
    ("apps", "ReplicaSet"): PODS,
    ("apps", "StatefulSet"): PODS,
    ("apps", "DaemonSet"): PODS,
    ("", "ReplicationController"): PODS,
    ("batch", "Job"): PODS,
    ("batch", "CronJob"): JOBS,
}
_LEAVES: Final = frozenset({"Node", "Namespace", "ConfigMap", "Secret", "PersistentVolume", "ServiceAccount"})


@dataclass(slots=True)
class Finding:
    """``same`` counts other objects in exactly the same state; ``last_words`` is the end of a failed container's log."""

    reference: str
    ready: bool
    why: str
    warning: str = ""
    warned_at: str = ""
    advice: str = ""
    last_words: Sequence[str] = ()
    same: int = 0
    causes: list[Finding] = field(default_factory=list)

    def to_json(self) -> Object:
        shown: Object = {"object": self.reference, "ready": self.ready, "why": self.why}
        for key, value in (
            ("warning", self.warning),
            ("advice", self.advice),
            ("lastWords", list(self.last_words)),
            ("others", self.same),
        ):
            if value:
                shown[key] = value
        if self.causes:
            shown["causes"] = [one.to_json() for one in self.causes]
        return shown


async def diagnose(
    session: Session, resource: ResourceType, obj: Object, above: frozenset[str] = frozenset()
) -> Finding:
    """The object's finding with the causes below it."""
    state = readiness(obj)
    found = Finding(reference(resource, name(obj)), state.ready, state.why)
    if is_deleting(obj):
        found.why = _why_deleting(obj)
    if found.ready and resource.kind != "Service":
        return found
    if not is_deleting(obj) and len(above) < _MAX_DEPTH:
        below = await _below(session, resource, obj)
        causes = [
            await diagnose(session, kind, one, above | {uid(obj)}) for kind, one in below if uid(one) not in above
        ]
        found.causes = _grouped([*causes, *await _missing(session, resource, obj)])
    if resource.kind == "Service":
        _judge_service(found, obj, state)
        if found.ready:
            return found
    await _warn(session, found, obj)
    if not found.causes:
        elsewhere = session.namespace_given or namespace(obj) != session.namespace
        here = f" -n {namespace(obj)}" if namespace(obj) and elsewhere else ""
        found.advice = advice(obj, found.reference, found.why, here)
        found.last_words = await _last_words(session, resource, obj)
    return found


def _why_deleting(obj: Object) -> str:
    held = finalizers(obj)
    conditions = (obj.get("status") or {}).get("conditions") or []
    told = [str(one.get("message")) for one in conditions if one.get("status") == "True" and one.get("message")]
    if obj.get("kind") == "Namespace" and told:
        return f"is being deleted, which takes until its objects are gone: {'; '.join(told)}"
    if held:
        return f"is being deleted and waits for whoever set the finalizers {', '.join(held)}"
    return "is being deleted"


async def _below(session: Session, resource: ResourceType, obj: Object) -> list[tuple[ResourceType, Object]]:
    """What the object is made of or needs, as far as it is not ready."""
    key = (resource.group, resource.kind)
    if key == ("", "Pod"):
        found = await _needs_of_pod(session, obj)
    elif key == ("", "Service"):
        labels = selector_of(obj)
        found = [(PODS, pod) for pod in await _listed(session, PODS, obj, labels)] if labels else []
    elif child := _CHILDREN.get(key):
        owned = [one for one in await _listed(session, child, obj, _narrow(obj)) if _owns(obj, one)]
        found = [(child, one) for one in (_newest(owned) if child is REPLICA_SETS else owned)]
    elif resource.kind in _LEAVES:
        found = []
    else:
        found = await _owned_of_any_kind(session, obj)
    return [(kind, one) for kind, one in found if not readiness(one).ready]


async def _listed(session: Session, kind: ResourceType, obj: Object, labels: str = "") -> list[Object]:
    try:
        return [one async for one in session.client.iterate(kind, namespace(obj) or None, labels=labels or None)]
    except ApiError as error:
        if error.code in {403, 404, 405}:
            return []
        raise


def _narrow(obj: Object) -> str:
    return "" if obj.get("kind") == "CronJob" else selector_of(obj)


def _owns(owner: Object, obj: Object) -> bool:
    return any(one.uid == uid(owner) for one in owner_references(obj))


def _newest(sets: Sequence[Object]) -> list[Object]:
    """The ReplicaSet that a Deployment is rolling out, not those it is leaving."""

    def revision(one: Object) -> int:
        text = str((metadata(one).get("annotations") or {}).get(REVISION) or "0")
        return int(text) if text.isdigit() else 0

    return sorted(sets, key=revision)[-1:]


async def _needs_of_pod(session: Session, pod: Object) -> list[tuple[ResourceType, Object]]:
    found: list[tuple[ResourceType, Object]] = []
    wanted = [(CLAIMS, called, namespace(pod)) for called in claims_of_pod(pod)]
    if node := (pod.get("spec") or {}).get("nodeName"):
        wanted.append((NODES, str(node), ""))
    for kind, called, where in wanted:
        one = await _get(session, kind, called, where)
        if one is not None:
            found.append((kind, one))
    return found


async def _get(session: Session, kind: ResourceType, called: str, where: str) -> Object | None:
    try:
        return await session.client.get(kind, called, where or None)
    except ApiError as error:
        if error.code in {403, 404}:
            return None
        raise


async def _missing(session: Session, resource: ResourceType, obj: Object) -> list[Finding]:
    """What a pod names and nobody made: a container that waits for it says little."""
    if (resource.group, resource.kind) != ("", "Pod"):
        return []
    found = []
    for kind, called in needed_by_pod(obj):
        try:
            await session.client.get(kind, called, namespace(obj))
        except ApiError as error:
            if error.code == 404:
                what = reference(kind, called)
                todo = f"make it in namespace {namespace(obj)}, or correct the name in the pod"
                found.append(Finding(what, False, "does not exist", advice=todo))
            elif error.code != 403:
                raise
    return found


async def _owned_of_any_kind(session: Session, obj: Object) -> list[tuple[ResourceType, Object]]:
    """Everything in reach that names the object as owner. Metadata only, several kinds at once."""
    slots = asyncio.Semaphore(_AT_ONCE)

    async def of(one: Discovered) -> list[tuple[ResourceType, Object]]:
        async with slots:
            path = one.type.path(namespace(obj) if one.type.namespaced else "")
            try:
                answer = orjson.loads(await session.client.raw("GET", path, headers={"accept": _METADATA}))
            except ApiError as error:
                if error.code in {403, 404, 405, 406, 503}:
                    return []
                raise
            owned = [item for item in answer.get("items") or [] if _owns(obj, item)]
            whole = [await _get(session, one.type, name(item), namespace(item)) for item in owned]
            return [(one.type, item) for item in whole if item is not None]

    kinds = [
        one
        for one in (await session.discovery.catalogue()).preferred()
        if "list" in one.verbs
        and one.type.kind not in {"Event", "Lease"}
        and (one.type.namespaced or not namespace(obj))
    ]
    return [found for part in await asyncio.gather(*map(of, kinds)) for found in part]


def _grouped(causes: Sequence[Finding]) -> list[Finding]:
    """Findings that say the same of several objects of a kind become one: a hundred pods rarely fail in as many ways."""
    found: dict[tuple[str, str, str], Finding] = {}
    for one in causes:
        if one.ready:
            continue
        below = orjson.dumps([cause.to_json() for cause in one.causes]).decode()
        first = found.setdefault((one.reference.partition("/")[0], one.why, below), one)
        if first is not one:
            first.same += one.same + 1
    return list(found.values())


def _judge_service(found: Finding, obj: Object, state: Readiness) -> None:
    """A Service has no state of its own: it is as good as the pods behind it."""
    if not state.ready or not selector_of(obj) or not found.causes:
        return
    count = sum(1 + one.same for one in found.causes)
    found.ready = False
    found.why = f"{count} of the pods behind it are not ready"


async def _warn(session: Session, found: Finding, obj: Object) -> None:
    """The newest warning, if it is not what the finding says already."""
    warnings = [event for event in await events_of(session, obj) if event.get("type") == "Warning"]
    if not warnings:
        return
    newest = warnings[-1]
    text = " ".join(str(newest.get("message") or newest.get("note") or "").split())
    if text and text not in found.why:
        found.warning = f"{newest.get('reason')}: {text}"
        found.warned_at = last_seen(newest)


async def _last_words(session: Session, resource: ResourceType, pod: Object) -> Sequence[str]:
    """The end of what the container wrote that keeps a pod from being ready; nothing when it did not fail."""
    if (resource.group, resource.kind) != ("", "Pod"):
        return ()
    for one in _statuses(pod):
        ended = (one.get("state") or {}).get("terminated") or {}
        before = (one.get("lastState") or {}).get("terminated") or {}
        if not ended.get("exitCode") and not before.get("exitCode"):
            continue
        query = {"container": str(one.get("name")), "tailLines": str(_LAST_LINES), "limitBytes": "4096"}
        if not ended:
            query["previous"] = "true"
        try:
            text = await session.client.raw("GET", PODS.path(namespace(pod), name(pod), "log"), query=query)
        except ApiError:
            return ()  # its node may be the trouble; what we know so far is worth more than an error
        return text.decode("utf-8", "replace").splitlines()[-_LAST_LINES:]
    return ()


def _statuses(pod: Object) -> list[Object]:
    status = pod.get("status") or {}
    return [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]


async def owners_of(session: Session, obj: Object) -> list[str]:
    """References of what controls the object, nearest first."""
    found: list[str] = []
    current = obj
    for _ in range(_MAX_DEPTH):
        owner = next((one for one in owner_references(current) if one.controller), None)
        if owner is None:
            break
        try:
            resource = (await session.discovery.by_kind(owner.api_version, owner.kind)).type
        except ApiError:
            break
        found.append(reference(resource, owner.name))
        above = await _get(session, resource, owner.name, namespace(current) if resource.namespaced else "")
        if above is None or uid(above) != owner.uid:
            found[-1] += " (which is gone)"
            break
        current = above
    return found
