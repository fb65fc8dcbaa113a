"""Images of a CRI runtime: found and pulled through the CRI; loaded from files with containerd's own ``ctr``.

The CRI has no call that loads a file, so that part knows containerd and no other runtime. A plain root file system is
wrapped into an archive first. What was loaded is known to the CRI a moment later: we wait for it.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import platform
import shutil
import tarfile
import tempfile
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any, Final

from fleetplane.node.cri import messages as cri
from fleetplane.node.cri.api import IMAGES, CriApi
from fleetplane.node.cri.states import image_of
from fleetplane.node.processes import CommandFailure, run_command
from fleetplane.node.runtime import Image, ImageMissing, NotThere, RegistryAuth, RuntimeFailure

PULL_SECONDS: Final = 3600.0
KNOWN_SECONDS: Final = 10.0
CTR_PATH: Final = os.pathsep.join([os.environ.get("PATH", ""), "/usr/bin", "/usr/local/bin"])
LARGEST_INDEX: Final = 4 * 1024 * 1024
_MACHINES: Final = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm"}


class CriImages:
    """See the module."""

    def __init__(self, api: CriApi) -> None:
        self._api = api

    async def find(self, name: str, handler: str = "") -> Image | None:
        request = cri.ImageRequest(cri.ImageSpec(name, handler))
        try:
            answer = await self._api.call(IMAGES + "ImageStatus", request, cri.ImageStatusResponse)
        except NotThere:
            return None
        return image_of(answer.image) if answer.image is not None else None

    async def all(self) -> Sequence[Image]:
        answer = await self._api.call(IMAGES + "ListImages", cri.Empty(), cri.ListImagesResponse)
        return [image_of(one) for one in answer.images]

    async def pull(self, name: str, auth: Sequence[RegistryAuth], handler: str) -> Image:
        failure = ""
        for one in auth or (None,):
            sent = cri.AuthConfig(one.username, one.password, one.identity_token) if one is not None else None
            request = cri.PullImageRequest(cri.ImageSpec(name, handler), sent)
            try:
                answer = await self._api.call(
                    IMAGES + "PullImage", request, cri.PullImageResponse, timeout=PULL_SECONDS
                )
            except RuntimeFailure as error:
                failure = error.message
                continue
            if (found := await self.find(answer.image_ref or name, handler)) is not None:
                return found
            failure = "it is not there after the pull"
        raise ImageMissing(f'failed to pull image "{name}": {failure}', "ErrImagePull")

    async def remove(self, name: str) -> None:
        await self._api.call(IMAGES + "RemoveImage", cri.ImageRequest(cri.ImageSpec(name)), cri.Empty)

    async def load(self, archive: str, name: str) -> Image:
        """Raises RuntimeFailure."""
        program = shutil.which("ctr", path=CTR_PATH)
        if program is None:
            raise RuntimeFailure(f"{archive} cannot be loaded: containerd's program ctr is not installed")
        with tempfile.TemporaryDirectory() as directory:
            try:
                source = archive
                if name:
                    source = str(Path(directory) / "image.tar")
                    await asyncio.to_thread(wrap_root, Path(archive), Path(source), name)
                names = await asyncio.to_thread(archive_names, Path(source))
                words = [program, "--address", self._api.socket, "--namespace", "k8s.io", "images", "import"]
                await run_command([*words, source])
            except OSError as error:
                raise RuntimeFailure(f"cannot read the image archive {archive}: {error.strerror or error}") from error
            except (CommandFailure, tarfile.TarError, ValueError, KeyError) as error:
                raise RuntimeFailure(f"the image archive {archive} cannot be loaded: {error}") from error
        if not names:
            raise RuntimeFailure(f"{archive} names no image")
        return await self._known(names[0])

    async def _known(self, name: str) -> Image:
        try:
            async with asyncio.timeout(KNOWN_SECONDS):
                while True:
                    if (found := await self.find(name)) is not None:
                        return found
                    await asyncio.sleep(0.02)
        except TimeoutError:
            raise RuntimeFailure(f"{name} was loaded, and the container runtime does not show it") from None


def wrap_root(root: Path, target: Path, name: str) -> None:
    """A Docker archive whose one layer is the root file system in the tar ``root``. Raises OSError."""
    digest = hashlib.sha256()
    with root.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    config = {
        "architecture": _MACHINES.get(platform.machine(), platform.machine()),
        "os": "linux",
        "config": {},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest.hexdigest()}"]},
    }
    described = json.dumps(config).encode()
    config_name = hashlib.sha256(described).hexdigest() + ".json"
    manifest = [{"Config": config_name, "RepoTags": [name], "Layers": ["layer.tar"]}]
    with tarfile.open(target, "w") as tar:
        tar.add(root, "layer.tar")
        for entry, data in ((config_name, described), ("manifest.json", json.dumps(manifest).encode())):
            info = tarfile.TarInfo(entry)
            info.size = len(data)
            tar.addfile(info, BytesIO(data))


def archive_names(archive: Path) -> list[str]:
    """What the images of an archive are called: Docker's or OCI's. Raises OSError, TarError, ValueError, KeyError."""
    with tarfile.open(archive) as tar:
        for entry in tar:
            if entry.name in {"manifest.json", "./manifest.json"}:
                return [str(tag) for image in _json(tar, entry) for tag in image.get("RepoTags") or []]
    with tarfile.open(archive) as tar:
        for entry in tar:
            if entry.name in {"index.json", "./index.json"}:
                notes = [one.get("annotations") or {} for one in _json(tar, entry).get("manifests") or []]
                keys = ("io.containerd.image.name", "org.opencontainers.image.ref.name")
                return [str(note[key]) for note in notes for key in keys if key in note][:1]
    return []


def _json(tar: tarfile.TarFile, entry: tarfile.TarInfo) -> Any:
    file = tar.extractfile(entry)
    if file is None or entry.size > LARGEST_INDEX:
        raise ValueError(f"{entry.name} is not a list of images")
    return json.loads(file.read())
