"""When a logical cluster was last used: for those that ask, by people, and not more often than asked."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

from fleetplane.apiserver.authentication.chain import is_public
from fleetplane.apiserver.cluster_use import ClusterUse
from fleetplane.model.objects import Object
from fleetplane.model.user import UserInfo
from fleetplane.testing import SimulatedEnvironment, run_virtually

SOMEBODY = UserInfo("kubernetes-admin")


def cluster(**spec: int) -> Object:
    return {"metadata": {"name": "one", "uid": "uid-1"}, "spec": spec}


def written(
    story: Callable[[ClusterUse], None], *, spec: dict[str, int], times: int = 1, pause: float = 0
) -> list[str]:
    """What is written while the story is told so many times."""

    async def main() -> list[str]:
        use = ClusterUse(SimulatedEnvironment(0))
        use.apply("root", cluster(**spec), False)
        found: list[str] = []

        async def write(obj: Object, change: Callable[[Object], Object]) -> None:
            found.append(change(obj)["status"]["lastUsed"])

        running = asyncio.ensure_future(use.run(write))
        for _ in range(times):
            story(use)
            await asyncio.sleep(pause or 0.001)
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
        return found

    return run_virtually(main())


def test_a_use_is_written_once_in_the_time_that_was_asked_for() -> None:
    spec = {"reportUseSeconds": 60}
    assert len(written(lambda use: use.note("uid-1", SOMEBODY), spec=spec, times=10, pause=5)) == 1
    assert len(written(lambda use: use.note("uid-1", SOMEBODY), spec=spec, times=3, pause=61)) == 3


def test_a_clusters_own_parts_and_other_clusters_do_not_count() -> None:
    spec = {"reportUseSeconds": 60}
    assert not written(lambda use: use.note("uid-1", UserInfo("system:serviceaccount:default:app")), spec=spec)
    assert not written(lambda use: use.note("uid-2", SOMEBODY), spec=spec)
    assert not written(lambda use: use.note(None, SOMEBODY), spec=spec)


def test_a_cluster_that_does_not_ask_costs_nothing() -> None:
    assert not written(lambda use: use.note("uid-1", SOMEBODY), spec={})


def test_of_config_maps_only_the_published_one_may_be_asked_for_by_anybody() -> None:
    path = "/api/v1/namespaces/kube-public/configmaps/"
    assert is_public(path + "cluster-info")
    assert not is_public(path)
    assert not is_public(path + "cluster-info2")
    assert not is_public("/api/v1/namespaces/kube-system/configmaps/cluster-info")
