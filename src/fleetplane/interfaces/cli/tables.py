"""Tables as the server makes them (``meta.k8s.io/v1`` Table): asked for, followed, and put on a screen.

The server knows best what matters of a kind, and an age computed there is right whatever our clock says. A server that
answers objects instead (an aggregated one that knows no tables) gets a table of names and ages.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, aclosing
from dataclasses import dataclass
from typing import Any, Final

import orjson

from fleetplane.client.protocol import Pairs, Transport, cluster_of
from fleetplane.client.rest import RestClient
from fleetplane.interfaces.cli.output import cell_text, columns
from fleetplane.interfaces.cli.terminal import Terminal
from fleetplane.model.objects import Object, metadata, name
from fleetplane.model.objects import labels as labels_of
from fleetplane.model.resources import ResourceType

ACCEPT: Final = (
    "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json"
)
_CHUNK: Final = 500

_COLOURS: Final[Mapping[str, str]] = {
    **dict.fromkeys(("Running", "Ready", "Active", "Bound", "True", "Complete", "Completed", "Succeeded"), "green"),
    **dict.fromkeys(("Available", "Established", "Healthy"), "green"),
    **dict.fromkeys(
        ("Pending", "ContainerCreating", "PodInitializing", "Terminating", "Unknown", "Progressing"), "yellow"
    ),
    **dict.fromkeys(("SchedulingDisabled", "Suspended", "Released", "Degraded"), "yellow"),
    **dict.fromkeys(("Failed", "Error", "CrashLoopBackOff", "ImagePullBackOff", "ErrImagePull", "OOMKilled"), "red"),
    **dict.fromkeys(("NotReady", "Evicted", "Lost", "CreateContainerConfigError", "Unhealthy"), "red"),
}


@dataclass(frozen=True, slots=True)
class Column:
    """``wide`` columns are shown with ``-o wide`` only."""

    name: str
    wide: bool = False


@dataclass(frozen=True, slots=True)
class Row:
    """``object`` is what the server gave with the cells: at least metadata."""

    cells: Sequence[Any]
    object: Object


@dataclass(frozen=True, slots=True)
class Table:
    columns: Sequence[Column]
    rows: Sequence[Row]
    resource_version: str = ""
    continue_: str = ""


@dataclass(frozen=True, slots=True)
class Layout:
    """What of a table is shown beside the server's own columns. ``kind`` goes before each name: ``pod/web``."""

    wide: bool = False
    clusters: bool = False
    namespaces: bool = False
    kind: str = ""
    labels: Sequence[str] = ()
    show_labels: bool = False
    headings: bool = True


async def fetch(
    client: RestClient,
    resource: ResourceType,
    namespace: str | None,
    *,
    name: str = "",
    query: Pairs = (),
) -> Table:
    """The table of one object or of all pages of a list."""
    path = resource.path(namespace or "", name)
    table = await _page(client, path, query)
    rows = list(table.rows)
    continue_ = table.continue_
    while continue_:
        page = await _page(client, path, [*query, ("continue", continue_)])
        rows += page.rows
        continue_ = page.continue_
    return Table(table.columns, rows, table.resource_version)


async def _page(client: RestClient, path: str, query: Pairs) -> Table:
    chunked = [*query, ("limit", str(_CHUNK))]
    return parsed(orjson.loads(await client.raw("GET", path, query=chunked, headers={"accept": ACCEPT})))


async def follow(
    client: RestClient,
    resource: ResourceType,
    namespace: str | None,
    *,
    resource_version: str,
    labels: str,
    fields: str,
) -> AsyncGenerator[tuple[str, Table], None]:
    """(event type, table of one row) for every change; columns only in the first, as servers send them."""
    tables = client.over(_AskingForTables(client.transport))
    events = tables.watch_encoded(
        resource,
        namespace,
        labels=labels or None,
        fields=fields or None,
        resource_version=resource_version,
        bookmarks=False,
    )
    async with aclosing(events):
        async for event in events:
            yield event.type, parsed(orjson.loads(event.object))


class _AskingForTables:
    """A transport whose streams ask for tables."""

    def __init__(self, inner: Transport) -> None:
        self._inner = inner

    async def request(
        self, method: str, path: str, query: Pairs, headers: Pairs, body: bytes
    ) -> tuple[int, Mapping[str, str], bytes]:
        return await self._inner.request(method, path, query, headers, body)

    def stream(
        self, method: str, path: str, query: Pairs, headers: Pairs, body: bytes
    ) -> AbstractAsyncContextManager[tuple[int, AsyncIterator[bytes]]]:
        kept = [pair for pair in headers if pair[0].lower() != "accept"]
        return self._inner.stream(method, path, query, [*kept, ("accept", ACCEPT)], body)

    async def close(self) -> None:
        await self._inner.close()


def parsed(answer: Object) -> Table:
    """A Table, or the best that can be made of objects."""
    meta = metadata(answer)
    if answer.get("kind") != "Table":
        objects = answer.get("items") if "items" in answer else [answer]
        rows = [Row((name(obj), metadata(obj).get("creationTimestamp") or ""), obj) for obj in objects or []]
        shown: Sequence[Column] = (Column("Name"), Column("Created At"))
        return Table(shown, rows, str(meta.get("resourceVersion") or ""), str(meta.get("continue") or ""))
    defined = answer.get("columnDefinitions") or []
    return Table(
        [Column(str(one["name"]), int(one.get("priority") or 0) > 0) for one in defined],
        [Row(row.get("cells") or (), row.get("object") or {}) for row in answer.get("rows") or []],
        str(meta.get("resourceVersion") or ""),
        str(meta.get("continue") or ""),
    )


def heading(table: Table, layout: Layout) -> list[str]:
    shown = [column.name.upper() for column in table.columns if layout.wide or not column.wide]
    titles = [*(["CLUSTER"] if layout.clusters else []), *(["NAMESPACE"] if layout.namespaces else []), *shown]
    titles += [label.rpartition("/")[2].upper() for label in layout.labels]
    return [*titles, *(["LABELS"] if layout.show_labels else [])]


def cells(table: Table, row: Row, layout: Layout) -> list[str]:
    """One row as texts. The first column is the name; with several kinds it says which."""
    shown = [
        cell_text(cell)
        for column, cell in zip(table.columns, row.cells, strict=False)
        if layout.wide or not column.wide
    ]
    if layout.kind and shown:
        shown[0] = f"{layout.kind}/{shown[0]}"
    if layout.namespaces:
        shown.insert(0, str(metadata(row.object).get("namespace") or ""))
    if layout.clusters:
        shown.insert(0, cluster_of(row.object))
    has = labels_of(row.object)
    shown += [has.get(label, "") for label in layout.labels]
    if layout.show_labels:
        shown.append(",".join(f"{key}={value}" for key, value in sorted(has.items())) or "<none>")
    return shown


def print_rows(terminal: Terminal, rows: Sequence[Sequence[str]], *, has_heading: bool = True) -> None:
    """Aligned lines; on a terminal the heading is bold and well-known states have a colour."""
    for number, line in enumerate(columns(rows)):
        if not terminal.colour:
            terminal.line(line)
        elif number == 0 and has_heading:
            terminal.line(terminal.style(line, "bold"))
        else:
            terminal.line(_coloured(terminal, line, rows[number]))


def _coloured(terminal: Terminal, line: str, row: Sequence[str]) -> str:
    for cell in row[1:]:
        colour = _COLOURS.get(cell.rpartition(":")[2] if cell.startswith("Init:") else cell.partition(",")[0])
        if colour:
            at = line.find(cell, len(row[0]))
            if at >= 0:
                return line[:at] + terminal.style(cell, colour) + line[at + len(cell) :]
    return line
