"""Devices a node has to give: found as CDI specifications or listed in a file, counted as extended resources.

A CDI kind such as ``nvidia.com/gpu`` becomes a resource of that name; the file ``devices.json`` of the node's directory
may add others, as ``{"example.org/camera": ["/dev/video0", "/dev/video1"]}``. A device is given to one container at a
time. Who has which is kept on disk, so a restarted agent neither forgets nor gives twice.

Sources: the Container Device Interface, version 0.6 and later (``/etc/cdi``, ``/var/run/cdi``).
"""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import orjson

from fleetplane.model.yaml import YamlError, load
from fleetplane.node.building import ConfigFailure
from fleetplane.node.files import read_json, write_private
from fleetplane.node.pod import ContainerView, PodView
from fleetplane.node.resources import amount
from fleetplane.node.runtime import Device, Mount

CDI_FOLDERS: Final = (Path("/etc/cdi"), Path("/var/run/cdi"))
INVENTORY: Final = "devices.json"
LEDGER: Final = "devices-given.json"

ANNOTATION: Final = "node.fleetplane.io/devices"
"""On a pod: ``{container: [{source, target, permissions}]}``, which of its hostPath mounts are given as devices."""

_log = logging.getLogger(__name__)


def cdi_devices(folders: Sequence[Path] = CDI_FOLDERS) -> dict[str, list[str]]:
    """Kind to fully qualified device names. ``all`` stands for every device and is not one."""
    found: dict[str, list[str]] = {}
    for folder in folders:
        for path in sorted(folder.iterdir()) if folder.is_dir() else ():
            if path.suffix not in {".json", ".yaml", ".yml"}:
                continue
            try:
                spec = load(path.read_bytes())
                kind = str(spec["kind"])
                names = [str(device["name"]) for device in spec.get("devices") or []]
            except (OSError, YamlError, KeyError, TypeError) as error:
                _log.error("the device specification %s cannot be used: %s", path, error)
                continue
            known = found.setdefault(kind, [])
            known += [f"{kind}={name}" for name in names if name != "all" and f"{kind}={name}" not in known]
    return found


def listed_devices(directory: Path) -> dict[str, list[str]]:
    """What the node's own list adds."""
    listed = read_json(directory / INVENTORY) or {}
    return {str(kind): [str(one) for one in some] for kind, some in listed.items() if isinstance(some, list)}


def as_devices(
    pod: PodView, container: ContainerView, mounts: Sequence[Mount]
) -> tuple[tuple[Device, ...], tuple[Mount, ...]]:
    """Mounts of device nodes that the pod's annotation names become devices: a node of the container's own, opened in
    its device cgroup. The other mounts stay.

    The annotation alone gives nothing: it only says how a hostPath mount of the pod's specification is made, so whoever
    may not mount the host's paths gets no device this way. Raises ConfigFailure where the device is not there.
    """
    wanted = {(one.source, one.target): one for one in _annotated(pod, container.name)}
    devices, kept = [], []
    for mount in mounts:
        found = wanted.get((os.path.normpath(mount.source), os.path.normpath(mount.target))) if mount.source else None
        if found is None or not _is_device(mount.source):
            kept.append(mount)
            continue
        allowed = found.permissions.replace("w", "") if mount.read_only else found.permissions
        devices.append(Device(os.path.realpath(mount.source), mount.target, allowed or "r"))
    return tuple(devices), tuple(kept)


def _annotated(pod: PodView, container: str) -> Iterator[Device]:
    text = pod.annotations.get(ANNOTATION)
    if not text:
        return
    try:
        for one in orjson.loads(text).get(container) or ():
            allowed = "".join(letter for letter in "rwm" if letter in str(one.get("permissions") or "rwm"))
            yield Device(os.path.normpath(str(one["source"])), os.path.normpath(str(one["target"])), allowed)
    except (orjson.JSONDecodeError, AttributeError, KeyError, TypeError):
        raise ConfigFailure(f"the annotation {ANNOTATION} is not {{container: [{{source, target}}]}}") from None


def _is_device(path: str) -> bool:
    try:
        mode = Path(path).stat().st_mode
    except OSError:
        raise ConfigFailure(f"the device {path} is not on this node") from None
    return stat.S_ISCHR(mode) or stat.S_ISBLK(mode) or (stat.S_ISDIR(mode) and path.startswith("/dev/"))


class Devices:
    """What there is and who has it. ``is_here`` tells whether a pod (by uid) is still on the node."""

    def __init__(self, directory: Path, found: Mapping[str, Sequence[str]], is_here: Callable[[str], bool]) -> None:
        self._path = directory / LEDGER
        self._found = {kind: list(some) for kind, some in found.items() if some}
        self._unhealthy: dict[str, set[str]] = {}
        self.is_here = is_here
        self._given: dict[str, str] = {str(k): str(v) for k, v in (read_json(self._path) or {}).items()}
        """Device (of a plugin: ``resource|device``) to ``uid/container``."""

    def offer(self, kind: str, devices: Mapping[str, bool]) -> None:
        """A plugin's devices and whether each is healthy; they replace whatever else has this name."""
        self._found[kind] = list(devices)
        self._unhealthy[kind] = {one for one, healthy in devices.items() if not healthy}

    def capacity(self) -> dict[str, str]:
        return {kind: str(len(some)) for kind, some in self._found.items()}

    def allocatable(self) -> dict[str, str]:
        """Without what is not healthy."""
        return {kind: str(len(some) - len(self._unhealthy.get(kind, ()))) for kind, some in self._found.items()}

    def wanted(self, container: ContainerView) -> dict[str, int]:
        """How many of each kind a container asks for."""
        limits: Mapping[str, Any] = (container.spec.get("resources") or {}).get("limits") or {}
        found = {kind: amount(limits, kind) for kind in sorted(limits.keys() & self._found.keys())}
        return {kind: quantity.value() if quantity else 0 for kind, quantity in found.items()}

    def of(self, kind: str, pod: PodView, container: ContainerView) -> tuple[list[str], list[str]]:
        """The devices this container has, and those it may get."""
        owner = f"{pod.uid}/{container.name}"
        own = [one for one in self._found[kind] if self._given.get(self._key(kind, one)) == owner]
        free = [one for one in self._found[kind] if one not in own and self._is_free(kind, one)]
        return own, free

    def take(
        self, pod: PodView, container: ContainerView, preferred: Mapping[str, Sequence[str]] | None = None
    ) -> dict[str, list[str]]:
        """The devices of this container by kind: those it has, or free ones, preferred ones first.

        Raises ConfigFailure when there are too few.
        """
        taken: dict[str, list[str]] = {}
        changed = False
        for kind, wanted in self.wanted(container).items():
            own, free = self.of(kind, pod, container)
            if len(own) + len(free) < wanted:
                message = (
                    f"Requested number of devices unavailable for {kind}. Requested: {wanted}, Available: {len(free)}"
                )
                raise ConfigFailure(message, "UnexpectedAdmissionError")
            liked = (preferred or {}).get(kind, ())
            free.sort(key=lambda one: one not in liked)
            for device in free[: max(0, wanted - len(own))]:
                self._given[self._key(kind, device)] = f"{pod.uid}/{container.name}"
                own.append(device)
                changed = True
            taken[kind] = own[:wanted]
        if changed:
            write_private(self._path, orjson.dumps(self._given))
        return taken

    def allocate(self, pod: PodView, container: ContainerView) -> list[Device]:
        """The same as devices, where no plugin has a say."""
        return [Device(one) for some in self.take(pod, container).values() for one in some]

    def _key(self, kind: str, device: str) -> str:
        """Devices of different plugins may have the same name."""
        return f"{kind}|{device}" if kind in self._unhealthy else device

    def _is_free(self, kind: str, device: str) -> bool:
        if device in self._unhealthy.get(kind, ()):
            return False
        owner = self._given.get(self._key(kind, device))
        return owner is None or not self.is_here(owner.partition("/")[0])
