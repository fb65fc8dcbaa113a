from __future__ import annotations

from tests.workloads.stage import WIDGETS, Object, Stage, play

from fleetplane.model.builtin.types import CONFIG_MAPS, NAMESPACES, SERVICE_ACCOUNTS


def space(name: str) -> Object:
    return {
        "metadata": {"name": name, "finalizers": ["stand-in/for-spec-finalizers"]},
        "spec": {"finalizers": ["kubernetes"]},
        "status": {"phase": "Active"},
    }


def in_space(name: str, **meta: object) -> Object:
    return {"metadata": {"name": name, "namespace": "team", **meta}}


def test_a_namespace_gets_an_account_and_gets_it_again():
    async def story(stage: Stage) -> None:
        await stage.create(NAMESPACES, space("team"))
        await stage.until(lambda: len(stage.all(SERVICE_ACCOUNTS, "team")) == 1, seconds=10)
        await stage.client.delete(SERVICE_ACCOUNTS, "default", "team")
        await stage.until(lambda: len(stage.all(SERVICE_ACCOUNTS, "team")) == 1, seconds=10)

    play(story)


def test_a_namespace_goes_with_all_that_is_in_it_custom_resources_too():
    async def story(stage: Stage) -> None:
        stage.select = lambda one: one.name == "namespace"
        await stage.crash()
        await stage.start()
        await stage.create(NAMESPACES, space("team"))
        for number in range(3):
            await stage.create(CONFIG_MAPS, in_space(f"c-{number}"))
        await stage.create(WIDGETS, in_space("held", finalizers=["example.com/hold"]))
        await stage.client.delete(NAMESPACES, "team")
        await stage.until(lambda: not stage.all(CONFIG_MAPS, "team"), seconds=10)
        status = stage.one(NAMESPACES, "team")["status"]
        found = {one["type"]: (one["status"], one["message"]) for one in status["conditions"]}
        assert status["phase"] == "Terminating"
        assert found["NamespaceContentRemaining"] == (
            "True",
            "Some resources are remaining: widgets.example.com has 1 resource instances",
        )
        assert found["NamespaceFinalizersRemaining"] == (
            "True",
            "Some content in the namespace has finalizers remaining: example.com/hold in 1 resource instances",
        )
        await stage.client.patch(WIDGETS, "held", {"metadata": {"finalizers": None}}, "team")
        await stage.until(lambda: stage.one(NAMESPACES, "team")["spec"]["finalizers"] == [], seconds=60)

    play(story)
