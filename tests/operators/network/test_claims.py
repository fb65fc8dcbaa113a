"""Claims through their lives on a real server: one write, one holder, held while paused, rested after release."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from tests.operators.network.stage import Stage, staged
from tests.operators.staging import define

from fleetplane.model.builtin.types import NAMESPACES, PODS
from fleetplane.model.errors import ApiError
from fleetplane.model.objects import Object
from fleetplane.operators.network import network
from fleetplane.operators.network.kinds import IPClaim, IPPool
from fleetplane.store.sqlite import SqliteStore
from fleetplane.testing import SimulatedEnvironment, run_virtually, running_server

WRITERS = 32


@staged()
async def test_the_answer_to_the_create_holds_the_addresses(stage: Stage) -> None:
    await stage.pool(cidr="10.0.0.0/24", ranges=["fd00::/64"])

    made = await stage.claim("a", cluster="vc", node="m")

    assert made["spec"]["addresses"] == ["10.0.0.1", "fd00::"]
    found = await stage.phase("a", "Reserved")
    assert found["status"]["conditions"][0]["status"] == "True"


@staged()
async def test_a_cluster_and_node_have_one_claim(stage: Stage) -> None:
    await stage.pool(cidr="10.0.0.0/24")
    first = await stage.claim("a", cluster="vc", node="m")

    with pytest.raises(ApiError) as again:
        await stage.claim("a", cluster="vc", node="m")
    with pytest.raises(ApiError) as twice:
        await stage.claim("b", cluster="vc", node="m")

    assert (again.value.reason, twice.value.code) == ("AlreadyExists", 422)
    assert "spec.node" in twice.value.message
    assert (await stage.find(IPClaim, "a"))["spec"] == first["spec"]


@staged()
async def test_of_32_writers_at_once_no_two_get_the_same(stage: Stage) -> None:
    """Half of them ask for the same few addresses, the others take what comes; the pool is just too small."""
    await stage.pool(ranges=["10.0.0.1-10.0.0.60"], quarantineSeconds=0)
    held: dict[str, str] = {}

    async def writer(number: int) -> None:
        for turn in range(6):
            name = f"w{number}-{turn}"
            wanted = {"addresses": [f"10.0.0.{1 + (number * 7 + turn) % 9}"]} if number % 2 else {}
            try:
                made = await stage.claim(name, **wanted)
            except ApiError as error:
                assert error.code == 422, error
                continue
            for one in made["spec"].get("addresses") or ():
                assert held.setdefault(one, name) == name, one
            if turn % 3 == 2 and made["spec"].get("addresses"):
                held.pop(made["spec"]["addresses"][0])
                await stage.client.delete(IPClaim, name, "default")

    await asyncio.gather(*(writer(number) for number in range(WRITERS)))

    claims = (await stage.client.list(IPClaim, "default")).items
    given = [one for claim in claims for one in claim["spec"].get("addresses") or ()]
    assert len(given) == len(set(given))
    assert len(given) > 40


@staged()
async def test_without_a_pool_a_claim_waits_and_nothing_is_refused(stage: Stage) -> None:
    await stage.claim("a", cluster="vc", node="m")
    found = await stage.phase("a", "Pending")
    assert "there is no IPPool pool" in found["status"]["conditions"][0]["message"]

    await stage.pool(cidr="10.0.0.0/24")

    assert (await stage.phase("a", "Reserved"))["spec"]["addresses"] == ["10.0.0.1"]


@staged()
async def test_an_empty_pool_makes_wait_until_somebody_gives_back(stage: Stage) -> None:
    await stage.pool(ranges=["10.0.0.1-10.0.0.1"])
    await stage.claim("a")
    await stage.claim("b")
    await stage.phase("b", "Pending")

    await stage.client.delete(IPClaim, "a", "default")

    assert (await stage.phase("b", "Reserved"))["spec"]["addresses"] == ["10.0.0.1"]


@staged()
async def test_a_reservation_that_nobody_uses_ends(stage: Stage) -> None:
    await stage.pool(cidr="10.0.0.0/24")
    await stage.claim("a", ttlSeconds=300)
    await stage.claim("b", ttlSeconds=300, use="Allocated")

    await asyncio.sleep(290)
    assert await stage.find(IPClaim, "a")
    await stage.gone("a", timeout=30)

    assert (await stage.find(IPClaim, "b"))["status"]["phase"] == "Allocated"


def pod(address: str) -> Object:
    return {
        "metadata": {"name": "m-0", "labels": {"vnode": "m"}},
        "spec": {"containers": [{"name": "a", "image": "a"}], "terminationGracePeriodSeconds": 0, "nodeName": "n"},
    }


async def use(stage: Stage, address: str) -> None:
    stage_pod = await stage.client.create(PODS, pod(address), "default")
    status = {"status": {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}]}}
    await stage.client.patch(PODS, stage_pod["metadata"]["name"], status, "default", subresource="status")


@staged()
async def test_an_address_is_held_while_its_node_is_stopped(stage: Stage) -> None:
    await stage.server.call(
        "POST", "/api/v1/namespaces/default/serviceaccounts", {"metadata": {"name": "default", "namespace": "default"}}
    )
    await stage.pool(cidr="10.0.0.0/24")
    made = await stage.claim("a", cluster="vc", node="m")
    await use(stage, made["spec"]["addresses"][0])
    await stage.phase("a", "Allocated")

    await stage.client.delete(PODS, "m-0", "default", grace_period_seconds=0)

    await stage.phase("a", "Held")
    await asyncio.sleep(100_000)
    assert (await stage.find(IPClaim, "a"))["status"]["phase"] == "Held"
    assert (await stage.claim("b"))["spec"]["addresses"] != made["spec"]["addresses"]


@staged()
async def test_a_hold_that_was_limited_ends(stage: Stage) -> None:
    await stage.pool(cidr="10.0.0.0/24", quarantineSeconds=0)
    await stage.claim("a", holdSeconds=600, use="Held")

    await stage.phase("a", "Held")
    await asyncio.sleep(500)
    assert await stage.find(IPClaim, "a")
    await stage.gone("a")


@staged()
async def test_a_used_address_rests_before_somebody_else_gets_it(stage: Stage) -> None:
    await stage.pool(ranges=["10.0.0.1-10.0.0.1"], quarantineSeconds=120)
    await stage.claim("a", use="Allocated")
    await stage.phase("a", "Allocated")

    await stage.client.delete(IPClaim, "a", "default")
    await stage.phase("a", "Quarantined")
    await stage.claim("b")
    await asyncio.sleep(110)

    assert not (await stage.find(IPClaim, "b"))["spec"].get("addresses")
    await stage.gone("a", timeout=30)
    await stage.phase("b", "Reserved")


@staged()
async def test_addresses_are_fixed_once_given(stage: Stage) -> None:
    await stage.pool(cidr="10.0.0.0/24")
    await stage.claim("a")

    for change in ({"addresses": ["10.0.0.9"]}, {"addresses": []}, {"pool": "other"}):
        with pytest.raises(ApiError) as refused:
            await stage.client.patch(IPClaim, "a", {"spec": change}, "default")
        assert refused.value.code == 422


@staged()
async def test_networks_of_their_own_may_use_the_same_addresses(stage: Stage) -> None:
    await stage.pool("red", ranges=["10.0.0.1-10.0.0.1"], vpcRef="red")
    await stage.pool("blue", ranges=["10.0.0.1-10.0.0.1"], vpcRef="blue")

    red, blue = await stage.claim("a", "red"), await stage.claim("b", "blue")

    assert red["spec"]["addresses"] == blue["spec"]["addresses"] == ["10.0.0.1"]


@staged()
async def test_pools_that_overlap_say_so_and_give_each_address_once(stage: Stage) -> None:
    await stage.pool("one", ranges=["10.0.0.1-10.0.0.2"])
    await stage.pool("two", ranges=["10.0.0.1-10.0.0.2"])

    claims = [await stage.claim(f"c{n}", "one" if n % 2 else "two") for n in range(2)]

    assert {claim["spec"]["addresses"][0] for claim in claims} == {"10.0.0.1", "10.0.0.2"}

    async def told() -> bool:
        return (await stage.find(IPPool, "one", None)).get("status", {}).get("conflicts") == ["two"]

    await stage.until(told)


@staged()
async def test_a_pool_says_how_full_it_is(stage: Stage) -> None:
    await stage.pool(ranges=["10.0.0.1-10.0.0.10"])
    for number in range(4):
        await stage.claim(f"c{number}", **({"use": "Allocated"} if number else {}))

    async def counted() -> bool:
        status = (await stage.find(IPPool, "pool", None)).get("status") or {}
        return (status.get("used"), status.get("free"), status.get("allocated")) == (4, 6, 3)

    await stage.until(counted)


@staged()
async def test_claims_that_come_after_a_count_are_counted_too(stage: Stage) -> None:
    await stage.pool(cidr="10.0.0.0/24")
    for batch in range(3):
        for number in range(5):
            await stage.claim(f"c{batch}-{number}")

        async def counted(expected: int = 5 * (batch + 1)) -> bool:
            return ((await stage.find(IPPool, "pool", None)).get("status") or {}).get("used") == expected

        await stage.until(counted)


@staged()
async def test_an_edit_of_a_pool_holds_for_the_very_next_claim(stage: Stage) -> None:
    await stage.pool(cidr="10.0.0.0/24")
    for number in range(1, 6):
        await stage.client.patch(IPPool, "pool", {"spec": {"cidr": f"10.0.{number}.0/24", "vpcRef": f"net-{number}"}})

        spec = (await stage.claim(f"c{number}"))["spec"]

        assert (spec["addresses"], spec["vpcRef"]) == ([f"10.0.{number}.1"], f"net-{number}")
    await stage.client.delete(IPPool, "pool")
    assert "addresses" not in (await stage.claim("too-late"))["spec"]


@staged()
async def test_of_two_families_the_smaller_one_limits(stage: Stage) -> None:
    await stage.pool(ranges=["10.0.0.1-10.0.0.10", "fd00::/64"])
    await stage.claim("both")
    await stage.claim("one", families=["IPv6"])

    async def counted() -> bool:
        status = (await stage.find(IPPool, "pool", None)).get("status") or {}
        return (status.get("capacity"), status.get("used"), status.get("free")) == (10, 2, 9)

    await stage.until(counted)


@staged()
async def test_a_pool_serves_the_namespaces_it_names(stage: Stage) -> None:
    await stage.pool(cidr="10.0.0.0/24", namespaces={"matchLabels": {"tenant": "a"}})
    with pytest.raises(ApiError) as refused:
        await stage.claim("a")
    assert "does not serve namespace default" in refused.value.message

    await stage.client.patch(NAMESPACES, "default", {"metadata": {"labels": {"tenant": "a"}}})

    assert (await stage.claim("a"))["spec"]["addresses"] == ["10.0.0.1"]
    await stage.client.patch(NAMESPACES, "default", {"metadata": {"labels": {"tenant": "b"}}})
    with pytest.raises(ApiError):
        await stage.claim("b")


@pytest.mark.parametrize(
    "spec",
    [
        {},
        {"cidr": "10.0.0.1/24"},
        {"ranges": ["10.0.0.9-10.0.0.1"]},
        {"cidr": "10.0.0.0/24", "exclude": ["nonsense"]},
        {"cidr": "10.0.0.0/24", "gateway": "10.0.0.0/30"},
        {"cidr": "10.0.0.0/24", "reserved": [{"ip": "10.0.1.1"}]},
        {"cidr": "10.0.0.0/24", "reserved": [{"ip": "10.0.0.5"}, {"ip": "10.0.0.5"}]},
    ],
)
def test_pools_that_make_no_sense_are_refused(spec: Object) -> None:
    @staged()
    async def story(stage: Stage) -> None:
        with pytest.raises(ApiError) as refused:
            await stage.pool(**spec)
        assert refused.value.code == 422

    story()


@staged(admission=False)
async def test_where_admission_is_not_ours_the_controller_fills_in(stage: Stage) -> None:
    await stage.pool(ranges=["10.0.0.1-10.0.0.40"])

    await asyncio.gather(*(stage.claim(f"c{number}") for number in range(30)))

    async def all_filled() -> list[str] | None:
        claims = (await stage.client.list(IPClaim, "default")).items
        given = [one for claim in claims for one in claim["spec"].get("addresses") or ()]
        return given if len(given) == 30 else None

    given = await stage.until(all_filled)
    assert len(set(given)) == 30


def test_after_a_restart_the_claims_say_what_is_given_out(tmp_path: Path) -> None:
    """The picture that admission has is gone with the process; the objects are not."""

    async def claimed(name: str) -> list[str]:
        environment = SimulatedEnvironment(0)
        store = await SqliteStore.open(tmp_path / "store.db", environment=environment)
        operator = network()
        async with running_server(environment=environment, plugins=operator.admission, store=store) as server:
            client = server.client()
            if name == "first":
                await define(client, operator)
                spec = {"ranges": ["10.0.0.1-10.0.0.9"]}
                await client.create(IPPool, {"metadata": {"name": "pool"}, "spec": spec})
            made = await client.create(IPClaim, {"metadata": {"name": name}, "spec": {"pool": "pool"}}, "default")
            return list(made["spec"]["addresses"])

    assert run_virtually(claimed("first")) == ["10.0.0.1"]
    assert run_virtually(claimed("second")) == ["10.0.0.2"]
