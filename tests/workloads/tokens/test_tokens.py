from __future__ import annotations

import base64

import pytest
from tests.workloads.made import NOW, Object

from fleetplane.workloads.tokens.reconcile import TYPE, seconds_left


def secret(expiration: str | None, kind: str = TYPE) -> Object:
    data = {} if expiration is None else {"expiration": base64.b64encode(expiration.encode()).decode()}
    return {"metadata": {"name": "t"}, "type": kind, "data": data}


@pytest.mark.parametrize(
    ("one", "expected"),
    [
        (secret("2026-03-01T12:01:00Z"), 60),
        (secret("2026-03-01T11:59:00Z"), -60),
        (secret(None), None),
        (secret("tomorrow"), 0),
        (secret("2026-03-01T11:59:00Z", kind="Opaque"), None),
    ],
)
def test_when_a_token_expires(one, expected):
    assert seconds_left(one, NOW) == expected
