"""Images that come as files: archives in a folder of the node are loaded when it starts.

For machines without a registry in reach. An archive is loaded once, and again when it has changed; one that cannot be
loaded is reported and costs nothing but its own pods.
"""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Any, Final

import orjson

from fleetplane.node.files import read_json, write_private
from fleetplane.node.runtime import ContainerRuntime, RuntimeFailure

SUFFIXES: Final = (".tar", ".tar.gz", ".tgz")
LEDGER: Final = ".loaded.json"

_log = logging.getLogger(__name__)


async def preload_images(runtime: ContainerRuntime, folder: Path) -> None:
    """Load what is new in the folder."""
    found = await asyncio.to_thread(read_json, folder / LEDGER)
    known: dict[str, Any] = found or {}
    loaded = False
    for name, mark in (await asyncio.to_thread(_archives, folder)).items():
        if known.get(name) == mark:
            continue
        try:
            image = await runtime.import_image(str(folder / name))
        except (RuntimeFailure, OSError) as error:
            _log.error("the image archive %s cannot be loaded: %s", folder / name, error)
            continue
        _log.info("loaded %s from %s", ", ".join(image.names) or image.id, folder / name)
        known[name], loaded = mark, True
    if loaded:
        await asyncio.to_thread(write_private, folder / LEDGER, orjson.dumps(known))


def _archives(folder: Path) -> dict[str, str]:
    """File name to what tells whether it has changed."""
    if not folder.is_dir():
        return {}
    found = {}
    for path in sorted(folder.iterdir()):
        if path.name.endswith(SUFFIXES) and path.is_file():
            status = path.stat()
            found[path.name] = f"{status.st_size}-{status.st_mtime_ns}"
    return found
