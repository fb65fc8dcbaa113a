"""How a reconcile fails: for now, or for good."""

from __future__ import annotations


class Permanent(Exception):
    """Trying again will not help until something changes: the spec is wrong, or contradicts the world.

    The object is not retried (a change of it, of what it owns or watches, or a resync wakes it again); the message ends
    up in a condition and an event, so it is one sentence for the person who wrote the object. ``reason`` is CamelCase.
    Every other exception is retried with growing delays.
    """

    def __init__(self, message: str, *, reason: str = "Invalid") -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason


class QueueClosed(Exception):
    """The queue takes and gives no more work."""
