"""The same requests to us and to a real kube-apiserver: the answers must be the same, field by field.

What may differ stands in ``docs/known-differences.md``; every row there must still be needed. Where no real Kubernetes
has been built there is nothing to compare with, and the tests are skipped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from .differential.compare import Difference, Excuses, compare, read_excuses
from .differential.peers import Peer, both, real_kube_missing
from .differential.special import special_stories
from .differential.stories import Ask, Kind, stories

MISSING = real_kube_missing()
pytestmark = [
    pytest.mark.e2e,
    pytest.mark.xdist_group("differential"),
    pytest.mark.skipif(bool(MISSING), reason=MISSING),
]


@pytest.fixture(scope="module")
def peers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Peer, Peer]]:
    with both(tmp_path_factory.mktemp("differential")) as pair:
        yield pair


@pytest.fixture(scope="module")
def excuses() -> Excuses:
    return read_excuses()


def in_its_own_namespace(title: str, peers: tuple[Peer, Peer], tell: Callable[[Ask, str], None]) -> list[Difference]:
    """What differs in a story; both servers get a namespace for it, with an account for pods."""
    namespace = "d-" + title.lower().replace("_", "-").replace(" ", "-")
    for peer in peers:
        peer.request("POST", "/api/v1/namespaces", {"metadata": {"name": namespace}})
        account = {"metadata": {"name": "default"}, "automountServiceAccountToken": False}
        peer.request("POST", f"/api/v1/namespaces/{namespace}/serviceaccounts", account)
    ask = Ask(title, *peers)
    tell(ask, namespace)
    return [one for case, real, ours in ask.answers for one in compare(case, real, ours)]


def shown(found: list[Difference]) -> str:
    return "\n".join(map(str, found[:40]))


@pytest.mark.parametrize(("title", "kind", "tell"), [pytest.param(*one, id=one[0]) for one in stories()])
def test_a_kind_is_served_as_kubernetes_serves_it(
    peers: tuple[Peer, Peer], excuses: Excuses, title: str, kind: Kind, tell: Callable[[Ask, Kind, str], None]
) -> None:
    found = in_its_own_namespace(title, peers, lambda ask, namespace: tell(ask, kind.at(namespace), namespace))

    left = excuses.remaining(found)

    assert not left, f"{len(left)} differences:\n{shown(left)}"


@pytest.mark.parametrize("tell", [pytest.param(one, id=one.__name__) for one in special_stories()])
def test_whatever_has_ways_of_its_own(
    peers: tuple[Peer, Peer], excuses: Excuses, tell: Callable[[Ask, str], None]
) -> None:
    found = in_its_own_namespace(tell.__name__, peers, tell)

    left = excuses.remaining(found)

    assert not left, f"{len(left)} differences:\n{shown(left)}"


def test_every_known_difference_is_still_one(excuses: Excuses, request: pytest.FixtureRequest) -> None:
    if sum(item.path == request.path for item in request.session.items) < len(list(stories())):
        pytest.skip("not all stories were told")
    if hasattr(request.config, "workerinput"):
        pytest.skip("only one process that tells all stories knows; run this file without -n")

    assert not excuses.unused, "rows nothing needs any more:\n" + "\n".join(map(str, excuses.unused))
