from __future__ import annotations

import pytest
from tests.workloads.made import NOW, Object, later

from fleetplane.model.environment import timestamp
from fleetplane.workloads.certificates.reconcile import seconds_to_keep


def csr(certificate: str = "", **conditions: float) -> Object:
    found = [
        {"type": kind, "status": "True", "lastUpdateTime": timestamp(later(at))} for kind, at in conditions.items()
    ]
    return {
        "metadata": {"name": "r", "creationTimestamp": timestamp(NOW)},
        "status": {"conditions": found, "certificate": certificate},
    }


@pytest.mark.parametrize(
    ("one", "hours"),
    [
        (csr(), 24),
        (csr(Approved=0), 24),
        (csr("c", Approved=3600), 2),
        (csr(Denied=0), 1),
        (csr(Approved=0, Failed=7200), 3),
    ],
)
def test_how_long_a_request_stays(one, hours):
    assert seconds_to_keep(one, NOW) == hours * 3600
