"""Mode ``pods`` at work: reads what is, asks the plan, applies the objects, takes the steps it names.

A step's record is written before the step and after it. Commands run inside a reconcile, side by side for different
nodes, and are cancelled with it; what they had begun is found by the next one.
"""

from __future__ import annotations

import asyncio
import base64
import logging
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import orjson

from fleetplane.client.protocol import Client
from fleetplane.client.snapshot import ObjectKey
from fleetplane.controller import Condition, Context, Manager, Result
from fleetplane.model.builtin.types import (
    NODES,
    PERSISTENT_VOLUME_CLAIMS,
    PODS,
    SECRETS,
    STATEFUL_SETS,
    STORAGE_CLASSES,
)
from fleetplane.model.environment import SAFE_ALPHABET, parse_timestamp, timestamp
from fleetplane.model.errors import ApiError
from fleetplane.model.objects import Object, is_deleting, labels, name, uid
from fleetplane.model.quantity import Quantity
from fleetplane.operators.vclusters import machines, plan
from fleetplane.operators.vclusters.admission import minor_of
from fleetplane.operators.vclusters.credentials import KEY, secret_name
from fleetplane.operators.vclusters.guests import delete
from fleetplane.operators.vclusters.kinds import (
    DEFAULT_POD_CIDR,
    DEFAULT_SERVICE_CIDR,
    NETWORK,
    RESTARTED_AT,
    STOPPED,
    Vk8s,
)
from fleetplane.operators.vclusters.plan import CLUSTER, NodeWanted, Observed, PodSeen, Record, Step, Wanted
from fleetplane.operators.vclusters.steps import Machines, Outcome, Site, StepFailed, StepPending, Steps, reservation

log = logging.getLogger(__name__)

AGAIN: Final = 1.0
_EXEC_TYPE: Final = "application/vnd.fleetplane.exec+json"


class PodMachines:
    """Commands through the API's ``pods/exec``, as one request."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def run(
        self, namespace: str, pod: str, command: Sequence[str], *, stdin: bytes = b"", timeout: float = 60.0
    ) -> Outcome:
        query = [("container", pod), ("stdout", "true"), ("stderr", "true"), ("timeoutSeconds", str(int(timeout)))]
        query += [("command", word) for word in command]
        async with asyncio.timeout(timeout + 30):
            answer = orjson.loads(
                await self._client.raw(
                    "POST",
                    f"/api/v1/namespaces/{namespace}/pods/{pod}/exec",
                    query=query,
                    headers=[("accept", _EXEC_TYPE)],
                    body=stdin,
                )
            )
        return Outcome(answer["exitCode"], _text(answer["stdout"]), _text(answer["stderr"]))


class PodsMode:
    def __init__(self, manager: Manager, machines_: Machines | None = None) -> None:
        self._manager = manager
        self._steps = Steps(machines_ or PodMachines(manager.client.in_cluster("root")))
        self._pods = manager.informer(PODS)
        self._sets = manager.informer(STATEFUL_SETS)
        self._nodes = manager.informer(NODES)
        self._has_storage_class = False

    async def reconcile(
        self, context: Context[Vk8s], vcluster: Vk8s, addresses: Mapping[str, list[str]]
    ) -> Result | None:
        wanted = wanted_of(vcluster)
        await self._have_storage_class(context.client)
        await self._scale_in(context, vcluster)
        await context.apply_children(machines.children(vcluster, addresses))
        seen = self._observe(context, vcluster)
        decision = plan.plan(wanted, seen)
        await self._report(context, vcluster, seen, decision.phase, decision.message)
        if decision.restart:
            await self._replace(context, vcluster, decision.restart)
        if not decision.steps:
            return Result(requeue_after=decision.again) if decision.again is not None else None
        again = await self._take(context, vcluster, wanted, seen, decision.steps)
        return Result(requeue_after=again)

    async def cleanup(self, context: Context[Vk8s], vcluster: Vk8s) -> bool:
        """Sets and Services, then the volumes; true when none of it is left."""
        if not await context.delete_children():
            return False
        if vcluster.spec.volume_policy == "delete":
            for node in vcluster.spec.nodes:
                await self._delete_claim(context, vcluster.namespace, node.name)
        return True

    async def _have_storage_class(self, client: Client) -> None:
        """On a plane of ours the class of the nodes' volumes is ours to make; elsewhere it is installed beforehand."""
        if self._has_storage_class or not client.can_commit:
            return
        try:
            await client.create(
                STORAGE_CLASSES,
                {
                    "apiVersion": "storage.k8s.io/v1",
                    "kind": "StorageClass",
                    "metadata": {"name": machines.STORAGE_CLASS},
                    "provisioner": "fleetplane.io/host-path",
                    "reclaimPolicy": "Delete",
                    "volumeBindingMode": "WaitForFirstConsumer",
                },
            )
        except ApiError as error:
            if error.reason != "AlreadyExists":
                raise
        self._has_storage_class = True

    # -- what is

    def _observe(self, context: Context[Vk8s], vcluster: Vk8s) -> Observed:
        now = context.now().timestamp()
        pods = {node.name: self._pod(context, vcluster.namespace, node.name) for node in vcluster.spec.nodes}
        return Observed(pods, records_of(context.object), now)

    def _pod(self, context: Context[Vk8s], namespace: str, node: str) -> PodSeen:
        cluster = context.request.cluster
        found = self._pods.get_key(ObjectKey(cluster, namespace, machines.pod_name(node)))
        owner = self._sets.get_key(ObjectKey(cluster, namespace, node))
        return pod_seen(found, owner)

    # -- what is done

    async def _take(
        self, context: Context[Vk8s], vcluster: Vk8s, wanted: Wanted, seen: Observed, steps: Sequence[Step]
    ) -> float:
        """Take steps side by side; returns seconds until the next look."""
        site = await self._site(context, vcluster)
        before = {step: seen.records.get(step, Record()) for step in steps}
        begun = {
            step: plan.started(before[step], wanted, seen.now, seen.pods[step.node or wanted.master].uid)
            for step in steps
        }
        await self._save(context, begun)
        results = await asyncio.gather(
            *(self._one(step, site, before[step], begun[step], wanted.generation) for step in steps)
        )
        now = context.now().timestamp()
        after: dict[Step, Record] = {}
        waits = [0.0]
        for step, (error, permanent, wait) in zip(steps, results, strict=True):
            if wait is not None:
                waits.append(wait)
                continue
            after[step] = plan.ended(begun[step], error, now, permanent=permanent)
            if error:
                context.event("StepFailed", f"{step.name} {step.node}: {error}".replace("  ", " "), warning=True)
            else:
                context.event("StepDone", f"{step.name} {step.node}".strip())
        await self._save(context, after)
        return max(0.01, min(waits[1:], default=0.0) if len(waits) > len(steps) else 0.01)

    async def _one(
        self, step: Step, site: Site, before: Record, begun: Record, generation: int
    ) -> tuple[str, bool, float | None]:
        """(error, whether for good, seconds to wait where it is not over)."""
        try:
            await self._steps.take(step, site, before, self._manager.environment.now().timestamp(), generation)
        except StepPending as pending:
            return "", False, pending.seconds
        except StepFailed as failure:
            return str(failure), failure.permanent, None
        except ApiError as error:
            return error.message, False, None
        except TimeoutError:
            return "it took too long", False, None
        return "", False, None

    async def _site(self, context: Context[Vk8s], vcluster: Vk8s) -> Site:
        spec = vcluster.spec
        master = next(node for node in spec.nodes if node.role == "master")
        kubeflow = spec.kubeflow
        port = next((one for one in spec.ports if one.get("name") == "kubeflow"), None)

        async def password() -> str:
            return await self._password(context, vcluster)

        async def save(text: str) -> None:
            await self._save_kubeconfig(context, vcluster, text)

        email = kubeflow.email if kubeflow is not None else ""
        return Site(
            namespace=vcluster.namespace,
            master=master.name,
            pod_cidr=spec.kubernetes.pod_network_cidr or DEFAULT_POD_CIDR,
            service_cidr=spec.kubernetes.service_cidr or DEFAULT_SERVICE_CIDR,
            minor=minor_of(master.image),
            registry=master.image.rpartition("/")[0],
            kubeflow_version=kubeflow.version if kubeflow is not None else "",
            kubeflow_email=email or f"admin@{vcluster.name}.local",
            kubeflow_port=machines.target_port(port) if port is not None else 0,
            password=password,
            save_kubeconfig=save,
            reservations={node.name: self._reservation(context, vcluster, node) for node in spec.nodes},
        )

    def _reservation(self, context: Context[Vk8s], vcluster: Vk8s, node: Any) -> str:
        cluster = context.request.cluster
        pod = self._pods.get_key(ObjectKey(cluster, vcluster.namespace, machines.pod_name(node.name)))
        host = self._nodes.get_key(ObjectKey(cluster, "", str(((pod or {}).get("spec") or {}).get("nodeName") or "")))
        capacity = ((host or {}).get("status") or {}).get("capacity") or {}
        if "cpu" not in capacity or "memory" not in capacity:
            return ""
        limits = (node.resources or {}).get("limits") or {}
        cpu = Quantity.parse(limits["cpu"]).milli_value() if "cpu" in limits else None
        memory = Quantity.parse(limits["memory"]).milli_value() // 1000 if "memory" in limits else None
        return reservation(
            Quantity.parse(capacity["cpu"]).milli_value(),
            Quantity.parse(capacity["memory"]).milli_value() // 1000,
            cpu,
            memory,
        )

    async def _password(self, context: Context[Vk8s], vcluster: Vk8s) -> str:
        """The first user's: as given, from a Secret, or generated into one."""
        kubeflow = vcluster.spec.kubeflow
        if kubeflow is not None and kubeflow.password:
            return kubeflow.password
        named = (kubeflow.password_secret if kubeflow is not None else "") or f"{vcluster.name}-kubeflow"
        try:
            found = await context.client.get(SECRETS, named, vcluster.namespace)
            return _text(found["data"]["password"])
        except KeyError:
            raise StepFailed(f"Secret {named} has no key password", permanent=True) from None
        except ApiError as error:
            if error.code != 404 or (kubeflow is not None and kubeflow.password_secret):
                raise
        made = "".join(self._manager.environment.random.choices(SAFE_ALPHABET, k=24))
        secret = {
            "metadata": {
                "name": named,
                "namespace": vcluster.namespace,
                "ownerReferences": [context.owner.reference()],
            },
            "stringData": {"password": made},
        }
        await context.client.create(SECRETS, {"apiVersion": "v1", "kind": "Secret", **secret})
        return made

    async def _save_kubeconfig(self, context: Context[Vk8s], vcluster: Vk8s, text: str) -> None:
        secret = {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {
                "name": secret_name(vcluster.name),
                "namespace": vcluster.namespace,
                "ownerReferences": [context.owner.reference()],
            },
            "type": "cluster.x-k8s.io/secret",
            "data": {KEY: base64.b64encode(text.encode()).decode()},
        }
        await context.client.apply(SECRETS, secret, field_manager="vclusters")

    async def _scale_in(self, context: Context[Vk8s], vcluster: Vk8s) -> None:
        """Nodes that are no longer wanted leave their cluster before their machine goes."""
        wanted = {node.name for node in vcluster.spec.nodes}
        surplus = [
            one
            for one in context.children()
            if one.get("kind") == "StatefulSet" and name(one) not in wanted and not is_deleting(one)
        ]
        if not surplus:
            return
        site = await self._site(context, vcluster)
        master_runs = self._pod(context, vcluster.namespace, site.master).runs
        for one in surplus:
            if master_runs and STOPPED not in vcluster.annotations:
                try:
                    await self._steps.remove_node(site, name(one))
                except (StepFailed, ApiError, TimeoutError) as error:
                    context.event("DrainFailed", f"{name(one)} leaves without being drained: {error}", warning=True)
            await delete(context.client, STATEFUL_SETS, one)
            if vcluster.spec.volume_policy == "delete":
                await self._delete_claim(context, vcluster.namespace, name(one))
            context.event("NodeRemoved", f"node {name(one)} has left the cluster")
            await context.set_status({"vnodeKubernetesSetupStatuses": {name(one): None}})

    async def _replace(self, context: Context[Vk8s], vcluster: Vk8s, node: str) -> None:
        found = self._pods.get_key(ObjectKey(context.request.cluster, vcluster.namespace, machines.pod_name(node)))
        if found is not None and not is_deleting(found):
            context.event("Replacing", f"node {node} is started anew")
            await delete(context.client, PODS, found)

    async def _delete_claim(self, context: Context[Vk8s], namespace: str, node: str) -> None:
        try:
            await context.client.delete(PERSISTENT_VOLUME_CLAIMS, machines.claim_name(node), namespace)
        except ApiError as error:
            if error.code != 404:
                raise

    # -- what is told

    async def _save(self, context: Context[Vk8s], records: Mapping[Step, Record]) -> None:
        nodes: Object = {}
        cluster: Object = {}
        for step, record in records.items():
            shown = record_object(record)
            if step.node == CLUSTER:
                cluster[step.name] = shown
            else:
                nodes.setdefault(step.node, {}).setdefault("steps", {})[step.name] = shown
        status: Object = {}
        if nodes:
            status["vnodeKubernetesSetupStatuses"] = nodes
        if cluster:
            status["steps"] = cluster
        if status:
            await context.set_status(status)

    async def _report(self, context: Context[Vk8s], vcluster: Vk8s, seen: Observed, phase: str, message: str) -> None:
        wanted = wanted_of(vcluster)
        master = vcluster_master(vcluster)
        up = plan.is_done(Step(plan.LABEL, master), wanted, seen)
        joined = all(
            plan.is_done(Step(plan.JOINED, node.name), wanted, seen)
            for node in vcluster.spec.nodes
            if node.role == "worker"
        )
        nodes = {
            node.name: {
                "status": seen.pods[node.name].status,
                "message": seen.pods[node.name].message,
                "isKubernetesSetup": setup_of(node.name, wanted, seen),
            }
            for node in vcluster.spec.nodes
        }
        was = (context.object.get("status") or {}).get("phase")
        await context.set_status(
            {
                "phase": phase,
                "message": message,
                "mode": "pods",
                "vnodeKubernetesSetupStatuses": nodes,
                "restartedAt": vcluster.annotations.get(RESTARTED_AT, ""),
            },
            Condition("NetworkConnected", wanted.network, "Connected" if wanted.network else "Closed"),
            Condition("ControlPlaneReady", up, "Ready" if up else "NotReady"),
            Condition("NodesJoined", joined, "Joined" if joined else "Joining"),
            Condition("Ready", phase == "Running", phase.replace(" ", ""), message if phase == "Fail" else ""),
        )
        if was != phase:
            context.event(phase.replace(" ", ""), message or phase, warning=phase == "Fail")


def vcluster_master(vcluster: Vk8s) -> str:
    return next((node.name for node in vcluster.spec.nodes if node.role == "master"), "")


def wanted_of(vcluster: Vk8s) -> Wanted:
    kubeflow = vcluster.spec.kubeflow
    network = vcluster.annotations.get(NETWORK)
    return Wanted(
        name=vcluster.name,
        nodes=tuple(NodeWanted(node.name, node.role) for node in vcluster.spec.nodes),
        kubeflow=bool(kubeflow is not None and kubeflow.version),
        generation=vcluster.generation,
        paused=STOPPED in vcluster.annotations,
        network=network is not None and network != "false",
        deleting=vcluster.is_deleting,
    )


def setup_of(node: str, wanted: Wanted, seen: Observed) -> str:
    """The original's word for how far a node is."""
    chain = [one for steps in plan.chains(wanted) for one in steps if one.node == node]
    if any(plan.is_failed(one, wanted, seen) for one in chain):
        return "Failed"
    return "Success" if chain and all(plan.is_done(one, wanted, seen) for one in chain) else ""


def pod_seen(pod: Object | None, owner: Object | None) -> PodSeen:
    """The original's reading of a pod: its first container's state, in its words."""
    if pod is None:
        return PodSeen("Not Found")
    status = pod.get("status") or {}
    update = ((owner or {}).get("status") or {}).get("updateRevision")
    revision = labels(pod).get("controller-revision-hash")
    stale = bool(update and revision and update != revision)
    common: dict[str, Any] = {
        "uid": uid(pod),
        "host": str((pod.get("spec") or {}).get("nodeName") or ""),
        "stale": stale,
    }
    if is_deleting(pod):
        return PodSeen("Terminating", "pod is being deleted", **common)
    state = next((one.get("state") or {} for one in status.get("containerStatuses") or ()), {})
    if "running" in state:
        return PodSeen("Running", **common)
    for key, word in (("waiting", "Waiting"), ("terminated", "Terminating")):
        if key in state:
            return PodSeen(word, str((state[key] or {}).get("reason") or ""), **common)
    return PodSeen(str(status.get("phase") or "Pending"), **common)


def records_of(obj: Mapping[str, Any]) -> dict[Step, Record]:
    status = obj.get("status") or {}
    found = {Step(key): record_of(value) for key, value in (status.get("steps") or {}).items()}
    for node, known in (status.get("vnodeKubernetesSetupStatuses") or {}).items():
        found |= {Step(key, node): record_of(value) for key, value in (known.get("steps") or {}).items()}
    return found


def record_of(value: Mapping[str, Any]) -> Record:
    started = value.get("startedAt")
    return Record(
        str(value.get("state") or ""),
        int(value.get("attempt") or 0),
        parse_timestamp(started).timestamp() if started else 0.0,
        str(value.get("pod") or ""),
        int(value.get("generation") or 0),
        str(value.get("error") or ""),
    )


def record_object(record: Record) -> Object:
    return {
        "state": record.state,
        "attempt": record.attempt,
        "startedAt": timestamp(datetime.fromtimestamp(record.started, UTC)),
        "pod": record.pod,
        "generation": record.generation,
        "error": record.error,
    }


def _text(encoded: str) -> str:
    return base64.b64decode(encoded).decode("utf-8", "replace")
