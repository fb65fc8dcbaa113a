"""Moving the write-ahead log back into the database without holding up commits.

SQLite's own automatic checkpoint would run inside some unlucky COMMIT. Here most of the work is done by a connection on
a thread of its own while commits go on; the small rest (what was committed meanwhile) is left to the committer to do
between two groups, after which readers move to the database proper and SQLite starts the log over.
"""

from __future__ import annotations

from pathlib import Path

from fleetplane.store.datafile import connect
from fleetplane.store.worker import Worker

_DUE_BYTES = 8 << 20
CHECKPOINT = "PRAGMA wal_checkpoint(PASSIVE)"


class Checkpoints:
    """Counts what is written and checkpoints when it is worth it."""

    def __init__(self, path: Path) -> None:
        self._connection = connect(path)
        self._worker = Worker("fleetplane-store-checkpoint")
        self._written = 0
        self._running = False
        self.rest_due = False
        """Whether the committer should do the rest between two groups, and then call ``done``."""

    def wrote(self, size: int) -> None:
        """Note bytes committed (roughly); may start a checkpoint."""
        self._written += size
        if self._written >= _DUE_BYTES and not self._running and not self.rest_due:
            self._running = True
            self._worker.submit(lambda: self._connection.execute(CHECKPOINT).fetchall(), self._passed)

    def done(self) -> None:
        self.rest_due = False
        self._written = 0

    def stop(self) -> None:
        self._worker.stop()
        self._connection.close()

    def _passed(self, error: BaseException | None) -> None:
        self._running = False
        self.rest_due = error is None
        if error is not None:
            self._written = 0  # a full disk, most likely: the log still has everything, so simply try again later
