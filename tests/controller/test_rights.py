"""The rights read off an operator's declaration are enough for it, and no more than it needs."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from fleetplane.client.protocol import Client
from fleetplane.controller import Context, Manager, controller_for
from fleetplane.controller.leader import LeaderElection
from fleetplane.controller.rights import election_rules, rules_for
from fleetplane.model.builtin.types import (
    CLUSTER_ROLE_BINDINGS,
    CLUSTER_ROLES,
    CONFIG_MAPS,
    CUSTOM_RESOURCE_DEFINITIONS,
    EVENTS,
    ROLE_BINDINGS,
    ROLES,
    SECRETS,
)
from fleetplane.model.environment import SystemEnvironment
from fleetplane.model.errors import ApiError
from fleetplane.model.kind import Kind, View, crd_manifest, field
from fleetplane.model.objects import Object, is_condition_true
from fleetplane.model.user import UserInfo
from fleetplane.testing import running_server

OPERATOR = UserInfo("operator", groups=("system:authenticated",))
RBAC = "rbac.authorization.k8s.io"
SUBJECT = [{"apiGroup": RBAC, "kind": "User", "name": "operator"}]


class ThingSpec(View):
    text: str


class ThingStatus(View):
    said: bool = False


class Thing(Kind, group="example.org", version="v1"):
    spec: ThingSpec
    status: ThingStatus = field(default_factory=lambda: ThingStatus.view({}))


async def reconcile(context: Context[Thing], thing: Thing) -> None:
    child = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": thing.name}, "data": {"t": thing.spec.text}}
    await context.apply_children([child] if thing.spec.text else [])
    await context.set_status({"said": True})
    context.event("Said", "it was said")


async def cleanup(context: Context[Thing], thing: Thing) -> None:
    await context.delete_children()


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(10):
        while not await condition():
            await asyncio.sleep(0.02)


async def test_an_operator_works_with_exactly_its_rights() -> None:
    election = LeaderElection("things", "kube-system")
    async with running_server() as server:
        admin, client = server.client(), server.client(OPERATOR)
        manager = Manager(client, environment=SystemEnvironment(), name="things", cluster="root", election=election)
        manager.add(
            controller_for(manager, Thing, reconcile, owns=[CONFIG_MAPS], finalizer="example.org/f", cleanup=cleanup)
        )
        await admin.create(CUSTOM_RESOURCE_DEFINITIONS, crd_manifest(Thing))
        await grant(admin, manager, election)

        async def established() -> bool:
            crd = await admin.get(CUSTOM_RESOURCE_DEFINITIONS, "things.example.org")
            return is_condition_true(crd, "Established")

        await until(established)
        running = asyncio.ensure_future(manager.run())
        await admin.create(Thing, Thing(spec=ThingSpec(text="hi")).object | {"metadata": {"name": "a"}}, "default")

        async def said() -> bool:
            thing = await admin.get(Thing, "a", "default")
            return bool(thing.get("status", {}).get("said")) and bool((await admin.list(EVENTS, "default")).items)

        await until(said)
        assert (await admin.get(CONFIG_MAPS, "a", "default"))["data"] == {"t": "hi"}
        await admin.patch(Thing, "a", {"spec": {"text": ""}}, "default")

        async def pruned() -> bool:
            return "a" not in {one["metadata"]["name"] for one in (await admin.list(CONFIG_MAPS, "default")).items}

        await until(pruned)
        await admin.delete(Thing, "a", "default")

        async def gone() -> bool:
            return not (await admin.list(Thing, "default")).items

        await until(gone)
        for forbidden in (SECRETS, CLUSTER_ROLES):
            with pytest.raises(ApiError) as caught:
                await client.list(forbidden)
            assert caught.value.code == 403
        manager.stop()
        await running


async def grant(admin: Client, manager: Manager, election: LeaderElection) -> None:
    binding: Object = {"metadata": {"name": "things"}, "subjects": SUBJECT}
    await admin.create(CLUSTER_ROLES, {"metadata": {"name": "things"}, "rules": rules_for(manager.controllers)})
    to_cluster_role = {"apiGroup": RBAC, "kind": "ClusterRole", "name": "things"}
    await admin.create(CLUSTER_ROLE_BINDINGS, {**binding, "roleRef": to_cluster_role})
    await admin.create(ROLES, {"metadata": {"name": "things"}, "rules": election_rules(election)}, "kube-system")
    to_role = {"apiGroup": RBAC, "kind": "Role", "name": "things"}
    await admin.create(ROLE_BINDINGS, {**binding, "roleRef": to_role}, "kube-system")
