"""``fleetplane up`` and its parts: settings in, a running plane, a clean end."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import importlib
import os
import shutil
import signal
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import uvloop

from fleetplane.interfaces.cli.logs import configure_logging
from fleetplane.interfaces.cli.main import CommandError
from fleetplane.model.environment import SystemEnvironment
from fleetplane.model.errors import ApiError
from fleetplane.plane_error import PlaneError
from fleetplane.settings import Settings, SettingsError, load_settings

if TYPE_CHECKING:
    from fleetplane.plane import Plane
    from fleetplane.this_machine import ThisMachine

ROOM_BYTES: Final = 1 << 20
"""With less than this free, a database cannot even be made."""


def run_plane(given: Mapping[str, Any], config: Path | None) -> None:
    """Run a plane until SIGTERM or SIGINT. Raises CommandError when it cannot start."""
    try:
        settings = load_settings(given, os.environ, config)
    except SettingsError as error:
        raise CommandError(str(error)) from None
    configure_logging(settings.log_level)
    gc.disable()  # until everything is loaded: there is nothing to find before
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_serve(settings))
    except* (PlaneError, ApiError, OSError) as errors:
        if settings.debug:
            raise
        raise CommandError(disk_full(settings.data_dir) or "; ".join(_worded(one) for one in leaves(errors))) from None


def leaves(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    for one in group.exceptions:
        if isinstance(one, BaseExceptionGroup):
            yield from leaves(one)
        else:
            yield one


def _worded(error: BaseException) -> str:
    if isinstance(error, OSError):
        where = f" ({error.filename})" if error.filename else ""
        return f"the plane cannot go on: {error.strerror or error}{where}"
    return error.message if isinstance(error, ApiError) else str(error)


def disk_full(directory: Path, needed: int = ROOM_BYTES) -> str:
    """What to do about a disk with no room left for a plane; empty where there is some.

    Asked after a failure: what fails first when a disk is full differs from time to time, and seldom says so.
    """
    place = directory.absolute()
    while not place.exists() and place != place.parent:
        place = place.parent
    try:
        total, _used, free = shutil.disk_usage(place)
    except OSError:
        return ""
    if free >= needed or not total:
        return ""
    return (
        f"the disk that holds {directory} is full ({free // 1024:,} KiB are free); "
        "free some space, or choose another place with --data-dir"
    )


def _calm_garbage_collector() -> None:
    """Look for cycles seldom: a plane keeps a million small objects that are in none, and looking at them all stalls it."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 50, 1000)
    gc.enable()


def _will_be_a_node(settings: Settings) -> bool:
    """Whether this machine surely will be one; told without loading anything."""
    if settings.nodes == 0:
        return False
    return settings.runtime == "cri" or (settings.runtime in {"auto", "podman"} and shutil.which("podman") is not None)


@contextlib.asynccontextmanager
async def _begun(settings: Settings) -> AsyncIterator[ThisMachine | None]:
    """This machine's node, where it will be one: its containers start while the plane is loaded."""
    if not _will_be_a_node(settings):
        yield None
        return
    from fleetplane.this_machine import ThisMachine

    machine = ThisMachine(settings, SystemEnvironment())
    machine.begin()
    try:
        yield machine
    finally:
        await machine.end()


async def _loaded() -> type[Plane]:
    """The plane's class. Loading all that it is made of takes a second or so; the event loop goes on meanwhile."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(0.001)
    try:
        module = await asyncio.to_thread(importlib.import_module, "fleetplane.plane")
    finally:
        sys.setswitchinterval(usual)
    _calm_garbage_collector()
    loaded: type[Plane] = module.Plane
    return loaded


async def _serve(settings: Settings) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for one in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(one, stop.set)
    async with _begun(settings) as machine, (await _loaded())(settings, machine=machine) as plane:
        with contextlib.suppress(BrokenPipeError):
            sys.stdout.write(f"ready {plane.url} kubeconfig={plane.kubeconfig}\n")
            sys.stdout.flush()
        await stop.wait()
