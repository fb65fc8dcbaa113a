"""Another machine joins: from a bootstrap token to a node of its own identity.

The machine makes its key, which never leaves it, and asks for a certificate with the token; the plane approves and signs.
From then on the node is ``system:node:<name>``, may touch only what is bound to it, and renews its certificate itself.
Source: Kubernetes TLS bootstrapping.
"""

from __future__ import annotations

import asyncio
import base64
import json
import secrets
import socket
import string
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from fleetplane.client.http import connect_to
from fleetplane.client.kubeconfig import Access, find_access
from fleetplane.client.protocol import Client
from fleetplane.interfaces.cli.errors import CommandError
from fleetplane.model.builtin.types import CERTIFICATE_SIGNING_REQUESTS, SECRETS
from fleetplane.model.environment import Environment, SystemEnvironment, name_suffix, timestamp
from fleetplane.model.objects import Object, is_condition_true
from fleetplane.node.agent import NodeAgent, NodeSettings
from fleetplane.node.files import write_private
from fleetplane.node.local import POD_NETWORKS, run_local_node
from fleetplane.node.tunnel import keep_tunnel

_SIGNER = "kubernetes.io/kube-apiserver-client-kubelet"
_WAIT_SECONDS = 120.0
_CHECK_SECONDS = 3600.0
_LETTERS = string.ascii_lowercase + string.digits


async def create_token(client: Client, lifetime: timedelta, environment: Environment) -> str:
    """A bootstrap token that machines may join with until it expires."""
    token_id = "".join(secrets.choice(_LETTERS) for _ in range(6))
    secret = "".join(secrets.choice(_LETTERS) for _ in range(16))
    data = {
        "token-id": token_id,
        "token-secret": secret,
        "usage-bootstrap-authentication": "true",
        "expiration": timestamp(environment.now() + lifetime),
        "description": "made by fleetplane token",
    }
    obj: Object = {
        "metadata": {"name": f"bootstrap-token-{token_id}"},
        "type": "bootstrap.kubernetes.io/token",
        "stringData": data,
    }
    await client.create(SECRETS, obj, "kube-system")
    return f"{token_id}.{secret}"


@dataclass(frozen=True, slots=True)
class Arrangement:
    """How a joined machine runs pods: on Podman or, with ``cri_socket``, on the CRI runtime there (empty: in one of the
    usual places); with addresses from ``pod_networks``; ``reserved`` is kept from them.
    """

    cri_socket: str | None = None
    pod_networks: Sequence[str] = POD_NETWORKS
    reserved: Mapping[str, str] = field(default_factory=dict)


async def run_joined_node(
    data_dir: Path,
    server: str,
    token: str,
    ca: bytes | None,
    name: str,
    say: Callable[[str], None],
    arrangement: Arrangement,
) -> None:
    """Join if this machine has not joined yet, then run the node until cancelled.

    Raises:
        CommandError: the plane cannot be reached, the token is not good, or the request is not approved in time.
    """
    environment = SystemEnvironment()
    node = name or socket.gethostname().lower()
    kubeconfig = data_dir / "node.kubeconfig"
    if not await asyncio.to_thread(kubeconfig.exists):
        if not server or not token:
            raise CommandError("this machine has not joined a plane yet; give --server and --token")
        say(f"joining {server} as {node}")
        bootstrap = await connect_to(Access(server, ca=ca, token=token), environment)
        try:
            await _obtain(bootstrap, kubeconfig, server, ca, node, environment)
        finally:
            await bootstrap.close()
    while True:
        access = find_access(kubeconfig)
        client = await connect_to(access, environment)
        try:
            async with asyncio.TaskGroup() as group:
                running = group.create_task(_run(access, client, data_dir, node, environment, say, arrangement))
                await _until_old(access, environment)
                await _obtain(client, kubeconfig, access.server, access.ca, node, environment)
                running.cancel()
        finally:
            await client.close()
        say("the node's certificate was renewed")


async def _run(
    access: Access,
    client: Client,
    data_dir: Path,
    node: str,
    environment: Environment,
    say: Callable[[str], None],
    arrangement: Arrangement,
) -> None:
    """The node, and once the plane knows it the tunnel by which its pods are reached."""
    settings = NodeSettings(
        data_dir / "nodes" / node, name=node, static_pods=data_dir / "static-pods", reserved=arrangement.reserved
    )
    async with asyncio.TaskGroup() as group:

        def ready(agent: NodeAgent) -> None:
            say(f"node {node} is registered")
            group.create_task(
                keep_tunnel(access, environment, node, agent.streams, lambda: agent.node_usage(node)),
                name="the node's tunnel",
            )

        await run_local_node(
            client,
            settings,
            environment,
            pod_networks=arrangement.pod_networks,
            service_client=client,
            ask_first=True,
            cri_socket=arrangement.cri_socket,
            on_ready=ready,
        )


async def _until_old(access: Access, environment: Environment) -> None:
    """Return when seven tenths of the certificate's life are over."""
    if access.certificate is None:
        raise CommandError("the node's kubeconfig holds no certificate; remove it and join again")
    certificate = x509.load_pem_x509_certificate(access.certificate)
    begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    renew = begin + (end - begin) * 0.7
    while environment.now() < renew:  # noqa: ASYNC110 - the clock is the event
        await asyncio.sleep(min(_CHECK_SECONDS, max((renew - environment.now()).total_seconds(), 1.0)))


async def _obtain(
    client: Client, kubeconfig: Path, server: str, ca: bytes | None, node: str, environment: Environment
) -> None:
    """Ask for a certificate for a new key and write both into the node's kubeconfig (0600)."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "system:nodes"),
            x509.NameAttribute(NameOID.COMMON_NAME, f"system:node:{node}"),
        ]
    )
    wanted = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
    pem = wanted.public_bytes(serialization.Encoding.PEM)
    name = f"node-csr-{node}-{name_suffix(environment, 8)}"
    spec = {
        "request": base64.b64encode(pem).decode(),
        "signerName": _SIGNER,
        "usages": ["client auth", "digital signature"],
    }
    await client.create(CERTIFICATE_SIGNING_REQUESTS, {"metadata": {"name": name}, "spec": spec})
    certificate = await _signed(client, name)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    cluster: Object = {"server": server}
    if ca is not None:
        cluster["certificate-authority-data"] = base64.b64encode(ca).decode()
    user = {
        "client-certificate-data": base64.b64encode(certificate).decode(),
        "client-key-data": base64.b64encode(private).decode(),
    }
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "plane", "cluster": cluster}],
        "users": [{"name": "node", "user": user}],
        "contexts": [{"name": "node", "context": {"cluster": "plane", "user": "node"}}],
        "current-context": "node",
    }
    await asyncio.to_thread(_write, kubeconfig, json.dumps(config).encode())


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_private(path, data)


async def _signed(client: Client, name: str) -> bytes:
    """The certificate, once the plane has signed it."""
    try:
        async with asyncio.timeout(_WAIT_SECONDS):
            while True:
                request = await client.get(CERTIFICATE_SIGNING_REQUESTS, name)
                certificate = (request.get("status") or {}).get("certificate")
                if certificate:
                    return base64.b64decode(certificate)
                for refused in ("Denied", "Failed"):
                    if is_condition_true(request, refused):
                        raise CommandError(
                            f"the certificate request {name} was {refused.lower()}; look at it with kubectl"
                        )
                await asyncio.sleep(0.2)
    except TimeoutError:
        raise CommandError(
            f"the certificate request {name} was not approved in {_WAIT_SECONDS:.0f} seconds; approve it and try again"
        ) from None
