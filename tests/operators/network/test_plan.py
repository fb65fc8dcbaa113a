"""The allocator: sets of addresses, and who has which."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleetplane.operators.network.kinds import IPPoolSpec
from fleetplane.operators.network.plan import Exhausted, Ledger, NotGiven, Pool, ledger_of
from fleetplane.operators.network.ranges import Interval, Space, address, parse, text_of, usable


def pool(**spec: object) -> Pool:
    return Pool.of(IPPoolSpec.view(spec))


def test_a_network_keeps_its_own_its_broadcast_and_its_gateways_address() -> None:
    ledger = Ledger(pool(cidr="10.0.0.0/29", gateway="10.0.0.1"))

    given_out = [ledger.take(str(number))[0] for number in range(5)]

    assert given_out == ["10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.5", "10.0.0.6"]
    with pytest.raises(Exhausted):
        ledger.take("one more")


@given(st.integers(0, (1 << 128) - 1) | st.integers(0, (1 << 56) - 1) | st.sampled_from([1, 0xFFFF << 32, 1 << 64]))
def test_addresses_are_written_and_read_as_python_does(number: int) -> None:
    six, four = ipaddress.IPv6Address(number), ipaddress.IPv4Address(number & 0xFFFFFFFF)

    assert (text_of("IPv6", number), text_of("IPv4", int(four))) == (str(six), str(four))
    assert (address(six.exploded), address(str(four))) == (("IPv6", number), ("IPv4", int(four)))


@given(st.text("0123456789af:.", max_size=20))
def test_what_is_no_address_for_python_is_none_here(text: str) -> None:
    try:
        expected = int(ipaddress.ip_address(text))
    except ValueError:
        with pytest.raises(ValueError, match="does not appear"):
            address(text)
    else:
        assert address(text)[1] == expected


def test_exclusions_and_ranges_are_as_said() -> None:
    ledger = Ledger(pool(ranges=["10.0.0.10-10.0.0.13", "10.0.1.0/31"], exclude=["10.0.0.11", "10.0.0.12-10.0.0.12"]))

    assert [ledger.take(str(n))[0] for n in range(4)] == ["10.0.0.10", "10.0.0.13", "10.0.1.0", "10.0.1.1"]


def test_both_families_or_none() -> None:
    ledger = Ledger(pool(ranges=["10.0.0.0/31", "fd00::/126"]))

    assert ledger.take("a") == ["10.0.0.0", "fd00::"]
    assert ledger.take("b", ["IPv6"]) == ["fd00::1"]
    ledger.take("c")
    with pytest.raises(Exhausted):
        ledger.take("d")
    assert ledger.used("IPv6") == 3


def test_what_is_asked_for_is_given_or_refused_with_the_reason() -> None:
    ledger = Ledger(pool(cidr="10.0.0.0/24", reserved=[{"ip": "10.0.0.9", "owner": "vc/m"}, {"ip": "10.0.0.8"}]))

    assert ledger.take("default/a", wanted=["10.0.0.7"]) == ["10.0.0.7"]
    with pytest.raises(NotGiven, match="held by default/a"):
        ledger.take("b", wanted=["10.0.0.7"])
    with pytest.raises(NotGiven, match="not an address that the pool gives out"):
        ledger.take("b", wanted=["10.0.1.7"])
    with pytest.raises(NotGiven, match="reserved for nobody"):
        ledger.take("b", wanted=["10.0.0.8"])
    assert ledger.take("b", owner="vc/m") == ["10.0.0.9"]


def test_sticky_gives_the_same_owner_the_same_address() -> None:
    first, second = (Ledger(pool(cidr="10.0.0.0/16", allocation="Sticky")) for _ in range(2))
    second.take("other", owner="vc/w1", seed="x")

    assert first.take("a", owner="vc/m", seed="1") == second.take("b", owner="vc/m", seed="2")


def test_released_addresses_come_round_again_last() -> None:
    ledger = Ledger(pool(ranges=["10.0.0.1-10.0.0.3"]))
    ledger.take("a")
    ledger.take("b")
    ledger.drop("a")

    assert ledger.take("c") == ["10.0.0.3"]
    assert ledger.take("d") == ["10.0.0.1"]


def test_a_ledger_is_rebuilt_from_claims() -> None:
    def claim(name: str, *addresses: str) -> dict:
        return {"metadata": {"name": name, "namespace": "n"}, "spec": {"addresses": list(addresses)}}

    ledger = ledger_of(pool(ranges=["10.0.0.1-10.0.0.3"]), [claim("a", "10.0.0.1"), claim("b", "10.0.0.3"), claim("c")])

    assert ledger.holder("10.0.0.3") == "n/b"
    assert ledger.take("new") == ["10.0.0.2"]


def test_a_huge_network_costs_no_more_than_a_small_one() -> None:
    ledger = Ledger(pool(cidr="fd00::/32", allocation="Random"))

    taken = {ledger.take(str(n), seed=str(n))[0] for n in range(100)}

    assert len(taken) == 100
    assert all(ipaddress.ip_address(one) in ipaddress.ip_network("fd00::/32") for one in taken)


@pytest.mark.parametrize("text", ["10.0.0.1/24", "10.0.0.9-10.0.0.1", "10.0.0.1-fd00::1", "x", ""])
def test_what_is_no_range_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"\S"):
        parse(text)


@pytest.mark.parametrize(
    ("cidr", "count"),
    [("10.0.0.0/30", 2), ("10.0.0.0/31", 2), ("10.0.0.0/32", 1), ("fd00::/126", 3), ("fd00::/127", 2)],
)
def test_how_many_hosts_a_network_has(cidr: str, count: int) -> None:
    assert Space([usable(cidr)]).size == count


intervals = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 8)), max_size=5).map(
    lambda pairs: [Interval("IPv4", first, first + more) for first, more in pairs]
)


@given(intervals, intervals)
@settings(max_examples=150)
def test_a_space_is_the_set_it_says(given_: list[Interval], without: list[Interval]) -> None:
    def members(found: list[Interval]) -> set[int]:
        return {number for one in found for number in range(one.first, one.last + 1)}

    space = Space(given_, without)
    expected = sorted(members(given_) - members(without))

    assert [space.at(rank) for rank in range(space.size)] == expected
    assert [space.find(number) for number in expected] == list(range(space.size))
    assert all((number in space) == (number in expected) for number in range(80))


actions = st.lists(
    st.tuples(st.sampled_from(["take", "drop", "ask"]), st.integers(0, 9), st.integers(0, 15)), max_size=60
)


@given(actions, st.sampled_from(["Sequential", "Random", "Sticky"]))
@settings(max_examples=150)
def test_no_address_ever_has_two_holders(steps: list[tuple[str, int, int]], allocation: str) -> None:
    ledger = Ledger(pool(ranges=["10.0.0.0/29", "fd00::/125"], exclude=["10.0.0.3"], allocation=allocation))
    held: dict[str, list[str]] = {}
    for what, number, one in steps:
        holder = f"h{number}"
        if what == "drop" or holder in held:
            ledger.drop(holder)
            held.pop(holder, None)
            continue
        wanted = [f"10.0.0.{one}"] if what == "ask" else []
        try:
            held[holder] = ledger.take(holder, wanted=wanted, owner=f"c/{number}", seed=f"{number}-{one}")
        except (Exhausted, NotGiven):
            continue
        everything = [one for addresses in held.values() for one in addresses]
        assert len(everything) == len(set(everything))
        assert "10.0.0.3" not in everything
    assert ledger.used("IPv4") == len(held)
