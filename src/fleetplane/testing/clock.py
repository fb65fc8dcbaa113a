"""An event loop on which time passes only when nobody has anything left to do now.

Waiting costs nothing: when every task waits for a timer, the clock jumps to the earliest one. A test of an hour's
back-off takes milliseconds, and since the order of everything depends on nothing outside the loop, the same seed gives
the same run.

It is for code that lives on the loop alone. Jobs given to executors are run at once, in place; real sockets and threads
are polled but never waited for, except when nothing else can happen any more: then a thread gets a moment to call back,
and after that the loop raises ``Stuck`` instead of hanging.
"""

from __future__ import annotations

import asyncio
import math
import selectors
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor
from functools import wraps
from typing import Any, Final, ParamSpec, TypeVar, TypeVarTuple

P = ParamSpec("P")
T = TypeVar("T")
Ts = TypeVarTuple("Ts")

MOMENT: Final = 2.0
"""Real seconds given to threads when nothing else can happen."""


class Stuck(RuntimeError):
    """Every task waits for something that cannot happen."""


class _JumpingSelector(selectors.DefaultSelector):
    """Polls, and instead of sleeping moves the loop's clock."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if ready or timeout == 0:
            return ready
        if timeout is None:
            ready = super().select(MOMENT)
            if not ready:
                raise Stuck("every task waits for something that cannot happen")
            return ready
        self.now += timeout
        return []


class VirtualClockLoop(asyncio.SelectorEventLoop):
    """``time`` starts at 0. The longest jump is a day at a time, as asyncio caps it."""

    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)

    @property
    def _clock_resolution(self) -> float:
        """The least there is: asyncio lets timers fire earlier by this much, and who was woken early would wait again
        for a moment that is as near, for ever, as nothing else moves this clock."""
        return math.ulp(self._jumping.now)

    @_clock_resolution.setter
    def _clock_resolution(self, _real: float) -> None:
        """asyncio sets that of the machine's clock, which is not this one."""

    def time(self) -> float:
        return self._jumping.now

    def run_in_executor(  # jobs run at once, in place
        self, executor: Executor | None, func: Callable[[*Ts], T], *args: *Ts
    ) -> asyncio.Future[T]:
        done: asyncio.Future[T] = self.create_future()
        try:
            done.set_result(func(*args))
        except Exception as error:
            done.set_exception(error)
        return done


def virtually(test: Callable[P, Coroutine[Any, Any, T]]) -> Callable[P, T]:
    """Make an ordinary test function of an asynchronous one: it runs on a virtual clock."""

    @wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        return run_virtually(test(*args, **kwargs))

    return run


def run_virtually(main: Coroutine[Any, Any, T]) -> T:
    """``asyncio.run`` on a virtual clock."""
    with asyncio.Runner(loop_factory=VirtualClockLoop) as runner:
        return runner.run(main)
