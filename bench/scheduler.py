"""How many pods per second the scheduler decides on, in memory: no server, no bindings, one process.

    python bench/scheduler.py [--nodes 1000] [--pods 10000] [--shapes 10]

Each line is one situation: pods per second by the clock, and per second of processor time, which is the same on a machine
that is otherwise idle. Parsing the pods is part of both.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import orjson

from fleetplane.workloads.scheduler.core import Bind, Core

Object = dict[str, Any]


def node(number: int, zones: int) -> Object:
    return {
        "metadata": {
            "name": f"node-{number}",
            "labels": {"kubernetes.io/hostname": f"node-{number}", "topology.kubernetes.io/zone": f"z{number % zones}"},
        },
        "spec": {},
        "status": {"allocatable": {"cpu": "32", "memory": "64Gi", "pods": "110"}},
    }


def pod(number: int, shape: int, **spec: Any) -> Object:
    return {
        "metadata": {
            "name": f"pod-{number}",
            "namespace": "default",
            "uid": f"uid-{number}",
            "creationTimestamp": "2026-01-01T00:00:00Z",
            "labels": {"app": f"app-{shape}"},
            "ownerReferences": [{"uid": f"owner-{shape}", "controller": True, "kind": "ReplicaSet", "name": "x"}],
        },
        "spec": {
            "containers": [
                {"name": "main", "image": "web:1", "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}}}
            ],
            **spec,
        },
        "status": {},
    }


def spread(shape: int) -> Object:
    constraint = {
        "topologyKey": "topology.kubernetes.io/zone",
        "maxSkew": 1,
        "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": {"matchLabels": {"app": f"app-{shape}"}},
    }
    return {"topologySpreadConstraints": [constraint]}


def apart(shape: int) -> Object:
    term = {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"app": f"app-{shape}"}}}
    return {"affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}}


def run(title: str, nodes: int, pods: int, shapes: int, make: Any, zones: int = 3) -> None:
    core = Core()
    for number in range(nodes):
        core.see_node("root", node(number, zones))
    made = [pod(number, number % shapes, **make(number % shapes)) for number in range(pods)]
    begun, used = time.perf_counter(), time.process_time()
    for one in made:
        core.see_pod("root", orjson.dumps(one), 0.0)
    bound = refused = 0
    while (decision := core.next(0.0)) is not None:
        if isinstance(decision, Bind):
            core.bound(decision.entry)
            bound += 1
        else:
            refused += 1
    took, used = time.perf_counter() - begun, time.process_time() - used
    speed = f"{(bound + refused) / took:8.0f} pods/s {(bound + refused) / used:8.0f} pods/CPU s"
    print(f"{title:30} {nodes:6} nodes {bound:6} bound {refused:6} refused {speed}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, default=1000)
    parser.add_argument("--pods", type=int, default=10000)
    parser.add_argument("--shapes", type=int, default=10)
    given = parser.parse_args()
    run("siblings of a few Deployments", given.nodes, given.pods, given.shapes, lambda _: {})
    run("every pod different", given.nodes, min(given.pods, 1000), 10**9, lambda _: {})
    run("spread over zones", given.nodes, min(given.pods, 3000), given.shapes, spread)
    run("one per host (anti-affinity)", given.nodes, min(given.pods, 3000), given.shapes, apart)
    run("nothing fits", given.nodes, given.pods, given.shapes, lambda _: {"nodeSelector": {"no": "where"}})


if __name__ == "__main__":
    main()
