"""The IP manager's old calls: the same paths, keys and words, without what was wrong with them."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from aiohttp.test_utils import TestClient
from aiohttp.test_utils import TestServer as HttpServer
from tests.operators.network.stage import Stage, stage, staged

from fleetplane.interfaces.ipmanager import IpManager, Refused, application
from fleetplane.model.builtin.types import NAMESPACES
from fleetplane.operators.network.kinds import IPClaim


def manager(stage: Stage) -> IpManager:
    return IpManager(stage.client, "pool", "default", ttl=300, hold=3600)


@staged()
async def test_a_free_address_is_reserved_and_comes_back_unused(stage: Stage) -> None:
    await stage.pool(ranges=["10.0.0.1-10.0.0.2"])
    rest = manager(stage)

    found = await rest.reserve()

    assert found is not None
    assert (found.status, found.pod_name) == ("reserved", "")
    assert [one.pod_ip for one in await rest.free()] == ["10.0.0.2"]
    await asyncio.sleep(310)
    assert len(await rest.free()) == 2


@staged()
async def test_of_many_callers_at_once_no_two_get_the_same(stage: Stage) -> None:
    await stage.pool(ranges=["10.0.0.1-10.0.0.20"])

    found = await asyncio.gather(*(manager(stage).reserve() for _ in range(32)))

    given = [one.pod_ip for one in found if one is not None]
    assert len(given) == len(set(given)) == 20


@staged()
async def test_states_are_told_and_changed_as_of_old(stage: Stage) -> None:
    await stage.pool(ranges=["10.0.0.1-10.0.0.2"], quarantineSeconds=60)
    rest = manager(stage)
    found = await rest.reserve()
    assert found is not None

    await rest.put({"pod_ip": found.pod_ip, "status": "allocated", "pod_name": "m-0"}, create=False)

    assert ("10.0.0.1", "allocated", "m-0") in await rest.all()
    await asyncio.sleep(1000)
    assert ("10.0.0.1", "allocated", "m-0") in await rest.all()
    await rest.delete("10.0.0.1")
    await asyncio.sleep(1)
    assert ("10.0.0.1", "deallocating", "m-0") in await rest.all()
    await asyncio.sleep(61)
    assert ("10.0.0.1", "free", "") in await rest.all()


@staged()
async def test_what_is_wrong_is_said(stage: Stage) -> None:
    await stage.pool(ranges=["10.0.0.1-10.0.0.2"])
    await stage.claim("a", cluster="vc", node="m")
    rest = manager(stage)

    for body, code in (
        ({"pod_ip": "10.0.0.2", "status": "mine", "pod_name": ""}, 400),
        ({"status": "free"}, 400),
        (["x"], 400),
        ({"pod_ip": "10.9.9.9", "status": "allocated", "pod_name": ""}, 404),
        ({"pod_ip": "10.0.0.1", "status": "free", "pod_name": ""}, 409),
    ):
        with pytest.raises(Refused) as refused:
            await rest.put(body, create=False)
        assert refused.value.code == code, body
    with pytest.raises(Refused, match="change that instead"):
        await rest.delete("10.0.0.1")
    await rest.delete("10.9.9.9")
    assert await stage.find(IPClaim, "a")


async def test_over_http_as_the_old_operator_calls_it() -> None:
    """On the real clock: a socket is involved."""
    async with stage() as made:
        await made.client.create(NAMESPACES, {"metadata": {"name": "vk8s-system"}})
        await made.pool(ranges=["10.0.0.1-10.0.0.1"])
        app = application(IpManager(made.client, "pool", "vk8s-system"))
        async with TestClient(HttpServer(app)) as http:

            async def call(method: str, path: str, **more: Any) -> tuple[int, Any]:
                answer = await http.request(method, f"/api{path}", **more)
                return answer.status, await answer.json()

            first, none = await call("GET", "/free-ip"), await call("GET", "/free-ip")
            listed = await call("GET", "/ip")
            posted = await call("POST", "/ip", json={"pod_ip": "10.0.0.1", "status": "reserved", "pod_name": ""})
            page = await call("GET", "/free-ip", headers={"Origin": "https://example.com"})
            missing, garbage = await call("GET", "/nothing"), await call("PUT", "/ip", data=b"{")

        assert first == (200, {"pod_ip": "10.0.0.1", "status": "reserved", "pod_name": ""})
        assert none == (200, None)
        assert listed == (200, [{"pod_ip": "10.0.0.1", "status": "reserved", "pod_name": ""}])
        assert posted[0] == 409
        assert (page[0], missing[0], garbage[0]) == (403, 404, 400)
        assert set(garbage[1]) == {"code", "name", "description"}
