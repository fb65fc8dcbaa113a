"""VMs under QEMU: one for a token, found by whoever looks, and nothing unaccounted for whatever is killed when."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest
from tests.operators.peerpods.podvm.machine import qemu_host, why_no_qemu

from fleetplane.model.environment import SystemEnvironment
from fleetplane.operators.peerpods.podvm.connection import AgentConnection
from fleetplane.operators.peerpods.providers.protocol import CLUSTER_TAG, Failure, ProviderError, Size, VmSpec
from fleetplane.operators.peerpods.providers.qemu import Qemu, QemuHost, _holder, qemu, why_no_kvm

SECRET = "correct horse battery staple"


@pytest.fixture(scope="module", autouse=True)
def with_qemu() -> None:
    if reason := why_no_qemu():
        pytest.skip(reason)


def spec(token: str, **more: object) -> VmSpec:
    return VmSpec(token, f"podvm-{token}", {CLUSTER_TAG: "c"}, **more)  # type: ignore[arg-type]


def words_of(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")


async def test_one_vm_for_a_token_found_by_tag_by_another_provider_and_gone_after_deletion() -> None:
    async with qemu_host() as (first, host):
        made = await first.create(spec("a", user_data=SECRET))
        again = await Qemu(host).create(spec("a"))

        assert (again.id, made.state) == (made.id, "running")
        assert [one.id for one in await Qemu(host).list({CLUSTER_TAG: "c"})] == [made.id]
        assert await Qemu(host).list({CLUSTER_TAG: "another"}) == []
        pid = _holder(host.folder / made.id)
        assert pid is not None
        assert SECRET not in words_of(pid)
        assert "spawn=deny" in words_of(pid)
        assert (host.folder / made.id / "user-data").stat().st_mode & 0o777 == 0o600

        await first.delete(made.id)
        await first.delete(made.id)

        assert await first.describe(token="a") is None
        assert list(host.folder.iterdir()) == []


async def test_a_vm_boots_and_its_agent_answers_one_caller_after_another() -> None:
    async with qemu_host() as (provider, _):
        made = await provider.create(spec("a"))
        path = str(provider.channel(made.id))
        for _ in range(2):
            agent = AgentConnection(lambda: asyncio.open_unix_connection(path), SystemEnvironment())
            await agent.ready(60)
            head, _ = await agent.call("hello")
            await agent.close()

        assert head["agent"] == 1


async def test_a_vm_that_ended_by_itself_is_gone_and_leaves_no_folder() -> None:
    async with qemu_host() as (provider, host):
        made = await provider.create(spec("a"))
        pid = _holder(host.folder / made.id)
        assert pid is not None

        os.kill(pid, signal.SIGKILL)
        while _holder(host.folder / made.id) is not None:
            await asyncio.sleep(0.01)

        assert await provider.describe(id=made.id) is None
        assert list(host.folder.iterdir()) == []


_CREATOR = """
import asyncio, sys
from pathlib import Path
from fleetplane.operators.peerpods.providers.protocol import VmSpec
from fleetplane.operators.peerpods.providers.qemu import Qemu, QemuHost
asyncio.run(Qemu(QemuHost(folder=Path(sys.argv[1]))).create(VmSpec("a", "podvm-a", {"of": "killed"})))
"""


@pytest.mark.parametrize("after", [0.0, 0.01, 0.05, 0.3])
async def test_a_provider_killed_while_it_makes_a_vm_leaves_what_is_found_again_or_nothing(after: float) -> None:
    async with qemu_host() as (provider, host):
        creator = await asyncio.create_subprocess_exec(sys.executable, "-c", _CREATOR, str(host.folder))
        async with asyncio.timeout(60):
            while not (host.folder / "").exists() or not any(host.folder.glob("*")):
                await asyncio.sleep(0.005)
        await asyncio.sleep(after)
        if creator.returncode is None:
            creator.kill()
        await creator.wait()

        listed = await provider.list({"of": "killed"})
        made = await provider.create(VmSpec("a", "podvm-a", {"of": "killed"}))

        assert [one.id for one in listed] in ([], [made.id])
        assert [one.id for one in await provider.list({})] == [made.id]
        assert made.state == "running"
        await provider.delete(made.id)
        assert [one for one in host.folder.iterdir() if one.name.startswith("vm-")] == []


async def test_a_wish_without_a_vm_is_listed_so_that_it_is_not_forgotten() -> None:
    async with qemu_host(program="true") as (provider, host):
        with pytest.raises(ProviderError, match="QEMU did not start"):
            await provider.create(spec("a"))

        (left,) = await Qemu(host).list({CLUSTER_TAG: "c"})
        assert left.state == "pending"
        await provider.delete(left.id)
        assert await provider.list({}) == []


async def test_more_than_the_machine_has_is_a_quota_and_says_so() -> None:
    async with qemu_host(max_memory_mib=300, program="true") as (provider, _):
        with pytest.raises(ProviderError, match="300 MiB together") as caught:
            await provider.create(spec("a", size=Size(memory_mib=512)))

        assert caught.value.failure is Failure.QUOTA
        assert await provider.list({}) == []


async def test_what_tenants_may_write_does_not_choose_programs_or_files() -> None:
    settings = {"QEMU_MEMORY": "64", "QEMU_KERNEL": "/etc/shadow", "QEMU_BINARY": "/bin/sh"}

    made = qemu(QemuHost(program="no-such-program"))(settings, None)  # type: ignore[arg-type]

    with pytest.raises(ProviderError, match="no-such-program is not installed"):
        await made.create(spec("a"))
    with pytest.raises(ProviderError, match="QEMU_CPU"):
        qemu()({"QEMU_CPU": "many"}, None)  # type: ignore[arg-type]


async def test_ids_of_others_are_nobody_and_lead_nowhere() -> None:
    async with qemu_host() as (provider, _):
        for id in ("i-0123456789abcdef0", "../../etc", "vm-../x", ""):
            assert await provider.describe(id=id or "vm-") is None
            await provider.delete(id)


def test_a_kvm_device_without_a_processor_that_has_it_is_not_used(tmp_path: Path) -> None:
    device, processor = tmp_path / "kvm", tmp_path / "cpuinfo"
    device.touch()
    processor.write_text("model name : x\nflags\t\t: fpu sse2\n")
    assert "neither vmx nor svm" in why_no_kvm(processor, device)

    processor.write_text("flags\t\t: fpu vmx sse2\n")
    assert why_no_kvm(processor, device) == ""
    assert "cannot be used" in why_no_kvm(processor, tmp_path / "none")
