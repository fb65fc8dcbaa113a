"""``fleetplane up`` and its parts: settings in, a running plane, a clean end."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import uvloop

from fleetplane.interfaces.cli.logs import configure_logging
from fleetplane.interfaces.cli.main import CommandError
from fleetplane.plane import Plane
from fleetplane.plane_error import PlaneError
from fleetplane.settings import Settings, SettingsError, load_settings


def run_plane(given: Mapping[str, Any], config: Path | None) -> None:
    """Run a plane until SIGTERM or SIGINT. Raises CommandError when it cannot start."""
    try:
        settings = load_settings(given, os.environ, config)
    except SettingsError as error:
        raise CommandError(str(error)) from None
    configure_logging(settings.log_level)
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_serve(settings))
    except* PlaneError as errors:
        if settings.debug:
            raise
        raise CommandError("; ".join(str(one) for one in errors.exceptions)) from None


def _calm_garbage_collector() -> None:
    """Look for cycles seldom: a plane keeps a million small objects that are in none, and looking at them all stalls it."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 50, 1000)


async def _serve(settings: Settings) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for one in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(one, stop.set)
    _calm_garbage_collector()
    async with Plane(settings) as plane:
        with contextlib.suppress(BrokenPipeError):
            sys.stdout.write(f"ready {plane.url} kubeconfig={plane.kubeconfig}\n")
            sys.stdout.flush()
        await stop.wait()
