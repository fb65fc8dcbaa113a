"""Waiting until objects are as one wants them, by watching, with progress and an end.

A goal looks at an object's state (None when it is not there) and says whether it is reached and what is missing. What
is missing is what people read while they wait, and in the error when the time is over.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final

from fleetplane.interfaces.cli.connection import Session
from fleetplane.interfaces.cli.errors import CommandError
from fleetplane.interfaces.cli.progress import Progress, progress
from fleetplane.interfaces.cli.resources import reference
from fleetplane.interfaces.cli.watching import changes
from fleetplane.model.objects import Object, name, namespace, uid
from fleetplane.model.resources import ResourceType

_BY_NAME: Final = 4
"""Up to so many objects of a kind and namespace get a watch each."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """``failed`` means that waiting longer will not help."""

    reached: bool
    missing: str = ""
    failed: bool = False


Goal = Callable[[Object | None], Verdict]


@dataclass(frozen=True, slots=True)
class Waited:
    """One object to wait for. ``uid`` restricts the wait to this very object: a successor of its name is another."""

    resource: ResourceType
    name: str
    namespace: str | None
    uid: str = ""

    @property
    def reference(self) -> str:
        return reference(self.resource, self.name)

    @classmethod
    def of(cls, resource: ResourceType, obj: Object) -> Waited:
        return cls(resource, name(obj), namespace(obj) or None)


async def wait_for(
    session: Session,
    waited: Sequence[Waited],
    goal: Goal,
    timeout: float | None,
    aim: str,
    reached: Callable[[Waited, Object | None], None] | None = None,
    *,
    explain: bool = False,
) -> None:
    """Wait until every object reaches the goal. Raises CommandError when the time is over or one has failed.

    Args:
        timeout: Seconds for all of them together; None waits for ever.
        aim: What is waited for, as an infinitive or adjective: ``to be ready``.
        reached: Told of each object as it gets there.
        explain: Point to ``why`` when the time is over.
    """
    async with progress(session.out, "waiting") as shown:
        state = _State(goal, aim, shown, reached, dict.fromkeys(waited, ""))
        state.show()
        together: dict[tuple[ResourceType, str | None], list[Waited]] = {}
        for one in state.missing:
            together.setdefault((one.resource, one.namespace), []).append(one)
        try:
            async with asyncio.timeout(timeout), asyncio.TaskGroup() as group:
                for members in together.values():
                    # A few are watched by name; many by one watch of all, which costs the server less.
                    parts = [members] if len(members) > _BY_NAME else [[one] for one in members]
                    for part in parts:
                        group.create_task(_follow(session, part, state))
        except TimeoutError:
            raise CommandError(_too_late(state, timeout, explain)) from None


@dataclass(slots=True)
class _State:
    """``missing`` holds who has not got there yet, and what is missing, in the order they were named."""

    goal: Goal
    aim: str
    shown: Progress
    reached: Callable[[Waited, Object | None], None] | None
    missing: dict[Waited, str]
    total: int = 0

    def __post_init__(self) -> None:
        self.total = len(self.missing)

    def look(self, one: Waited, obj: Object | None) -> bool:
        """Whether the object is where it should be. Raises CommandError when it never will be."""
        if obj is not None and one.uid and uid(obj) != one.uid:
            obj = None
        verdict = self.goal(obj)
        if verdict.failed:
            raise CommandError(f"{one.reference} {verdict.missing}")
        if not verdict.reached:
            self.missing[one] = verdict.missing
            self.show()
            return False
        del self.missing[one]
        self.show()
        if self.reached is not None:
            self.reached(one, obj)
        return True

    def show(self) -> None:
        if not self.missing:
            return
        first, why = next(iter(self.missing.items()))
        many = f" ({self.total - len(self.missing)} of {self.total} done)" if self.total > 1 else ""
        self.shown.say(f"waiting for {first.reference} {self.aim}{many}" + (f": {why}" if why else ""))


async def _follow(session: Session, members: Sequence[Waited], state: _State) -> None:
    """Until all of these, of one kind and namespace, are there."""
    waiting = {one.name: one for one in members}
    fields = f"metadata.name={members[0].name}" if len(members) == 1 else ""
    seen: set[str] = set()
    synced = False
    stream = changes(session.client, members[0].resource, members[0].namespace, fields=fields)
    async with aclosing(stream) as events:
        async for event in events:
            if event.type == "BOOKMARK":
                unseen = [] if synced else [one for called, one in waiting.items() if called not in seen]
                found: list[tuple[Waited, Object | None]] = [(one, None) for one in unseen]
                synced = True
            else:
                called = name(event.object)
                seen.add(called)
                gone = event.type == "DELETED"
                found = [(waiting[called], None if gone else event.object)] if called in waiting else []
            for one, obj in found:
                if state.look(one, obj):
                    del waiting[one.name]
            if not waiting:
                return
    raise CommandError("the server stopped answering while we waited")


def _too_late(state: _State, timeout: float | None, explain: bool) -> str:
    names = [f"{who.reference} ({why})" if why else who.reference for who, why in list(state.missing.items())[:3]]
    more = f" and {len(state.missing) - 3} more" if len(state.missing) > 3 else ""
    first = next((one.reference for one in state.missing), "")
    hint = f"'fleetplane why {first}' may tell the cause" if explain else "wait longer with --timeout"
    return f"{timeout:g} seconds were not enough for {', '.join(names)}{more} {state.aim}; {hint}"
