"""A limit of peer pods, spread over the worker nodes of a cluster as capacity the scheduler counts with."""

from __future__ import annotations

import time
from typing import Final

from fleetplane.interfaces.cli.demonstration.nodes import LABEL, WORKERS
from fleetplane.interfaces.cli.demonstration.stage import Stage, until
from fleetplane.interfaces.cli.demonstration.steps import Outcome, Say, StepFailed
from fleetplane.model.builtin.types import NODES
from fleetplane.model.objects import name
from fleetplane.operators.peerpods.kinds import VM_RESOURCE

LIMIT: Final = 10


async def spread(stage: Stage, say: Say) -> Outcome:
    say(f"{WORKERS} simulated workers join")
    await stage.start_workers()
    started = time.perf_counter()
    await stage.apply(stage.place.root / "peerpods.yaml")
    shares: dict[str, int] = await until(lambda: _shares(stage))
    took = time.perf_counter() - started
    parts = sorted(shares.values(), reverse=True)
    if max(parts) - min(parts) > 1:
        raise StepFailed(f"{LIMIT} peer pods were not spread evenly: {parts}")
    said = f"{LIMIT} = {' + '.join(map(str, parts))}"
    why = "one machine is one node; no VM is made before a peer pod asks for one"
    return Outcome(took, said, "capacity on the nodes", f"{WORKERS} worker nodes", why, {"shares": shares})


async def _shares(stage: Stage) -> dict[str, int] | None:
    """What each worker may have, once it is all given out."""
    found = {}
    for node in (await stage.client.list(NODES, labels=LABEL)).items:
        found[name(node)] = int(((node.get("status") or {}).get("allocatable") or {}).get(VM_RESOURCE) or 0)
    return found if len(found) == WORKERS and sum(found.values()) == LIMIT else None
