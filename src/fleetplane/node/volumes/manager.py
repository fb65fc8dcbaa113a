"""All volumes of a node's pods: made before containers start, kept up to date while they run, removed at the end.

Each pod has one private directory; everything in it can be made again from the API except emptyDirs, which live as long
as the pod. Work on disk happens in threads, so a slow disk holds up one pod and not the node.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from fleetplane.model.environment import Environment
from fleetplane.node.building import ConfigFailure
from fleetplane.node.environment_variables import expand
from fleetplane.node.eviction import is_measured
from fleetplane.node.pod import ContainerView, PodView
from fleetplane.node.resources import amount
from fleetplane.node.runtime import Mount
from fleetplane.node.sources import Sources
from fleetplane.node.values import Facts
from fleetplane.node.volumes.host_path import check_host_path
from fleetplane.node.volumes.payload import DATA, Payload, write_payload
from fleetplane.node.volumes.projected import Projection
from fleetplane.node.volumes.rootless import in_shared_memory, remove_owned, shared_memory
from fleetplane.node.volumes.subpath import bind_inside
from fleetplane.node.volumes.system import mount_tmpfs, mounts_below, unmount

_PROPAGATION: Final = {"HostToContainer": "rslave", "Bidirectional": "rshared"}
_CONFIGURATION: Final = ("configMap", "secret", "downwardAPI", "projected")

_log = logging.getLogger(__name__)


class VolumeManager:
    """``root`` holds a directory for each pod, by uid."""

    def __init__(self, root: Path, sources: Sources, projection: Projection, environment: Environment) -> None:
        self._root = root
        self._sources = sources
        self._projection = projection
        self._environment = environment

    def directory(self, pod: PodView) -> Path:
        """The pod's own place."""
        return self._root / pod.uid

    async def prepare(self, pod: PodView, facts: Facts) -> None:
        """Make every volume of the pod. Raises ConfigFailure."""
        await asyncio.to_thread(self._make_directory, pod)
        for volume in pod.spec.get("volumes") or []:
            try:
                await self._prepare_one(pod, volume, facts)
            except ConfigFailure as error:
                error.volume = error.volume or str(volume.get("name") or "")
                raise
            except OSError as error:
                words = f"{error.strerror or error}: {error.filename}" if error.filename else str(error)
                raise ConfigFailure(words, volume=str(volume.get("name") or "")) from error

    async def refresh(self, pod: PodView, facts: Facts) -> None:
        """Bring changed ConfigMaps, Secrets and tokens into running containers; trouble is only logged."""
        for volume in pod.spec.get("volumes") or []:
            if not any(kind in volume for kind in _CONFIGURATION):
                continue
            try:
                await self._prepare_one(pod, volume, facts)
            except (ConfigFailure, OSError) as error:
                _log.info("volume %s of pod %s is not refreshed: %s", volume.get("name"), pod.key, error)

    def _make_directory(self, pod: PodView) -> None:
        self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
        (self.directory(pod) / "volumes").mkdir(mode=0o755, parents=True, exist_ok=True)

    def volume_path(self, pod: PodView, name: str) -> Path:
        return self.directory(pod) / "volumes" / name

    async def _prepare_one(self, pod: PodView, volume: Mapping[str, Any], facts: Facts) -> None:
        path = self.volume_path(pod, str(volume.get("name") or ""))
        group = fs_group(pod)
        payload = await self._projection.payload(pod, volume, facts)
        if payload is not None:
            version = f"{self._environment.now():%Y_%m_%d_%H_%M_%S}.{self._environment.random.getrandbits(32):08x}"
            await asyncio.to_thread(_write, path, payload, version, group)
        elif (empty := volume.get("emptyDir")) is not None:
            await asyncio.to_thread(_make_empty, path, empty, group)
        elif (host := volume.get("hostPath")) is not None:
            await asyncio.to_thread(check_host_path, Path(str(host.get("path"))), str(host.get("type") or ""))
        elif (claim := volume.get("persistentVolumeClaim")) is not None:
            await self._claimed(pod, str(claim.get("claimName") or ""))
        elif "ephemeral" in volume:
            await self._claimed(pod, f"{pod.name}-{volume['name']}")
        else:
            kind = next((key for key in volume if key != "name"), "nothing")
            raise ConfigFailure(f"volumes of type {kind} are not supported on this node")

    async def _claimed(self, pod: PodView, name: str) -> Path:
        """The local path behind a claim."""
        claim = await self._sources.claim(pod.namespace, name)
        if claim is None:
            raise ConfigFailure(f'persistentvolumeclaim "{name}" not found')
        bound = str((claim.get("spec") or {}).get("volumeName") or "")
        if not bound or (claim.get("status") or {}).get("phase") != "Bound":
            raise ConfigFailure(f'persistentvolumeclaim "{name}" is not bound yet')
        volume = await self._sources.volume(bound)
        if volume is None:
            raise ConfigFailure(f'persistentvolume "{bound}" not found')
        spec = volume.get("spec") or {}
        if (host := spec.get("hostPath")) is not None:
            path = Path(str(host.get("path")))
            await asyncio.to_thread(check_host_path, path, str(host.get("type") or ""))
            return path
        if (local := spec.get("local")) is not None:
            path = Path(str(local.get("path")))
            await asyncio.to_thread(check_host_path, path, "Directory")
            return path
        raise ConfigFailure(f'persistentvolume "{bound}" is neither hostPath nor local: this node can use only those')

    async def mounts(self, pod: PodView, container: ContainerView, environment: Mapping[str, str]) -> list[Mount]:
        """Where a container finds its volumes. Raises ConfigFailure."""
        volumes = {str(v.get("name")): v for v in pod.spec.get("volumes") or []}
        made = []
        for number, wanted in enumerate(container.spec.get("volumeMounts") or []):
            name = str(wanted.get("name") or "")
            if name not in volumes:
                raise ConfigFailure(f'cannot find volume "{name}" to mount into container "{container.name}"')
            source = await self._source(pod, volumes[name])
            part = _sub_path(wanted, environment)
            if part:
                source = await asyncio.to_thread(self._part, pod, container, number, source, part)
            fixed = any(kind in volumes[name] for kind in _CONFIGURATION)
            made.append(
                Mount(
                    str(source),
                    str(wanted.get("mountPath")),
                    read_only=bool(wanted.get("readOnly")) or fixed,
                    propagation=_PROPAGATION.get(str(wanted.get("mountPropagation") or ""), "private"),  # type: ignore[arg-type]
                )
            )
        return made

    async def _source(self, pod: PodView, volume: Mapping[str, Any]) -> Path:
        if (host := volume.get("hostPath")) is not None:
            return Path(str(host.get("path")))
        if (claim := volume.get("persistentVolumeClaim")) is not None:
            return await self._claimed(pod, str(claim.get("claimName") or ""))
        if "ephemeral" in volume:
            return await self._claimed(pod, f"{pod.name}-{volume['name']}")
        return self.volume_path(pod, str(volume.get("name")))

    def _part(self, pod: PodView, container: ContainerView, number: int, source: Path, part: str) -> Path:
        if (source / DATA).is_symlink():
            # Configuration volumes are written by us alone: their links are ours.
            found = (source / part).resolve()
            if not found.is_relative_to(source.resolve()):
                raise ConfigFailure(f"subPath {part!r} leads out of its volume")
            return found
        place = self.directory(pod) / "subpaths" / container.name / str(number)
        return bind_inside(source, part, place)

    def disk_use(self, pod: PodView) -> dict[str, int]:
        """Bytes in each emptyDir of the pod that no mount limits; blocks."""
        return {
            str(volume["name"]): _tree_size(self.volume_path(pod, str(volume["name"])))
            for volume in pod.spec.get("volumes") or []
            if volume.get("emptyDir") is not None and is_measured(volume["emptyDir"])
        }

    async def release(self, pod: PodView) -> None:
        """Remove the pod's directory with everything mounted there."""
        await asyncio.to_thread(remove_pod_directory, self.directory(pod))

    async def remove_strangers(self, known: set[str]) -> None:
        """Remove directories of pods that are no longer here."""
        for name in await asyncio.to_thread(_names, self._root):
            if name not in known:
                await asyncio.to_thread(remove_pod_directory, self._root / name)


def _tree_size(root: Path) -> int:
    """What the files below take on disk; links are not followed, and what vanishes meanwhile does not count."""
    total = 0
    for directory, _, files in os.walk(root):
        for name in files:
            with contextlib.suppress(OSError):
                total += (Path(directory) / name).lstat().st_blocks * 512
    return total


def _names(root: Path) -> list[str]:
    return [entry.name for entry in root.iterdir()] if root.is_dir() else []


def remove_pod_directories(root: Path) -> None:
    """All of them: the node is given up."""
    for name in _names(root):
        remove_pod_directory(root / name)


def remove_pod_directory(directory: Path) -> None:
    if not directory.exists():
        return
    for target in mounts_below(directory):
        with contextlib.suppress(OSError):
            unmount(target)
    if mounts_below(directory):
        _log.warning("%s is not removed: something is still mounted there", directory)
        return
    for link in directory.glob("volumes/*"):
        if link.is_symlink() and link.readlink().parent == shared_memory():
            remove_owned(link.readlink())
    remove_owned(directory)


def fs_group(pod: PodView) -> int | None:
    found = (pod.spec.get("securityContext") or {}).get("fsGroup")
    return None if found is None else int(found)


def _write(path: Path, payload: Payload, version: str, group: int | None) -> None:
    write_payload(path, payload, version, group)


def _make_empty(path: Path, empty: Mapping[str, Any], group: int | None) -> None:
    medium = str(empty.get("medium") or "")
    if medium not in {"", "Memory"}:
        raise ConfigFailure(f"emptyDir medium {medium!r} is not supported on this node")
    if medium == "Memory" and os.geteuid() != 0:
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        path = in_shared_memory(path)
    fresh = not path.exists()
    path.mkdir(mode=0o777, parents=True, exist_ok=True)
    if medium == "Memory" and os.geteuid() == 0 and not os.path.ismount(path):
        limit = amount(empty, "sizeLimit")
        mount_tmpfs(path, limit.value() if limit else 0)
        fresh = True
    if fresh:
        path.chmod(0o777)
        if group is not None:
            os.chown(path, -1, group)
            path.chmod(0o2777)


def _sub_path(wanted: Mapping[str, Any], environment: Mapping[str, str]) -> str:
    if part := wanted.get("subPathExpr"):
        return expand(str(part), environment)
    return str(wanted.get("subPath") or "")
