from __future__ import annotations

import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleetplane.model.protobuf import DecodeError, EventDecoder, decode, encode, encode_event
from fleetplane.model.protobuf.wire import tagged_bytes, varint

POD = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "a", "labels": {"x": "y"}, "creationTimestamp": "2026-01-01T00:00:00Z"},
    "spec": {
        "containers": [{"name": "c", "resources": {"limits": {"cpu": "1"}}, "ports": [{"containerPort": 80}]}],
        "tolerations": [{"tolerationSeconds": 5}],
    },
}
WHOLE = encode(POD)


def enveloped(kind: str, raw: bytes, api_version: str = "v1") -> bytes:
    types = tagged_bytes(1, api_version.encode()) + tagged_bytes(2, kind.encode())
    return b"k8s\0" + tagged_bytes(1, types) + tagged_bytes(2, raw)


@given(st.integers(0, len(WHOLE) - 1))
def test_a_body_cut_anywhere_is_refused_or_smaller(end: int) -> None:
    try:
        found = decode(WHOLE[:end])
    except DecodeError:
        return
    assert found != POD or end >= len(WHOLE) - 4


@settings(max_examples=300)
@given(st.integers(4, len(WHOLE) - 1), st.integers(0, 255))
def test_a_damaged_body_never_raises_anything_else(at: int, byte: int) -> None:
    damaged = WHOLE[:at] + bytes([byte]) + WHOLE[at + 1 :]
    with contextlib.suppress(DecodeError):
        assert isinstance(decode(damaged), dict)


@settings(max_examples=200)
@given(st.binary(max_size=60), st.sampled_from(["Pod", "Event", "Secret", "Status", "List", "WatchEvent"]))
def test_noise_never_raises_anything_else(noise: bytes, kind: str) -> None:
    with contextlib.suppress(DecodeError):
        decode(enveloped(kind, noise))


def test_a_length_beyond_the_body_is_refused_at_once() -> None:
    with pytest.raises(DecodeError, match="cut short"):
        decode(enveloped("Pod", b"\x0a" + varint(1 << 60)))


def test_an_endless_number_is_refused() -> None:
    with pytest.raises(DecodeError, match="ten bytes"):
        decode(enveloped("PriorityClass", b"\x10" + b"\xff" * 30, "scheduling.k8s.io/v1"))


def test_deep_nesting_is_refused() -> None:
    schema = b""
    for _ in range(2000):
        schema = tagged_bytes(28, schema)
    version = tagged_bytes(4, tagged_bytes(1, schema))
    crd = enveloped("CustomResourceDefinition", tagged_bytes(2, tagged_bytes(7, version)), "apiextensions.k8s.io/v1")

    with pytest.raises(DecodeError, match="nest deeper"):
        decode(crd)


def test_envelopes_within_envelopes_are_refused_in_the_end() -> None:
    body = WHOLE
    for _ in range(200):
        body = enveloped("List", tagged_bytes(2, tagged_bytes(1, body)))

    with pytest.raises(DecodeError, match="nest deeper"):
        decode(body)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "does not begin"),
        (b"{}", "does not begin"),
        (b"k8s\0", "has no protobuf form"),
        (enveloped("Car", b"", "example.com/v1"), "send it as JSON"),
        (b"k8s\0" + tagged_bytes(3, b"gzip"), "compressed"),
        (enveloped("Pod", b"\x0b"), "wire type 3"),
        (enveloped("Namespace", tagged_bytes(1, tagged_bytes(1, b"\xff"))), "UTF-8"),
        (enveloped("Pod", tagged_bytes(1, tagged_bytes(8, b"\x08" + varint(1 << 62)))), "outside the years"),
    ],
)
def test_other_bodies_are_refused_with_a_reason(body: bytes, message: str) -> None:
    with pytest.raises(DecodeError, match=message):
        decode(body)


def test_a_watch_stream_may_arrive_in_any_pieces() -> None:
    stream = encode_event("ADDED", POD) + encode_event("DELETED", POD)
    decoder = EventDecoder()
    found = [event for byte in stream for event in decoder.feed(bytes([byte]))]

    assert found == [("ADDED", POD), ("DELETED", POD)]


def test_a_frame_that_is_too_long_is_refused_before_it_arrives() -> None:
    with pytest.raises(DecodeError, match="longer than 1000"):
        list(EventDecoder(max_frame=1000).feed(b"\xff\xff\xff\xff"))
