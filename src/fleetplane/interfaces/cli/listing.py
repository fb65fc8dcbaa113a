"""What ``get`` does once it knows what was asked: tables or whole objects, once or as they change."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any

from fleetplane.interfaces.cli.connection import Session
from fleetplane.interfaces.cli.errors import UsageError
from fleetplane.interfaces.cli.output import Format, print_document, print_objects, without_noise
from fleetplane.interfaces.cli.resources import Scope, Target, reference
from fleetplane.interfaces.cli.tables import Layout, Row, Table, cells, fetch, follow, heading, print_rows
from fleetplane.interfaces.cli.watching import changes
from fleetplane.model.errors import ApiError
from fleetplane.model.objects import Object
from fleetplane.model.resources import ResourceType

__all__ = ["Asked", "Layout", "print_tables", "print_whole", "sort_key", "watch_tables", "watch_whole"]

SortKey = Callable[[Object], Any]


@dataclass(frozen=True, slots=True)
class Asked:
    targets: Sequence[Target]
    where: Scope
    labels: str = ""
    fields: str = ""
    sort_by: SortKey | None = None
    ignore_not_found: bool = False

    @property
    def is_single(self) -> bool:
        return len(self.targets) == 1 and bool(self.targets[0].name)

    def query(self) -> list[tuple[str, str]]:
        found = [("labelSelector", self.labels), ("fieldSelector", self.fields)]
        if self.sort_by is not None:
            found.append(("includeObject", "Object"))
        return [pair for pair in found if pair[1]]


def sort_key(path: str) -> SortKey | None:
    """Orders objects by a field; those without it come first, numbers and quantities as numbers. Raises CommandError."""
    if not path:
        return None
    from fleetplane.model.jsonpath import JsonPath
    from fleetplane.model.quantity import Quantity

    try:
        compiled = JsonPath.parse(path)
    except ValueError as error:
        raise UsageError(f"--sort-by cannot be read: {error}") from None

    def key(obj: Object) -> tuple[int, Any]:
        found = compiled.find(obj)
        if not found or found[0] is None:
            return 0, 0
        value = found[0]
        if isinstance(value, int | float):
            return 1, value
        try:
            return 1, Quantity.parse(str(value)).nanos / 1e9
        except ValueError:
            return 2, str(value)

    return key


# --- Once ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Part:
    """The rows of one kind."""

    resource: ResourceType
    table: Table


async def print_tables(session: Session, asked: Asked, layout: Layout) -> None:
    """One table per kind; where there are several kinds, names say which."""
    parts = _merged(
        [part for part in await asyncio.gather(*(_fetch(session, asked, one) for one in asked.targets)) if part]
    )
    several = len({target.resource for target in asked.targets}) > 1
    shown = [part for part in parts if part.table.rows]
    for number, part in enumerate(shown):
        rows = list(part.table.rows)
        if asked.sort_by is not None:
            rows.sort(key=lambda row: asked.sort_by(row.object))  # type: ignore[misc]
        used = replace(layout, kind=_kind(part.resource) if several else "")
        lines = [heading(part.table, used)] if layout.headings else []
        lines += [cells(part.table, row, used) for row in rows]
        if number and layout.headings:
            session.out.line()
        print_rows(session.out, lines, has_heading=layout.headings)
    if not shown and not session.failures and not asked.ignore_not_found:
        session.out.warn(_nothing(asked))


async def _fetch(session: Session, asked: Asked, target: Target) -> _Part | None:
    namespace = asked.where.of(target)
    query = asked.query()
    try:
        table = await fetch(session.client, target.resource, namespace, name=target.name, query=query)
    except ApiError as error:
        _excuse(session, asked, target, error)
        return None
    return _Part(target.resource, table)


def _excuse(session: Session, asked: Asked, target: Target, error: ApiError) -> None:
    """Say it and go on with the other targets, unless it concerns them, too."""
    if error.code == 404 and target.name and asked.ignore_not_found:
        return
    several = len(asked.targets) > 1
    if error.code == 405 and several and not target.name:
        return  # a kind in a category that cannot be listed
    if not several or error.code not in {403, 404, 405}:
        raise error
    session.fail(error)


def _merged(parts: Sequence[_Part]) -> list[_Part]:
    """Parts of the same kind as one, where the first of them stood."""
    found: dict[ResourceType, _Part] = {}
    for part in parts:
        before = found.get(part.resource)
        table = part.table
        if before is not None:
            table = replace(before.table, rows=[*before.table.rows, *part.table.rows])
        found[part.resource] = _Part(part.resource, table)
    return list(found.values())


def _kind(resource: ResourceType) -> str:
    return reference(resource, "").rstrip("/")


def _nothing(asked: Asked) -> str:
    kinds = ", ".join(dict.fromkeys(target.resource.plural for target in asked.targets))
    if len(asked.targets) > 3:
        kinds = "objects"
    matching = " that match" if asked.labels or asked.fields else ""
    if not any(target.resource.namespaced for target in asked.targets):
        return f"There are no {kinds}{matching}."
    where = f"namespace {asked.where.namespace}" if asked.where.namespace else "any namespace"
    return f"There are no {kinds}{matching} in {where}."


async def print_whole(session: Session, asked: Asked, chosen: Format) -> None:
    found: list[tuple[ResourceType, Object]] = []
    for target in asked.targets:
        namespace = asked.where.of(target)
        try:
            if target.name:
                found.append((target.resource, await session.client.get(target.resource, target.name, namespace)))
                continue
            objects = session.client.iterate(
                target.resource, namespace, labels=asked.labels or None, fields=asked.fields or None
            )
            async for obj in objects:
                found.append((target.resource, obj))
        except ApiError as error:
            _excuse(session, asked, target, error)
    if asked.sort_by is not None:
        found.sort(key=lambda one: asked.sort_by(one[1]))  # type: ignore[misc]
    if not found and asked.is_single:
        return
    print_objects(session.out, chosen, found, single=asked.is_single)


# --- As they change -----------------------------------------------------------------------------------------------


async def watch_tables(session: Session, asked: Asked, layout: Layout, *, initial: bool) -> None:
    """The table, then a row per change, aligned with what was printed so far."""
    async with asyncio.TaskGroup() as group:
        several = len(asked.targets) > 1
        for target in asked.targets:
            used = replace(layout, kind=_kind(target.resource) if several else "")
            group.create_task(_watch_table(session, asked, target, used, initial))


async def _watch_table(session: Session, asked: Asked, target: Target, layout: Layout, initial: bool) -> None:
    namespace = asked.where.of(target)
    fields = f"metadata.name={target.name}" if target.name else asked.fields
    query = [pair for pair in (("labelSelector", asked.labels), ("fieldSelector", fields)) if pair[1]]
    widths: list[int] = []
    known: Table | None = None
    while True:
        table = await fetch(session.client, target.resource, namespace, query=query)
        first = known is None
        known = known or table
        if first and initial:
            if target.name and not table.rows:
                await session.client.get(target.resource, target.name, namespace)
            _print_aligned(
                session, known, table.rows, layout, widths, with_heading=layout.headings and bool(table.rows)
            )
        version = table.resource_version
        stream = follow(
            session.client, target.resource, namespace, resource_version=version, labels=asked.labels, fields=fields
        )
        try:
            async with aclosing(stream) as events:
                async for _, change in events:
                    known = change if change.columns else known
                    heads = layout.headings and not widths
                    _print_aligned(session, known, change.rows, layout, widths, with_heading=heads)
        except ApiError as error:
            if error.code != 410:
                raise
        await asyncio.sleep(0.2)  # a server that ends watches at once must not be asked in a circle


def _print_aligned(
    session: Session, table: Table, rows: Sequence[Row], layout: Layout, widths: list[int], *, with_heading: bool
) -> None:
    """Lines as wide as the widest cell so far: a stream cannot look ahead."""
    lines = [heading(table, layout)] if with_heading else []
    lines += [cells(table, row, layout) for row in rows]
    for line in lines:
        widths.extend([0] * (len(line) - len(widths)))
        for at, cell in enumerate(line):
            widths[at] = max(widths[at], len(cell))
    padded = [[cell.ljust(widths[at]) for at, cell in enumerate(line)] for line in lines]
    if padded:
        print_rows(session.out, padded, has_heading=with_heading)
    session.out.flush()


async def watch_whole(session: Session, asked: Asked, chosen: Format, *, initial: bool) -> None:
    """Every state of every object as a document of its own: a line of JSON, a YAML document, a rendered line."""
    async with asyncio.TaskGroup() as group:
        for target in asked.targets:
            group.create_task(_watch_whole(session, asked, target, chosen, initial))


async def _watch_whole(session: Session, asked: Asked, target: Target, chosen: Format, initial: bool) -> None:
    namespace = asked.where.of(target)
    fields = f"metadata.name={target.name}" if target.name else asked.fields
    synced = False
    async with aclosing(
        changes(session.client, target.resource, namespace, labels=asked.labels, fields=fields)
    ) as events:
        async for event in events:
            if event.type == "BOOKMARK":
                synced = True
                continue
            if not synced and not initial:
                continue
            _print_one(session, chosen, target.resource, event.object)


def _print_one(session: Session, chosen: Format, resource: ResourceType, obj: Object) -> None:
    if chosen.kind == "json":
        session.out.line(json.dumps(without_noise(obj), ensure_ascii=False))
    elif chosen.kind == "yaml":
        session.out.line("---")
        print_document(session.out, chosen, without_noise(obj))
    elif chosen.kind == "name":
        print_objects(session.out, chosen, [(resource, obj)], single=True)
    elif chosen.render is not None:
        session.out.line(chosen.render(obj).rstrip("\n"))
    session.out.flush()
