"""Snapshots of virtual clusters, in Secrets beside them; and clusters that begin with one.

Of a logical cluster: its content, compressed. What is taken and what not, the server decides
(``logicalclusters/<name>/content``): objects, not what runs nor what volumes hold. Of a cluster of pods: the state of its
control plane, keys included, as its node image writes it (``states``); it is carried a piece at a time and a piece is a Secret.

A snapshot is taken once. It lies in the host's store like everything else: to survive the host, copy its Secrets.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import orjson

from fleetplane.client.protocol import Client
from fleetplane.client.snapshot import ObjectKey
from fleetplane.controller import Condition, Context, Controller, Manager, Permanent, Result, controller_for
from fleetplane.model.builtin.types import SECRETS
from fleetplane.model.environment import timestamp
from fleetplane.model.errors import ApiError
from fleetplane.model.objects import Object, is_deleting, metadata
from fleetplane.operators.vclusters.execs import PodMachines
from fleetplane.operators.vclusters.kinds import GROUP, LOGICAL_CLUSTERS, Vk8s, Vk8sSnapshot, mode_of
from fleetplane.operators.vclusters.machines import BACKUP, pod_name
from fleetplane.operators.vclusters.states import PIECE, CannotTake, State
from fleetplane.operators.vclusters.steps import Machines, StepFailed, StepPending

PART_BYTES: Final = PIECE
MAX_PARTS: Final = 64
MAX_CONTENT: Final = 72 << 20
POST_BYTES: Final = 1 << 20
AGAIN: Final = 5.0
_TYPE: Final = f"{GROUP}/snapshot"


class Snapshots:
    def __init__(self, manager: Manager, machines: Machines | None = None) -> None:
        self._manager = manager
        self._machines = machines or PodMachines(manager.client.in_cluster("root"))
        self._vclusters = manager.informer(Vk8s)

    def controller(self) -> Controller:
        return controller_for(self._manager, Vk8sSnapshot, self.reconcile, name="vcluster-snapshots", timeout=600.0)

    async def reconcile(self, context: Context[Vk8sSnapshot], snapshot: Vk8sSnapshot) -> Result | None:
        if snapshot.status.phase in {"Done", "Failed"}:
            return None
        key = ObjectKey(context.request.cluster, snapshot.namespace, snapshot.spec.cluster)
        found = self._vclusters.get_key(key)
        if found is None or is_deleting(found):
            await self._failed(context, f"there is no virtual cluster {snapshot.spec.cluster} in this namespace")
            return None
        vcluster = Vk8s.view(found)
        if mode_of(vcluster.spec) == "pods":
            return await self._take_state(context, snapshot, vcluster)
        if not vcluster.status.cluster or vcluster.status.phase not in {"Running", "Paused"}:
            await context.set_status(
                {"phase": "Taking", "message": "waiting for the cluster to be there", "mode": "logical"}
            )
            return Result(requeue_after=AGAIN)
        await context.set_status({"phase": "Taking", "message": "", "mode": "logical"})
        return await self._take(context, snapshot, vcluster.status.cluster)

    async def _take(self, context: Context[Vk8sSnapshot], snapshot: Vk8sSnapshot, cluster: str) -> Result | None:
        taken = timestamp(context.now())
        try:
            content = await context.client.raw("GET", _path(cluster))
        except ApiError as error:
            if error.code != 413:
                raise
            await self._failed(context, error.message)
            return None
        count = len(orjson.loads(content)["items"])
        packed = await asyncio.to_thread(zlib.compress, content, 6)
        parts = [packed[start : start + PART_BYTES] for start in range(0, len(packed), PART_BYTES)]
        if len(parts) > MAX_PARTS:
            await self._failed(context, f"it is larger than {MAX_PARTS * PART_BYTES >> 20} MiB, compressed")
            return None
        for number, part in enumerate(parts):
            await self._keep(context, snapshot, number, part)
        done: Object = {
            "phase": "Done",
            "takenAt": taken,
            "objects": count,
            "bytes": len(packed),
            "parts": len(parts),
            "digest": hashlib.sha256(packed).hexdigest(),
        }
        await context.set_status(done, Condition("Ready", True, "Taken"))
        context.event("Taken", f"{count} objects of {snapshot.spec.cluster}")
        return None

    async def _take_state(
        self, context: Context[Vk8sSnapshot], snapshot: Vk8sSnapshot, vcluster: Vk8s
    ) -> Result | None:
        """Cut off, it is taken anew: what was kept of another try is written over, or belongs to no snapshot."""
        if vcluster.status.phase != "Running":
            told = {"phase": "Taking", "message": "waiting for the cluster to run", "mode": "pods"}
            await context.set_status(told)
            return Result(requeue_after=AGAIN)
        await context.set_status({"phase": "Taking", "message": "", "mode": "pods"})
        master = next(node for node in vcluster.spec.nodes if node.role == "master")
        file = f"/{BACKUP}/snapshot-{snapshot.uid}"
        state = State(self._machines, vcluster.namespace, pod_name(master.name), file)
        taken, digest = timestamp(context.now()), hashlib.sha256()
        try:
            async with state.taken() as size:
                count = -(-size // PART_BYTES)
                if count > MAX_PARTS:
                    raise CannotTake(f"it is larger than {MAX_PARTS * PART_BYTES >> 20} MiB, compressed")
                for number in range(count):
                    piece = await state.piece(number)
                    digest.update(piece)
                    await self._keep(context, snapshot, number, piece)
        except (CannotTake, StepFailed) as error:
            await self._failed(context, str(error))
            return None
        except StepPending as pending:
            return Result(requeue_after=pending.seconds)
        done: Object = {
            "phase": "Done",
            "takenAt": taken,
            "bytes": size,
            "parts": count,
            "digest": digest.hexdigest(),
            "image": master.image,
        }
        await context.set_status(done, Condition("Ready", True, "Taken"))
        context.event("Taken", f"the state of {snapshot.spec.cluster}, {size} bytes")
        return None

    async def _keep(self, context: Context[Vk8sSnapshot], snapshot: Vk8sSnapshot, number: int, part: bytes) -> None:
        secret = {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {
                "name": part_name(snapshot.name, number),
                "namespace": snapshot.namespace,
                "ownerReferences": [context.owner.reference()],
            },
            "type": _TYPE,
            "data": {"data": base64.b64encode(part).decode()},
        }
        await context.client.apply(SECRETS, secret, field_manager="vclusters")

    async def _failed(self, context: Context[Vk8sSnapshot], why: str) -> None:
        await context.set_status({"phase": "Failed", "message": why}, Condition("Ready", False, "Failed", why))
        context.event("Failed", why, warning=True)


async def restore(client: Client, namespace: str, name: str, cluster: str) -> tuple[int, list[str]]:
    """Put a snapshot's content into a logical cluster; may be done again. Returns (objects made, what was refused).

    Raises Permanent where there is no such snapshot, it is of another kind of cluster, or it is not whole.
    """
    status = await _done(client, namespace, name, "logical")
    content = await asyncio.to_thread(_unpack, await _parts(client, namespace, name, status), name)
    identities: dict[str, str] = {}
    made = 0
    refused: list[str] = []
    for group in groups(content["items"]):
        owners = {str(ref.get("uid")) for one in group for ref in metadata(one).get("ownerReferences") or ()}
        known = {uid: identities[uid] for uid in owners if uid in identities}
        body = {
            "apiVersion": LOGICAL_CLUSTERS.api_version,
            "kind": "LogicalClusterContent",
            "spec": {"identities": known},
        }
        answer = orjson.loads(
            await client.raw(
                "POST",
                _path(cluster),
                headers=[("content-type", "application/json")],
                body=orjson.dumps(body | {"items": group}),
            )
        )
        identities |= answer["status"]["identities"]
        made += answer["status"]["made"]
        refused += answer["status"]["refused"]
    return made, refused


async def restore_state(client: Client, namespace: str, name: str, image: str, state: State) -> None:
    """Bring a snapshot of a cluster of pods into a node that has ``image``. Raises StepFailed."""
    try:
        status = await _done(client, namespace, name, "pods")
        if status.get("image") != image:
            why = f"snapshot {name} was taken with the node image {status.get('image')}; give the master that one"
            raise Permanent(why, reason="OtherImage")
        parts = range(min(int(status.get("parts") or 0), MAX_PARTS))
        pieces = (await _part(client, namespace, name, number) for number in parts)
        await state.bring(pieces, str(status.get("digest")))
    except Permanent as error:
        raise StepFailed(error.message, permanent=True) from None


async def _done(client: Client, namespace: str, name: str, mode: str) -> Mapping[str, Any]:
    """The status of a snapshot that is there. Raises Permanent."""
    try:
        found = await client.get(Vk8sSnapshot, name, namespace)
    except ApiError as error:
        if error.code != 404:
            raise
        raise Permanent(f"there is no snapshot {name} in this namespace", reason="NoSnapshot") from None
    status: Mapping[str, Any] = found.get("status") or {}
    if status.get("phase") != "Done":
        raise Permanent(
            f"snapshot {name} is not taken: {status.get('phase') or 'it has just been made'}", reason="NoSnapshot"
        )
    if (status.get("mode") or "logical") != mode:
        why = f"snapshot {name} is of a cluster of mode {status.get('mode')}; only such a one can begin with it"
        raise Permanent(why, reason="OtherMode")
    return status


def groups(items: Sequence[Object]) -> Iterator[list[Object]]:
    """As many as one request may carry; those without owners first, so that owners come before whom they own."""
    by_uid = {str(metadata(one).get("uid")): one for one in items}
    ordered = sorted(items, key=lambda one: _depth(one, by_uid))
    group: list[Object] = []
    size = 0
    for one in ordered:
        length = len(orjson.dumps(one))
        if group and size + length > POST_BYTES:
            yield group
            group, size = [], 0
        group.append(one)
        size += length
    if group:
        yield group


def _depth(obj: Object, by_uid: Mapping[str, Object], left: int = 8) -> int:
    """How many owners are above it; references in circles end somewhere."""
    owners = [by_uid.get(str(ref.get("uid"))) for ref in metadata(obj).get("ownerReferences") or ()]
    return max((1 + _depth(one, by_uid, left - 1) for one in owners if one is not None and left), default=0)


def part_name(snapshot: str, number: int) -> str:
    return f"{snapshot}-part-{number}"


async def _parts(client: Client, namespace: str, name: str, status: Mapping[str, Any]) -> bytes:
    packed = bytearray()
    for number in range(min(int(status.get("parts") or 0), MAX_PARTS)):
        packed += await _part(client, namespace, name, number)
    if hashlib.sha256(packed).hexdigest() != status.get("digest"):
        raise Permanent(f"snapshot {name} is not as it was taken", reason="SnapshotDamaged")
    return bytes(packed)


async def _part(client: Client, namespace: str, name: str, number: int) -> bytes:
    try:
        secret = await client.get(SECRETS, part_name(name, number), namespace)
        return base64.b64decode(secret["data"]["data"])
    except (ApiError, KeyError, ValueError) as error:
        if isinstance(error, ApiError) and error.code != 404:
            raise
        raise Permanent(f"part {number} of snapshot {name} is missing", reason="SnapshotDamaged") from None


def _unpack(packed: bytes, name: str) -> Any:
    unpacking = zlib.decompressobj()
    content = unpacking.decompress(packed, MAX_CONTENT)
    if unpacking.unconsumed_tail:
        raise Permanent(f"snapshot {name} holds more than {MAX_CONTENT >> 20} MiB", reason="SnapshotDamaged")
    return orjson.loads(content)


def _path(cluster: str) -> str:
    return f"/apis/{LOGICAL_CLUSTERS.api_version}/logicalclusters/{cluster}/content"
