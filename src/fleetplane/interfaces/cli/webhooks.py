"""Admission of operators outside a plane: served over HTTPS, with a certificate from a folder or one made here.

Where nobody provides certificates (``folder`` is None) they are kept in one Secret: the first instance makes it, all use
it, whoever sees that it grows old makes it anew. The authority's key is thrown away at once, so a new certificate has
a new authority; the one before stays trusted beside it, because other instances change over a moment later. The
authorities are written into the webhook configurations, which are found by name and may come later or be made again.

A private key is never written to a file here: OpenSSL reads it from memory.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import os
import ssl
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

from fleetplane.apiserver.certificates import Credential, Subject, hosts_of, issue, make_authority, private_pem
from fleetplane.client.protocol import Client
from fleetplane.controller.registration import Operator
from fleetplane.controller.webhooks import serving_webhooks
from fleetplane.model.admission import AdmissionPlugin, AdmissionRequest, Decision, Reader
from fleetplane.model.builtin.types import (
    MUTATING_WEBHOOK_CONFIGURATIONS,
    SECRETS,
    VALIDATING_WEBHOOK_CONFIGURATIONS,
)
from fleetplane.model.environment import Environment
from fleetplane.model.errors import ApiError
from fleetplane.model.objects import Object
from fleetplane.model.user import service_account_user
from fleetplane.operating import NAMESPACE

log = logging.getLogger(__name__)

NAME: Final = "fleetplane-operators"
"""Of the Service and of both webhook configurations."""
SECRET: Final = "fleetplane-webhook-certificate"  # noqa: S105 - the name of an object
FIELD_MANAGER: Final = "fleetplane-webhooks"

LIFETIME: Final = timedelta(days=365)
RENEW_BEFORE: Final = timedelta(days=120)
LOOK_SECONDS: Final = 15.0
RETRY_SECONDS: Final = 2.0


@dataclass(frozen=True, slots=True)
class Serving:
    """Where and as whom webhooks are served.

    Attributes:
        namespace: Where the operators run, with their Service and Secret.
        port: 0 picks a free one.
        host: All addresses of the machine if empty.
        folder: Holds ``tls.crt`` and ``tls.key``, kept fresh by somebody else; None: made here.
        account: Name of the ServiceAccount the operators run as; what it writes counts as written by the operators.
    """

    namespace: str
    port: int = 9443
    host: str = ""
    folder: Path | None = None
    account: str = NAME

    @property
    def hosts(self) -> tuple[str, ...]:
        service = f"{NAME}.{self.namespace}.svc"
        return (service, f"{service}.cluster.local", "localhost", "127.0.0.1", "::1")


@dataclass(frozen=True, slots=True)
class Certificate:
    """PEM. ``authorities`` are all that clients shall trust."""

    certificate: bytes
    key: bytes = field(repr=False)
    authorities: bytes = b""


class Webhooks:
    """Serves while ``run`` runs. ``waiting`` says what keeps it from it, for readiness."""

    def __init__(
        self, client: Client, operators: Sequence[Operator], serving: Serving, environment: Environment
    ) -> None:
        self._client = client
        self._serving = serving
        self._environment = environment
        self._plugins = admission_of(operators, serving)
        self._context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self._loaded: Certificate | None = None
        self._is_open = False
        self.port = 0

    def waiting(self) -> str:
        return "" if self._is_open else "a certificate for the webhooks"

    async def run(self) -> None:
        """Serve until cancelled; what fails on the way is tried again."""
        while not await self._look():  # noqa: ASYNC110 - tried again, not waited for
            await asyncio.sleep(RETRY_SECONDS)
        where = self._serving
        async with serving_webhooks(self._plugins, self._client, self._context, where.host, where.port) as self.port:
            self._is_open = True
            while True:
                await asyncio.sleep(LOOK_SECONDS)
                await self._look()

    async def _look(self) -> bool:
        try:
            if self._serving.folder is not None:
                found = await asyncio.to_thread(certificate_in, self._serving.folder)
            else:
                found = await self._ensure()
                await trust(self._client, found.authorities)
            self._load(found)
        except (ApiError, OSError, ValueError) as error:
            log.warning("the certificate of the webhooks: %s", error)
        return self._loaded is not None

    def _load(self, found: Certificate) -> None:
        """New connections use it at once; those that are open go on."""
        if found == self._loaded:
            return
        load_into(self._context, found)
        self._loaded = found

    async def _ensure(self) -> Certificate:
        """What the Secret holds, made or renewed where that is needed."""
        namespace = self._serving.namespace
        try:
            secret = await self._client.get(SECRETS, SECRET, namespace)
        except ApiError as error:
            if error.code != 404:
                raise
            secret = {}
        held = held_in(secret)
        if held is not None and self._is_good(held):
            return held
        made = make_certificate(self._serving.hosts, self._environment, before=held)
        written = secret_of(made, namespace)
        if secret:  # conflicts where another instance was quicker; a type cannot be changed and does not matter
            kept: Object = {name: secret[name] for name in ("metadata", "type") if name in secret}
            await self._client.update(SECRETS, {**written, **kept}, namespace, field_manager=FIELD_MANAGER)
        else:
            await self._client.create(SECRETS, written, namespace, field_manager=FIELD_MANAGER)
        return made

    def _is_good(self, held: Certificate) -> bool:
        try:
            leaf = x509.load_pem_x509_certificate(held.certificate)
        except ValueError:
            return False
        young = leaf.not_valid_after_utc - self._environment.now() > RENEW_BEFORE
        return young and hosts_of(leaf) >= set(self._serving.hosts)


@asynccontextmanager
async def serving_admission(
    client: Client, operators: Sequence[Operator], serving: Serving, environment: Environment
) -> AsyncIterator[Webhooks]:
    """Serve the operators' admission while entered."""
    webhooks = Webhooks(client, operators, serving, environment)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(webhooks.run())
        try:
            yield webhooks
        finally:
            task.cancel()


# --- admission as somebody else --------------------------------------------------------------------------------------


def admission_of(operators: Iterable[Operator], serving: Serving) -> list[AdmissionPlugin]:
    """The plug-ins of all operators, which know each operator by the account it has inside a plane."""
    own = service_account_user(serving.namespace, serving.account).name
    return [_as_inside(plugin, one.name, own) for one in operators for plugin in one.admission]


def _as_inside(plugin: AdmissionPlugin, operator: str, own: str) -> AdmissionPlugin:
    inside = service_account_user(NAMESPACE, operator)

    async def admit(request: AdmissionRequest, reader: Reader) -> Decision | None:
        who = replace(request, user=inside) if request.user.name == own else request
        return await plugin.admit(who, reader)

    return replace(plugin, admit=admit)


# --- certificates ----------------------------------------------------------------------------------------------------


def make_certificate(
    hosts: Sequence[str], environment: Environment, *, before: Certificate | None = None
) -> Certificate:
    """A certificate under an authority of its own; the newest authority of ``before`` stays trusted beside it."""
    authority = make_authority("fleetplane-webhooks", environment, lifetime=LIFETIME)
    key = ec.generate_private_key(ec.SECP256R1())
    subject = Subject(hosts[0][:64], hosts=tuple(hosts), usages=(ExtendedKeyUsageOID.SERVER_AUTH,))
    leaf = Credential(issue(authority, subject, key.public_key(), environment, lifetime=LIFETIME), key)
    earlier = _first_pem(before.authorities) if before else b""
    return Certificate(leaf.certificate_pem, private_pem(key), authority.certificate_pem + earlier)


def _first_pem(bundle: bytes) -> bytes:
    end = b"-----END CERTIFICATE-----\n"
    first, found, _ = bundle.partition(end)
    return first + found if found else b""


def secret_of(certificate: Certificate, namespace: str) -> Object:
    data = {"tls.crt": certificate.certificate, "tls.key": certificate.key, "ca.crt": certificate.authorities}
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": SECRET, "namespace": namespace, "labels": {"app.kubernetes.io/name": NAME}},
        "type": "kubernetes.io/tls",
        "data": {name: base64.b64encode(value).decode() for name, value in data.items()},
    }


def held_in(secret: Object) -> Certificate | None:
    """What a Secret holds; nothing where it is incomplete or no base64."""
    data = secret.get("data") or {}
    try:
        parts = [base64.b64decode(data[name], validate=True) for name in ("tls.crt", "tls.key", "ca.crt")]
    except (KeyError, ValueError, TypeError):
        return None
    return Certificate(*parts)


def certificate_in(folder: Path) -> Certificate:
    """What somebody else put there. Raises OSError."""
    return Certificate((folder / "tls.crt").read_bytes(), (folder / "tls.key").read_bytes())


def load_into(context: ssl.SSLContext, certificate: Certificate) -> None:
    """Raises ssl.SSLError (an OSError) for what is no certificate with its key."""
    memory = os.memfd_create("certificate", os.MFD_CLOEXEC)
    try:
        os.write(memory, certificate.certificate + b"\n" + certificate.key)
        context.load_cert_chain(f"/proc/self/fd/{memory}")
    finally:
        os.close(memory)


async def trust(client: Client, authorities: bytes) -> None:
    """Write the authorities into the webhook configurations that are there."""
    bundle = base64.b64encode(authorities).decode()
    for resource in (MUTATING_WEBHOOK_CONFIGURATIONS, VALIDATING_WEBHOOK_CONFIGURATIONS):
        try:
            found = await client.get(resource, NAME)
        except ApiError as error:
            if error.code != 404:
                raise
            continue
        patch: list[Object] = []
        for index, webhook in enumerate(found.get("webhooks") or ()):
            if webhook["clientConfig"].get("caBundle") != bundle:
                at = f"/webhooks/{index}"
                patch.append({"op": "test", "path": f"{at}/name", "value": webhook["name"]})
                patch.append({"op": "add", "path": f"{at}/clientConfig/caBundle", "value": bundle})
        if patch:
            await client.patch(resource, NAME, patch, type="json", field_manager=FIELD_MANAGER)
