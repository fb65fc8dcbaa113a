"""The plane makes its PKI once, keeps it, renews what grows old, and shows secrets to nobody."""

from __future__ import annotations

import asyncio
import base64
import random
import ssl
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml

from fleetplane.apiserver import certificates, pki


class Clock:
    """An environment whose time the test moves."""

    def __init__(self) -> None:
        self.random = random.Random(7)
        self.time = datetime.now(UTC)

    def now(self) -> datetime:
        return self.time

    def monotonic(self) -> float:
        return self.time.timestamp()

    def uuid(self) -> str:
        return "00000000-0000-4000-8000-000000000000"


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_everything_is_private_to_its_owner(tmp_path: Path, clock: Clock) -> None:
    pki.ensure_pki(tmp_path / "pki", clock)

    assert stat.S_IMODE((tmp_path / "pki").stat().st_mode) == 0o700
    files = list((tmp_path / "pki").iterdir())
    assert len(files) == 9
    assert {stat.S_IMODE(f.stat().st_mode) for f in files} == {0o600}


def test_a_second_start_finds_the_same(tmp_path: Path, clock: Clock) -> None:
    first = pki.ensure_pki(tmp_path, clock, hosts=["10.96.0.1"])
    stamps = {f.name: f.stat().st_mtime_ns for f in tmp_path.iterdir()}

    second = pki.ensure_pki(tmp_path, clock, hosts=["10.96.0.1"])

    assert second.admin_token == first.admin_token
    assert second.serving.certificate == first.serving.certificate
    assert {f.name: f.stat().st_mtime_ns for f in tmp_path.iterdir()} == stamps


def test_a_new_address_renews_only_the_serving_certificate_and_keeps_the_old_names(
    tmp_path: Path, clock: Clock
) -> None:
    first = pki.ensure_pki(tmp_path, clock, hosts=["car.example"])
    second = pki.ensure_pki(tmp_path, clock, hosts=["192.0.2.7"])

    assert {"car.example", "192.0.2.7", "kubernetes.default.svc", "::1"} <= certificates.hosts_of(
        second.serving.certificate
    )
    assert second.authority.certificate == first.authority.certificate
    assert second.admin.certificate == first.admin.certificate


def test_leaves_near_their_end_are_renewed_by_the_same_authority(tmp_path: Path, clock: Clock) -> None:
    first = pki.ensure_pki(tmp_path, clock)
    clock.time += timedelta(days=300)

    second = pki.ensure_pki(tmp_path, clock)

    assert second.authority.certificate == first.authority.certificate
    assert second.admin.certificate.not_valid_after_utc > first.admin.certificate.not_valid_after_utc
    assert certificates.is_issued_by(second.admin.certificate, first.authority.certificate)


def test_an_old_authority_gets_a_new_certificate_over_the_same_key(tmp_path: Path, clock: Clock) -> None:
    first = pki.ensure_pki(tmp_path, clock)
    clock.time += timedelta(days=3000)

    second = pki.ensure_pki(tmp_path, clock)

    assert second.authority.certificate != first.authority.certificate
    assert certificates.is_issued_by(first.admin.certificate, second.authority.certificate)


def test_a_torn_leaf_is_made_again_but_a_torn_authority_stops_the_start(tmp_path: Path, clock: Clock) -> None:
    pki.ensure_pki(tmp_path, clock)
    (tmp_path / "serving.pem").write_bytes(b"")
    pki.ensure_pki(tmp_path, clock)
    (tmp_path / "ca.pem").write_bytes(b"")

    with pytest.raises(pki.PkiError, match=r"ca\.pem"):
        pki.ensure_pki(tmp_path, clock)


def test_the_admin_kubeconfig_needs_no_other_file(tmp_path: Path, clock: Clock) -> None:
    made = pki.ensure_pki(tmp_path / "pki", clock)
    path = tmp_path / "admin.kubeconfig"

    pki.write_admin_kubeconfig(path, "https://[::1]:6443", made)

    config = yaml.safe_load(path.read_text())
    user = config["users"][0]["user"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert config["clusters"][0]["cluster"]["server"] == "https://[::1]:6443"
    assert base64.b64decode(user["client-key-data"]) == made.admin.key_pem
    assert made.is_admin_token(user["token"])
    assert not made.is_admin_token(user["token"][:-1])


async def _shake_hands(server: ssl.SSLContext, client: ssl.SSLContext) -> bytes | None:
    """The client certificate the server saw, or the client's or server's ssl error."""
    seen: asyncio.Future[bytes | None] = asyncio.get_running_loop().create_future()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.set_result(writer.get_extra_info("ssl_object").getpeercert(binary_form=True))
        writer.write(b"ok")
        await writer.drain()
        writer.close()

    listener = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=server)
    async with listener:
        port = listener.sockets[0].getsockname()[1]
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=client, server_hostname="kubernetes")
        assert await reader.read() == b"ok"
        writer.close()
    return await seen


async def test_clients_may_show_a_certificate_and_are_told_apart(tmp_path: Path, clock: Clock) -> None:
    made = pki.ensure_pki(tmp_path, clock)
    server = pki.server_context(made)
    client = ssl.create_default_context(cadata=made.authority_pem.decode())

    assert await _shake_hands(server, client) is None
    client.load_cert_chain(tmp_path / "admin.pem")
    der = await _shake_hands(server, client)

    assert der is not None
    assert b"kubernetes-admin" in der


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion")
async def test_tls_below_1_2_is_refused(tmp_path: Path, clock: Clock) -> None:
    made = pki.ensure_pki(tmp_path, clock)
    client = ssl.create_default_context(cadata=made.authority_pem.decode())
    client.minimum_version = ssl.TLSVersion.TLSv1
    client.maximum_version = ssl.TLSVersion.TLSv1_1

    with pytest.raises((ssl.SSLError, ConnectionError)):
        await _shake_hands(pki.server_context(made), client)


def test_a_client_certificate_names_its_logical_cluster(tmp_path: Path, clock: Clock) -> None:
    made = pki.ensure_pki(tmp_path, clock)
    subject = certificates.Subject("ann", groups=("dev",), cluster="c-123")

    certificate = certificates.issue(made.authority, subject, made.admin.key.public_key(), clock)

    assert certificates.cluster_of(certificate) == "c-123"
    assert certificates.cluster_of(made.admin.certificate) == ""


def test_no_secret_shows_when_it_is_printed(tmp_path: Path, clock: Clock) -> None:
    made = pki.ensure_pki(tmp_path, clock)

    assert made.admin_token not in repr(made)
    assert "PRIVATE" not in repr(made)
