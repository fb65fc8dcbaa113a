"""Operators inside a plane: their kinds installed, their rights granted, their controllers running as themselves.

Each operator is a ServiceAccount in ``fleetplane-system`` with exactly the rights its declarations need, and its requests take
the same way through authorization and admission as anybody's. Elsewhere the same operators run from a kubeconfig.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from fleetplane.client.protocol import Client
from fleetplane.controller.leader import LeaderElection
from fleetplane.controller.manager import Manager
from fleetplane.controller.metrics import Metrics
from fleetplane.controller.registration import Operator, UnknownOperator, load_operators
from fleetplane.controller.rights import election_rules, rules_for
from fleetplane.model.builtin import types
from fleetplane.model.environment import Environment
from fleetplane.model.objects import Object
from fleetplane.model.user import UserInfo, service_account_user

NAMESPACE = "fleetplane-system"
_FIELD_MANAGER = "fleetplane"
_RBAC = "rbac.authorization.k8s.io"


def chosen_operators(setting: str) -> list[Operator]:
    """The operators of ``--operators``: all, none or a comma-separated list. Raises UnknownOperator."""
    if setting == "none":
        return []
    if setting == "all":
        return load_operators()
    names = [one.strip() for one in setting.split(",") if one.strip()]
    if not names:
        raise UnknownOperator("--operators must be all, none or a comma-separated list of names")
    return load_operators(names)


async def install_kinds(client: Client, operators: Sequence[Operator]) -> None:
    """Apply the definitions of all their kinds; they are served when this returns."""
    for operator in operators:
        for manifest in operator.manifests():
            await client.apply(types.CUSTOM_RESOURCE_DEFINITIONS, manifest, field_manager=_FIELD_MANAGER)


async def prepare_operators(
    client: Client,
    operators: Sequence[Operator],
    client_of: Callable[[UserInfo], Client],
    environment: Environment,
    metrics: Metrics,
    *,
    elect: bool = False,
) -> list[Manager]:
    """Give each operator its account and rights; returns a manager per operator, ready to run.

    ``elect`` lets one plane at a time run each operator, where several serve the same store.
    """
    if not operators:
        return []
    await client.apply(types.NAMESPACES, _object("v1", "Namespace", NAMESPACE), field_manager=_FIELD_MANAGER)
    managers = []
    for operator in operators:
        user = service_account_user(NAMESPACE, operator.name)
        election = LeaderElection(f"fleetplane-{operator.name}", NAMESPACE) if elect else None
        manager = Manager(
            client_of(user),
            environment=environment,
            name=operator.name,
            cluster="root",
            metrics=metrics,
            election=election,
        )
        operator.install(manager)
        await _grant(client, operator, rules_for(manager.controllers, operator.rules))
        if election is not None:
            await _grant_election(client, operator, election)
        managers.append(manager)
    return managers


async def _grant(client: Client, operator: Operator, rules: Sequence[Object]) -> None:
    name = f"fleetplane:operator:{operator.name}"
    account = _object("v1", "ServiceAccount", operator.name)
    account["metadata"]["namespace"] = NAMESPACE
    await client.apply(types.SERVICE_ACCOUNTS, account, NAMESPACE, field_manager=_FIELD_MANAGER)
    role = _object(f"{_RBAC}/v1", "ClusterRole", name) | {"rules": list(rules)}
    await client.apply(types.CLUSTER_ROLES, role, field_manager=_FIELD_MANAGER)
    binding = _object(f"{_RBAC}/v1", "ClusterRoleBinding", name) | {
        "roleRef": {"apiGroup": _RBAC, "kind": "ClusterRole", "name": name},
        "subjects": [{"kind": "ServiceAccount", "name": operator.name, "namespace": NAMESPACE}],
    }
    await client.apply(types.CLUSTER_ROLE_BINDINGS, binding, field_manager=_FIELD_MANAGER)


async def _grant_election(client: Client, operator: Operator, election: LeaderElection) -> None:
    name = f"fleetplane:leader:{operator.name}"
    role = _object(f"{_RBAC}/v1", "Role", name) | {"rules": election_rules(election)}
    await client.apply(types.ROLES, role, NAMESPACE, field_manager=_FIELD_MANAGER)
    binding = _object(f"{_RBAC}/v1", "RoleBinding", name) | {
        "roleRef": {"apiGroup": _RBAC, "kind": "Role", "name": name},
        "subjects": [{"kind": "ServiceAccount", "name": operator.name, "namespace": NAMESPACE}],
    }
    await client.apply(types.ROLE_BINDINGS, binding, NAMESPACE, field_manager=_FIELD_MANAGER)


def _object(api_version: str, kind: str, name: str) -> Object:
    return {"apiVersion": api_version, "kind": kind, "metadata": {"name": name}}
