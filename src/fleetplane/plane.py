"""A plane: store, server, controllers, operators and local nodes, composed from one settings object.

Everything runs in one process and one event loop, in one task group: when a part fails the plane ends, cleanly, and says
why. ``fleetplane up`` is this and nothing more; ``fleetplane.testing`` starts the same object inside a test.
"""

from __future__ import annotations

import asyncio
import base64
import errno
import logging
import os
from collections.abc import AsyncIterator, Coroutine, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from multidict import CIMultiDict

from fleetplane.apiserver.assembly import ServerSettings, assemble
from fleetplane.apiserver.audit import Audit
from fleetplane.apiserver.audit_log import AuditLog
from fleetplane.apiserver.audit_policy import Policy, metadata_of_changes
from fleetplane.apiserver.authentication.identity import TokenAuthenticator
from fleetplane.apiserver.frontend import Frontend
from fleetplane.apiserver.http import Request
from fleetplane.apiserver.pki import PkiError, ensure_pki, server_context, write_admin_kubeconfig, write_private
from fleetplane.apiserver.security import openid_tokens
from fleetplane.apiserver.server import ApiServer
from fleetplane.apiserver.streaming.protocol import PodStreams
from fleetplane.apiserver.streaming.tunnel import NodeTunnels
from fleetplane.apiserver.usage import NodeUsage
from fleetplane.bootstrap import SYSTEM_NAMESPACES, bootstrap, offer_storage, service_addresses
from fleetplane.client.protocol import Capabilities, Client, Pairs
from fleetplane.client.rest import RestClient
from fleetplane.controller.leader import LeaderElection
from fleetplane.controller.manager import Manager
from fleetplane.controller.metrics import Metrics
from fleetplane.controller.registration import UnknownOperator
from fleetplane.model import yaml as kube_yaml
from fleetplane.model.builtin.types import PODS, SERVICE_ACCOUNTS
from fleetplane.model.environment import Environment, SystemEnvironment
from fleetplane.model.user import MASTERS_GROUP, UserInfo
from fleetplane.operating import chosen_operators, install_kinds, prepare_operators
from fleetplane.plane_error import PlaneError
from fleetplane.settings import Settings
from fleetplane.store.encrypting import EncryptingStore, Sealer
from fleetplane.store.protocol import Store, StoreError, StoreLocked
from fleetplane.store.sqlite import SqliteStore
from fleetplane.workloads.assembly import controllers

if TYPE_CHECKING:
    from fleetplane.local_nodes import LocalNodes
    from fleetplane.this_machine import ThisMachine

log = logging.getLogger(__name__)

_ENDING_SECONDS = 10.0
_WATCH_WINDOW = 4000
"""Changes kept in memory for watchers that come back; older ones are read from the store's log."""
BOOTSTRAP_USER = UserInfo("system:apiserver", groups=(MASTERS_GROUP, "system:authenticated"))
CONTROLLER_USER = UserInfo("system:kube-controller-manager", groups=(MASTERS_GROUP, "system:authenticated"))


class InProcessTransport:
    """A ``Transport`` straight into a server of this process, as one user. It skips authentication and nothing else."""

    def __init__(self, server: ApiServer, user: UserInfo) -> None:
        self._server = server
        self._user = user

    async def request(
        self, method: str, path: str, query: Pairs, headers: Pairs, body: bytes
    ) -> tuple[int, Mapping[str, str], bytes]:
        response = await self._server.handle(self._request(method, path, query, headers, body))
        if response.stream is not None:
            chunks = [chunk async for chunk in response.stream]
            return response.status, _lower(response.headers), b"".join(chunks)
        return response.status, _lower(response.headers), response.body

    @asynccontextmanager
    async def stream(
        self, method: str, path: str, query: Pairs, headers: Pairs, body: bytes
    ) -> AsyncIterator[tuple[int, AsyncIterator[bytes]]]:
        response = await self._server.handle(self._request(method, path, query, headers, body))
        chunks = response.stream if response.stream is not None else _one(response.body)
        try:
            yield response.status, chunks
        finally:
            close = getattr(chunks, "aclose", None)
            if close is not None:
                await close()

    async def close(self) -> None:
        """Nothing to close: the server is somebody else's."""

    def _request(self, method: str, path: str, query: Pairs, headers: Pairs, body: bytes) -> Request:
        queries: dict[str, list[str]] = {}
        for key, value in query:
            queries.setdefault(key, []).append(value)
        first = {key: values[0] for key, values in queries.items()}
        return Request(method, path, first, queries, CIMultiDict(headers), body, None, "in-process", self._user)


def _lower(headers: Mapping[str, str]) -> Mapping[str, str]:
    return {name.lower(): value for name, value in headers.items()} if headers else headers


class Background:
    """Tasks that run as long as the plane and are cancelled when it stops."""

    def __init__(self, group: asyncio.TaskGroup) -> None:
        self._group = group
        self._tasks: list[asyncio.Task[None]] = []

    def start(self, work: Coroutine[Any, Any, None]) -> None:
        self._tasks.append(self._group.create_task(work, name=getattr(work, "__qualname__", None)))

    async def end(self) -> None:
        """Cancel them and wait; what does not end in time is told to the log, by the names of its tasks."""
        for task in self._tasks:
            task.cancel()
        running = [task for task in self._tasks if not task.done()]
        if running and (await asyncio.wait(running, timeout=_ENDING_SECONDS))[1]:
            names = ", ".join(sorted(one.get_name() for one in asyncio.all_tasks()))
            log.error("parts of the plane have not ended %g s after they were told to: %s", _ENDING_SECONDS, names)


@asynccontextmanager
async def _background() -> AsyncIterator[Background]:
    async with asyncio.TaskGroup() as group:
        background = Background(group)
        try:
            yield background
        finally:
            await background.end()


async def _accounts_exist(client: Client) -> None:
    """Return once the default namespaces have their ServiceAccounts, so that whoever waits for us can create pods."""
    for namespace in SYSTEM_NAMESPACES:
        fields = "metadata.name=default"
        async for event in client.watch(SERVICE_ACCOUNTS, namespace, fields=fields, timeout_seconds=60):
            if event.type == "ADDED":
                break


async def _one(body: bytes) -> AsyncIterator[bytes]:
    yield body


class Plane:
    """``async with Plane(settings) as plane`` runs a whole plane; ready when entered, stopped when left.

    Raises:
        PlaneError: something a person has to change: a port in use, a locked data directory, an unusable setting.
    """

    def __init__(
        self, settings: Settings, environment: Environment | None = None, machine: ThisMachine | None = None
    ) -> None:
        """``machine`` is this machine's node where it has begun already; the plane goes on with it."""
        self.settings = settings
        self._machine = machine
        self.environment = environment or SystemEnvironment()
        self.url = ""
        self.kubeconfig = settings.data_dir / "admin.kubeconfig"
        self._stack = AsyncExitStack()
        self._server: ApiServer | None = None
        self._nodes: LocalNodes | None = None
        self._tunnels = NodeTunnels()

    @property
    def server(self) -> ApiServer:
        if self._server is None:
            raise RuntimeError("the plane is not running")
        return self._server

    def client(self, user: UserInfo = BOOTSTRAP_USER) -> RestClient:
        """A client of this process, as a user."""
        return RestClient(
            InProcessTransport(self.server, user),
            capabilities=Capabilities(logical_clusters=True, watch_list=True, commit=True),
        )

    async def __aenter__(self) -> Self:
        try:
            await self._start()
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        return await self._stack.__aexit__(kind, error, traceback)

    async def _start(self) -> None:
        settings = self.settings
        store = await self._encrypted(await self._open_store())
        try:
            # Pods reach the server by the address of the Service `kubernetes`, and check its certificate.
            hosts = [settings.host, *map(str, service_addresses(settings))]
            pki = await asyncio.to_thread(ensure_pki, settings.data_dir / "pki", self.environment, hosts=hosts)
        except (PkiError, OSError) as error:
            raise PlaneError(str(error)) from None
        try:
            operators = chosen_operators(settings.operators)
        except UnknownOperator as error:
            raise PlaneError(str(error)) from None
        tasks = await self._stack.enter_async_context(_background())
        self._server = assemble(
            store,
            pki,
            self.environment,
            ServerSettings(service_cidrs=settings.service_cidrs, tenant_calls=settings.tenant_calls),
            plugins=[plugin for operator in operators for plugin in operator.admission],
            audit=self._start_audit(tasks),
            streams_of=self._streams_of,
            usage_of=self._usage_of,
            more_tokens=self._openid(),
            tunnels=self._tunnels,
        )
        await self._stack.enter_async_context(self._server.running())
        frontend = Frontend(self._server.handle)
        try:
            port = await frontend.listen(settings.host, settings.port, server_context(pki))
        except OSError as error:
            raise PlaneError(_cannot_listen(settings, error)) from None
        self._stack.push_async_callback(frontend.close)
        self._stack.push_async_callback(self._tunnels.close)
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        self.url = f"https://{host}:{port}"
        await bootstrap(self.client(), settings, port)
        own_root = "" if os.geteuid() == 0 else str((settings.data_dir / "volumes").absolute())
        await offer_storage(self.client(), own_root)
        metrics = Metrics()
        self._server.more_collectors.append(metrics.registry)
        is_shared = settings.store != "sqlite"  # then other planes may serve it too, and one of them at a time controls
        election = LeaderElection("fleetplane-controllers") if is_shared else None
        manager = Manager(
            self.client(CONTROLLER_USER),
            environment=self.environment,
            cluster=None,
            metrics=metrics,
            election=election,
        )
        root = pki.authority_pem.decode()
        manager.add(*controllers(manager, root_certificate=root, certificates=self._server.certificates))
        tasks.start(manager.run())
        await install_kinds(self.client(), operators)
        for one in await prepare_operators(
            self.client(), operators, self.client, self.environment, metrics, elect=is_shared
        ):
            tasks.start(one.run())
        await self._start_nodes(tasks, manager)
        await _accounts_exist(self.client())
        write_admin_kubeconfig(self.kubeconfig, self.url, pki)

    def _openid(self) -> list[TokenAuthenticator]:
        """OpenID issuers, where the settings name a configuration of them."""
        path = self.settings.oidc_config
        if not path:
            return []
        try:
            return [openid_tokens(kube_yaml.load(Path(path).read_bytes()), self.environment)]
        except (OSError, ValueError) as error:
            raise PlaneError(f"the OpenID configuration {path} cannot be used: {error}") from None

    def _start_audit(self, tasks: Background) -> Audit | None:
        """The audit log, where the settings name one; by default the metadata of every change."""
        settings = self.settings
        if not settings.audit_log:
            return None
        try:
            policy = metadata_of_changes()
            if settings.audit_policy:
                policy = Policy.from_object(kube_yaml.load(Path(settings.audit_policy).read_bytes()))
        except (OSError, ValueError) as error:
            raise PlaneError(f"the audit policy {settings.audit_policy} cannot be used: {error}") from None
        log = AuditLog(Path(settings.audit_log), self.environment)
        tasks.start(log.run())
        return Audit(policy, log.write, self.environment)

    async def _start_nodes(self, tasks: Background, manager: Manager) -> None:
        if self.settings.nodes == 0:
            return
        from fleetplane.local_nodes import LocalNodes  # noqa: PLC0415 - a server without nodes needs none of it

        pods = manager.informer(PODS)
        self._nodes = LocalNodes(self.settings, self.client, self.environment, self._machine, pods)
        await self._nodes.start(tasks.start)

    async def remove_local_nodes(self) -> None:
        """Remove what local nodes left on the machine. For planes that are thrown away, once they have stopped."""
        from fleetplane.local_nodes import remove_local_nodes  # noqa: PLC0415 - see above

        await remove_local_nodes(self.settings, self.environment)

    async def _usage_of(self, node: str) -> NodeUsage | None:
        usage = await self._nodes.usage_of(node) if self._nodes is not None else None
        return usage or await self._tunnels.usage_of(node)

    def _streams_of(self, node: str) -> PodStreams | None:
        local = self._nodes.streams_of(node) if self._nodes is not None else None
        return local or self._tunnels.streams_of(node)

    async def _encrypted(self, store: Store) -> Store:
        """The store with Secrets sealed: by the key file of the settings, on SQLite else by a key of the plane's own."""
        settings = self.settings
        given = settings.encryption_key_file
        if not given and settings.store != "sqlite":
            return store
        path = Path(given) if given else settings.data_dir / "pki" / "encryption.key"
        try:
            return EncryptingStore(store, Sealer(await asyncio.to_thread(encryption_keys, path, make=not given)))
        except (OSError, ValueError) as error:
            raise PlaneError(f"the encryption key {path} cannot be used: {error}") from None

    async def _open_postgresql(self) -> Store:
        """A store other servers may share. The data directory still holds this plane's keys."""
        settings = self.settings
        try:
            from fleetplane.store.postgres import PostgresStore  # noqa: PLC0415 - asyncpg is an extra
        except ImportError:
            raise PlaneError("PostgreSQL needs the asyncpg package; install fleetplane[postgresql]") from None
        try:
            settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            store = await PostgresStore.open(
                settings.store, environment=self.environment, history=versions_kept, watch_window=_WATCH_WINDOW
            )
        except (StoreError, OSError) as error:
            raise PlaneError(f"cannot open the PostgreSQL store: {error}") from None
        self._stack.push_async_callback(store.close)
        return store

    async def _open_store(self) -> Store:
        settings = self.settings
        if settings.store != "sqlite":
            return await self._open_postgresql()
        try:
            settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            store = await SqliteStore.open(
                settings.data_dir / "fleetplane.db",
                environment=self.environment,
                history=versions_kept,
                watch_window=_WATCH_WINDOW,
            )
        except StoreLocked as error:
            raise PlaneError(str(error)) from None
        except (StoreError, OSError) as error:
            why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            message = f"cannot open the data directory {settings.data_dir}: {why}; choose another with --data-dir"
            raise PlaneError(message) from None
        self._stack.push_async_callback(store.close)
        return store


def encryption_keys(path: Path, *, make: bool) -> list[bytes]:
    """The keys of a file, base64, one a line: the first seals, all open. ``make`` makes the file where it is absent.

    Raises OSError, and ValueError for a line that is no key.
    """
    if make and not path.exists():
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_private(path, base64.b64encode(os.urandom(32)) + b"\n")
    return [base64.b64decode(line, validate=True) for line in path.read_bytes().split()]


_SHORT_LIVED = frozenset(
    {
        ("", "events"),
        ("", "pods"),
        ("", "nodes"),
        ("", "endpoints"),
        ("coordination.k8s.io", "leases"),
        ("discovery.k8s.io", "endpointslices"),
    }
)


def versions_kept(group: str, resource: str) -> int:
    """How many past versions of an object outlive compaction: ten of what people write, none of what machines report."""
    return 0 if (group, resource) in _SHORT_LIVED else 10


def _cannot_listen(settings: Settings, error: OSError) -> str:
    where = f"{settings.host} port {settings.port}"
    if error.errno == errno.EADDRINUSE:
        return f"{where} is already in use; stop what listens there, or choose another with --port"
    if error.errno in {errno.EACCES, errno.EPERM}:
        return f"{where} is for root only; choose a port from 1024 up with --port"
    if error.errno == errno.EADDRNOTAVAIL:
        return f"this machine has no address {settings.host}; choose one of its own with --host"
    return f"cannot listen on {where}: {error.strerror or error}"
