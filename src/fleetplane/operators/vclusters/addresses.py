"""Addresses of nodes made of pods: one IPClaim for each, held for as long as the cluster is.

Certificates and etcd know a node by its address, so a node keeps the one it began with: through pauses, restarts of
everything, and the loss of its claim, which is then asked for again with just that address. Without a pool nothing of this
happens and the runtime chooses. A node that joins later and waits for an address keeps no other node waiting.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from fleetplane.controller import Condition, Context
from fleetplane.model.errors import ApiError
from fleetplane.model.objects import Object, condition, is_deleting, metadata, name, uid
from fleetplane.operators.network.kinds import IPClaim
from fleetplane.operators.vclusters.kinds import OWNER_UID, Vk8s
from fleetplane.operators.vclusters.machines import addresses_of
from fleetplane.operators.vclusters.observing import is_stopped

AGAIN: Final = 5.0
CONDITION: Final = "AddressesReady"


def claim_name(vcluster: Vk8s, node: str) -> str:
    """The same after any crash, and another one for a cluster that has the name later."""
    return f"{vcluster.name[:120]}-{node}-{vcluster.uid.replace('-', '')[:8]}"


def claim(vcluster: Vk8s, node: str, wanted: list[str], owner: Object) -> Object:
    spec: Object = {
        "pool": vcluster.spec.ip_pool,
        "cluster": vcluster.name,
        "clusterUid": vcluster.uid,
        "node": node,
        "use": _use(vcluster),
    }
    if wanted:
        spec["addresses"] = wanted
    return {
        "apiVersion": IPClaim.resource.api_version,
        "kind": IPClaim.resource.kind,
        "metadata": {
            "name": claim_name(vcluster, node),
            "namespace": vcluster.namespace,
            "labels": {OWNER_UID: vcluster.uid},
            "ownerReferences": [owner],
        },
        "spec": spec,
    }


async def addresses_for(context: Context[Vk8s], vcluster: Vk8s) -> tuple[dict[str, list[str]], float | None]:
    """The addresses of every node that may be made now, and seconds until another look where some are missing."""
    sets = {name(one): one for one in context.children() if one.get("kind") == "StatefulSet"}
    known = {node.name: addresses_of(sets[node.name]) for node in vcluster.spec.nodes if node.name in sets}
    if not vcluster.spec.ip_pool:
        return known, None
    waiting: dict[str, str] = {}
    try:
        selector = f"{OWNER_UID}={vcluster.uid}"
        listed = (await context.client.list(IPClaim, vcluster.namespace, labels=selector)).items
        claims = {str(one["spec"].get("node")): one for one in listed}
        for node in vcluster.spec.nodes:
            has_none = node.name in known and not known[node.name]
            if has_none:
                continue  # it was made before the cluster had a pool
            found, why = await _claimed(context, vcluster, node.name, claims.get(node.name), known.get(node.name, []))
            if found:
                known.setdefault(node.name, found)
            if why:
                waiting[node.name] = why
        await _release(context, vcluster, claims, sets)
    except ApiError as error:
        if error.code != 404:
            raise
        missing = "the server has no IPClaims; run the operator network, or leave out spec.ipPool"
        waiting = {node.name: missing for node in vcluster.spec.nodes if node.name not in known}
    why = "; ".join(f"{node}: {reason}" for node, reason in sorted(waiting.items()))
    await context.set_status(None, Condition(CONDITION, not waiting, "Waiting" if waiting else "Claimed", why))
    return known, AGAIN if waiting else None


async def _claimed(
    context: Context[Vk8s], vcluster: Vk8s, node: str, found: Object | None, has: list[str]
) -> tuple[list[str], str]:
    """(addresses, what is wrong) of a node; one of them may be empty. ``has`` are those it was made with."""
    if found is None:
        try:
            found = await context.client.create(IPClaim, claim(vcluster, node, has, context.owner.reference()))
        except ApiError as error:
            if error.code not in {403, 409, 422}:
                raise
            return [], error.message
    if is_deleting(found):
        return [], "its former address rests until it may be given out again"
    if found["spec"].get("use") != _use(vcluster):
        patch = {"metadata": {"uid": uid(found)}, "spec": {"use": _use(vcluster)}}
        await context.client.patch(IPClaim, name(found), patch, vcluster.namespace)
    addresses = list(found["spec"].get("addresses") or ())
    if addresses:
        return addresses, ""
    why = (condition(found, "Ready") or {}).get("message")
    return [], why or f"pool {vcluster.spec.ip_pool} has not given an address yet"


async def _release(
    context: Context[Vk8s], vcluster: Vk8s, claims: Mapping[str, Object], sets: Mapping[str, Any]
) -> None:
    """Give back the addresses of nodes that have left, once nothing of them is there."""
    wanted = {node.name for node in vcluster.spec.nodes}
    for node, found in claims.items():
        if node in wanted or node in sets or is_deleting(found):
            continue
        meta = metadata(found)
        try:
            await context.client.delete(IPClaim, meta["name"], meta["namespace"], uid=meta["uid"])
        except ApiError as error:
            if error.code not in {404, 409}:
                raise


def _use(vcluster: Vk8s) -> str:
    return "Held" if is_stopped(vcluster) else "Allocated"
