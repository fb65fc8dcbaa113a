"""A thread that runs one job at a time and reports to the event loop.

Cheaper per job than an executor's futures, which matters for a job that is a single fsync.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from collections.abc import Callable

Job = Callable[[], object]
Done = Callable[[BaseException | None], None]


class Worker:
    """Jobs run in the order submitted; ``done`` is called on the loop, with what the job raised."""

    def __init__(self, name: str) -> None:
        self._loop = asyncio.get_running_loop()
        self._jobs: queue.SimpleQueue[tuple[Job, Done] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def submit(self, job: Job, done: Done) -> None:
        self._jobs.put((job, done))

    async def run(self, job: Job) -> None:
        """Run a job and wait for it; raises what it raised."""
        finished: asyncio.Future[None] = self._loop.create_future()

        def done(error: BaseException | None) -> None:
            if finished.done():
                return
            if error is None:
                finished.set_result(None)
            else:
                finished.set_exception(error)

        self.submit(job, done)
        await finished

    def stop(self) -> None:
        """End the thread once it has done what was submitted."""
        self._jobs.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (work := self._jobs.get()) is not None:
            job, done = work
            error: BaseException | None = None
            try:
                job()
            except BaseException as raised:
                error = raised
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                self._loop.call_soon_threadsafe(done, error)
