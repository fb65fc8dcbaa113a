"""Logs of long-running commands: on stderr, never on stdout, which belongs to what was asked for."""

from __future__ import annotations

import logging
import sys


def configure_logging(level: str) -> None:
    """Loggers write to stderr from ``level`` up."""
    number = logging.getLevelNamesMapping().get(level.upper(), logging.WARNING)
    logging.basicConfig(
        level=number, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s", force=True
    )
