"""The network of a node's pods, in the kernel: found again after a restart, gone when it is given up."""

from __future__ import annotations

import asyncio
import ipaddress
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetplane.node.addresses import AddressesExhausted, AddressPool
from fleetplane.node.network import BridgeNetwork, choose_networks, why_no_bridge
from fleetplane.node.processes import run_command
from fleetplane.node.runtime import PortMapping, RuntimeFailure
from fleetplane.node.sockets import connect_inside

# Addresses


def test_dual_stack_pods_have_one_of_each() -> None:
    pool = AddressPool(["fd00::/80", "10.0.0.0/24"])

    assert pool.take("a") == ("fd00::2", "10.0.0.2")
    assert pool.take("a") == ("fd00::2", "10.0.0.2")
    assert pool.take("b") == ("fd00::3", "10.0.0.3")


def test_freed_addresses_rest_before_they_are_used_again() -> None:
    pool = AddressPool(["10.0.0.0/29"])
    taken = [pool.take(str(n))[0] for n in range(5)]
    pool.give_back("0")
    assert len(set(taken)) == 5

    assert pool.take("new") == (taken[0],)
    with pytest.raises(AddressesExhausted):
        pool.take("too many")


@given(st.lists(st.tuples(st.sampled_from("tgr"), st.integers(0, 8)), max_size=60))
def test_no_address_is_ever_held_twice(steps: list[tuple[str, int]]) -> None:
    pool = AddressPool(["10.0.0.0/28"])
    held: dict[str, str] = {}
    for what, number in steps:
        owner = str(number)
        if what == "t":
            held[owner] = pool.take(owner)[0]
        elif what == "g":
            pool.give_back(owner)
            held.pop(owner, None)
        elif owner not in held:
            wanted = f"10.0.0.{number + 2}"
            if wanted not in held.values():
                pool.reserve(owner, [wanted])
                held[owner] = wanted
        assert len(set(held.values())) == len(held)


def test_networks_in_use_are_avoided() -> None:
    used = [ipaddress.ip_network("10.88.0.0/23"), ipaddress.ip_network("fd00::/64")]

    assert [str(n) for n in choose_networks(["10.88.0.0/16", "fd01::/64"], used)] == ["10.88.2.0/24", "fd01::/80"]
    with pytest.raises(ValueError, match="no free part"):
        choose_networks(["10.88.0.0/24"], used)


# The kernel


@pytest.fixture
async def network() -> AsyncIterator[BridgeNetwork]:
    if reason := why_no_bridge():
        pytest.skip(reason)
    made = BridgeNetwork(uuid.uuid4().hex[:8], ["10.94.0.0/16", "fd00:94::/64"])
    await made.start()
    yield made
    await made.stop(remove=True)


async def test_pods_reach_each_other_through_the_node(network: BridgeNetwork) -> None:
    one, two = await network.attach("a-0"), await network.attach("b-0")
    server = await asyncio.create_subprocess_exec(
        "ip", "netns", "exec", two.namespace.rpartition("/")[2], "busybox", "nc", "-l", "-p", "9", "-e", "echo"
    )
    try:
        for _ in range(50):
            script = ["busybox", "nc", "-w", "1", two.addresses[0], "9"]
            process = await asyncio.create_subprocess_exec(
                "ip", "netns", "exec", one.namespace.rpartition("/")[2], *script,
                stdin=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
            )  # fmt: skip
            if await process.wait() == 0:
                return
            await asyncio.sleep(0.05)
        raise AssertionError("one pod cannot reach the other")
    finally:
        if server.returncode is None:
            server.kill()
        await server.wait()


async def test_agents_that_start_together_choose_different_networks() -> None:
    if reason := why_no_bridge():
        pytest.skip(reason)
    made = [BridgeNetwork(uuid.uuid4().hex[:8], ["10.94.0.0/16"]) for _ in range(4)]
    try:
        await asyncio.gather(*(one.start() for one in made))

        assert len({one.networks for one in made}) == len(made)
    finally:
        for one in made:
            await one.stop(remove=True)


async def test_the_node_keeps_its_link_address_as_pods_come_and_go(network: BridgeNetwork) -> None:
    """A pod remembers its gateway's for half a minute."""
    address = Path("/sys/class/net") / network.bridge / "address"
    before = address.read_text()
    for number in range(8):
        await network.attach(f"a-{number}")
        assert address.read_text() == before
    for number in range(8):
        await network.detach(f"a-{number}")
        assert address.read_text() == before


async def test_a_bridge_of_an_earlier_release_keeps_its_link_address_from_now_on(network: BridgeNetwork) -> None:
    bridge = Path("/sys/class/net") / network.bridge
    await run_command(["ip", "link", "delete", network.bridge])
    await run_command(["ip", "link", "add", network.bridge, "type", "bridge"])
    await run_command(["ip", "addr", "add", "10.94.0.1/24", "dev", network.bridge])
    await network.attach("a-0")
    before = (bridge / "address").read_text()

    again = BridgeNetwork(network.bridge[2:], ["10.94.0.0/16", "fd00:94::/64"])
    await again.start()

    assert (bridge / "address").read_text() == before
    assert (bridge / "addr_assign_type").read_text().strip() == "3"  # NET_ADDR_SET: no port changes it


async def test_a_new_agent_finds_what_is_there(network: BridgeNetwork) -> None:
    before = await network.attach("a-0")
    again = BridgeNetwork(network.bridge[2:], ["10.94.0.0/16", "fd00:94::/64"])
    await again.start()

    assert again.attached() == {"a-0": before}
    assert again.networks == network.networks
    assert (await again.attach("b-0")).addresses != before.addresses


async def test_host_ports_lead_to_the_pod_and_are_taken_once(network: BridgeNetwork) -> None:
    port = PortMapping(48_123, 80)
    first = await network.attach("a-0", [port])
    server = await asyncio.create_subprocess_exec(
        "ip", "netns", "exec", first.namespace.rpartition("/")[2], "busybox", "httpd", "-f", "-p", "80", "-h", "/etc"
    )
    try:
        await asyncio.sleep(0.2)
        reader, writer = await asyncio.open_connection("127.0.0.1", 48_123)
        writer.write(b"GET /hostname HTTP/1.0\r\n\r\n")
        assert b"200 OK" in await reader.readline()
        writer.close()
    finally:
        server.kill()
        await server.wait()
    with pytest.raises(RuntimeFailure, match="host port 48123/TCP is already in use"):
        await network.attach("b-0", [port])
    await network.detach("a-0")
    await network.attach("b-0", [port])


async def test_a_connection_is_made_inside(network: BridgeNetwork) -> None:
    attachment = await network.attach("a-0")

    with pytest.raises(RuntimeFailure, match="failed to connect to localhost:1"):
        await connect_inside(attachment.namespace, 1)


async def test_nothing_is_left_when_it_is_given_up(network: BridgeNetwork) -> None:
    await network.attach("a-0")
    await network.stop(remove=True)

    assert network.bridge not in (await run_command(["ip", "link"])).decode()
    assert network.bridge[2:] not in (await run_command(["nft", "list", "tables"])).decode()
