"""Logs of long-running commands: on stderr, never on stdout, which belongs to what was asked for.

Where stderr is the systemd journal they go there as structured entries; see ``journal``.
"""

from __future__ import annotations

import logging
import os
import sys

from fleetplane.interfaces.cli import journal


def configure_logging(level: str) -> None:
    """Loggers write to stderr, or to the journal behind it, from ``level`` up."""
    number = logging.getLevelNamesMapping().get(level.upper(), logging.WARNING)
    if journal.is_journal(os.environ) and journal.SOCKET.exists():
        logging.basicConfig(level=number, handlers=[journal.JournalHandler()], format="%(message)s", force=True)
        return
    logging.basicConfig(
        level=number, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s", force=True
    )
