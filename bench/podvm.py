"""Peer pods in VMs of QEMU, measured: from the wish for a VM to its agent, and to a container that runs.

    python bench/podvm.py [--times 5]

The real provider with the image made from Debian's packages (made first, where it is not in the cache), a busybox root handed
in through the agent. Emulated where the processor offers no virtualisation; the first line says which it was.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import tempfile
import time
from pathlib import Path

from tests.node import image
from tests.operators.peerpods.podvm.test_runtime import OneImage

from fleetplane.model.environment import SystemEnvironment
from fleetplane.node.network import HostNetwork
from fleetplane.node.runtime import ContainerSpec, SandboxSpec
from fleetplane.operators.peerpods.podvm.image import podvm_image
from fleetplane.operators.peerpods.podvm.runtime import PodVmRuntime
from fleetplane.operators.peerpods.providers.qemu import Qemu, QemuHost, _holder, why_no_kvm


def cpu_seconds(folder: Path) -> float:
    """What QEMU has used so far of the one VM there is: tells more than the clock does where others work, too."""
    (vm,) = folder.glob("vm-*")
    fields = Path(f"/proc/{_holder(vm)}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def once(runtime: PodVmRuntime, number: int, vms: Path) -> tuple[float, float, float, float]:
    """Seconds to the agent, to the running container, of CPU until then, and for removing it all."""
    began = time.perf_counter()
    shared = SandboxSpec("default", "pod", f"uid{number}", hostname="pod", network="none")
    sandbox = await runtime.start_sandbox(shared)
    up = time.perf_counter()
    made = await runtime.create_container(sandbox, ContainerSpec("main", image.NAME, command=("sleep", "100")), shared)
    await runtime.start_container(made)
    runs = time.perf_counter()
    used = await asyncio.to_thread(cpu_seconds, vms)
    await runtime.remove_sandbox(sandbox.id)
    return up - began, runs - began, used, time.perf_counter() - runs


async def main(times: int) -> None:
    print(f"accelerator: {'tcg, as ' + why_no_kvm() if why_no_kvm() else 'kvm'}")
    began = time.perf_counter()
    made = await asyncio.to_thread(podvm_image, QemuHost().cache)
    print(f"image: {time.perf_counter() - began:.1f} s; initrd {made.initrd.stat().st_size >> 20} MiB")
    with tempfile.TemporaryDirectory(prefix="fpvm-", dir="/tmp") as text:
        folder = Path(text)
        store = OneImage(image.write_root(folder / "root.tar"))
        provider = Qemu(QemuHost(folder=folder / "vms"))
        runtime = PodVmRuntime(
            provider, store, HostNetwork(), SystemEnvironment(), instance="b", folder=folder / "kept", own=[folder]
        )
        try:
            rows = [await once(runtime, number, folder / "vms") for number in range(times)]
        finally:
            await runtime.remove_instance()
            await runtime.close()
    for name, column in zip(
        ("agent answers", "container runs", "CPU of QEMU", "all removed"), zip(*rows, strict=True), strict=True
    ):
        print(
            f"{name:16} median {statistics.median(column):5.2f} s   best {min(column):5.2f} s   worst {max(column):5.2f} s"
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=5)
    asyncio.run(main(parser.parse_args().times))
