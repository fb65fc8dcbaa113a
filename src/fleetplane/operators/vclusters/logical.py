"""Mode ``logical``: a virtual cluster that is a logical cluster of the host, for the price of its rows.

Order of things: the LogicalCluster is made, the host opens it and makes its default namespaces, and only then it
answers with credentials, which are written last: whoever sees the Secret can use it at once. Everything is found again
by the uid of the Vk8s it belongs to; a name somebody else has taken gets a suffix that is the same after any crash.

Deleting goes the other way: the pods on the host first, then the credentials, then the cluster with all it holds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Any, Final

from fleetplane.client.snapshot import ObjectKey, Snapshot
from fleetplane.controller import Condition, Context, Manager, Permanent, Request, Result, Watch
from fleetplane.model import yaml as kube_yaml
from fleetplane.model.builtin.types import CONFIG_MAPS, ENDPOINT_SLICES, SECRETS
from fleetplane.model.environment import parse_timestamp, timestamp
from fleetplane.model.errors import ApiError
from fleetplane.model.objects import Object, is_deleting, labels, metadata, uid
from fleetplane.model.objects import annotations as annotations_of
from fleetplane.operators.vclusters import credentials, snapshots
from fleetplane.operators.vclusters.kinds import (
    LOGICAL_CLUSTERS,
    NETWORK,
    OWNER,
    OWNER_UID,
    ROTATE,
    STOPPED,
    Vk8s,
)

_BY_OWNER: Final = "owner"
AGAIN: Final = 5.0


def names_for(vcluster: Vk8s) -> tuple[str, str]:
    """What its logical cluster may be called: its own name, or that with a piece of its uid where that is taken."""
    short = vcluster.name[:54].rstrip("-.")
    return vcluster.name, f"{short}-{vcluster.uid.replace('-', '')[:8]}"


def logical_cluster(vcluster: Vk8s, name: str) -> Object:
    return {
        "apiVersion": LOGICAL_CLUSTERS.api_version,
        "kind": LOGICAL_CLUSTERS.kind,
        "metadata": {
            "name": name,
            "labels": {OWNER_UID: vcluster.uid},
            "annotations": {OWNER: f"{vcluster.namespace}/{vcluster.name}"},
        },
        "spec": {"dataPlane": "Host"},
    }


_ELSEWHERE = (
    "logical clusters are rows of a Fleetplane server, and this Kubernetes is another; make one with mode: pods"
)


def is_network_closed(vcluster: Vk8s) -> bool:
    """A logical cluster has the host's network: only an explicit "false" holds it back."""
    return vcluster.annotations.get(NETWORK) == "false"


class LogicalMode:
    def __init__(self, manager: Manager) -> None:
        self._manager = manager
        self._clusters = manager.informer(LOGICAL_CLUSTERS)
        self._clusters.add_index(_BY_OWNER, _owner_uid)
        self._secrets = manager.informer(SECRETS, labels=f"{credentials.CREDENTIALS_LABEL}=true")
        self._slices = manager.informer(ENDPOINT_SLICES, namespace="default", fields="metadata.name=kubernetes")
        self._info = manager.informer(CONFIG_MAPS, namespace="kube-public", fields="metadata.name=cluster-info")
        self._vclusters = manager.informer(Vk8s)

    def watches(self) -> list[Watch]:
        """What wakes a cluster: its logical cluster, its Secret, and a new address of the host."""

        def everyone(_: Snapshot) -> Iterable[Request]:
            return [one.key for one in self._vclusters.snapshots()]

        labelled = f"{credentials.CREDENTIALS_LABEL}=true"
        named = "metadata.name=kubernetes"
        return [
            Watch(LOGICAL_CLUSTERS, _owner),
            Watch(SECRETS, _secret_owner, labels=labelled),
            Watch(ENDPOINT_SLICES, everyone, namespace="default", fields=named),
            Watch(CONFIG_MAPS, everyone, namespace="kube-public", fields="metadata.name=cluster-info"),
        ]

    def cluster_of(self, vcluster_uid: str) -> Object | None:
        """The logical cluster of a Vk8s, as far as known."""
        return next(iter(self._clusters.by_index(_BY_OWNER, vcluster_uid)), None)

    async def reconcile(self, context: Context[Vk8s], vcluster: Vk8s) -> Result | None:
        cluster = self.cluster_of(vcluster.uid)
        request: credentials.Request | None = None
        if cluster is None:  # its key is made while the host's disk makes it
            opened, request = await asyncio.gather(self._open(context, vcluster), _new_request())
            cluster = opened
        name = metadata(cluster)["name"]
        if is_deleting(cluster):
            return None  # the watch wakes us when it has gone
        endpoint = self.endpoint()
        if not endpoint:
            await self._waiting(context, name, "the address of the host's API is not published yet")
            return Result(requeue_after=AGAIN)
        endpoint = f"{endpoint}/clusters/{name}"
        if vcluster.spec.restore_from and vcluster.status.restored_from != vcluster.spec.restore_from:
            await self._restore(context, vcluster, name)
        found = await self._credentials(context, vcluster, cluster, endpoint, request)
        await self._report(context, vcluster, name, endpoint, found)
        due = credentials.renewal(found)
        left = (due - context.now()).total_seconds() if due is not None else AGAIN
        return Result(requeue_after=max(1.0, left))

    async def cleanup(self, context: Context[Vk8s], vcluster: Vk8s) -> bool:
        """Take away the credentials and the cluster; true when both are gone."""
        await _delete(context, SECRETS, credentials.secret_name(vcluster.name), vcluster.namespace, vcluster.uid)
        left = False
        try:
            listed = await context.client.list(LOGICAL_CLUSTERS, labels=f"{OWNER_UID}={vcluster.uid}")
        except ApiError as error:
            if error.code != 404:
                raise
            return True  # there are none here
        for cluster in listed.items:
            left = True
            if not is_deleting(cluster):
                await _delete_known(context, cluster)
        return not left

    def endpoint(self) -> str:
        """Where the host's API is reached: as the administrator published it, else as the plane did; empty if neither."""
        info = self._info.get_key(ObjectKey("root", "kube-public", "cluster-info"))
        if info is not None and (text := (info.get("data") or {}).get("kubeconfig")):
            try:
                return str(kube_yaml.load(text)["clusters"][0]["cluster"]["server"]).rstrip("/")
            except (KeyError, IndexError, TypeError, ValueError):
                return ""
        found = self._slices.get_key(ObjectKey("root", "default", "kubernetes"))
        for one in (found or {}).get("endpoints") or ():
            for address in one.get("addresses") or ():
                host = f"[{address}]" if ":" in address else address
                port = next((port["port"] for port in (found or {}).get("ports") or () if port.get("port")), 443)
                return f"https://{host}:{port}"
        return ""

    # -- one step each

    async def _open(self, context: Context[Vk8s], vcluster: Vk8s) -> Object:
        """Make the logical cluster, under the first of its names that nobody else has."""
        for name in names_for(vcluster):
            try:
                return await context.client.create(LOGICAL_CLUSTERS, logical_cluster(vcluster, name))
            except ApiError as error:
                if error.code == 404:
                    raise Permanent(_ELSEWHERE, reason="NotFleetplane") from None
                if error.reason != "AlreadyExists":
                    raise
            try:
                found = await context.client.get(LOGICAL_CLUSTERS, name)
            except ApiError as error:
                if error.code != 404:
                    raise
                continue  # reserved, or going away
            if labels(found).get(OWNER_UID) == vcluster.uid:
                return found
        raise Permanent(f"the names {' and '.join(names_for(vcluster))} are both taken", reason="NameTaken")

    async def _restore(self, context: Context[Vk8s], vcluster: Vk8s, name: str) -> None:
        """Before anybody has credentials, so that nobody sees half of it. Cut off, it is done again."""
        source = vcluster.spec.restore_from
        made, refused = await snapshots.restore(context.client, vcluster.namespace, source, name)
        await context.set_status({"restoredFrom": source})
        context.event("Restored", f"{made} objects from snapshot {source}")
        for one in refused:
            context.event("NotRestored", one, warning=True)

    async def _credentials(
        self,
        context: Context[Vk8s],
        vcluster: Vk8s,
        cluster: Object,
        endpoint: str,
        request: credentials.Request | None,
    ) -> Object:
        name = credentials.secret_name(vcluster.name)
        nonce = vcluster.annotations.get(ROTATE, "")
        found = self._secrets.get_key(ObjectKey(context.request.cluster, vcluster.namespace, name))
        if found is not None and credentials.is_good(found, uid(cluster), endpoint, nonce, context.now()):
            return found
        issued = context.now()
        request = request or credentials.new_request()
        asked = {
            "spec": {"request": request.request, "expirationSeconds": vcluster.spec.credentials.expiration_seconds}
        }
        answer = await context.client.observed_by(None).create(
            LOGICAL_CLUSTERS, asked, subresource="credentials", name=metadata(cluster)["name"]
        )
        status = answer["status"]
        file = credentials.kubeconfig(vcluster.name, endpoint, status, request.key_pem)
        noted = credentials.marks(uid(cluster), endpoint, timestamp(issued), status["expirationTimestamp"], nonce)
        made = credentials.secret(vcluster.name, file, noted)
        made["metadata"] |= {"namespace": vcluster.namespace, "ownerReferences": [context.owner.reference()]}
        written = await self._write(context, vcluster, made)
        context.event("CredentialsIssued", f"Secret {name} holds a kubeconfig until {status['expirationTimestamp']}")
        return written

    async def _write(self, context: Context[Vk8s], vcluster: Vk8s, made: Object) -> Object:
        try:
            return await context.client.create(SECRETS, made)
        except ApiError as error:
            if error.reason != "AlreadyExists":
                raise
        name = metadata(made)["name"]
        found = await context.client.get(SECRETS, name, vcluster.namespace)
        if not _is_owned(found, vcluster.uid):
            raise Permanent(f"Secret {name} belongs to somebody else; rename the cluster", reason="NameTaken")
        patch = {
            "metadata": {"resourceVersion": metadata(found)["resourceVersion"], "annotations": annotations_of(made)},
            "data": made["data"],
        }
        return await context.client.patch(SECRETS, name, patch, vcluster.namespace)

    async def _waiting(self, context: Context[Vk8s], name: str, why: str) -> None:
        await context.set_status(
            {"phase": "Waiting", "message": "creating node", "mode": "logical", "cluster": name},
            Condition("Ready", False, "Waiting", why),
        )

    async def _report(
        self, context: Context[Vk8s], vcluster: Vk8s, name: str, endpoint: str, found: Mapping[str, Any]
    ) -> None:
        phase, message = "Running", "Running"
        if STOPPED in vcluster.annotations:
            phase, message = "Paused", f"{vcluster.name} is paused"
        elif vcluster.status.asleep_since:
            phase, message = "Paused", f"{vcluster.name} is asleep"
        elif is_network_closed(vcluster):
            phase, message = "Waiting Network Connection", "Connecting Network"
        expires = annotations_of(found).get(credentials.EXPIRES, "")
        connected = not is_network_closed(vcluster)
        await context.set_status(
            {
                "phase": phase,
                "message": message,
                "mode": "logical",
                "cluster": name,
                "endpoint": endpoint,
                "credentialsExpire": expires,
            },
            Condition("NetworkConnected", connected, "Connected" if connected else "Closed"),
            Condition("ControlPlaneReady", True, "Ready"),
            Condition("Ready", phase == "Running", phase.replace(" ", "")),
        )


async def _new_request() -> credentials.Request:
    return credentials.new_request()


def seconds_left(expires: str, now: Any) -> float:
    """Seconds until a timestamp; a negative number once it has passed."""
    left: timedelta = parse_timestamp(expires) - now
    return left.total_seconds()


def _owner_uid(snapshot: Snapshot) -> Iterable[str]:
    value = snapshot.labels.get(OWNER_UID)
    return [value] if value else []


def _owner(snapshot: Snapshot) -> Iterable[Request]:
    namespace, _, name = annotations_of(snapshot.object).get(OWNER, "").partition("/")
    return [Request(snapshot.key.cluster, namespace, name)] if name else []


def _secret_owner(snapshot: Snapshot) -> Iterable[Request]:
    return [
        Request(snapshot.key.cluster, snapshot.key.namespace, one.name) for one in snapshot.owners if one.controller
    ]


def _is_owned(obj: Mapping[str, Any], owner: str) -> bool:
    return any(one.get("uid") == owner for one in metadata(obj).get("ownerReferences") or ())


async def _delete(context: Context[Vk8s], resource: Any, name: str, namespace: str, owner: str) -> None:
    try:
        found = await context.client.get(resource, name, namespace)
        if _is_owned(found, owner):
            await context.client.delete(resource, name, namespace, uid=uid(found))
    except ApiError as error:
        if error.code not in {404, 409}:
            raise


async def _delete_known(context: Context[Vk8s], cluster: Object) -> None:
    try:
        await context.client.delete(LOGICAL_CLUSTERS, metadata(cluster)["name"], uid=uid(cluster))
    except ApiError as error:
        if error.code not in {404, 409}:
            raise
