"""Providers: idempotent by token, gone already is success, failures in their own words."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetplane.model.builtin.types import CONFIG_MAPS
from fleetplane.operators.peerpods.providers.aws import aws
from fleetplane.operators.peerpods.providers.byom import MAX_ADDRESSES, STATE, Pool, addresses_of
from fleetplane.operators.peerpods.providers.protocol import (
    CLUSTER_TAG,
    Failure,
    InstanceType,
    ProviderError,
    Size,
    Surroundings,
    VmSpec,
    best_fit,
)
from fleetplane.testing import SimulatedEnvironment, TestServer, running_server, virtually

TAGS = {CLUSTER_TAG: "c"}


def spec(token: str, **size: Any) -> VmSpec:
    return VmSpec(token, f"podvm-{token}", TAGS, Size(**size))


# -- choosing a type

SIZES = st.tuples(st.integers(0, 8), st.integers(0, 16), st.integers(0, 2))


@given(st.lists(SIZES, max_size=6), SIZES)
def test_the_type_fits_and_none_smaller_does(listed: list[tuple[int, int, int]], asked: tuple[int, int, int]) -> None:
    types = [InstanceType(f"t{i}", *one) for i, one in enumerate(listed)]
    size = Size(*asked)

    found = best_fit(types, size)

    able = [
        one
        for one in types
        if one.vcpus >= size.vcpus and one.memory_mib >= size.memory_mib and one.gpus >= size.gpus
        if size.gpus or one.gpus == 0
    ]
    assert (found is None) == (not able)
    assert found is None or all(
        (found.gpus, found.memory_mib, found.vcpus) <= (one.gpus, one.memory_mib, one.vcpus) for one in able
    )


def test_lists_a_binary_search_trips_over() -> None:
    first = [InstanceType(str(i), cpu, memory) for i, (memory, cpu) in enumerate([(4, 2), (8, 8), (16, 4), (32, 4)])]
    second = [InstanceType(str(i), cpu, memory) for i, (memory, cpu) in enumerate([(4, 4), (8, 2), (16, 2), (32, 8)])]

    assert best_fit(first, Size(8, 8)) == first[1]
    assert best_fit(second, Size(4, 4)) == second[0]


# -- a pool of machines


def pool(server: TestServer, addresses: str = "10.0.0.1-10.0.0.3", dead: frozenset[str] = frozenset()) -> Pool:
    async def reachable(address: str) -> bool:
        return address not in dead

    surroundings = Surroundings(server.client(), SimulatedEnvironment(0), "default")
    return Pool(addresses_of(addresses), surroundings, namespace="default", reachable=reachable)


@virtually
async def test_a_machine_serves_one_token_and_the_same_again() -> None:
    async with running_server() as server:
        machines = pool(server)

        first = await machines.create(spec("a"))

        assert await machines.create(spec("a")) == first
        assert (await machines.create(spec("b"))).id != first.id
        assert await machines.describe(token="a") == first
        assert {one.token for one in await machines.list(TAGS)} == {"a", "b"}


@virtually
async def test_many_at_once_never_share_a_machine_and_the_pool_ends() -> None:
    async with running_server() as server:
        both = [pool(server), pool(server)]

        async def take(index: int) -> Any:
            try:
                return await both[index % 2].create(spec(f"t{index}"))
            except ProviderError as error:
                return error.failure

        found = await asyncio.gather(*(take(index) for index in range(5)))

        machines = [one.id for one in found if not isinstance(one, Failure)]
        assert len(machines) == len(set(machines)) == 3
        assert Failure.QUOTA in found


@virtually
async def test_a_machine_that_does_not_answer_is_passed_over() -> None:
    async with running_server() as server:
        found = await pool(server, dead=frozenset({"10.0.0.1"})).create(spec("a"))

        assert found.id == "10.0.0.2"


@virtually
async def test_what_was_given_back_rests_longest_before_it_is_used_again() -> None:
    async with running_server() as server:
        machines = pool(server)
        first = await machines.create(spec("a"))
        await machines.delete(first.id)
        await machines.delete(first.id)

        assert await machines.describe(id=first.id) is None
        assert (await machines.create(spec("b"))).id != first.id


@virtually
async def test_a_damaged_state_is_said_plainly() -> None:
    async with running_server() as server:
        held = {"metadata": {"name": STATE}, "data": {"state": '{"allocatedIPs": 3}'}}
        await server.client().create(CONFIG_MAPS, held, "default")

        with pytest.raises(ProviderError, match="repair or delete"):
            await pool(server).create(spec("a"))


@pytest.mark.parametrize("text", ["", "x", "10.0.0.9-10.0.0.1", "10.0.0.0-10.0.255.0", "::1-10.0.0.1", "::-ffff::"])
def test_addresses_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(ProviderError):
        addresses_of(text)


def test_addresses_may_be_ranges_and_of_either_family() -> None:
    assert addresses_of("10.0.0.1, fd00::1-fd00::2,10.0.0.1") == ["10.0.0.1", "fd00::1", "fd00::2"]
    assert len(addresses_of("10.0.0.1-10.0.0.100")) == MAX_ADDRESSES


# -- EC2, on moto


@pytest.fixture
def ec2() -> Any:
    pytest.importorskip("boto3")
    moto = pytest.importorskip("moto")
    with moto.mock_aws():
        settings = {
            "AWS_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": "a",
            "AWS_SECRET_ACCESS_KEY": "b",
            "PODVM_AMI_ID": "ami-12c6146b",
            "PODVM_INSTANCE_TYPE": "t3.small",
            "PODVM_INSTANCE_TYPES": "t3.small,t3.medium,m5.large,m5.xlarge",
        }
        yield aws(settings, None)  # type: ignore[arg-type]


async def test_ec2_makes_one_instance_for_a_token(ec2: Any) -> None:
    first = await ec2.create(spec("a"))
    again = await ec2.create(spec("a"))

    assert again.id == first.id
    assert first.size.instance_type == "t3.small"
    assert (await ec2.describe(token="a")).addresses
    assert [one.id for one in await ec2.list(TAGS)] == [first.id]
    assert await ec2.list({CLUSTER_TAG: "another"}) == []


async def test_ec2_takes_the_smallest_type_that_fits(ec2: Any) -> None:
    assert (await ec2.create(spec("a", vcpus=2, memory_mib=4096))).size.instance_type == "t3.medium"
    assert (await ec2.create(spec("b", vcpus=4, memory_mib=1024))).size.instance_type == "m5.xlarge"
    with pytest.raises(ProviderError, match="no type"):
        await ec2.create(spec("c", vcpus=400))
    with pytest.raises(ProviderError, match="PODVM_INSTANCE_TYPES"):
        await ec2.create(spec("d", instance_type="p4d.24xlarge"))


async def test_ec2_deletes_and_gone_already_is_success(ec2: Any) -> None:
    made = await ec2.create(spec("a"))

    await ec2.delete(made.id)
    await ec2.delete(made.id)
    await ec2.delete("i-0123456789abcdef0")

    assert await ec2.describe(id=made.id) is None
    assert await ec2.describe(token="a") is None


def test_without_boto3_or_region_it_is_said_what_to_do() -> None:
    with pytest.raises(ProviderError, match=r"boto3|AWS_REGION"):
        aws({}, None)  # type: ignore[arg-type]
