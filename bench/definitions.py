"""What a CustomResourceDefinition costs in memory, ours and a real kube-apiserver's, in turn: ``python bench/definitions.py``.

Each definition has 250 fields with a sentence of description, and a group of its own. The peer is found as in
``kube_side_by_side``. Memory is the resident size of all processes of a side, before and after.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from pathlib import Path
from typing import Any

import aiohttp
from kube_side_by_side import Side, fleetplane, kubernetes, peer_is_there, resident, session

DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
SETTLE_SECONDS = 8


def definition(number: int) -> dict[str, Any]:
    kinds = ("string", "integer", "boolean")
    description = "What this field is for, told in one sentence of the usual length."

    def section(part: int) -> dict[str, Any]:
        fields = {f"f{part}x{n}": {"type": kinds[n % 3], "description": description} for n in range(25)}
        return {"type": "object", "properties": fields}

    spec = {"type": "object", "properties": {f"part{part}": section(part) for part in range(10)}}
    schema = {"type": "object", "properties": {"spec": spec}}
    group = f"g{number}.bench.example.com"
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"things.{group}"},
        "spec": {
            "group": group,
            "scope": "Namespaced",
            "names": {"plural": "things", "kind": "Thing"},
            "versions": [{"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}],
        },
    }


async def define(client: aiohttp.ClientSession, url: str, numbers: range) -> None:
    for number in numbers:
        async with client.post(url + DEFINITIONS, json=definition(number)) as answer:
            assert answer.status == 201, await answer.text()


async def use(client: aiohttp.ClientSession, url: str, number: int) -> None:
    """Write one object of a definition's kind, once it is served."""
    group = f"g{number}.bench.example.com"
    spec = {f"part{part}": {f"f{part}x0": "x", f"f{part}x1": 1} for part in range(10)}
    thing = {"apiVersion": f"{group}/v1", "kind": "Thing", "metadata": {"name": "one"}, "spec": spec}
    async with asyncio.timeout(120):
        while True:
            async with client.post(f"{url}/apis/{group}/v1/namespaces/default/things", json=thing) as answer:
                if answer.status == 201:
                    return
            await asyncio.sleep(0.2)


async def measure(side: Side, count: int) -> tuple[float, float]:
    """MiB per definition that is served, and per definition of which one object has been written."""
    async with session(side.token, 4) as client:
        await define(client, side.url, range(10_000, 10_020))
        await asyncio.sleep(SETTLE_SECONDS)
        before = resident(side.pids)
        await define(client, side.url, range(count))
        await asyncio.sleep(SETTLE_SECONDS)
        served = resident(side.pids) - before
        for number in range(count):
            await use(client, side.url, number)
        await asyncio.sleep(SETTLE_SECONDS)
        return served / count, (resident(side.pids) - before) / count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--definitions", type=int, default=100)
    count = parser.parse_args().definitions
    print(f"{count} definitions of 250 fields; MiB each, {time.strftime('%Y-%m-%d')}\n")
    print("| | served | one object written |\n|---|---|---|")
    sides = [fleetplane, kubernetes] if peer_is_there() else [fleetplane]
    for start in sides:
        with tempfile.TemporaryDirectory() as directory, start(Path(directory), 27443) as side:
            served, used = asyncio.run(measure(side, count))
            print(f"| {side.name} | {served:.2f} | {used:.2f} |", flush=True)


if __name__ == "__main__":
    main()
