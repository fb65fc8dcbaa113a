"""Mode ``pods`` at work: reads what is, applies the objects, and lets a round take the steps the plan names.

Order of things: ports that somebody else has are told before anything is made; nodes no longer wanted leave before their
machine goes; then the objects, then the steps. Deleting goes sets and Services first, then pods, then volumes.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final

from fleetplane.client.protocol import Client
from fleetplane.client.snapshot import ObjectKey
from fleetplane.controller import Condition, Context, Manager, Result
from fleetplane.model.builtin.types import (
    NODES,
    PERSISTENT_VOLUME_CLAIMS,
    PODS,
    SERVICES,
    STATEFUL_SETS,
    STORAGE_CLASSES,
)
from fleetplane.model.errors import ApiError
from fleetplane.model.objects import Object, is_deleting, name, uid
from fleetplane.operators.vclusters import accounts, machines, observing, plan, ports, rounds
from fleetplane.operators.vclusters.execs import PodMachines
from fleetplane.operators.vclusters.guests import delete
from fleetplane.operators.vclusters.images import minor_of
from fleetplane.operators.vclusters.kinds import DEFAULT_POD_CIDR, DEFAULT_SERVICE_CIDR, RESTARTED_AT, Vk8s
from fleetplane.operators.vclusters.plan import Decision, Observed, Record, Step, Wanted
from fleetplane.operators.vclusters.snapshots import restore_state
from fleetplane.operators.vclusters.states import State
from fleetplane.operators.vclusters.steps import Machines, Site, StepFailed, StepPending, Steps

PORT_AGAIN: Final = 15.0
"""Seconds until a port that somebody else has is looked at again; a Service's end wakes nobody."""


class PodsMode:
    def __init__(self, manager: Manager, machines_: Machines | None = None) -> None:
        self.manager = manager
        self.steps = Steps(machines_ or PodMachines(manager.client.in_cluster("root")))
        self.vclusters = manager.informer(Vk8s)
        self._pods = manager.informer(PODS)
        self._sets = manager.informer(STATEFUL_SETS)
        self._nodes = manager.informer(NODES)
        self._services = manager.informer(SERVICES)
        self._has_storage_class = False

    async def reconcile(
        self, context: Context[Vk8s], vcluster: Vk8s, addresses: Mapping[str, list[str]]
    ) -> Result | None:
        taken = self._taken_ports(context)
        await self._tell_ports(context, taken)
        if taken and not any(one.get("kind") == "StatefulSet" for one in context.children()):
            await context.set_status({"phase": "Waiting", "message": "creating node", "mode": "pods"})
            return Result(requeue_after=PORT_AGAIN)
        await self._have_storage_class(context.client)
        if not await self._scale_in(context, vcluster):
            return Result(requeue_after=0.01)
        await self._apply(context, vcluster, addresses, taken)
        result = await rounds.run(_Round(self, context, vcluster))
        if result.decision.restart:
            await self._replace(context, vcluster, result.decision.restart)
        waits = [one for one in (result.again, PORT_AGAIN if taken else None) if one is not None]
        return Result(requeue_after=min(waits)) if waits else None

    async def cleanup(self, context: Context[Vk8s], vcluster: Vk8s) -> bool:
        """True when no set, Service, pod or, by its policy, volume is left."""
        if not await context.delete_children():
            return False
        left = (
            await context.client.list(PODS, vcluster.namespace, labels=f"app=vk8s,clusterName={vcluster.name}")
        ).items
        if left:
            return False  # the garbage collector is at it
        if vcluster.spec.volume_policy == "delete":
            for node in vcluster.spec.nodes:
                await self._delete_claim(context, vcluster.namespace, node.name)
        return True

    # -- what is

    def pod(self, context: Context[Vk8s], namespace: str, node: str) -> plan.PodSeen:
        cluster = context.request.cluster
        found = self._pods.get_key(ObjectKey(cluster, namespace, machines.pod_name(node)))
        owner = self._sets.get_key(ObjectKey(cluster, namespace, node))
        return observing.pod_seen(found, owner)

    def reservations(self, context: Context[Vk8s], vcluster: Vk8s) -> dict[str, str | None]:
        cluster = context.request.cluster
        found: dict[str, str | None] = {}
        for node in vcluster.spec.nodes:
            host = self.pod(context, vcluster.namespace, node.name).host
            found[node.name] = observing.reservation_of(node, self._nodes.get_key(ObjectKey(cluster, "", host)))
        return found

    def _taken_ports(self, context: Context[Vk8s]) -> list[ports.Conflict]:
        if not ports.wanted_ports(context.object.get("spec") or {}):
            return []
        services = [one.object for one in self._services.snapshots() if one.key.cluster == context.request.cluster]
        others = [one.object for one in self.vclusters.snapshots() if one.key.cluster == context.request.cluster]
        held = [*ports.held_by_services(services), *ports.held_by_elders(context.object, others)]
        return ports.conflicts(context.object, held)

    async def _tell_ports(self, context: Context[Vk8s], taken: Sequence[ports.Conflict]) -> None:
        why = ports.told(taken, context.request.namespace)
        reason = "NodePortTaken" if taken else "Available"
        told = Condition("PortsAvailable", not taken, reason, why)
        await context.set_status(observing.not_yet(context.object), told)

    # -- what is done

    async def _apply(
        self,
        context: Context[Vk8s],
        vcluster: Vk8s,
        addresses: Mapping[str, list[str]],
        taken: Sequence[ports.Conflict],
    ) -> None:
        around = _Round(self, context, vcluster)
        wanted, seen = around.wanted(), around.observe()
        images = {node.name: plan.image_for(node, wanted, seen) for node in wanted.nodes}
        children = machines.children(vcluster, addresses, images, awake=not wanted.paused)
        if taken:
            children = [one for one in children if one["kind"] != "Service"]
        await self._renew_access_pod(context, vcluster)
        await context.apply_children(children, prune=not taken)

    async def _renew_access_pod(self, context: Context[Vk8s], vcluster: Vk8s) -> None:
        """A pod that was evicted never comes back by itself."""
        key = ObjectKey(context.request.cluster, vcluster.namespace, machines.access_pod_name(vcluster.name))
        found = self._pods.get_key(key)
        if found is not None and (found.get("status") or {}).get("phase") in {"Failed", "Succeeded"}:
            await delete(context.client, PODS, found)

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

    def site(self, context: Context[Vk8s], vcluster: Vk8s) -> Site:
        spec = vcluster.spec
        master = next(node for node in spec.nodes if node.role == "master")
        kubeflow = spec.kubeflow
        port = next((one for one in spec.ports if one.get("name") == "kubeflow"), None)
        email = kubeflow.email if kubeflow is not None else ""
        return Site(
            namespace=vcluster.namespace,
            master=master.name,
            pod_cidr=spec.kubernetes.pod_network_cidr or DEFAULT_POD_CIDR,
            service_cidr=spec.kubernetes.service_cidr or DEFAULT_SERVICE_CIDR,
            minor=minor_of(master.image),
            master_address=self.pod(context, vcluster.namespace, master.name).address,
            registry=master.image.rpartition("/")[0],
            kubeflow_version=kubeflow.version if kubeflow is not None else "",
            kubeflow_email=email or f"admin@{vcluster.name}.local",
            kubeflow_port=machines.target_port(port) if port is not None else 0,
            password=lambda: accounts.kubeflow_password(context, vcluster),
            save_kubeconfig=lambda text: accounts.save_kubeconfig(context, vcluster, text),
            restore=self._restoring(context, vcluster, master.image) if spec.restore_from else None,
            reservations=self.reservations(context, vcluster),
        )

    def _restoring(
        self, context: Context[Vk8s], vcluster: Vk8s, image: str
    ) -> Callable[[Machines, str, str], Awaitable[None]]:
        async def restore(nodes: Machines, pod: str, file: str) -> None:
            state = State(nodes, vcluster.namespace, pod, file)
            await restore_state(context.client, vcluster.namespace, vcluster.spec.restore_from, image, state)

        return restore

    async def _scale_in(self, context: Context[Vk8s], vcluster: Vk8s) -> bool:
        """Nodes that are no longer wanted leave their cluster before their machine goes. False: it was cut off."""
        wanted = {node.name for node in vcluster.spec.nodes}
        surplus = [
            one
            for one in context.children()
            if one.get("kind") == "StatefulSet" and name(one) not in wanted and not is_deleting(one)
        ]
        if not surplus:
            return True
        around = _Round(self, context, vcluster)
        site = self.site(context, vcluster)
        master_runs = self.pod(context, vcluster.namespace, site.master).runs
        for one in surplus:
            # Forgotten before it is taken out: cut off in between and wanted again, it joins anew.
            gone: Object = {"vnodeKubernetesSetupStatuses": {name(one): None}}
            await context.set_status(gone | observing.not_yet(context.object))
            if master_runs and not observing.is_stopped(vcluster):
                try:
                    if not await rounds.unless(around.is_interrupted, self.steps.remove_node(site, name(one))):
                        return False
                except (StepFailed, StepPending, ApiError, TimeoutError) as error:
                    context.event("DrainFailed", f"{name(one)} leaves without being drained: {error}", warning=True)
            await delete(context.client, STATEFUL_SETS, one)
            if vcluster.spec.volume_policy == "delete":
                await self._delete_claim(context, vcluster.namespace, name(one))
            context.event("NodeRemoved", f"node {name(one)} has left the cluster")
        if len(wanted) == 1:  # a master alone carries the workload again
            again = {site.master: {"steps": {plan.UNTAINT: None}}}
            anew: Object = {"vnodeKubernetesSetupStatuses": again, "steps": {plan.TAINT: None}}
            await context.set_status(anew | observing.not_yet(context.object))
        return True

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


class _Round:
    """A cluster of pods as its round sees it (``rounds.World``)."""

    def __init__(self, mode: PodsMode, context: Context[Vk8s], vcluster: Vk8s) -> None:
        self._mode = mode
        self._context = context
        self._vcluster = vcluster

    def wanted(self) -> Wanted:
        return observing.wanted_of(self._vcluster, self._mode.reservations(self._context, self._vcluster))

    def observe(self) -> Observed:
        pods = {
            node.name: self._mode.pod(self._context, self._vcluster.namespace, node.name)
            for node in self._vcluster.spec.nodes
        }
        return Observed(pods, observing.records_of(self._context.object), self._context.now().timestamp())

    def is_interrupted(self) -> bool:
        """The cluster is to be stopped or deleted: whatever is being done is done in vain."""
        now = self._mode.vclusters.get_key(self._context.request)
        if now is None or is_deleting(now) or uid(now) != self._vcluster.uid:
            return True
        return observing.is_stopped(Vk8s.view(now)) and not observing.is_stopped(self._vcluster)

    async def take(self, step: Step, before: Record) -> None:
        site = self._mode.site(self._context, self._vcluster)
        wanted = self.wanted()
        now = self._context.now().timestamp()
        await self._mode.steps.take(step, site, before, now, anew=plan.is_asked_anew(before, wanted))

    async def save(self, records: Mapping[Step, Record], *, ended: bool) -> None:
        if not records:
            return
        for (step, node), record in records.items() if ended else ():
            if record.state == "Done":
                self._context.event("StepDone", f"{step} {node}".strip())
            else:
                self._context.event("StepFailed", f"{step} {node}".strip() + f": {record.error}", warning=True)
        await self._context.set_status(observing.status_of(records))

    async def report(self, seen: Observed, decision: Decision) -> None:
        wanted, vcluster = self.wanted(), self._vcluster
        nodes = {
            node.name: {
                "status": seen.pods[node.name].status,
                "message": seen.pods[node.name].message,
                "isKubernetesSetup": observing.setup_of(node.name, wanted, seen),
            }
            for node in wanted.nodes
        }
        was = (self._context.object.get("status") or {}).get("phase")
        await self._context.set_status(
            {
                "phase": decision.phase,
                "message": decision.message,
                "mode": "pods",
                "vnodeKubernetesSetupStatuses": nodes,
                "restartedAt": vcluster.annotations.get(RESTARTED_AT, ""),
                **self._restored(wanted, seen),
            },
            *conditions(wanted, seen, decision),
        )
        if was != decision.phase:
            warning = decision.phase == "Fail"
            self._context.event(decision.phase.replace(" ", ""), decision.message or decision.phase, warning=warning)

    def _restored(self, wanted: Wanted, seen: Observed) -> Object:
        """What the control plane began with, once it is there."""
        begun = [one for chain in plan.chains(wanted) for one in chain if one.name == plan.CONTROL_PLANE]
        source = self._vcluster.spec.restore_from
        return {"restoredFrom": source} if source and all(plan.is_done(one, wanted, seen) for one in begun) else {}


def conditions(wanted: Wanted, seen: Observed, decision: Decision) -> list[Condition]:
    """What is true of the cluster, each with the reason; the phase is one word for all of it."""

    def all_done(*names: str) -> bool:
        steps = [one for chain in plan.chains(wanted) for one in chain if one.name in names]
        return all(plan.is_done(one, wanted, seen) for one in steps)

    failed = next(
        (
            seen.records[one].error
            for chain in plan.chains(wanted)
            for one in chain
            if one in seen.records and seen.records[one].state in {"Failed", "Retrying"}
        ),
        "",
    )
    up = all_done(plan.LABEL, plan.ANSWERS)
    joined = all_done(plan.JOINED, plan.NODE_READY)
    reserved, addons = all_done(plan.RESERVED), all_done(plan.KUBEFLOW, plan.KUBEFLOW_READY)
    message = decision.message if decision.phase == "Fail" else ""
    return [
        Condition("NetworkConnected", wanted.network, "Connected" if wanted.network else "Closed"),
        Condition("ControlPlaneReady", up, "Ready" if up else "NotReady"),
        Condition("NodesJoined", joined, "Joined" if joined else "Joining"),
        Condition("ResourcesReserved", reserved, "Reserved" if reserved else "Pending"),
        Condition("AddonsReady", addons, "Ready" if addons else "Installing"),
        Condition("Degraded", bool(failed), "StepFailed" if failed else "AsExpected", failed),
        Condition("Ready", decision.phase == "Running", decision.phase.replace(" ", ""), message),
    ]
