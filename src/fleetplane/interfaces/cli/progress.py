"""What a person sees while waiting: one line on stderr, from the second second on.

On a terminal the line is rewritten in place and wiped at the end. In a pipe or a log it is printed once, and again
when its text changes, but not more often than every few seconds: a log must stay readable.
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
_WIPE: Final = "\r\x1b[K"


class Progress:
    """The line. ``say`` changes what it says; ``paused`` takes it away while other lines are printed."""

    def __init__(self, terminal: Terminal, text: str) -> None:
        self._terminal = terminal
        self._text = text
        self._started = time.monotonic()
        self._shown = ""
        self._logged_at = -_LOG_EVERY_SECONDS
        self._frame = 0

    def say(self, text: str) -> None:
        self._text = text

    def clear(self) -> None:
        """Take the line away, so that something else can be printed; the next tick brings it back."""
        if self._terminal.err_interactive and self._shown:
            self._terminal.status(_WIPE)
            self._shown = ""

    def tick(self) -> None:
        elapsed = time.monotonic() - self._started
        if elapsed < _QUIET_SECONDS:
            return
        if self._terminal.err_interactive:
            self._frame += 1
            mark = _FRAMES[self._frame % len(_FRAMES)]
            self._shown = f"{mark} {printable(self._text)} ({elapsed:.0f}s)"
            self._terminal.status(_WIPE + _fitted(self._shown))
        elif self._text != self._shown and elapsed - self._logged_at >= _LOG_EVERY_SECONDS:
            self._shown = self._text
            self._logged_at = elapsed
            self._terminal.warn(f"{self._text} ({elapsed:.0f}s)")


@asynccontextmanager
async def progress(terminal: Terminal, text: str) -> AsyncIterator[Progress]:
    """Show that something is going on for as long as the block runs."""
    shown = Progress(terminal, text)
    ticking = asyncio.create_task(_tick(shown))
    try:
        yield shown
    finally:
        ticking.cancel()
        await asyncio.wait([ticking])
        shown.clear()


async def _tick(shown: Progress) -> None:
    while True:
        await asyncio.sleep(_TICK_SECONDS)
        shown.tick()


def _fitted(text: str) -> str:
    """The text on one line of the terminal: a wrapped line could not be wiped."""
    import shutil

    width = shutil.get_terminal_size().columns
    return text if len(text) < width else text[: max(width - 2, 1)] + "…"
