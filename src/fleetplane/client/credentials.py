"""Who we say we are: the part of an ``Access`` that may change while we run.

Tokens in files rotate, exec plug-ins hand out short-lived tokens or certificates. ``Credentials.current`` answers from
memory while what it has is good; after the server said 401, ``renew`` forgets it once. Concurrent requests share one
run of a plug-in. The plug-in is started without a shell and never sees our standard input.
"""

from __future__ import annotations

import asyncio
import base64
import os
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final, NamedTuple

import orjson

from fleetplane.client.kubeconfig import Access, ConfigError, ExecPlugin
from fleetplane.model.environment import Environment, parse_timestamp
from fleetplane.model.objects import Object

TOKEN_FILE_SECONDS: Final = 60.0
"""How long a token read from a file is used before the file is read again."""

PLUGIN_TIMEOUT_SECONDS: Final = 60.0
_EXPIRY_MARGIN: Final = timedelta(seconds=10)


class Credential(NamedTuple):
    """``authorization`` is the header's value, empty for none; certificate and key are PEM."""

    authorization: str
    certificate: bytes | None
    key: bytes | None


@dataclass
class Credentials:
    access: Access
    environment: Environment
    _current: Credential | None = None
    _read_at: float = 0.0
    _expires: datetime | None = None
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def can_renew(self) -> bool:
        return self.access.exec_plugin is not None or self.access.token_file is not None

    async def current(self) -> Credential:
        if self._current is not None and not self._is_stale():
            return self._current
        async with self._lock:
            if self._current is None or self._is_stale():
                self._current = await self._obtain()
            return self._current

    def renew(self, refused: Credential) -> None:
        """Forget a credential that the server refused, unless another request has already replaced it."""
        if self._current is refused:
            self._current = None

    def _is_stale(self) -> bool:
        if self.access.token_file is not None:
            return self.environment.monotonic() - self._read_at > TOKEN_FILE_SECONDS
        return self._expires is not None and self.environment.now() > self._expires - _EXPIRY_MARGIN

    async def _obtain(self) -> Credential:
        access = self.access
        certificate, key = access.certificate, access.key
        if access.exec_plugin is not None:
            status = await run_plugin(access.exec_plugin, access)
            expiry = status.get("expirationTimestamp")
            self._expires = parse_timestamp(expiry) if expiry else None
            token = str(status.get("token") or "")
            if status.get("clientCertificateData"):
                certificate = str(status["clientCertificateData"]).encode()
                key = str(status.get("clientKeyData") or "").encode()
            return Credential(f"Bearer {token}" if token else "", certificate, key)
        if access.token_file is not None:
            try:
                token = (await asyncio.to_thread(access.token_file.read_text)).strip()
            except OSError as error:
                raise ConfigError(f"the token file cannot be read: {error}") from None
            self._read_at = self.environment.monotonic()
            return Credential(f"Bearer {token}", certificate, key)
        if access.token:
            return Credential(f"Bearer {access.token}", certificate, key)
        if access.username:
            basic = base64.b64encode(f"{access.username}:{access.password}".encode()).decode()
            return Credential(f"Basic {basic}", certificate, key)
        return Credential("", certificate, key)


async def run_plugin(plugin: ExecPlugin, access: Access) -> Object:
    """Start an exec credential plug-in and return the ``status`` of the ExecCredential it prints."""
    spec: Object = {"interactive": False}
    if plugin.provide_cluster_info:
        spec["cluster"] = _cluster_info(access)
    info = {"apiVersion": plugin.api_version, "kind": "ExecCredential", "spec": spec}
    variables = {**os.environ, **dict(plugin.environment), "KUBERNETES_EXEC_INFO": orjson.dumps(info).decode()}
    try:
        process = await asyncio.create_subprocess_exec(
            plugin.command,
            *plugin.arguments,
            env=variables,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
        )
    except OSError as error:
        hint = f"; {plugin.install_hint}" if plugin.install_hint else ""
        raise ConfigError(
            f"the credential plug-in {plugin.command} cannot be started: {error.strerror}{hint}"
        ) from None
    try:
        async with asyncio.timeout(PLUGIN_TIMEOUT_SECONDS):
            output, _ = await process.communicate()
    except BaseException as error:
        process.kill()
        await process.wait()
        if isinstance(error, TimeoutError):
            raise ConfigError(f"the credential plug-in {plugin.command} did not answer in time") from None
        raise
    if process.returncode != 0:
        raise ConfigError(f"the credential plug-in {plugin.command} failed with exit status {process.returncode}")
    try:
        answer = orjson.loads(output)
        status = answer["status"]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        raise ConfigError(f"the credential plug-in {plugin.command} did not print an ExecCredential") from None
    if not isinstance(status, dict) or not (status.get("token") or status.get("clientCertificateData")):
        raise ConfigError(f"the credential plug-in {plugin.command} gave neither a token nor a certificate")
    return status


def _cluster_info(access: Access) -> Object:
    info: Object = {"server": access.server, "insecure-skip-tls-verify": access.insecure}
    if access.tls_server_name:
        info["tls-server-name"] = access.tls_server_name
    if access.ca is not None:
        info["certificate-authority-data"] = base64.b64encode(access.ca).decode()
    if access.proxy_url:
        info["proxy-url"] = access.proxy_url
    return info
