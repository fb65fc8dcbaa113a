"""Which server a command talks to, and one run of a command against it.

The order people expect: ``--kubeconfig``, ``KUBECONFIG``, the plane that runs here (its data directory), the kubeconfig
in the home directory, the pod we are in. Whatever goes wrong is said in one sentence that names where the server's
address came from. Every command runs in ``run_session``; nothing else opens or closes a client.
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from fleetplane.client.discovery import Discovery
from fleetplane.client.http import HttpTransport, connect_to
from fleetplane.client.kubeconfig import Access, ConfigError, in_cluster, load
from fleetplane.client.protocol import ROOT, Unreachable
from fleetplane.client.rest import RestClient
from fleetplane.interfaces.cli.command import Connection
from fleetplane.interfaces.cli.errors import CommandError, ExitWith
from fleetplane.interfaces.cli.patience import Counted, patience
from fleetplane.interfaces.cli.terminal import Terminal
from fleetplane.model.environment import Environment, SystemEnvironment
from fleetplane.model.errors import ApiError

FIELD_MANAGER: Final = "fleetplane-cli"
"""Whom the server records as the owner of fields that people set with this program."""

_PROBE_SECONDS: Final = 0.3
_NOTHING_FOUND: Final = (
    "there is no server to talk to: start a plane here with 'fleetplane up', or name a kubeconfig with --kubeconfig"
)


@dataclass(frozen=True, slots=True)
class Found:
    """``origin`` says in words where the access came from."""

    access: Access
    origin: str


@dataclass(slots=True)
class Session:
    """What a command works with. ``namespace`` is where namespaced objects are unless a command says otherwise."""

    access: Access
    client: RestClient
    discovery: Discovery
    environment: Environment
    namespace: str
    namespace_given: bool
    out: Terminal
    failures: int = 0
    _said: set[str] = field(default_factory=set)

    def fail(self, error: ApiError | str) -> None:
        """Say one thing that went wrong and go on; the command will end with exit code 1."""
        sentence = error if isinstance(error, str) else worded(error)
        self.failures += 1
        if sentence not in self._said:
            self._said.add(sentence)
            self.out.warn(f"fleetplane: {sentence}")


def find(connection: Connection) -> Found:
    """Raises CommandError or ConfigError."""
    if connection.kubeconfig is not None:
        origin = f"--kubeconfig {connection.kubeconfig}"
        return Found(load([connection.kubeconfig.expanduser()]).access(connection.context), origin)
    if os.environ.get("KUBECONFIG"):
        return Found(load().access(connection.context), "KUBECONFIG")
    data_dir = local_data_dir()
    local = data_dir / "admin.kubeconfig"
    if _is_there(local) and connection.context is None:
        access = load([local]).access()
        if listens(access.server):
            return Found(access, str(local))
    at_home = Path("~/.kube/config").expanduser()
    if _is_there(at_home):
        return Found(load([at_home]).access(connection.context), str(at_home))
    if os.environ.get("KUBERNETES_SERVICE_HOST"):
        return Found(in_cluster(), "this pod's ServiceAccount")
    if _is_there(local):
        raise CommandError(
            f"the plane of {data_dir} is not running; start it with 'fleetplane up --data-dir {data_dir}', "
            "or name another server with --kubeconfig"
        )
    raise CommandError(_NOTHING_FOUND)


def _is_there(path: Path) -> bool:
    """Whether there is a file; one in a folder we may not look into is none of ours."""
    try:
        return path.is_file()
    except PermissionError:
        return False


def local_data_dir() -> Path:
    """Where ``fleetplane up`` would keep a plane if it were started now and here."""
    from fleetplane.settings import Settings, SettingsError, load_settings

    try:
        return load_settings({}, os.environ).data_dir
    except SettingsError:
        return Settings().data_dir


def listens(server: str) -> bool:
    """Whether something listens there: the kubeconfig of a plane outlives it."""
    address = urlsplit(server)
    try:
        socket.create_connection((address.hostname or "", address.port or 443), timeout=_PROBE_SECONDS).close()
    except OSError:
        return False
    return True


async def open_session(connection: Connection, found: Found) -> Session:
    environment = SystemEnvironment()
    client = await _client(found.access, environment, connection.cluster)
    return Session(
        access=found.access,
        client=client,
        discovery=Discovery(client, environment),
        environment=environment,
        namespace=connection.namespace or found.access.namespace,
        namespace_given=connection.namespace is not None,
        out=Terminal(),
    )


async def _client(access: Access, environment: Environment, cluster: str | None) -> RestClient:
    if cluster not in {None, ROOT}:
        client = await connect_to(access, environment)
        try:
            return client.in_cluster(None if cluster == "*" else cluster)
        except ValueError as error:
            await client.close()
            raise CommandError(f"{error}; leave out --cluster") from None
    # What a server can do beyond Kubernetes matters to no command in the default cluster: one question less to wait for.
    client = RestClient(HttpTransport(access, environment))
    return client.acting_as(access.act_as, access.act_as_groups) if access.act_as else client


def run_session(connection: Connection, command: Callable[[Session], Coroutine[Any, Any, None]]) -> None:
    """Run a command against the server. Raises CommandError with one sentence, or ExitWith after failures were said."""
    try:
        found = find(connection)
    except ConfigError as error:
        raise CommandError(str(error)) from error
    try:
        asyncio.run(_run(connection, found, command))
    except (ApiError, ConfigError) as error:
        raise CommandError(_explained(error, found)) from error
    except BaseExceptionGroup as group:
        first = _first(group)
        if isinstance(first, ApiError | ConfigError):
            raise CommandError(_explained(first, found)) from group
        if isinstance(first, CommandError | ExitWith | BrokenPipeError | KeyboardInterrupt):
            raise first from None
        raise


async def _run(connection: Connection, found: Found, command: Callable[[Session], Coroutine[Any, Any, None]]) -> None:
    session = await open_session(connection, found)
    counted = Counted(session.client.transport)
    session.client = session.client.over(counted)
    session.discovery = Discovery(session.client, session.environment)
    try:
        async with patience(session.out, counted, session.access.server):
            await command(session)
        sys.stdout.flush()
    finally:
        await session.client.close()
    if session.failures:
        raise ExitWith(1)


def worded(error: ApiError) -> str:
    """A refusal as one sentence. Causes that the message does not hold already are added."""
    message = error.message.strip().rstrip(".")
    more = [str(cause) for cause in error.causes if cause.detail not in message]
    return f"{message}: {'; '.join(more)}" if more else message


def _explained(error: ApiError | ConfigError, found: Found) -> str:
    if isinstance(error, ConfigError):
        return f"{error} (from {found.origin})"
    sentence = worded(error)
    if isinstance(error, Unreachable):
        return f"{sentence}; start a plane with 'fleetplane up', or check the server in {found.origin}"
    if error.code == 401:
        return f"{found.access.server} does not accept the credentials in {found.origin}; get a new kubeconfig for it"
    if error.code == 403:
        return f"{sentence}; ask an administrator for this right, or use another --context"
    return sentence


def _first(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
