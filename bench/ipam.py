"""Addresses, measured: the allocator alone, and claims on a plane beside objects that claim nothing.

    python bench/ipam.py [--claims 4000] [--writers 32]

Alone: the pure allocator fills a /16, gives a quarter back and takes it again, for each way of choosing. On a plane: a real
server in a process of its own, with the operator at work, over HTTPS. ``writers`` clients create plain objects (a kind with
the very same schema that claims nothing and interests nobody), claims of a pool, and claims of a pool of both families; rates
are creates a second, in turns, the best of eight. At the end every address is checked to be held once.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import time
from collections import Counter
from pathlib import Path

from planes import plane

from fleetplane.client.protocol import Client
from fleetplane.model.builtin.types import CUSTOM_RESOURCE_DEFINITIONS
from fleetplane.model.kind import crd_manifest
from fleetplane.model.objects import Object
from fleetplane.model.resources import ResourceRef, ResourceType
from fleetplane.operators.network.kinds import IPClaim, IPPool, IPPoolSpec
from fleetplane.operators.network.plan import Ledger, Pool

ROUNDS = 8
PLAIN = ResourceType("bench.example.com", "v1alpha1", "Plain", "plains")


def alone() -> None:
    print(f"{'allocator alone':24} {'fill a /16':>12} {'take again':>12}   (addresses/s)")
    for allocation in ("Sequential", "Random", "Sticky"):
        ledger = Ledger(Pool.of(IPPoolSpec.view({"cidr": "10.0.0.0/16", "allocation": allocation})))
        count = ledger.pool.sizes()["IPv4"]
        started = time.perf_counter()
        for number in range(count):
            ledger.take(str(number), owner=f"cluster/{number}", seed=str(number))
        fill = count / (time.perf_counter() - started)
        back = range(0, count, 4)
        started = time.perf_counter()
        for number in back:
            ledger.drop(str(number))
        for number in back:
            ledger.take(f"again-{number}", owner=f"cluster/{number}", seed=f"again-{number}")
        again = len(back) / (time.perf_counter() - started)
        print(f"{allocation:24} {fill:>12,.0f} {again:>12,.0f}")


def plain_kind() -> Object:
    """The kind of claims under another name, without what makes them claims."""
    made = crd_manifest(IPClaim)
    names = {"kind": PLAIN.kind, "listKind": f"{PLAIN.kind}List", "plural": PLAIN.plural, "singular": "plain"}
    made["metadata"] = {"name": f"{PLAIN.plural}.{PLAIN.group}"}
    made["spec"] |= {"group": PLAIN.group, "names": names}
    return made


def cpu_seconds(pid: int) -> float:
    """What a process has used so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def creates(client: Client, name: str, pool: str, count: int, writers: int) -> float:
    """Creates a second."""
    numbers = iter(range(count))
    kind: ResourceRef = PLAIN if pool == "plain" else IPClaim

    async def writer() -> None:
        for number in numbers:
            spec = {"pool": pool, "cluster": name, "node": f"n{number}"}
            await client.create(kind, {"metadata": {"name": f"{name}-{number}"}, "spec": spec}, "default")

    started = time.perf_counter()
    await asyncio.gather(*(writer() for _ in range(writers)))
    return count / (time.perf_counter() - started)


async def on_a_plane(client: Client, count: int, writers: int, pid: int) -> None:
    await client.create(IPPool, {"metadata": {"name": "one"}, "spec": {"cidr": "10.0.0.0/12"}})
    both = {"cidr": "10.64.0.0/12", "ranges": ["fd00::/64"]}
    await client.create(IPPool, {"metadata": {"name": "both"}, "spec": both})
    await client.create(CUSTOM_RESOURCE_DEFINITIONS, plain_kind())
    pools = ("plain", "one", "both")
    rates: dict[str, list[float]] = {pool: [] for pool in pools}
    cpu = dict.fromkeys(pools, 0.0)
    for turn in range(ROUNDS):
        for pool in pools:
            before = cpu_seconds(pid)
            rates[pool].append(await creates(client, f"{pool}-{turn}", pool, count // ROUNDS, writers))
            await asyncio.sleep(0.3)  # what the operator does afterwards is part of what it costs
            cpu[pool] += cpu_seconds(pid) - before
    plain, each = max(rates["plain"]), 1000 / (count // ROUNDS * ROUNDS)
    print(f"\n{f'claims, {writers} writers':24} {'creates/s':>12} {'of plain':>12} {'server CPU ms each':>20}")
    for pool, title in (("plain", "plain objects"), ("one", "one address"), ("both", "one of each family")):
        print(f"{title:24} {max(rates[pool]):>12,.0f} {max(rates[pool]) / plain:>12.0%} {cpu[pool] * each:>20.2f}")
    held: Counter[str] = Counter()
    missing = 0
    async for claim in client.iterate(IPClaim, "default"):
        held.update(claim["spec"].get("addresses") or ())
        missing += not claim["spec"].get("addresses")
    twice = sum(1 for number in held.values() if number > 1)
    print(f"{len(held):,} addresses held, {twice} of them twice, {missing} claims without")


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--claims", type=int, default=4000)
    parser.add_argument("--writers", type=int, default=32)
    options = parser.parse_args()
    alone()
    async with plane("--runtime", "none", "--nodes", "0", "--operators", "network") as made:
        await on_a_plane(made.client, options.claims, options.writers, made.pid)


if __name__ == "__main__":
    asyncio.run(main())
