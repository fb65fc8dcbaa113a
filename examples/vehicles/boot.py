"""How long from starting the plane until all workloads of a criticality of A or above run.

    python examples/vehicles/boot.py --data-dir car

Starts `fleetplane up` on a data directory in which vehicle workloads were applied before, as a vehicle does when it boots,
and reports when the API answered and when each VehPod and VehDeployment ran, the most critical first. The plane goes on
until interrupted, or ends with the report (`--once`).
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
import time
from pathlib import Path
from typing import Any

from fleetplane.client.http import connect_to
from fleetplane.client.kubeconfig import find_access
from fleetplane.client.protocol import Client
from fleetplane.model.builtin.types import PODS
from fleetplane.operators.vehicles.kinds import VehDeployment, VehPod

LEVELS = ("D", "C", "B", "A", "QM")


async def workloads(client: Client) -> dict[str, tuple[str, bool]]:
    """Name to level and whether it runs now; what is to be stopped does not count."""
    found = {}
    for kind in (VehPod, VehDeployment):
        for one in (await client.list(kind)).items:
            spec, status = one["spec"], one.get("status") or {}
            if spec.get("state") != "Stopped":
                level = spec.get("criticality") or "QM"
                found[f"{one['kind']}/{one['metadata']['name']}"] = level, await runs(client, one, status)
    return found


async def runs(client: Client, one: dict[str, Any], status: dict[str, Any]) -> bool:
    """Whether its pods run in this boot: what was written before does not count until the node has written again."""
    if status.get("phase") not in {"Running", "Degraded"}:
        return False
    names = [entry["name"] for entry in status.get("instances") or () if entry.get("role") != "passive"]
    pods = [pod for pod in (await client.list(PODS)).items if pod["metadata"]["name"] in names]
    return bool(pods) and all(started(pod) for pod in pods)


def started(pod: dict[str, Any]) -> bool:
    return all(
        (container.get("state") or {}).get("running", {}).get("startedAt", "") >= BOOTED
        for container in (pod.get("status") or {}).get("containerStatuses") or [{}]
    )


BOOTED = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


async def watch(data: Path, began: float, timeout: float) -> bool:
    client = await connect_to(find_access(data / "admin.kubeconfig"))
    ran: dict[str, float] = {}
    try:
        say(f"{time.perf_counter() - began:6.2f} s  the plane is ready")
        async with asyncio.timeout(timeout):
            while True:
                found = await workloads(client)
                now = time.perf_counter() - began
                for name, (level, up) in sorted(found.items(), key=lambda entry: LEVELS.index(entry[1][0])):
                    if up and name not in ran:
                        ran[name] = now
                        say(f"{now:6.2f} s  {name} runs ({'QM' if level == 'QM' else 'ASIL ' + level})")
                asil = [name for name, (level, _) in found.items() if level != "QM"]
                if asil and all(name in ran for name in asil):
                    say(f"{max(ran[name] for name in asil):6.2f} s  all {len(asil)} ASIL workloads run")
                    return True
                await asyncio.sleep(0.02)
    except TimeoutError:
        sys.stderr.write(f"not all ASIL workloads ran within {timeout:g} s\n")
        return False
    finally:
        await client.close()


async def boot(data: Path, runtime: str, timeout: float, *, once: bool) -> int:
    began = time.perf_counter()
    words = ["-m", "fleetplane.interfaces.cli", "up", "--data-dir", str(data), "--port", "0", "--runtime", runtime]
    process = await asyncio.create_subprocess_exec(sys.executable, *words, stdout=asyncio.subprocess.PIPE)
    try:
        assert process.stdout is not None
        while not (await process.stdout.readline()).startswith(b"ready "):
            if process.stdout.at_eof():
                return 1
        done = await watch(data, began, timeout)
        if not once and done:
            await process.wait()
        return 0 if done else 1
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
            await process.wait()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--runtime", default="auto")
    parser.add_argument("--timeout", type=float, default=60.0)
    parser.add_argument("--once", action="store_true", help="end the plane when all ASIL workloads run")
    options = parser.parse_args()
    return asyncio.run(boot(options.data_dir, options.runtime, options.timeout, once=options.once))


if __name__ == "__main__":
    sys.exit(main())
