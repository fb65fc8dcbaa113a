"""One round of an installation: takes the steps the plan names, side by side, until nothing can be done now.

A step's record is written before it begins and after it ends, and the plan is asked again after every step, so that a node
that is slow delays nobody else. A round ends early when its cluster is to be stopped or deleted: its steps are cancelled,
what they had begun is found by the next round.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any, Final, NamedTuple, Protocol

from fleetplane.model.errors import ApiError
from fleetplane.operators.vclusters import plan
from fleetplane.operators.vclusters.plan import Decision, Observed, Record, Step, Wanted
from fleetplane.operators.vclusters.steps import StepFailed, StepPending

AT_ONCE: Final = 16
"""Steps of one cluster taken at the same time."""
LOOK: Final = 1.0
"""Seconds after which a round looks whether it is still wanted."""


class Ended(NamedTuple):
    """How a step went: ``error`` is empty when it is done; ``wait`` says that it is not over yet."""

    error: str = ""
    permanent: bool = False
    wait: float | None = None


class World(Protocol):
    """What a round needs of everything else."""

    def wanted(self) -> Wanted: ...
    def observe(self) -> Observed: ...
    def is_interrupted(self) -> bool: ...
    async def report(self, seen: Observed, decision: Decision) -> None: ...
    async def save(self, records: Mapping[Step, Record], *, ended: bool) -> None: ...
    def take(self, step: Step, before: Record) -> Awaitable[None]: ...


class Result(NamedTuple):
    decision: Decision
    again: float | None
    """Seconds until something is due; None: nothing is."""


async def run(world: World) -> Result:
    """Returns when nothing is left to do now, or it is interrupted. Raises what ``report`` and ``save`` raise."""
    tasks: dict[asyncio.Task[Ended], Step] = {}
    begun: dict[Step, Record] = {}
    due: dict[Step, float] = {}
    try:
        while True:
            wanted, seen = world.wanted(), world.observe()
            decision = plan.plan(wanted, seen)
            await world.report(seen, decision)
            if world.is_interrupted():
                return Result(decision, 0.01)
            taken = set(tasks.values())
            fresh = [step for step in decision.steps if step not in taken and due.get(step, 0.0) <= seen.now]
            fresh = fresh[: AT_ONCE - len(tasks)]
            before = {step: seen.records.get(step, Record()) for step in fresh}
            for step in fresh:
                pod = seen.pods[step.node or wanted.master]
                begun[step] = plan.started(step, before[step], wanted, seen.now, pod)
            await world.save({step: begun[step] for step in fresh}, ended=False)
            for step in fresh:
                tasks[asyncio.ensure_future(_one(world.take, step, before[step]))] = step
            if not tasks:
                waits = [due[step] - seen.now for step in decision.steps if step in due]
                waits += [decision.again] if decision.again is not None else []
                return Result(decision, max(0.01, min(waits)) if waits else None)
            finished, _ = await asyncio.wait(tasks, timeout=LOOK, return_when=asyncio.FIRST_COMPLETED)
            now = world.observe().now
            after: dict[Step, Record] = {}
            for task in finished:
                step, ended = tasks.pop(task), task.result()
                if ended.wait is not None:
                    due[step] = now + ended.wait
                else:
                    due.pop(step, None)
                    after[step] = plan.ended(begun[step], ended.error, now, permanent=ended.permanent)
            await world.save(after, ended=True)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def unless(is_interrupted: Callable[[], bool], work: Coroutine[Any, Any, None]) -> bool:
    """Do it, but not longer than it is wanted: false when it was cut off. Raises what it raises."""
    task = asyncio.ensure_future(work)
    try:
        while not (await asyncio.wait([task], timeout=LOOK))[0]:
            if is_interrupted():
                return False
        task.result()
        return True
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _one(take: Callable[[Step, Record], Awaitable[None]], step: Step, before: Record) -> Ended:
    try:
        await take(step, before)
    except StepPending as pending:
        return Ended(wait=pending.seconds)
    except StepFailed as failure:
        return Ended(str(failure), failure.permanent)
    except ApiError as error:
        return Ended(error.message or "the API refused")
    except TimeoutError:
        return Ended("it took too long")
    return Ended()
