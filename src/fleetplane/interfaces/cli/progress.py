"""What a person sees while waiting: one line on stderr, from the second second on.

On a terminal the line is rewritten in place and wiped before anything else is printed. In a pipe or a log it is printed
once, and again when its text changes, but not more often than every few seconds: a log must stay readable.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from fleetplane.interfaces.cli.terminal import Terminal, printable

_QUIET_SECONDS: Final = 1.0
"""What is done within this time needs no progress."""

_LOG_EVERY_SECONDS: Final = 5.0
_TICK_SECONDS: Final = 0.1
_FRAMES: Final = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"


class Progress:
    """The line; ``say`` changes what it says."""

    def __init__(self, terminal: Terminal, text: str) -> None:
        self._terminal = terminal
        self._text = text
        self._started = time.monotonic()
        self._logged = ""
        self._logged_at = -_LOG_EVERY_SECONDS
        self._frame = 0

    def say(self, text: str) -> None:
        self._text = text

    def tick(self) -> None:
        elapsed = time.monotonic() - self._started
        if elapsed < _QUIET_SECONDS:
            return
        if self._terminal.err_interactive:
            self._frame += 1
            mark = _FRAMES[self._frame % len(_FRAMES)]
            self._terminal.show_status(f"{mark} {printable(self._text)} ({elapsed:.0f}s)")
        elif self._text != self._logged and elapsed - self._logged_at >= _LOG_EVERY_SECONDS:
            self._logged = self._text
            self._logged_at = elapsed
            self._terminal.warn(f"{self._text} ({elapsed:.0f}s)")


@asynccontextmanager
async def progress(terminal: Terminal, text: str) -> AsyncIterator[Progress]:
    """Show that something is going on for as long as the block runs."""
    shown = Progress(terminal, text)
    terminal.progressing += 1
    ticking = asyncio.create_task(_tick(shown))
    try:
        yield shown
    finally:
        ticking.cancel()
        await asyncio.wait([ticking])
        terminal.progressing -= 1
        terminal.wipe_status()


async def _tick(shown: Progress) -> None:
    while True:
        await asyncio.sleep(_TICK_SECONDS)
        shown.tick()
