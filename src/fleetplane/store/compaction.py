"""When changes are forgotten: how long the past of a store can be read and replayed.

Time is remembered as a few marks in memory, so nothing need be stored with a change; after a restart the whole log
counts as new.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

_MARK_SECONDS = 5.0
ADVANCE = 256
"""Automatic compaction moves on by at least so many revisions, to be worth its while."""

KeepVersions = Callable[[str, str], int]
"""``(group, resource)`` to how many superseded versions of each object outlive compaction."""


def keep_versions(history: int | KeepVersions) -> KeepVersions:
    """The same number for all, or as given."""
    return history if callable(history) else lambda _group, _resource: history


@dataclass(frozen=True, slots=True)
class CompactionPolicy:
    """A change may be forgotten once it is older than ``seconds``, or more than ``max_events`` are newer.

    The newest ``min_events`` are always kept. ``max_events=0`` switches automatic compaction off.
    """

    seconds: float = 300.0
    min_events: int = 1_000
    max_events: int = 200_000


class CompactionClock:
    """Knows which revision the policy lets go."""

    def __init__(self, policy: CompactionPolicy, revision: int, now: float) -> None:
        self._policy = policy
        self._marks: deque[tuple[float, int]] = deque([(now, revision)])
        self._aged = 0

    def target(self, revision: int, now: float) -> int:
        """The revision to compact to, given the newest one; 0 for nothing. ``now`` is monotonic, in seconds."""
        policy = self._policy
        if policy.max_events <= 0:
            return 0
        if now - self._marks[-1][0] >= _MARK_SECONDS:
            self._marks.append((now, revision))
        while len(self._marks) > 1 and self._marks[0][0] <= now - policy.seconds:
            self._aged = self._marks.popleft()[1]
        return max(min(self._aged, revision - policy.min_events), revision - policy.max_events, 0)
