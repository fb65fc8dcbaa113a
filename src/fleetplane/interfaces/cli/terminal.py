"""What reaches the screen: lines on stdout and stderr, colour only where a person looks.

Standard output belongs to what was asked for, so that it can be piped; everything else (progress, warnings) goes to
standard error. Text from the server never carries control characters to a terminal: an object's name or an event's
message must not move the cursor or change the window's title.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import time
from collections.abc import Mapping
from typing import Final, TextIO

_CODES: Final[Mapping[str, str]] = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33", "cyan": "36"}
_WIPE: Final = "\r\x1b[K"
_CONTROL: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


class Terminal:
    """``colour`` and ``interactive`` describe stdout; ``err_interactive`` stderr.

    At most one status line is shown at a time; printing anything wipes it first. ``progressing`` counts who shows one,
    ``printed_at`` is when something was last printed (monotonic seconds).
    """

    def __init__(self, out: TextIO | None = None, err: TextIO | None = None) -> None:
        self._out = out or sys.stdout
        self._err = err or sys.stderr
        self.interactive = self._out.isatty()
        self.err_interactive = self._err.isatty()
        self.colour = self.interactive and wants_colour(os.environ)
        self.progressing = 0
        self.printed_at = time.monotonic()
        self._has_status = False

    def line(self, text: str = "") -> None:
        self.write(text + "\n")

    def write(self, text: str) -> None:
        self.wipe_status()
        self.printed_at = time.monotonic()
        self._out.write(text)

    def flush(self) -> None:
        self.wipe_status()
        self._out.flush()

    def warn(self, text: str) -> None:
        """A line on stderr."""
        self.flush()
        self._err.write(printable(text) + "\n")
        self._err.flush()

    def show_status(self, text: str) -> None:
        """Rewrite the status line of a terminal. It is cut to one line: a wrapped one could not be wiped."""
        width = shutil.get_terminal_size().columns
        fitted = text if len(text) < width else text[: max(width - 2, 1)] + "…"
        self._out.flush()
        self._err.write(_WIPE + fitted)
        self._err.flush()
        self._has_status = True

    def wipe_status(self) -> None:
        if self._has_status:
            self._has_status = False
            self._err.write(_WIPE)
            self._err.flush()

    def style(self, text: str, *names: str) -> str:
        """The text in these styles, where there is colour."""
        if not self.colour or not text or not names:
            return text
        return f"\x1b[{';'.join(_CODES[name] for name in names)}m{text}\x1b[0m"


def wants_colour(environment: Mapping[str, str]) -> bool:
    """NO_COLOR (no-color.org) and terminals that cannot."""
    return not environment.get("NO_COLOR") and environment.get("TERM") != "dumb"


def printable(text: str) -> str:
    """The text without control characters, save tabs and line ends."""
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", text)
