"""Waiting until objects are as one wants them, by watching, with progress and an end.

A goal looks at an object's state (None when it is not there) and says whether it is reached and what is missing. What
is missing is what people read while they wait, and in the error when the time is over.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from fleetplane.interfaces.cli.connection import Session
from fleetplane.interfaces.cli.errors import CommandError
from fleetplane.interfaces.cli.progress import Progress, progress
from fleetplane.interfaces.cli.resources import reference
from fleetplane.interfaces.cli.watching import changes
from fleetplane.model.objects import Object, name, namespace
from fleetplane.model.resources import ResourceType


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
    missing = {one.reference: "" for one in waited}
    async with progress(session.out, "waiting") as shown:
        _show(shown, missing, len(waited), aim)

        async def one_of_them(one: Waited) -> None:
            last = await _until(session, one, goal, lambda text: _note(shown, missing, one, text, len(waited), aim))
            del missing[one.reference]
            _show(shown, missing, len(waited), aim)
            if reached is not None:
                reached(one, last)

        try:
            async with asyncio.timeout(timeout), asyncio.TaskGroup() as group:
                for one in dict.fromkeys(waited):
                    group.create_task(one_of_them(one))
        except TimeoutError:
            raise CommandError(_too_late(missing, timeout, aim, explain)) from None


async def _until(session: Session, one: Waited, goal: Goal, note: Callable[[str], None]) -> Object | None:
    current: Object | None = None
    synced = False
    fields = f"metadata.name={one.name}"
    async with aclosing(changes(session.client, one.resource, one.namespace, fields=fields)) as events:
        async for event in events:
            if event.type == "BOOKMARK":
                synced = True
            elif event.type == "DELETED":
                current = None
            elif not one.uid or (event.object.get("metadata") or {}).get("uid") == one.uid:
                current = event.object
            else:
                current = None
            if not synced and current is None:
                continue
            verdict = goal(current)
            if verdict.reached:
                return current
            if verdict.failed:
                raise CommandError(f"{one.reference} {verdict.missing}")
            note(verdict.missing)
    raise CommandError("the server stopped answering while we waited")


def _note(shown: Progress, missing: dict[str, str], one: Waited, text: str, total: int, aim: str) -> None:
    missing[one.reference] = text
    _show(shown, missing, total, aim)


def _show(shown: Progress, missing: dict[str, str], total: int, aim: str) -> None:
    if not missing:
        return
    first, why = next(iter(missing.items()))
    many = f" ({total - len(missing)} of {total} done)" if total > 1 else ""
    shown.say(f"waiting for {first} {aim}{many}" + (f": {why}" if why else ""))


def _too_late(missing: dict[str, str], timeout: float | None, aim: str, explain: bool) -> str:
    shown = [f"{who} ({why})" if why else who for who, why in list(missing.items())[:3]]
    more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
    hint = f"'fleetplane why {next(iter(missing), '')}' may tell the cause" if explain else "wait longer with --timeout"
    return f"{timeout:g} seconds were not enough for {', '.join(shown)}{more} {aim}; {hint}"
