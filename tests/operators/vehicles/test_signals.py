"""Signals from brokers that want TLS and names, and from a Kuksa databroker."""

from __future__ import annotations

import asyncio
import base64
import shutil
import socket
import ssl
import struct
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trustme
from hypothesis import given
from hypothesis import strategies as st
from tests.operators.vehicles.stage import Stage, VehPod, stage, veh_pod
from tests.operators.vehicles.test_rules import publish

from fleetplane.model.builtin.types import SECRETS
from fleetplane.model.protobuf.errors import DecodeError
from fleetplane.model.protobuf.wire import tagged_bytes, tagged_varint, varint
from fleetplane.operators.vehicles import kuksa
from fleetplane.operators.vehicles.kinds import LifecycleManagingRule, VehSignalSource
from fleetplane.operators.vehicles.kuksa import Kuksa
from fleetplane.operators.vehicles.signals import Mqtt, Sample, SourceFailure, tls_context

MOSQUITTO = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin") or ""
PASSWD = shutil.which("mosquitto_passwd") or ""


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def pem(*parts: Any) -> str:
    return "\n".join(one.bytes().decode() for one in parts)


def write_settings(folder: Path, authority: trustme.CA, secure: int, plain: int) -> None:
    certificate = authority.issue_cert("localhost", "127.0.0.1")
    (folder / "ca.pem").write_text(pem(authority.cert_pem))
    (folder / "cert.pem").write_text(pem(*certificate.cert_chain_pems))
    (folder / "key.pem").write_text(pem(certificate.private_key_pem))
    subprocess.run([PASSWD, "-b", "-c", str(folder / "names"), "car", "secret"], check=True)
    for one in folder.iterdir():
        one.chmod(0o644)  # the broker gives its rights up
    folder.chmod(0o755)
    lines = [
        "per_listener_settings true",
        f"listener {plain} 127.0.0.1",
        "allow_anonymous true",
        f"listener {secure} 127.0.0.1",
        "allow_anonymous false",
        f"password_file {folder / 'names'}",
        f"cafile {folder / 'ca.pem'}",
        f"certfile {folder / 'cert.pem'}",
        f"keyfile {folder / 'key.pem'}",
        "require_certificate true",
        "user root",
    ]
    (folder / "mosquitto.conf").write_text("\n".join(lines))


@asynccontextmanager
async def broker(folder: Path, authority: trustme.CA) -> AsyncIterator[tuple[int, int]]:
    """Mosquitto with TLS, names and client certificates on one port, and a plain one for publishing."""
    secure, plain = free_port(), free_port()
    write_settings(folder, authority, secure, plain)
    process = await asyncio.create_subprocess_exec(
        MOSQUITTO,
        "-c",
        str(folder / "mosquitto.conf"),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        async with asyncio.timeout(10):
            while True:
                try:
                    (await asyncio.open_connection("127.0.0.1", plain))[1].close()
                    break
                except OSError:
                    await asyncio.sleep(0.02)
        yield secure, plain
    finally:
        process.terminate()
        await process.wait()


async def first(source: Any, say: Callable[[], Any]) -> Sample:
    """The first sample while somebody speaks. Raises what the source raises."""

    async def listen() -> Sample:
        async for sample in source.samples():
            return sample
        raise AssertionError("it ended")

    listening = asyncio.ensure_future(listen())
    async with asyncio.timeout(15):
        while not listening.done():
            await say()
            await asyncio.sleep(0.05)
    return listening.result()


@pytest.mark.skipif(not (MOSQUITTO and PASSWD), reason="Mosquitto is not installed")
async def test_a_broker_with_tls_names_and_certificates_is_listened_to_and_nobody_else_is_trusted(
    tmp_path: Path,
) -> None:
    authority, other = trustme.CA(), trustme.CA()
    own = authority.issue_cert("car@example.org")
    context = tls_context(pem(authority.cert_pem), pem(*own.cert_chain_pems), pem(own.private_key_pem))
    async with broker(tmp_path, authority) as (secure, plain):

        async def say() -> None:
            await publish(plain, "Vehicle/Speed", b"17.5")

        found = await first(Mqtt("localhost", secure, ["#"], "a", "car", "secret", context), say)
        assert found == Sample("Vehicle/Speed", 17.5)
        with pytest.raises(SourceFailure, match="refused the connection"):
            await first(Mqtt("localhost", secure, ["#"], "b", "car", "wrong", context), say)
        strange = tls_context(pem(other.cert_pem), pem(*own.cert_chain_pems), pem(own.private_key_pem))
        with pytest.raises(SourceFailure, match="cannot be reached"):
            await first(Mqtt("localhost", secure, ["#"], "c", "car", "secret", strange), say)
        with pytest.raises(SourceFailure):
            await first(
                Mqtt("localhost", secure, ["#"], "d", "car", "secret", tls_context(pem(authority.cert_pem))), say
            )


def test_certificates_that_are_none_are_told_and_old_tls_is_not_spoken() -> None:
    with pytest.raises(SourceFailure, match="cannot be used"):
        tls_context("no certificate")
    authority = pem(trustme.CA().cert_pem)
    with pytest.raises(SourceFailure, match="cannot be used"):
        tls_context(authority, "no", "key")
    context = tls_context(authority)
    assert context.minimum_version >= ssl.TLSVersion.TLSv1_2
    assert context.check_hostname


def test_passwords_and_tokens_are_not_shown() -> None:
    assert "secret" not in repr(Mqtt("h", password="secret"))
    assert "secret" not in repr(Kuksa("h", ["A"], token="secret"))


# -- Kuksa, against a server that speaks the published messages


def zigzag(value: int) -> int:
    return (value << 1) ^ (value >> 63)


def value_v2(value: Any) -> bytes:
    """``Value`` of kuksa.val.v2, and the oneof of ``Datapoint`` of v1: they number alike."""
    if isinstance(value, str):
        return tagged_bytes(11, value.encode())
    if isinstance(value, bool):
        return tagged_varint(12, value)
    if isinstance(value, int):
        return tagged_varint(13, zigzag(value))
    return varint(18 << 3 | 1) + struct.pack("<d", value)


def response_v2(**values: Any) -> bytes:
    """``SubscribeResponse``: a map from path to ``Datapoint``; ``None`` is a data point without a value."""
    made = b""
    for path, value in values.items():
        point = tagged_bytes(1, tagged_varint(1, 1700000000))
        point += b"" if value is None else tagged_bytes(2, value_v2(value))
        made += tagged_bytes(1, tagged_bytes(1, path.replace("_", ".").encode()) + tagged_bytes(2, point))
    return made


def response_v1(path: str, value: Any) -> bytes:
    point = tagged_bytes(1, tagged_varint(1, 1700000000)) + value_v2(value)
    return tagged_bytes(
        1, tagged_bytes(1, tagged_bytes(1, path.encode()) + tagged_bytes(2, point)) + tagged_varint(2, 2)
    )


@asynccontextmanager
async def databroker(
    answers: dict[str, list[bytes]], requests: list[tuple[str, bytes, dict[str, str]]], credentials: Any = None
) -> AsyncIterator[int]:
    """Answers ``Subscribe`` of the versions it is given, then stays silent; a request without a token is refused."""
    grpc = pytest.importorskip("grpc")

    def handler_of(version: str) -> Any:
        async def subscribe(request: bytes, context: Any) -> AsyncIterator[bytes]:
            told = {key: value for key, value in context.invocation_metadata() or () if isinstance(value, str)}
            requests.append((version, request, told))
            if b"Unknown" in request:
                await context.abort(grpc.StatusCode.NOT_FOUND, "Path not found")
            for one in answers[version]:
                yield one
            await asyncio.sleep(3600)

        return grpc.method_handlers_generic_handler(
            f"kuksa.val.{version}.VAL", {"Subscribe": grpc.unary_stream_rpc_method_handler(subscribe)}
        )

    server = grpc.aio.server()
    server.add_generic_rpc_handlers([handler_of(version) for version in answers])
    if credentials is None:
        port = server.add_insecure_port("127.0.0.1:0")
    else:
        port = server.add_secure_port("127.0.0.1:0", credentials)
    await server.start()
    try:
        yield port
    finally:
        await server.stop(None)


async def take(source: Kuksa, count: int) -> list[Sample]:
    found: list[Sample] = []
    async with asyncio.timeout(20):
        stream = source.samples()
        async for sample in stream:
            found.append(sample)
            if len(found) == count:
                await stream.aclose()  # type: ignore[attr-defined]
                break
    return found


async def test_a_databroker_tells_present_values_and_changes() -> None:
    answers = {
        "v2": [response_v2(Vehicle_Speed=17.5, Vehicle_Gear=-1, Vehicle_Off=None), response_v2(Vehicle_Name="x")]
    }
    requests: list[Any] = []
    async with databroker(answers, requests) as port:
        found = await take(Kuksa("127.0.0.1", ["Vehicle.Speed", "Vehicle.Gear"], port, token="jwt"), 3)
    assert found == [Sample("Vehicle.Speed", 17.5), Sample("Vehicle.Gear", -1.0), Sample("Vehicle.Name", "x")]
    version, request, told = requests[0]
    assert version == "v2"
    assert request == b"\x0a\x0dVehicle.Speed\x0a\x0cVehicle.Gear\x10\xe8\x07"
    assert told["authorization"] == "Bearer jwt"


async def test_an_older_databroker_is_spoken_to_in_its_version() -> None:
    requests: list[Any] = []
    async with databroker({"v1": [response_v1("Vehicle.IsMoving", True)]}, requests) as port:
        assert await take(Kuksa("127.0.0.1", ["Vehicle.IsMoving"], port), 1) == [Sample("Vehicle.IsMoving", True)]
    assert requests[0][0] == "v1"
    assert requests[0][1] == b"\x0a\x18\x0a\x10Vehicle.IsMoving\x10\x01\x18\x01\x18\x02"


async def test_a_databroker_with_tls_is_spoken_to_only_if_it_is_trusted() -> None:
    grpc = pytest.importorskip("grpc")
    authority = trustme.CA()
    certificate = authority.issue_cert("localhost")
    chain = "".join(one.bytes().decode() for one in certificate.cert_chain_pems).encode()
    credentials = grpc.ssl_server_credentials([(certificate.private_key_pem.bytes(), chain)])
    async with databroker({"v2": [response_v2(Vehicle_Speed=1.0)]}, [], credentials) as port:
        trusted = Kuksa("localhost", ["Vehicle.Speed"], port, authority.cert_pem.bytes())
        assert await take(trusted, 1) == [Sample("Vehicle.Speed", 1.0)]
        with pytest.raises(SourceFailure):
            await take(Kuksa("localhost", ["Vehicle.Speed"], port, trustme.CA().cert_pem.bytes()), 1)


async def test_what_the_databroker_refuses_is_told_in_its_words() -> None:
    async with databroker({"v2": []}, []) as port:
        with pytest.raises(SourceFailure, match="Path not found"):
            await take(Kuksa("127.0.0.1", ["Vehicle.Unknown"], port), 1)
    with pytest.raises(SourceFailure, match=r"127\.0\.0\.1:1 "):
        await take(Kuksa("127.0.0.1", ["Vehicle.Speed"], 1), 1)


@given(st.binary(max_size=200))
def test_whatever_a_databroker_sends_is_read_or_refused(data: bytes) -> None:
    for read in (kuksa.samples_of, kuksa._olds):
        try:
            for sample in read(data):
                assert isinstance(sample.value, float | str | bool)
        except DecodeError:
            continue


@given(st.one_of(st.text(max_size=20), st.booleans(), st.integers(-(2**31), 2**31 - 1), st.floats(allow_nan=False)))
def test_every_kind_of_value_comes_through(value: Any) -> None:
    (found,) = kuksa.samples_of(response_v2(A=value))
    assert found.value == value


async def _follows(made: Stage, name: str) -> None:
    async with asyncio.timeout(30):
        while await made.phase(name) != "Running":
            await asyncio.sleep(0.05)


async def test_a_rule_follows_a_signal_of_a_databroker_with_its_token_from_a_secret() -> None:
    requests: list[Any] = []
    answers = {"v2": [response_v2(Vehicle_Speed=0.0), response_v2(Vehicle_Speed=90.0)]}
    async with databroker(answers, requests) as port, stage(nodes=1) as made:
        token = base64.b64encode(b"jwt\n").decode()
        await made.client.create(SECRETS, {"metadata": {"name": "vss"}, "data": {"token": token}}, "default")
        await made.client.create(VehPod, veh_pod("assist", state="Stopped"), "default")
        condition = {
            "conditionName": "fast",
            "conditionTopic": "Vehicle.Speed",
            "conditionComparison": "GreaterThan",
            "conditionValue": 50,
        }
        rule = {"action": "start", "target": ["VehPod/assist"], "lifeTime": "sticky", "condition": condition}
        await made.client.create(LifecycleManagingRule, {"metadata": {"name": "fast"}, "spec": rule}, "default")
        spec = {"kuksa": {"host": "127.0.0.1", "port": port, "signals": ["Vehicle.Speed"], "tokenSecret": "vss"}}
        await asyncio.sleep(0.5)
        await made.client.create(VehSignalSource, {"metadata": {"name": "vss"}, "spec": spec}, "default")
        await _follows(made, "assist")
    assert requests[0][2]["authorization"] == "Bearer jwt"
