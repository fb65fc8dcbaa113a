"""A whole plane in one process: what only its parts together can show."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from fleetplane.model.builtin.types import (
    CERTIFICATE_SIGNING_REQUESTS,
    CONFIG_MAPS,
    DEPLOYMENTS,
    NODES,
    PERSISTENT_VOLUME_CLAIMS,
    PODS,
    SECRETS,
    SERVICE_ACCOUNTS,
    SERVICES,
)
from fleetplane.model.objects import Object
from fleetplane.plane import Plane
from fleetplane.plane_error import PlaneError
from fleetplane.settings import Settings


@pytest_asyncio.fixture
async def plane(tmp_path: Path) -> AsyncIterator[Plane]:
    async with Plane(Settings(data_dir=tmp_path / "data", port=0, runtime="simulated", operators="none")) as running:
        yield running


async def eventually(look: Callable[[], Awaitable[Any]]) -> Any:
    async with asyncio.timeout(20):
        while not (found := await look()):
            await asyncio.sleep(0.02)
    return found


async def test_a_plane_is_ready_when_it_says_so(plane: Plane) -> None:
    client = plane.client()

    nodes = (await client.list(NODES)).items
    account = await client.get(SERVICE_ACCOUNTS, "default", "default")

    assert [node["metadata"]["name"] for node in nodes] == ["sim-0"]
    assert account["metadata"]["name"] == "default"
    assert plane.kubeconfig.stat().st_mode & 0o777 == 0o600


async def test_pods_can_trust_the_address_they_are_given(plane: Plane, tmp_path: Path) -> None:
    """``KUBERNETES_SERVICE_HOST`` is an address, so the certificate names it."""
    service = await plane.client().get(SERVICES, "kubernetes", "default")
    serving = x509.load_pem_x509_certificate((tmp_path / "data" / "pki" / "serving.pem").read_bytes())
    names = serving.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    addresses = {str(one) for one in names.get_values_for_type(x509.IPAddress)}

    assert {service["spec"]["clusterIP"], "fd00:10:96::1"} <= addresses


async def test_every_namespace_knows_whom_to_trust(plane: Plane) -> None:
    async def published() -> list[Object]:
        return list((await plane.client().list(CONFIG_MAPS, "default", fields="metadata.name=kube-root-ca.crt")).items)

    (found,) = await eventually(published)

    assert "BEGIN CERTIFICATE" in found["data"]["ca.crt"]


async def test_a_deployment_becomes_running_pods(plane: Plane) -> None:
    client = plane.client()
    labels = {"app": "a"}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
    spec = {"replicas": 2, "selector": {"matchLabels": labels}, "template": template}
    await client.create(DEPLOYMENTS, {"metadata": {"name": "a"}, "spec": spec}, "default")

    async def running() -> bool:
        pods = (await client.list(PODS, "default", labels="app=a")).items
        return [pod["status"].get("phase") for pod in pods] == ["Running", "Running"]

    assert await eventually(running)


async def test_a_claim_that_names_no_class_gets_a_volume_with_its_pod(plane: Plane) -> None:
    client = plane.client()
    claim = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    await client.create(PERSISTENT_VOLUME_CLAIMS, {"metadata": {"name": "data"}, "spec": claim}, "default")
    volume = {"name": "data", "persistentVolumeClaim": {"claimName": "data"}}
    pod = {"containers": [{"name": "main", "image": "app:1"}], "volumes": [volume]}

    await client.create(PODS, {"metadata": {"name": "user"}, "spec": pod}, "default")

    async def runs() -> bool:
        return str((await client.get(PODS, "user", "default"))["status"].get("phase")) == "Running"

    await eventually(runs)
    bound = await client.get(PERSISTENT_VOLUME_CLAIMS, "data", "default")
    assert (bound["spec"]["storageClassName"], bound["status"]["phase"]) == ("standard", "Bound")


async def test_an_approved_certificate_request_is_signed(plane: Plane) -> None:
    client = plane.client()
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "jane")])
    wanted = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
    pem = wanted.public_bytes(serialization.Encoding.PEM)
    spec = {
        "request": base64.b64encode(pem).decode(),
        "signerName": "kubernetes.io/kube-apiserver-client",
        "usages": ["client auth"],
    }
    made = await client.create(CERTIFICATE_SIGNING_REQUESTS, {"metadata": {"name": "jane"}, "spec": spec})
    approved = {"type": "Approved", "status": "True", "reason": "Test", "message": "by a test"}
    made["status"] = {"conditions": [approved]}
    await client.update(CERTIFICATE_SIGNING_REQUESTS, made, subresource="approval")

    async def signed() -> str:
        found = await client.get(CERTIFICATE_SIGNING_REQUESTS, "jane")
        return str((found.get("status") or {}).get("certificate") or "")

    certificate = x509.load_pem_x509_certificate(base64.b64decode(await eventually(signed)))
    assert certificate.subject == subject


async def test_a_port_in_use_is_told_in_one_sentence(plane: Plane, tmp_path: Path) -> None:
    port = int(plane.url.rpartition(":")[2])

    with pytest.raises(PlaneError, match="already in use; stop what listens there, or choose another with --port"):
        async with Plane(Settings(data_dir=tmp_path / "other", port=port, runtime="none")):
            pass


async def test_an_unknown_operator_is_refused_with_what_there_is(tmp_path: Path) -> None:
    with pytest.raises(PlaneError, match="no operator 'nobody'"):
        async with Plane(Settings(data_dir=tmp_path / "data", port=0, operators="nobody")):
            pass


async def test_what_nodes_and_pods_use_is_told(plane: Plane) -> None:
    client = plane.client()
    pod = {"metadata": {"name": "a"}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
    await client.create(PODS, pod, "default")

    async def measured() -> bytes:
        found = await client.raw("GET", "/apis/metrics.k8s.io/v1beta1/namespaces/default/pods")
        return found if b'"containers"' in found else b""

    assert b'"name":"c"' in await eventually(measured)
    assert b'"sim-0"' in await client.raw("GET", "/apis/metrics.k8s.io/v1beta1/nodes")


async def test_secrets_are_sealed_in_the_database(plane: Plane, tmp_path: Path) -> None:
    secret = {"metadata": {"name": "s"}, "stringData": {"password": "swordfish"}}
    await plane.client().create(SECRETS, secret, "default")

    files = await asyncio.to_thread(lambda: [path.read_bytes() for path in (tmp_path / "data").glob("fleetplane.db*")])

    assert files
    assert not any(base64.b64encode(b"swordfish") in content for content in files)
    assert (tmp_path / "data" / "pki" / "encryption.key").stat().st_mode & 0o777 == 0o600
