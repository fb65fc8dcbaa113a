"""Services on a node: what they add up to, what names mean, and that packets and questions find their way."""

from __future__ import annotations

import asyncio
import random
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.contract.test_container_runtime import why_not_podman
from tests.node.test_real_node import _load_image, in_phase, pod, until

from fleetplane.client.protocol import Client
from fleetplane.model.builtin.types import ENDPOINT_SLICES, PODS, SERVICES
from fleetplane.model.environment import SystemEnvironment
from fleetplane.model.user import MASTERS_GROUP, UserInfo
from fleetplane.node.agent import NodeAgent, NodeSettings
from fleetplane.node.local import remove_local_node, run_local_node
from fleetplane.node.network import why_no_bridge
from fleetplane.node.services.dns import DnsServer
from fleetplane.node.services.rules import service_rules
from fleetplane.node.services.table import Target, endpoints_of, forwardings, usable
from fleetplane.node.services.zone import build_zone
from fleetplane.node.streams import LogRequest, PodRef
from fleetplane.plane import Plane
from fleetplane.settings import Settings

Object = dict[str, Any]


def service(name: str = "web", *addresses: str, **spec: Any) -> Object:
    ports = [{"name": "http", "port": 80, "targetPort": 8080, "protocol": "TCP"}]
    chosen = list(addresses) or ["10.96.0.9"]
    return {
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"clusterIP": chosen[0], "clusterIPs": chosen, "ports": ports, **spec},
    }


def part(*endpoints: Object, name: str = "web", port: int = 8080) -> Object:
    return {
        "metadata": {"name": f"{name}-1", "namespace": "default", "labels": {"kubernetes.io/service-name": name}},
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": port, "protocol": "TCP"}],
        "endpoints": list(endpoints),
    }


def endpoint(address: str, host: str = "", **conditions: bool) -> Object:
    made: Object = {"addresses": [address], "conditions": conditions or {"ready": True}}
    if host:
        made["hostname"] = host
    return made


# What they add up to


def test_a_port_leads_to_ready_endpoints() -> None:
    (one,) = forwardings([service()], [part(endpoint("10.0.0.2"), endpoint("10.0.0.3", ready=False))])

    assert (one.addresses, one.port, one.targets) == (("10.96.0.9",), 80, (Target("10.0.0.2", 8080),))


def test_ending_endpoints_serve_when_no_other_is_left() -> None:
    ending = endpoint("10.0.0.2", ready=False, serving=True, terminating=True)

    assert [one.address for one in usable(endpoints_of([part(ending)]), publish_not_ready=False)] == ["10.0.0.2"]
    both = part(ending, endpoint("10.0.0.3"))
    assert [one.address for one in usable(endpoints_of([both]), publish_not_ready=False)] == ["10.0.0.3"]


def test_families_are_kept_apart() -> None:
    dual = service("web", "fd00::9", "10.96.0.9")
    found = forwardings([dual], [part(endpoint("10.0.0.2")), part(endpoint("fd00::2"))])

    assert [(one.family, one.targets) for one in found] == [
        (4, (Target("10.0.0.2", 8080),)),
        (6, (Target("fd00::2", 8080),)),
    ]


def test_headless_services_have_no_rules() -> None:
    assert forwardings([service("web", "None")], [part(endpoint("10.0.0.2"))]) == []


def test_rules_look_up_pick_and_translate() -> None:
    sticky = service(sessionAffinity="ClientIP", type="NodePort")
    sticky["spec"]["ports"][0]["nodePort"] = 30080
    found = forwardings([sticky, service("empty", "10.96.0.8")], [part(endpoint("10.0.0.2"), endpoint("10.0.0.3"))])
    text = service_rules("t", found, "br")

    assert "10.96.0.9 . tcp . 80 : goto svc_" in text
    assert "tcp . 30080 : goto svc_" in text
    assert "numgen random mod 2 vmap" in text
    assert "dnat ip to 10.0.0.3:8080" in text
    assert "timeout 10800s" in text
    assert "elements = { 10.96.0.8 . tcp . 80 }" in text


@pytest.mark.skipif(bool(why_no_bridge()), reason=why_no_bridge())
async def test_the_kernel_takes_the_rules() -> None:
    from fleetplane.node.processes import run_command

    many = [service(f"s{n}", f"10.96.1.{n}", f"fd00::{n}") for n in range(1, 40)]
    slices = [part(endpoint("10.0.0.2"), endpoint("10.0.0.3"), name=f"s{n}") for n in range(1, 30)]
    slices += [part(endpoint("fd00:1::2"), name=f"s{n}") for n in range(1, 30)]
    text = service_rules("fleetplane_test", forwardings(many, slices), "lo")

    await run_command(["nft", "--check", "-f", "-"], stdin=text.encode())


# What names mean


def zone() -> Any:
    named = service()
    headless = service("set", "None")
    outside = {
        "metadata": {"name": "out", "namespace": "default"},
        "spec": {"type": "ExternalName", "externalName": "example.org"},
    }
    slices = [
        part(endpoint("10.0.0.2")),
        part(endpoint("10.0.0.3", "set-0"), endpoint("10.0.0.4", "set-1"), name="set"),
    ]
    return build_zone("cluster.local", [named, headless, outside], slices)


def values(name: str, kind: str) -> Any:
    found = zone().find(name, kind)
    return None if found is None else [one.value for one in found]


def test_names_of_services() -> None:
    assert values("web.default.svc.cluster.local.", "A") == ["10.96.0.9"]
    assert values("web.default.svc.cluster.local.", "AAAA") == []
    assert values("default.svc.cluster.local.", "A") == []
    assert values("nothing.default.svc.cluster.local.", "A") is None
    assert values("9.0.96.10.in-addr.arpa.", "PTR") == ["web.default.svc.cluster.local."]
    assert values("out.default.svc.cluster.local.", "A") == ["example.org."]
    assert values("dns-version.cluster.local.", "TXT") == ["1.1.0"]


def test_names_of_endpoints() -> None:
    assert values("set.default.svc.cluster.local.", "A") == ["10.0.0.3", "10.0.0.4"]
    assert values("set-1.set.default.svc.cluster.local.", "A") == ["10.0.0.4"]
    (first, _) = zone().find("_http._tcp.set.default.svc.cluster.local.", "SRV")
    assert (first.value, first.port) == ("set-0.set.default.svc.cluster.local.", 8080)


def test_names_of_pods() -> None:
    assert values("10-0-0-2.default.pod.cluster.local.", "A") == ["10.0.0.2"]
    assert values("fd00--2.default.pod.cluster.local.", "AAAA") == ["fd00::2"]
    assert values("nonsense.default.pod.cluster.local.", "A") is None


@asynccontextmanager
async def asking(server: DnsServer) -> AsyncIterator[Any]:
    dnslib = pytest.importorskip("dnslib")

    async def ask(name: str, kind: str = "A") -> Any:
        question = dnslib.DNSRecord.question(name, kind)
        answer = await server.answer(question.pack(), 1232)
        return dnslib.DNSRecord.parse(answer)

    yield ask


async def test_answers_on_the_wire() -> None:
    server = DnsServer("cluster.local", (), random.Random(0))
    server.zone = zone()
    async with asking(server) as ask:
        reply = await ask("WEB.default.svc.cluster.local")
        assert [str(one.rdata) for one in reply.rr] == ["10.96.0.9"]
        assert reply.header.aa
        missing = await ask("no.default.svc.cluster.local")
        assert (missing.header.rcode, len(missing.rr), len(missing.auth)) == (3, 0, 1)
        empty = await ask("web.default.svc.cluster.local", "AAAA")
        assert (empty.header.rcode, len(empty.rr)) == (0, 0)
        srv = await ask("_http._tcp.set.default.svc.cluster.local", "SRV")
        assert (len(srv.rr), len(srv.ar)) == (2, 2)
        elsewhere = await ask("example.org")
        assert elsewhere.header.rcode == 2


@pytest.mark.parametrize("junk", [b"", b"\0" * 5, b"\xff" * 40, b"\0\1\0\0\0\1\0\0\0\0\0\0" + b"\xc0\x0c" * 20])
async def test_junk_gets_no_answer(junk: bytes) -> None:
    pytest.importorskip("dnslib")
    server = DnsServer("cluster.local", (), random.Random(0))

    assert await server.answer(junk, 1232) == b""


# On a real node


@pytest.mark.podman
async def test_pods_reach_services_by_name(tmp_path: Path) -> None:
    if reason := why_not_podman() or why_no_bridge():
        pytest.skip(reason)
    pytest.importorskip("dnslib")
    await _load_image(tmp_path)
    directory = tmp_path / "node"
    admin = UserInfo("admin", groups=(MASTERS_GROUP, "system:authenticated"))
    try:
        async with Plane(Settings(data_dir=tmp_path / "data", port=0, runtime="none", operators="none")) as plane:
            client = plane.client(admin)
            ready: asyncio.Future[NodeAgent] = asyncio.get_running_loop().create_future()
            running = asyncio.create_task(
                run_local_node(
                    client,
                    NodeSettings(directory, name="here"),
                    SystemEnvironment(),
                    pod_networks=["10.95.0.0/16"],
                    service_client=client,
                    on_ready=ready.set_result,
                )
            )
            await asyncio.wait({running, ready}, return_when=asyncio.FIRST_COMPLETED)
            try:
                await _reach(client, ready.result())
            finally:
                running.cancel()
                await asyncio.gather(running, return_exceptions=True)
    finally:
        await remove_local_node(directory, SystemEnvironment())
        shutil.rmtree(directory, ignore_errors=True)


async def _reach(client: Client, agent: NodeAgent) -> None:
    server = pod("server", "httpd", "-f", "-p", "8080", "-h", "/etc", nodeName="here")
    server["metadata"]["labels"] = {"app": "server"}
    await client.create(PODS, server, "default")
    found = await until(client, "server", in_phase("Running"))
    await client.create(
        SERVICES,
        {"metadata": {"name": "web"}, "spec": {"ports": [{"name": "http", "port": 80, "targetPort": 8080}]}},
        "default",
    )
    slice_ = part(endpoint(found["status"]["podIP"]))
    await client.create(ENDPOINT_SLICES, slice_, "default")
    script = (
        "for n in 1 2 3 4 5 6 7 8 9 10; do wget -qO- http://web/passwd && break; sleep 0.3; done;"
        " wget -qO- http://web.default.svc.cluster.local/passwd | wc -l;"
        " nc -w 2 kubernetes.default 443 < /dev/null && echo reached"
    )
    await client.create(PODS, pod("client", "sh", "-c", script, nodeName="here", restartPolicy="Never"), "default")
    await until(client, "client", lambda one: one["status"].get("phase") in {"Succeeded", "Failed"})
    lines = await agent.streams.logs(PodRef("default", "client"), LogRequest())
    said = b"".join([chunk async for chunk in lines]).decode().split()

    assert said[-2:] == [said[-2], "reached"], said
    assert said[0].startswith("root:")
    assert int(said[-2]) > 1
