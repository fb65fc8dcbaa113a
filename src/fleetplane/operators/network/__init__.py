"""Addresses: pools of them, and claims that are leases (``network.otterscale.io``).

Reading order: ``kinds`` (what users write), ``ranges`` and ``plan`` (sets of addresses and the allocator, pure),
``admission`` (a claim gets its addresses as it is written), ``reconcile``.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from fleetplane.controller import Controller, Manager, Operator
from fleetplane.operators.network.admission import plugins
from fleetplane.operators.network.kinds import IPClaim, IPPool
from fleetplane.operators.network.reconcile import Claims, Pools


def controllers(manager: Manager) -> Iterable[Controller]:
    return [Claims(manager).controller(), Pools(manager).controller()]


def network() -> Operator:
    """The operator; its admission remembers what it has given out, so each server has its own."""
    return Operator(
        name="network",
        controllers=controllers,
        kinds=(IPPool, IPClaim),
        admission=plugins(),
        rules=(
            {
                "apiGroups": ["network.otterscale.io"],
                "resources": ["ipclaims"],
                "verbs": ["get", "patch", "delete"],
            },
            {"apiGroups": [""], "resources": ["namespaces"], "verbs": ["get"]},
        ),
        description="Address pools and claims (IP manager of virtual clusters).",
    )


OPERATOR: Final = network()
