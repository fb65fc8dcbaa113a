"""A whole plane for stories about virtual clusters: the real server, all controllers, our operator under its own account.

Everything runs on a virtual clock, so waiting costs nothing.
"""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from multidict import CIMultiDict
from tests.operators.staging import find, told_on, until, whole_plane
from tests.operators.vclusters.kubeadm import FakeNodes

from fleetplane.apiserver.http import Request, Response
from fleetplane.client.protocol import Client
from fleetplane.controller import Manager
from fleetplane.model import yaml as kube_yaml
from fleetplane.model.builtin.types import SECRETS
from fleetplane.model.objects import Object
from fleetplane.model.user import UserInfo
from fleetplane.node.fleet import FleetSettings, SimulatedFleet
from fleetplane.operators.vclusters import OPERATOR
from fleetplane.operators.vclusters import controllers as controllers_of
from fleetplane.operators.vclusters.kinds import Vk8s
from fleetplane.testing import SimulatedEnvironment, TestServer

USER = UserInfo("developer", groups=("system:authenticated",))


@dataclass
class Stage:
    server: TestServer
    client: Client
    environment: SimulatedEnvironment
    manager: Manager
    fleet: SimulatedFleet
    machines: FakeNodes

    until = staticmethod(until)

    async def find(self, resource: Any, name: str, namespace: str | None = "default", cluster: str = "root") -> Object:
        return await find(self.client.in_cluster(cluster), resource, name, namespace)

    async def make(self, name: str = "one", *, annotations: dict[str, str] | None = None, **spec: Any) -> Object:
        meta = {"name": name, "annotations": annotations or {}}
        return await self.client.create(Vk8s, {"metadata": meta, "spec": spec}, "default")

    async def status(self, name: str = "one") -> Object:
        return dict((await self.find(Vk8s, name)).get("status") or {})

    async def phase(self, name: str, phase: str, *, timeout: float = 120.0) -> Object:
        """Wait for a phase; returns the status."""

        async def so() -> Object | None:
            found = await self.status(name)
            return found if found.get("phase") == phase else None

        try:
            found: Object = await self.until(so, timeout=timeout)
        except TimeoutError:
            raise AssertionError(f"{name} is not {phase} but {await self.status(name)}") from None
        return found

    async def gone(self, resource: Any, name: str, namespace: str | None = "default") -> None:
        async def so() -> bool:
            return not await self.find(resource, name, namespace)

        await self.until(so)

    async def kubeconfig(self, name: str = "one") -> Object:
        async def found() -> Object:
            return await self.find(SECRETS, f"{name}-kubeconfig")

        secret = await self.until(found)
        loaded: Object = kube_yaml.load(base64.b64decode(secret["data"]["value"]))
        return loaded

    async def with_kubeconfig(
        self, config: Object, method: str, path: str, body: bytes = b"", *, headers: Mapping[str, str] | None = None
    ) -> Response:
        """A request as its holder makes it: at the address the file names, with the certificate in it."""
        server = config["clusters"][0]["cluster"]["server"]
        prefix = "/" + server.split("/", 3)[3]
        pem = base64.b64decode(config["users"][0]["user"]["client-certificate-data"])
        der = x509.load_pem_x509_certificate(pem).public_bytes(serialization.Encoding.DER)
        sent = CIMultiDict({"content-type": "application/json", **(headers or {})})
        return await self.server.server.handle(Request(method, prefix + path, {}, {}, sent, body, der, "test", None))


@asynccontextmanager
async def stage(*, seed: int = 0, nodes: int = 2, settings: FleetSettings | None = None) -> AsyncIterator[Stage]:
    machines = FakeNodes()
    operator = replace(OPERATOR, controllers=lambda manager: controllers_of(manager, machines))
    environment = SimulatedEnvironment(seed)

    def options(server: TestServer) -> dict[str, Any]:
        authority = server.pki.authority_pem.decode()
        return {"root_certificate": authority, "certificates": server.server.certificates}

    async with whole_plane(operator, environment, nodes, settings, options) as made:
        yield Stage(made.server, made.client, environment, made.manager, made.fleet, machines)


def staged(**arguments: Any) -> Callable[[Callable[[Stage], Awaitable[None]]], Callable[[], None]]:
    """Make a test of a story that wants a stage."""
    return told_on(stage, **arguments)
