"""Aggregation as the server mounts it: one question per request, one follower, one background work."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from fleetplane.apiserver.admission.views import Follow
from fleetplane.apiserver.aggregation.proxying import Proxy
from fleetplane.apiserver.aggregation.remotes import Remotes
from fleetplane.apiserver.aggregation.watching import Watching
from fleetplane.apiserver.http import Request, Response
from fleetplane.apiserver.outgoing import Outgoing
from fleetplane.apiserver.own_writes import OwnWrites
from fleetplane.apiserver.pki import Pki
from fleetplane.apiserver.readers import StoreReader
from fleetplane.apiserver.registry import Registry
from fleetplane.model.environment import Environment
from fleetplane.model.objects import Object
from fleetplane.model.user import UserInfo

PassOn = Callable[[Request, UserInfo], Awaitable[Response]]


class Aggregation:
    """See the package."""

    def __init__(
        self,
        registry: Registry,
        outgoing: Outgoing,
        reader: StoreReader,
        own: OwnWrites,
        environment: Environment,
        pki: Pki,
    ) -> None:
        self._remotes = Remotes(registry)
        self._proxy = Proxy(outgoing, str(pki.directory / "front-proxy-client.pem"))
        self._watching = Watching(registry, self._remotes, self._proxy, reader, own, environment, pki)
        self.run = self._watching.run

    def follow(self, follow: Follow) -> None:
        def apply(cluster: str, service: Object, deleted: bool) -> None:
            self._remotes.apply(cluster, service, deleted)
            self._watching.apply(cluster, service, deleted)

        def reset() -> None:
            self._remotes.reset()
            self._watching.reset()

        follow("apiregistration.k8s.io", "apiservices", apply, reset)

    def find(self, cluster: str | None, path: str) -> PassOn | None:
        """How to pass a request for a path on; None for what is served here."""
        if cluster is None:
            return None
        remote = self._remotes.find(cluster, path)
        if remote is None:
            return None

        async def pass_on(request: Request, user: UserInfo) -> Response:
            return await self._proxy.pass_on(cluster, remote, path, request, user)

        return pass_on
