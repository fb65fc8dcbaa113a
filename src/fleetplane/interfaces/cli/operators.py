"""Operators outside a plane: run from a kubeconfig against any Kubernetes, and the manifests that let them.

The same operators, the same code; what a plane does for them (kinds, account, rights) is here a list of objects to apply.
Their admission runs inside a plane; elsewhere it takes webhooks, which ``webhook_configurations`` describes.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Sequence
from contextlib import AsyncExitStack

from fleetplane.client.protocol import Client
from fleetplane.controller.leader import LeaderElection
from fleetplane.controller.manager import Manager
from fleetplane.controller.metrics import Metrics
from fleetplane.controller.registration import Operator
from fleetplane.controller.rights import election_rules, rules_for
from fleetplane.controller.serving import serving
from fleetplane.controller.sharding import Shard
from fleetplane.model.environment import Environment, SystemEnvironment
from fleetplane.model.objects import Object
from fleetplane.operating import install_kinds

NAMESPACE = "fleetplane-system"
NAME = "fleetplane-operators"
IMAGE = "fleetplane:latest"


async def run_operators(
    client: Client,
    operators: Sequence[Operator],
    *,
    install: bool = False,
    elect: bool = False,
    namespace: str = NAMESPACE,
    health_port: int | None = None,
    shard: Shard = Shard(),
) -> None:
    """Run operators until SIGTERM or SIGINT.

    ``install`` applies their kinds first. ``elect`` lets one of several instances work at a time. ``health_port`` serves
    ``/healthz``, ``/readyz`` and ``/metrics``. ``shard`` is the part of all objects that this instance looks after.
    """
    if install:
        await install_kinds(client, operators)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for one in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(one, stop.set)
    environment, metrics = SystemEnvironment(), Metrics()
    managers = [_manager(client, one, environment, metrics, elect, namespace, shard) for one in operators]
    async with AsyncExitStack() as stack:
        if health_port is not None and managers:
            await stack.enter_async_context(serving(managers[0], "0.0.0.0", health_port))  # noqa: S104 - probes come from outside
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(manager.run()) for manager in managers]
            await stop.wait()
            for manager in managers:
                manager.stop()
            await asyncio.wait(tasks, timeout=30)
            for task in tasks:
                task.cancel()


def _manager(
    client: Client,
    operator: Operator,
    environment: Environment,
    metrics: Metrics,
    elect: bool,
    namespace: str,
    shard: Shard = Shard(),
) -> Manager:
    election = LeaderElection(f"fleetplane-{operator.name}", namespace) if elect else None
    manager = Manager(
        client,
        environment=environment,
        name=operator.name,
        cluster="root",
        metrics=metrics,
        election=election,
        shard=shard,
    )
    operator.install(manager)
    return manager


def operator_manifests(
    operators: Sequence[Operator], client: Client, *, image: str = IMAGE, namespace: str = NAMESPACE
) -> list[Object]:
    """Everything to apply so that the operators run in a cluster, with the least rights that work.

    ``client`` is never called: a manager needs one to declare its controllers.
    """
    environment, metrics = SystemEnvironment(), Metrics()
    rules: list[Object] = []
    leases: list[Object] = []
    for operator in operators:
        manager = _manager(client, operator, environment, metrics, False, namespace)
        rules += rules_for(manager.controllers, operator.rules)
        leases += election_rules(LeaderElection(f"fleetplane-{operator.name}", namespace))
    rbac = "rbac.authorization.k8s.io"
    account = {"kind": "ServiceAccount", "name": NAME, "namespace": namespace}
    return [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}},
        *(manifest for operator in operators for manifest in operator.manifests()),
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": NAME, "namespace": namespace}},
        {"apiVersion": f"{rbac}/v1", "kind": "ClusterRole", "metadata": {"name": NAME}, "rules": rules},
        {
            "apiVersion": f"{rbac}/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": NAME},
            "roleRef": {"apiGroup": rbac, "kind": "ClusterRole", "name": NAME},
            "subjects": [account],
        },
        {
            "apiVersion": f"{rbac}/v1",
            "kind": "Role",
            "metadata": {"name": NAME, "namespace": namespace},
            "rules": leases,
        },
        {
            "apiVersion": f"{rbac}/v1",
            "kind": "RoleBinding",
            "metadata": {"name": NAME, "namespace": namespace},
            "roleRef": {"apiGroup": rbac, "kind": "Role", "name": NAME},
            "subjects": [account],
        },
        _deployment([operator.name for operator in operators], image, namespace),
    ]


def _deployment(names: Sequence[str], image: str, namespace: str) -> Object:
    labels = {"app.kubernetes.io/name": NAME}
    probe = {"httpGet": {"path": "/readyz", "port": 8080}}
    container: Object = {
        "name": "operators",
        "image": image,
        "args": ["operators", "--only", ",".join(names), "--leader-elect", "--health-port", "8080"],
        "ports": [{"name": "health", "containerPort": 8080}],
        "readinessProbe": probe,
        "livenessProbe": {"httpGet": {"path": "/healthz", "port": 8080}},
        "resources": {"requests": {"cpu": "50m", "memory": "96Mi"}},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": NAME, "namespace": namespace, "labels": labels},
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {
                    "serviceAccountName": NAME,
                    "securityContext": {
                        "runAsNonRoot": True,
                        "runAsUser": 65532,
                        "seccompProfile": {"type": "RuntimeDefault"},
                    },
                    "containers": [container],
                },
            },
        },
    }
