"""Operators' admission outside a plane: a server asks them over HTTPS, with no more rights than are shipped."""

from __future__ import annotations

import asyncio
import base64
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import aiohttp
import pytest

from fleetplane.client.protocol import Client
from fleetplane.controller import load_operators
from fleetplane.interfaces.cli import webhooks
from fleetplane.interfaces.cli.deployment import parts_of
from fleetplane.interfaces.cli.webhooks import NAME, SECRET, Serving, Webhooks, make_certificate, serving_admission
from fleetplane.model.admission import AdmissionPlugin, AdmissionRequest, AdmissionRule, Decision, Reader
from fleetplane.model.builtin import types
from fleetplane.model.environment import SystemEnvironment
from fleetplane.model.errors import ApiError
from fleetplane.model.objects import Object
from fleetplane.model.resources import ResourceType
from fleetplane.model.user import service_account_user
from fleetplane.operating import NAMESPACE
from fleetplane.operators.vehicles.kinds import VehPod
from fleetplane.testing import TestServer, running_server

ENVIRONMENT = SystemEnvironment()
WHERE = Serving(NAMESPACE, port=0, host="127.0.0.1")
ACCOUNT = service_account_user(NAMESPACE, NAME)


@dataclass
class Later(SystemEnvironment):
    days: int

    def __post_init__(self) -> None:
        super().__init__()

    def now(self) -> datetime:
        return datetime.now(UTC) + timedelta(days=self.days)


@asynccontextmanager
async def installed() -> AsyncIterator[TestServer]:
    """A server with the shipped kinds, rights and webhooks."""
    async with running_server() as plane:
        client = plane.client()
        for one in parts_of(load_operators(["vehicles"]), client):
            if one["kind"] != "Deployment":
                await client.apply(typed(one), one, one["metadata"].get("namespace"), field_manager="test")
        yield plane


def typed(obj: Object) -> ResourceType:
    every = (getattr(types, name) for name in dir(types))
    return next(one for one in every if isinstance(one, ResourceType) and one.kind == obj["kind"])


async def opened(made: Webhooks) -> None:
    async with asyncio.timeout(10):
        while made.waiting():
            await asyncio.sleep(0.01)


async def lead_here(client: Client, port: int) -> None:
    """There is no network to Services here: the webhooks are asked at their address."""
    for resource in (types.MUTATING_WEBHOOK_CONFIGURATIONS, types.VALIDATING_WEBHOOK_CONFIGURATIONS):
        try:
            found = await client.get(resource, NAME)
        except ApiError:
            continue
        for webhook in found["webhooks"]:
            path = webhook["clientConfig"].pop("service")["path"]
            webhook["clientConfig"]["url"] = f"https://127.0.0.1:{port}{path}"
        await client.update(resource, found)


async def test_a_server_that_is_not_ours_refuses_what_operators_refuse() -> None:
    async with installed() as plane:
        limited = plane.client(ACCOUNT)
        async with serving_admission(limited, load_operators(["vehicles"]), WHERE, ENVIRONMENT) as made:
            await opened(made)
            await lead_here(plane.client(), made.port)
            with pytest.raises(ApiError, match=r"admission webhook .* no AppType 'nonsense'"):
                await plane.client().create(
                    VehPod,
                    {"metadata": {"name": "a"}, "spec": {"appType": "nonsense", "podSpec": {"containers": []}}},
                    "default",
                )


async def test_every_instance_shows_the_same_certificate() -> None:
    async with installed() as plane:
        limited, operators = plane.client(ACCOUNT), load_operators(["vehicles"])
        async with serving_admission(limited, operators, WHERE, ENVIRONMENT) as first:
            await opened(first)
            async with serving_admission(limited, operators, WHERE, ENVIRONMENT) as second:
                await opened(second)
                configuration = await plane.client().get(types.VALIDATING_WEBHOOK_CONFIGURATIONS, NAME)
                bundle = base64.b64decode(configuration["webhooks"][0]["clientConfig"]["caBundle"]).decode()
                trusting = ssl.create_default_context(cadata=bundle)
                connector = aiohttp.TCPConnector(ssl=trusting)
                async with aiohttp.ClientSession(connector=connector) as session:
                    answers = [(await session.get(f"https://127.0.0.1:{one.port}/")).status for one in (first, second)]

    assert answers == [404, 404]


async def test_an_old_certificate_is_replaced_and_its_authority_stays_trusted() -> None:
    async with installed() as plane:
        limited, operators = plane.client(ACCOUNT), load_operators(["vehicles"])
        for world in (ENVIRONMENT, Later(10), Later(300)):
            async with serving_admission(limited, operators, WHERE, world) as made:
                await opened(made)
            bundles = await plane.client().get(types.SECRETS, SECRET, NAMESPACE)
            if world is ENVIRONMENT:
                first = bundles["data"]
            elif world.days == 10:
                assert bundles["data"] == first
        before, now = (base64.b64decode(one["ca.crt"]) for one in (first, bundles["data"]))

    assert now.endswith(before)
    assert now.count(b"BEGIN CERTIFICATE") == 2
    assert bundles["data"]["tls.key"] != first["tls.key"]


async def test_a_broken_secret_is_made_anew() -> None:
    async with installed() as plane:
        broken = {"metadata": {"name": SECRET}, "data": {"tls.crt": "AAAA", "tls.key": "AAAA", "ca.crt": "AAAA"}}
        await plane.client().create(types.SECRETS, broken, NAMESPACE)
        limited = plane.client(ACCOUNT)
        async with serving_admission(limited, load_operators(["vehicles"]), WHERE, ENVIRONMENT) as made:
            await opened(made)


async def test_certificates_from_a_folder_are_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def put(days: int) -> bytes:
        made = make_certificate(("localhost",), Later(days))
        (tmp_path / "tls.crt").write_bytes(made.certificate)
        (tmp_path / "tls.key").write_bytes(made.key)
        return made.certificate

    async def shown(port: int) -> bytes:
        return await asyncio.to_thread(lambda: ssl.get_server_certificate(("127.0.0.1", port)).encode())

    monkeypatch.setattr(webhooks, "LOOK_SECONDS", 0.01)
    where = replace(WHERE, folder=tmp_path)
    async with running_server() as plane:
        first = put(0)
        async with serving_admission(plane.client(), load_operators(["vehicles"]), where, ENVIRONMENT) as made:
            await opened(made)
            early = await shown(made.port)
            second = put(1)
            async with asyncio.timeout(10):
                while await shown(made.port) != second:
                    await asyncio.sleep(0.02)

    assert early == first


async def test_what_the_operators_write_counts_as_theirs() -> None:
    seen: list[str] = []

    async def admit(request: AdmissionRequest, _reader: Reader) -> Decision | None:
        seen.append(request.user.name)
        return None

    plugin = AdmissionPlugin("see.example.org", "validate", [AdmissionRule(["pods"])], admit)
    (operator,) = load_operators(["vehicles"])
    (wrapped,) = webhooks.admission_of([replace(operator, admission=(plugin,))], replace(WHERE, namespace="mine"))
    for user in (service_account_user("mine", NAME), service_account_user("mine", "other")):
        await wrapped.admit(AdmissionRequest("CREATE", types.PODS, user), None)  # type: ignore[arg-type]

    assert seen == ["system:serviceaccount:fleetplane-system:vehicles", "system:serviceaccount:mine:other"]
