"""The standard tasks with workloads end the same here as on a real control plane 1.20 with its own controllers.

What may differ stands in ``docs/known-differences.md``, under "What workloads leave behind". Where no real control plane
has been built there is nothing to compare with, and the tests are skipped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from .differential.compare import Difference, Excuses, differences, read_excuses
from .workload_stories.clusters import Cluster, both_clusters, missing
from .workload_stories.outcome import outcome
from .workload_stories.told import LONG, STORIES, Story

Told = Callable[[Story], tuple[object, object]]
"""What a story left behind on the real cluster and on ours; waits until it has been told."""

AT_ONCE = 8
MISSING = missing()
pytestmark = [
    pytest.mark.e2e,
    pytest.mark.xdist_group("workload-stories"),
    pytest.mark.skipif(bool(MISSING), reason=MISSING),
]


@pytest.fixture(scope="module")
def clusters(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Cluster, Cluster]]:
    with both_clusters(tmp_path_factory.mktemp("stories")) as pair:
        yield pair


@pytest.fixture(scope="module")
def excuses() -> Excuses:
    return read_excuses(first="story")


@pytest.fixture(scope="module")
def told(clusters: tuple[Cluster, Cluster], request: pytest.FixtureRequest) -> Iterator[Told]:
    """All stories of this run, under way to both clusters: most of each is waiting, so several are told at a time."""
    wanted = {item.callspec.params["story"] for item in request.session.items if hasattr(item, "callspec") and item.path == request.path}  # fmt: skip
    with ThreadPoolExecutor(AT_ONCE) as tellers:
        under_way = {one: [tellers.submit(tell, one, cluster) for cluster in clusters] for one in (*STORIES, *LONG) if one in wanted}  # fmt: skip
        yield lambda story: (under_way[story][0].result(), under_way[story][1].result())


def tell(story: Story, cluster: Cluster) -> object:
    """What a story leaves behind in a namespace of its own."""
    namespace = "w-" + story.__name__.replace("_", "-")
    here = cluster.within(namespace)
    here("create", "namespace", namespace)
    here.until(lambda: "default" in here("get", "serviceaccounts", check=False), "the account of the namespace")
    story(here)
    left = outcome(here)
    here("delete", "namespace", namespace, "--wait=false")
    return left


def check(story: Story, told: Told, excuses: Excuses) -> None:
    real, ours = told(story)

    found = [Difference(story.__name__, *one) for one in differences("", real, ours)]

    left = excuses.remaining(found)

    assert not left, f"{len(left)} differences:\n" + "\n".join(map(str, left[:40]))


@pytest.mark.parametrize("story", [pytest.param(one, id=one.__name__) for one in STORIES])
def test_a_task_ends_as_on_kubernetes(story: Story, told: Told, excuses: Excuses) -> None:
    check(story, told, excuses)


@pytest.mark.soak
@pytest.mark.parametrize("story", [pytest.param(one, id=one.__name__) for one in LONG])
def test_another_task_ends_as_on_kubernetes(story: Story, told: Told, excuses: Excuses) -> None:
    check(story, told, excuses)


def test_every_known_difference_is_still_one(excuses: Excuses, request: pytest.FixtureRequest) -> None:
    told = [item for item in request.session.items if item.path == request.path]
    if len(told) <= len(STORIES) + len(LONG) or hasattr(request.config, "workerinput"):
        pytest.skip("not all stories were told in this process")

    assert not excuses.unused, "rows nothing needs any more:\n" + "\n".join(map(str, excuses.unused))
