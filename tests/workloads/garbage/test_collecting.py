from __future__ import annotations

import asyncio

import pytest
from tests.workloads.deployment.test_reconcile import is_complete, web
from tests.workloads.made import reference
from tests.workloads.stage import WIDGETS, Object, Stage, play

from fleetplane.model.builtin.types import CONFIG_MAPS, DEPLOYMENTS, NODES, PODS, REPLICA_SETS


def config(name: str, *owners: Object, namespace: str = "default") -> Object:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": namespace, "ownerReferences": list(owners)},
    }


async def owner(stage: Stage, name: str) -> Object:
    made = {"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": name, "namespace": "default"}}
    return await stage.create(WIDGETS, made)


def names(stage: Stage) -> set[str]:
    return {one["metadata"]["name"] for one in stage.all(CONFIG_MAPS)}


def only_garbage(stage: Stage) -> None:
    stage.select = lambda one: one.name == "garbage-collector"


def test_deleting_a_deployment_takes_its_sets_and_pods():
    async def story(stage: Stage) -> None:
        await stage.create(DEPLOYMENTS, web(3))
        await stage.until(lambda: is_complete(stage, 3))
        await stage.client.delete(DEPLOYMENTS, "web", "default")
        await stage.until(lambda: not stage.all(REPLICA_SETS) and not stage.all(PODS), seconds=20)

    play(story)


def test_what_belongs_to_a_custom_resource_goes_with_it():
    async def story(stage: Stage) -> None:
        widget = await owner(stage, "w")
        await stage.create(CONFIG_MAPS, config("mine", reference(widget, controller=False)))
        await stage.create(CONFIG_MAPS, config("free"))
        await stage.quiet()
        await stage.client.delete(WIDGETS, "w", "default")
        await stage.until(lambda: names(stage) == {"free"}, seconds=20)

    play(story)


def test_an_object_created_for_an_owner_that_never_was_goes():
    async def story(stage: Stage) -> None:
        ghost = {"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": "ghost", "uid": "no-such"}}
        await stage.create(CONFIG_MAPS, config("orphan", reference(ghost, controller=False)))
        await stage.until(lambda: not names(stage), seconds=20)

    play(story)


def test_an_owner_that_comes_by_meanwhile_is_not_asked_for():
    async def story(stage: Stage) -> None:
        widget = await owner(stage, "w")
        await stage.quiet()
        await stage.create(CONFIG_MAPS, config("mine", reference(widget, controller=False)))
        await stage.client.patch(WIDGETS, "w", {"metadata": {"labels": {"seen": "yes"}}}, "default")
        await stage.quiet()
        assert names(stage) == {"mine"}
        assert not [one for one in stage.server.requests if one.method == "GET" and one.path.endswith("/widgets/w")]

    play(story)


def test_an_owner_that_comes_by_with_another_name_is_no_owner():
    async def story(stage: Stage) -> None:
        widget = await owner(stage, "w")
        await stage.quiet()
        await stage.create(CONFIG_MAPS, config("lost", {**reference(widget, controller=False), "name": "other"}))
        await stage.client.patch(WIDGETS, "w", {"metadata": {"labels": {"seen": "yes"}}}, "default")
        await stage.until(lambda: not names(stage), seconds=20)

    play(story)


def test_one_living_owner_is_enough_and_dead_references_are_dropped():
    async def story(stage: Stage) -> None:
        alive, dead = await owner(stage, "alive"), await owner(stage, "dead")
        both = [reference(alive, controller=False), reference(dead, controller=False)]
        await stage.create(CONFIG_MAPS, config("kept", *both))
        await stage.client.delete(WIDGETS, "dead", "default")
        await stage.until(lambda: len(stage.one(CONFIG_MAPS, "kept")["metadata"]["ownerReferences"]) == 1, seconds=20)
        assert stage.one(CONFIG_MAPS, "kept")["metadata"]["ownerReferences"] == both[:1]

    play(story)


def test_foreground_deletion_keeps_the_owner_until_its_dependents_are_gone():
    async def story(stage: Stage) -> None:
        widget = await owner(stage, "w")
        held = config("held", reference(widget, controller=False))
        held["metadata"]["finalizers"] = ["example.com/hold"]
        await stage.create(CONFIG_MAPS, held)
        await stage.client.patch(WIDGETS, "w", {"metadata": {"finalizers": ["foregroundDeletion"]}}, "default")
        await stage.quiet()
        await stage.client.delete(WIDGETS, "w", "default")
        await stage.quiet()
        assert stage.one(CONFIG_MAPS, "held")["metadata"]["deletionTimestamp"]
        assert stage.one(WIDGETS, "w")["metadata"]["deletionTimestamp"]
        await stage.client.patch(CONFIG_MAPS, "held", {"metadata": {"finalizers": None}}, "default")
        await stage.until(lambda: not stage.all(WIDGETS) and not names(stage), seconds=20)

    play(story)


def test_orphaning_lets_the_dependents_live():
    async def story(stage: Stage) -> None:
        widget = await owner(stage, "w")
        await stage.create(CONFIG_MAPS, config("survivor", reference(widget, controller=False)))
        await stage.client.patch(WIDGETS, "w", {"metadata": {"finalizers": ["orphan"]}}, "default")
        await stage.quiet()
        await stage.client.delete(WIDGETS, "w", "default")
        await stage.until(lambda: not stage.all(WIDGETS), seconds=20)
        await stage.quiet()
        assert not stage.one(CONFIG_MAPS, "survivor")["metadata"].get("ownerReferences")

    play(story)


def test_an_owner_in_another_namespace_is_no_owner():
    async def story(stage: Stage) -> None:
        widget = await owner(stage, "w")
        await stage.create(CONFIG_MAPS, config("lost", reference(widget, controller=False), namespace="elsewhere"))
        await stage.until(lambda: not stage.all(CONFIG_MAPS, "elsewhere"), seconds=20)
        await stage.until(lambda: "OwnerRefInvalidNamespace" in stage.reasons(), seconds=20)

    play(story)


def test_a_kind_the_server_does_not_know_proves_nothing():
    async def story(stage: Stage) -> None:
        unknown = {"apiVersion": "nowhere.io/v1", "kind": "Thing", "metadata": {"name": "x", "uid": "x"}}
        await stage.create(CONFIG_MAPS, config("kept", reference(unknown, controller=False)))
        await asyncio.sleep(300)
        assert names(stage) == {"kept"}

    play(story)


def test_clusters_do_not_share_owners():
    async def story(stage: Stage) -> None:
        widget = await owner(stage, "w")
        made = config("stray", reference(widget, controller=False))
        other = stage.client.in_cluster("other")
        await other.create(CONFIG_MAPS, made, "default")
        await stage.create(CONFIG_MAPS, made)

        def clusters() -> list[str]:
            return [key.cluster for key in stage.server.objects if key.resource == "configmaps"]

        await stage.until(lambda: clusters() == ["root"], seconds=20)
        await asyncio.sleep(60)
        assert clusters() == ["root"]

    play(story)


@pytest.mark.parametrize("seed", range(4))
def test_random_forests_are_collected_exactly_in_spite_of_faults(seed):
    """Objects own objects at random; some roots are deleted; what has a living owner lives, all else goes."""

    async def story(stage: Stage) -> None:
        chance = stage.environment.random
        roots = [await owner(stage, f"root-{n}") for n in range(4)]
        made: list[tuple[Object, list[Object]]] = []
        for number in range(25):
            parents = chance.sample([*roots, *(one for one, _ in made)], k=min(chance.randint(0, 2), 4 + len(made)))
            one = await stage.create(
                CONFIG_MAPS, config(f"c-{number}", *(reference(p, controller=False) for p in parents))
            )
            made.append((one, parents))
        if chance.random() < 0.5:
            await stage.crash()
            await stage.start()
        dead = {one["metadata"]["uid"] for one in roots if chance.random() < 0.6}
        for one in roots:
            if one["metadata"]["uid"] in dead:
                await stage.client.delete(WIDGETS, one["metadata"]["name"], "default")
        lives: dict[str, bool] = {one["metadata"]["uid"]: one["metadata"]["uid"] not in dead for one in roots}
        for one, parents in made:
            lives[one["metadata"]["uid"]] = not parents or any(lives[p["metadata"]["uid"]] for p in parents)
        expected = {one["metadata"]["name"] for one, _ in made if lives[one["metadata"]["uid"]]}
        await stage.until(lambda: names(stage) == expected, seconds=300)
        await asyncio.sleep(120)
        assert names(stage) == expected

    play(story, seed=seed, faults=0.15)


def test_objects_nobody_owns_cost_no_memory():
    async def story(stage: Stage) -> None:
        for number in range(20):
            await stage.create(CONFIG_MAPS, config(f"c-{number}"))
        await stage.quiet()
        collector = next(one for one in stage.manager.controllers if one.name == "garbage-collector")
        assert collector.reconcile.__self__.graph.nodes == {}

    play(story)


def test_a_cluster_scoped_owner_may_own_what_is_in_a_namespace():
    async def story(stage: Stage) -> None:
        node = next(one for one in stage.server.objects.values() if one["metadata"]["name"] == "node-0")
        ref = {**reference(node, controller=False), "apiVersion": "v1", "kind": "Node"}
        await stage.create(CONFIG_MAPS, config("status", ref))
        await stage.quiet()
        assert names(stage) == {"status"}
        await stage.client.delete(NODES, "node-0")
        await stage.until(lambda: not names(stage), seconds=20)

    play(story)
