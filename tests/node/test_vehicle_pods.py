"""The node's side of vehicle pods: devices by annotation, what is reserved for processes, succession, self-fencing."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import orjson
import pytest
from tests.node.made import container, pod

from fleetplane.node import reservation
from fleetplane.node.building import ConfigFailure
from fleetplane.node.devices import ANNOTATION, as_devices
from fleetplane.node.reservation import Reservation, ReservationError, cpu_list, of_container, read
from fleetplane.node.runtime import Device, Mount


def annotated(source: str, target: str, permissions: str = "rwm") -> Any:
    text = orjson.dumps({"main": [{"source": source, "target": target, "permissions": permissions}]}).decode()
    return pod(container("main"), meta={"annotations": {ANNOTATION: text}})


def test_a_mounted_device_node_becomes_a_device_of_the_container() -> None:
    made = annotated("/dev/null", "/dev/video0", "rw")
    other = Mount("/tmp", "/data")

    devices, mounts = as_devices(made, made.main[0], [Mount("/dev/null", "/dev/video0"), other])

    assert devices == (Device("/dev/null", "/dev/video0", "rw"),)
    assert mounts == (other,)


def test_the_annotation_alone_gives_no_device() -> None:
    made = annotated("/dev/null", "/dev/video0")

    assert as_devices(made, made.main[0], [Mount("/dev/zero", "/dev/video0")])[0] == ()
    assert as_devices(made, made.main[0], [])[0] == ()


def test_a_device_that_is_mounted_read_only_is_not_written_to() -> None:
    made = annotated("/dev/null", "/dev/video0")

    (given,), _ = as_devices(made, made.main[0], [Mount("/dev/null", "/dev/video0", read_only=True)])
    assert given.permissions == "rm"


def test_what_is_no_device_node_stays_a_mount_and_what_is_missing_is_told(tmp_path: Path) -> None:
    made = annotated(str(tmp_path), "/x")
    mount = Mount(str(tmp_path), "/x")
    assert as_devices(made, made.main[0], [mount]) == ((), (mount,))

    made = annotated("/dev/no-such-camera", "/x")
    with pytest.raises(ConfigFailure, match="/dev/no-such-camera is not on this node"):
        as_devices(made, made.main[0], [Mount("/dev/no-such-camera", "/x")])


@pytest.mark.parametrize("text", ["{", "[]", '{"main": [1]}', '{"main": [{"source": "/x"}]}', '{"main": 7}'])
def test_an_annotation_that_makes_no_sense_is_told(text: str) -> None:
    made = pod(container("main"), meta={"annotations": {ANNOTATION: text}})
    with pytest.raises(ConfigFailure, match=ANNOTATION):
        as_devices(made, made.main[0], [Mount("/dev/null", "/x")])


def test_lists_of_cpus_are_read_as_the_kernel_writes_them() -> None:
    assert cpu_list("0-2,5") == {0, 1, 2, 5}
    assert cpu_list("") == frozenset()
    for wrong in ("x", "2-1", "-", "0-", "9999999", "0,,1"):
        with pytest.raises(ReservationError):
            cpu_list(wrong)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[]", "not a JSON object"),
        ('{"schedulingPolicy": "SCHED_BEST"}', "SCHED_BEST"),
        ('{"schedulingPriority": 100}', "schedulingPriority"),
        ('{"memoryMin": "much"}', "memoryMin"),
        ('{"apart": "a"}', "apart"),
        ('{"schedulingPolicy": "SCHED_DEADLINE"}', "runtimeMicroseconds"),
    ],
)
def test_a_reservation_that_makes_no_sense_says_where(text: str, says: str) -> None:
    with pytest.raises(ReservationError, match=says):
        read(text)


def test_containers_that_are_kept_apart_get_cpus_of_their_own_where_there_are_enough() -> None:
    asked = read('{"cpuSet": "0-4", "apart": ["a", "b"]}')
    shares = [of_container(asked, name, range(64))[0].cpus for name in ("a", "b", "other")]
    assert shares == [{0, 1}, {2, 3, 4}, {0, 1, 2, 3, 4}]

    anywhere = read('{"apart": ["a", "b", "c"]}')
    assert [of_container(anywhere, name, {7, 8, 9})[0].cpus for name in "abc"] == [{7}, {8}, {9}]
    got, problems = of_container(anywhere, "a", {0, 1})
    assert (got.cpus, problems) == (frozenset(), ["CPUs of its own: 3 containers share 2"])


def machine(tmp_path: Path, *files: str, unified: bool = False) -> tuple[Path, Path]:
    """A made-up /sys/fs/cgroup and /proc with one process, 1, in the group /pods/one."""
    root, proc = tmp_path / "cgroup", tmp_path / "proc"
    (proc / "1" / "task" / "1").mkdir(parents=True)
    lines = "0::/pods/one\n" if unified else "3:memory:/pods/one\n2:cpuset:/pods/one\n1:cpu:/pods/one\n"
    (proc / "1" / "cgroup").write_text(lines)
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).write_text("")
    return root, proc


def test_memory_and_cpus_are_kept_where_the_kernel_can(tmp_path: Path) -> None:
    inside = "pods/one"
    files = ["cgroup.controllers", *(f"{inside}/{one}" for one in ("cpuset.cpus", "memory.min", "memory.low"))]
    root, proc = machine(tmp_path, *files, unified=True)

    assert reservation.apply(Reservation(frozenset({0, 1}), memory_min=1, memory_low=2), 1, root, proc) == []
    told = [(root / inside / one).read_text() for one in ("cpuset.cpus", "memory.min", "memory.low")]
    assert told == ["0,1", "1", "2"]


def test_version_one_has_a_soft_limit_and_no_minimum(tmp_path: Path) -> None:
    soft = "memory/pods/one/memory.soft_limit_in_bytes"
    root, proc = machine(tmp_path, soft)

    problems = reservation.apply(Reservation(memory_min=1, memory_low=2, memory_bandwidth=10), 1, root, proc)

    assert (root / soft).read_text() == "2"
    assert [one.partition(":")[0] for one in problems] == ["memory minimum", "memory bandwidth"]


def test_realtime_time_is_set_aside_from_the_top_down(tmp_path: Path) -> None:
    files = [f"cpu/{place}cpu.rt_{what}_us" for place in ("pods/", "pods/one/") for what in ("runtime", "period")]
    root, proc = machine(tmp_path, *files, "cpu/pods/other/cpu.rt_runtime_us")
    (root / "cpu/pods/other/cpu.rt_runtime_us").write_text("50000")

    reservation._allow_realtime(reservation.cgroups_of(1, root, proc), 20, root)

    assert (root / "cpu/pods/cpu.rt_runtime_us").read_text() == "250000"
    assert (root / "cpu/pods/one/cpu.rt_runtime_us").read_text() == "200000"


def test_an_affinity_reaches_every_thread_of_a_process() -> None:
    import subprocess
    import sys

    code = "import threading,time\nfor _ in range(3): threading.Thread(target=time.sleep,args=(30,)).start()\nprint('on',flush=True)"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        try:
            groups: dict[str, Path] = {}
            reservation._each_task(groups, process.pid, Path("/proc"), lambda task: os.sched_setaffinity(task, {0}))
            threads = [int(one.name) for one in Path(f"/proc/{process.pid}/task").iterdir()]
            assert len(threads) == 4
            assert all(os.sched_getaffinity(one) == {0} for one in threads)
        finally:
            process.kill()
