"""Ending a loop that survives every error.

A task is told to end by one exception, raised in it once. It can be lost on its way: ``asyncio.gather`` raises the error
of a part that failed in the same moment instead, a task group the errors of its tasks, clean-up its own. A loop that
catches errors and goes on would then never end, and whoever waits for it neither.
"""

from __future__ import annotations

import asyncio


def end_if_cancelled() -> None:
    """Raise CancelledError if the running task was told to end. For loops, after they caught some other error."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError
