"""Which ways lead to the pods of other nodes."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetplane.node.network import BridgeNetwork, Choose, choose_networks
from fleetplane.node.routes import Peer, metric_of, peers_of


def node(name: str, addresses: list[str], networks: list[str]) -> dict[str, Any]:
    told = [{"type": "InternalIP", "address": one} for one in addresses]
    return {
        "metadata": {"name": name},
        "spec": {"podCIDRs": networks},
        "status": {"addresses": [*told, {"type": "Hostname", "address": name}]},
    }


def test_each_network_goes_by_an_address_of_its_family() -> None:
    (peer,) = peers_of(
        [
            node("here", ["192.0.2.1"], ["10.1.0.0/24"]),
            node("b", ["192.0.2.2", "fd00::2"], ["10.2.0.0/24", "fd01::/80"]),
        ],
        "here",
    )

    assert peer.ways() == [("10.2.0.0/24", "192.0.2.2"), ("fd01::/80", "fd00::2")]


def test_a_network_without_an_address_of_its_family_has_no_way() -> None:
    assert Peer("b", ("192.0.2.2",), ("fd01::/80",)).ways() == []


def test_what_is_no_address_is_left_out() -> None:
    (peer,) = peers_of([node("b", ["nonsense", "192.0.2.2"], ["10.2.0.0/24", "-j ACCEPT"])], "here")

    assert peer == Peer("b", ("192.0.2.2",), ("10.2.0.0/24",))


@given(st.integers(0, 2**48), st.integers(0, 2**48))
def test_whoever_begins_elsewhere_chooses_otherwise(one: int, other: int) -> None:
    first, second = (choose_networks(["10.88.0.0/16"], [], start) for start in (one, other))

    assert (first == second) == (one % 256 == other % 256)
    assert first[0].subnet_of(ipaddress.ip_network("10.88.0.0/16"))  # type: ignore[arg-type]


@given(st.integers(0, 2**48))
def test_a_start_anywhere_finds_the_last_free_part(start: int) -> None:
    used = [one for one in ipaddress.ip_network("10.88.0.0/20").subnets(new_prefix=24) if str(one) != "10.88.7.0/24"]

    assert choose_networks(["10.88.0.0/20"], used, start) == (ipaddress.ip_network("10.88.7.0/24"),)


def test_agents_on_one_machine_have_routes_of_their_own() -> None:
    assert metric_of("3b1c44aa") != metric_of("3b1c44ab")
    assert 0 < int(metric_of("ffffffff")) < 2**31


class Kept:
    """A bridge that is never made; only its choice is looked at."""

    def __init__(self, directory: Path, taken: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
        async def agree(choose: Choose) -> Any:
            return choose((), [ipaddress.ip_network(one) for one in taken])

        async def used() -> list[Any]:
            return []

        self.network = BridgeNetwork("abcd1234", ["10.88.0.0/23"], directory / "networks.json", agree)
        monkeypatch.setattr(self.network, "_used_networks", used)

    async def chosen(self) -> list[str]:
        return [str(one) for one in await self.network._chosen()]


async def test_networks_of_other_nodes_are_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert await Kept(tmp_path, ["10.88.0.0/24"], monkeypatch).chosen() == ["10.88.1.0/24"]


async def test_a_machine_keeps_its_networks_over_a_reboot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = await Kept(tmp_path, [], monkeypatch).chosen()

    assert await Kept(tmp_path, first, monkeypatch).chosen() == first
