"""Where the server calls for virtual clusters: not what the machine trusts by its address, unless a setting says so."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest
from tests.apiserver.aggregation.documents import BASE
from tests.apiserver.aggregation.elsewhere import availability, elsewhere
from tests.apiserver.https import HttpsServer, https_server

from fleetplane.apiserver.assembly import ServerSettings
from fleetplane.apiserver.egress import Egress, NotAllowed
from fleetplane.apiserver.outgoing import CallFailed, Destination, Outgoing, Services
from fleetplane.model.objects import Object
from fleetplane.settings import SettingsError, load_settings
from fleetplane.testing.plane import TestServer, running_server

CLUSTERS = "/apis/fleetplane.io/v1alpha1/logicalclusters"
HOOKS = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations"
MAPS = "/api/v1/namespaces/default/configmaps"
DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
WIDGETS = "/apis/example.com/{}/namespaces/default/widgets"
TENANT = "/clusters/tenant"
TOLD = "virtual clusters must not call this address; the setting tenant_calls lists what they may"
LOOPBACK = "127.0.0.0/8,::1/128"


# -- which addresses -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("address", ["10.1.2.3", "93.184.216.34", "172.17.0.1", "2001:db8::1", "fd00::1", "100.64.0.1"])
def test_ordinary_addresses_may_be_called(address: str) -> None:
    assert Egress().permits(address)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "127.9.9.9",
        "0.0.0.0",
        "169.254.169.254",
        "100.100.100.200",
        "255.255.255.255",
        "::",
        "::1",
        "fe80::1",
        "fe80::1%eth0",
        "fd00:ec2::254",
        "::ffff:127.0.0.1",
        "::ffff:169.254.169.254",
        "64:ff9b::a9fe:a9fe",
        "2002:7f00:1::",
        "::127.0.0.1",
        "localhost",
        "2130706433",
        "",
    ],
)
def test_what_the_machine_trusts_may_not(address: str) -> None:
    assert not Egress().permits(address)


def test_a_list_means_nothing_else() -> None:
    egress = Egress("10.0.0.0/8, fd00::/8")

    assert egress.permits("10.1.2.3")
    assert egress.permits("::ffff:10.1.2.3")
    assert egress.permits("fd12::1")
    assert not egress.permits("192.168.0.1")
    assert not egress.permits("2001:db8::1")


def test_loopback_is_meant_only_where_it_is_named() -> None:
    assert not Egress("0.0.0.0/0,::/0").permits("127.0.0.1")
    assert not Egress("fd00::/8").permits("fd00:ec2::254")
    assert Egress("127.0.0.1/32").permits("127.0.0.1")
    assert not Egress("127.0.0.1/32").permits("127.0.0.2")


def test_the_setting_is_checked_when_it_is_read() -> None:
    assert load_settings({"tenant_calls": LOOPBACK}, {}).tenant_calls == LOOPBACK
    with pytest.raises(SettingsError, match="tenant_calls must be CIDRs"):
        load_settings({"tenant_calls": "10.0.0.0/8,everywhere"}, {})


# -- through the server ----------------------------------------------------------------------------------------------------


@asynccontextmanager
async def tenancy(allowed: str = "") -> AsyncIterator[TestServer]:
    """A server with a virtual cluster ``tenant``."""
    async with running_server(settings=ServerSettings(tenant_calls=allowed)) as api:
        code, made = await api.call("POST", CLUSTERS, {"metadata": {"name": "tenant"}})
        assert code == 201, made
        yield api


def answer(review: Object) -> Object:
    allowed = {"uid": review["request"]["uid"], "allowed": True}
    return {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": allowed}


async def hook(api: TestServer, prefix: str, server: HttpsServer) -> None:
    webhook = {
        "name": "ask.example.com",
        "clientConfig": server.client(),
        "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["configmaps"]}],
        "sideEffects": "None",
        "admissionReviewVersions": ["v1"],
    }
    code, made = await api.call("POST", prefix + HOOKS, {"metadata": {"name": "ask"}, "webhooks": [webhook]})
    assert code == 201, made


async def test_a_tenants_webhook_on_loopback_is_not_called() -> None:
    async with tenancy() as api, https_server(answer) as server:
        await hook(api, "", server)
        await hook(api, TENANT, server)

        host, _ = await api.call("POST", MAPS, {"metadata": {"name": "a"}})
        tenant, status = await api.call("POST", TENANT + MAPS, {"metadata": {"name": "a"}})

    assert host == 201
    assert (tenant, len(server.seen)) == (500, 1)
    assert TOLD in status["message"]


async def test_it_is_called_where_the_setting_lists_it() -> None:
    async with tenancy(LOOPBACK) as api, https_server(answer) as server:
        await hook(api, TENANT, server)

        code, _ = await api.call("POST", TENANT + MAPS, {"metadata": {"name": "a"}})

    assert (code, len(server.seen)) == (201, 1)


async def test_a_name_counts_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    resolve = socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", lambda host, *more, **named: resolve("127.0.0.1", *more, **named))
    async with tenancy() as api, https_server(answer) as server:
        server_of_a_name = HttpsServer(server.port, server.bundle, answer)
        monkeypatch.setattr(HttpsServer, "url", property(lambda one: f"https://good.example.com:{one.port}"))
        await hook(api, TENANT, server_of_a_name)

        code, status = await api.call("POST", TENANT + MAPS, {"metadata": {"name": "a"}})

    assert (code, server.requests) == (500, [])
    assert TOLD in status["message"]


@pytest.mark.parametrize(("allowed", "wanted"), [("", "False"), (LOOPBACK, "True")])
async def test_a_tenants_aggregated_server(allowed: str, wanted: str) -> None:
    async with tenancy(allowed) as api, elsewhere(api, TENANT) as (server, _):
        condition = await availability(api, wanted, TENANT)
        code, status = await api.call("GET", f"{TENANT}{BASE}/namespaces/default/gadgets")

    assert condition["status"] == wanted
    if not allowed:
        assert TOLD in condition["message"]
        assert (code, server.requests) == (503, [])
        assert TOLD in status["message"]


async def test_a_tenants_conversion_webhook() -> None:
    async with tenancy() as api, https_server(answer) as server:
        versions = [
            {"name": name, "served": True, "storage": name == "v1", "schema": {"openAPIV3Schema": {"type": "object"}}}
            for name in ("v1", "v2")
        ]
        spec = {
            "group": "example.com",
            "scope": "Namespaced",
            "names": {"plural": "widgets", "kind": "Widget"},
            "conversion": {
                "strategy": "Webhook",
                "webhook": {"clientConfig": server.client(), "conversionReviewVersions": ["v1"]},
            },
            "versions": versions,
        }
        await api.call("POST", TENANT + DEFINITIONS, {"metadata": {"name": "widgets.example.com"}, "spec": spec})
        await api.call("POST", TENANT + WIDGETS.format("v1"), {"metadata": {"name": "a"}})

        code, status = await api.call("GET", TENANT + WIDGETS.format("v2") + "/a")

    assert (code, server.requests) == (500, [])
    assert TOLD in status["message"]


@pytest.mark.parametrize(
    ("allowed", "confined", "reached"), [("", True, False), ("", False, True), (LOOPBACK, True, True)]
)
async def test_a_connection_that_switches_protocols(allowed: str, confined: bool, reached: bool) -> None:
    outgoing = Outgoing(cast(Services, None), Egress(allowed))
    async with https_server(answer) as server:
        where = Destination("localhost", server.port, "localhost", "", "/", confined)
        context = outgoing.trusting(server.bundle)
        try:
            _, writer = await outgoing.connect(where, context)
            writer.close()
            problem = ""
        except CallFailed as error:
            problem = str(error)

    assert (problem == "") is reached
    assert reached or TOLD in problem


def test_the_address_of_the_socket_is_what_counts() -> None:
    info: tuple[Any, ...] = (socket.AF_INET, socket.SOCK_STREAM, 6, "good.example.com", ("127.0.0.1", 443))

    with pytest.raises(NotAllowed):
        Egress().make_socket(info)
