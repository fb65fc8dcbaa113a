"""The public names that operators are written against. Taking one away, or adding one, is a decision."""

from __future__ import annotations

import subprocess
import sys

import fleetplane.client
import fleetplane.controller
import fleetplane.model.kind
import fleetplane.testing


def test_the_client_room() -> None:
    assert set(fleetplane.client.__all__) == {
        "CLUSTER_ANNOTATION",
        "Capabilities",
        "Change",
        "Client",
        "ClientChange",
        "Discovery",
        "Informer",
        "ObjectKey",
        "ObjectList",
        "ROOT",
        "RestClient",
        "Snapshot",
        "Transport",
        "Unreachable",
        "WatchEvent",
        "cluster_of",
        "connect",
    }


def test_the_controller_room() -> None:
    assert set(fleetplane.controller.__all__) == {
        "Children",
        "ChildrenResult",
        "Condition",
        "Context",
        "Controller",
        "LeaderElection",
        "Manager",
        "Metrics",
        "Operator",
        "Owner",
        "Permanent",
        "Request",
        "Result",
        "Shard",
        "Watch",
        "controller_for",
        "load_operators",
    }


def test_declaring_kinds() -> None:
    assert set(fleetplane.model.kind.__all__) == {
        "Builtin",
        "Column",
        "Conversion",
        "FieldDoc",
        "IntOrString",
        "Kind",
        "Metadata",
        "Rule",
        "Scale",
        "StatusCondition",
        "Versions",
        "View",
        "crd_manifest",
        "docs_of",
        "field",
        "schema_of",
    }


def test_testing() -> None:
    assert set(fleetplane.testing.__all__) >= {
        "Faults",
        "MemoryServer",
        "Process",
        "SimulatedEnvironment",
        "Simulation",
        "running_server",
        "simulate",
        "simulated",
        "virtually",
    }


def test_an_operator_does_not_pay_for_what_it_does_not_use() -> None:
    heavy = "aiohttp yaml cryptography fleetplane.client.http fleetplane.apiserver fleetplane.store pytest structlog"
    script = f"import sys, fleetplane.controller; print([m for m in {heavy.split()!r} if m in sys.modules])"

    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)

    assert found.stdout.strip() == "[]"
