"""A containerd of the tests' own: its sockets, storage and network apart from any other on the machine."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import tarfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

from tests.node import image

PAUSE = "localhost/fleetplane-pause:test"
PLUGINS = Path("/usr/lib/cni")
START_SECONDS = 30


def why_not_containerd() -> str:
    """Why no containerd can be tested here; empty when one can."""
    if os.geteuid() != 0:
        return "containerd tests run as root"
    for program in ("containerd", "ctr", "runc", "busybox"):
        if not shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"):
            return f"{program} is not installed"
    try:
        import grpc  # noqa: F401
    except ImportError:
        return "the package grpcio is not installed"
    return ""


def _configuration(directory: Path, bridge: str) -> str:
    """Without a network of its own where the CNI plug-ins are not installed."""
    networks = directory / "cni"
    networks.mkdir()
    if (PLUGINS / "bridge").exists():
        ranges = [[{"subnet": "10.98.0.0/16"}]]
        network = {
            "type": "bridge",
            "bridge": bridge,
            "isGateway": True,
            "isDefaultGateway": True,
            "ipMasq": False,
            "ipam": {"type": "host-local", "ranges": ranges, "dataDir": str(directory / "ipam")},
        }
        conflist = {"cniVersion": "0.4.0", "name": "fleetplane-test", "plugins": [network]}
        (networks / "10-test.conflist").write_text(json.dumps(conflist))
    # Without CAP_SYS_RESOURCE nobody may lower an oom_score_adj.
    return f"""
version = 2
root = "{directory}/root"
state = "{directory}/state"
disabled_plugins = ["io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.aufs"]
[grpc]
  address = "{directory}/containerd.sock"
[ttrpc]
  address = "{directory}/containerd.sock.ttrpc"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE}"
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{PLUGINS}"
    conf_dir = "{networks}"
"""


@contextmanager
def containerd() -> Iterator[str]:
    """The socket of one that runs, with the test image and a pause image, until the context is left."""
    directory = Path("/tmp") / f"fpc-{os.urandom(4).hex()}"  # sockets want short paths
    directory.mkdir(mode=0o711)
    bridge = f"fpc{os.urandom(4).hex()}"
    (directory / "config.toml").write_text(_configuration(directory, bridge))
    socket = directory / "containerd.sock"
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(["containerd", "--config", str(directory / "config.toml")], stdout=log, stderr=log)
    try:
        _await_answers(socket)
        archive = _pause_image(directory)
        _ctr(socket, "images", "import", str(archive))
        yield str(socket)
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        _unmount_below(directory)
        subprocess.run(["ip", "link", "delete", bridge], check=False, capture_output=True)
        shutil.rmtree(directory, ignore_errors=True)


def _await_answers(socket: Path) -> None:
    until = time.monotonic() + START_SECONDS
    while not (socket.exists() and _answers(socket)):
        assert time.monotonic() < until, "containerd does not answer"
        time.sleep(0.05)


def _answers(socket: Path) -> bool:
    words = ["ctr", "-a", str(socket), "version"]
    return subprocess.run(words, check=False, capture_output=True, timeout=10).returncode == 0


def _ctr(socket: Path, *words: str) -> None:
    subprocess.run(["ctr", "-a", str(socket), "-n", "k8s.io", *words], check=True, capture_output=True, timeout=60)


def _pause_image(directory: Path) -> Path:
    """What holds a sandbox's namespaces: a process that sleeps and reaps."""
    root = image.write_root(directory / "root.tar")
    digest = hashlib.sha256(root.read_bytes()).hexdigest()
    config = {
        "architecture": "amd64" if os.uname().machine == "x86_64" else "arm64",
        "os": "linux",
        "config": {"Entrypoint": ["/bin/sleep", "9999999"]},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
    }
    parts = {
        "config.json": json.dumps(config).encode(),
        "manifest.json": json.dumps([{"Config": "config.json", "RepoTags": [PAUSE], "Layers": ["root.tar"]}]).encode(),
    }
    target = directory / "pause.tar"
    with tarfile.open(target, "w") as tar:
        tar.add(root, "root.tar")
        for name, data in parts.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, BytesIO(data))
    return target


def _unmount_below(directory: Path) -> None:
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    for target in sorted((line.split(" ")[4] for line in lines), reverse=True):
        if target.startswith(f"{directory}/"):
            with contextlib.suppress(OSError):
                subprocess.run(["umount", "-l", target], check=False, capture_output=True)
