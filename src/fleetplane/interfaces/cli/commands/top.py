"""``fleetplane top``: what nodes and pods use right now, from the resource metrics API."""

from __future__ import annotations

from typing import Any

import click
import orjson

from fleetplane.interfaces.cli.command import Group, all_namespaces_option, client_command, selector_option
from fleetplane.interfaces.cli.connection import Session
from fleetplane.interfaces.cli.errors import CommandError
from fleetplane.interfaces.cli.output import parse_format, print_document
from fleetplane.model.errors import ApiError
from fleetplane.model.objects import Object, name, namespace
from fleetplane.model.quantity import Quantity
from fleetplane.model.resources import ResourceType

_API = "/apis/metrics.k8s.io/v1beta1"
_NODES = ResourceType("", "v1", "Node", "nodes", namespaced=False)
_SORTS = click.Choice(["", "cpu", "memory"])


def _shared(function: Any) -> Any:
    for option in (
        click.argument("name", required=False, default=""),
        selector_option(),
        click.option("--sort-by", type=_SORTS, default="", help="cpu or memory, the most first."),
        click.option("--no-headers", is_flag=True, help="Leave out the heading."),
        click.option("-o", "--output", default="", metavar="FORMAT", help="How to print: json or yaml."),
    )[::-1]:
        function = option(function)
    return function


@client_command(group="top", examples=("fleetplane top nodes", "fleetplane top nodes --sort-by memory"))
@_shared
async def nodes(session: Session, name: str, selector: str, sort_by: str, no_headers: bool, output: str) -> None:
    """Show what nodes use, and how much that is of what they can give."""
    form = parse_format(output)
    found = await _metrics(session, f"{_API}/nodes", name, selector)
    if not form.is_text:
        print_document(session.out, form, found)
        return
    have = {
        _name(one): (one.get("status") or {}).get("allocatable") or {} async for one in session.client.iterate(_NODES)
    }
    rows = []
    for one in _sorted(found, sort_by):
        cpu, memory = _used(one)
        can = have.get(_name(one), {})
        rows.append(
            [_name(one), _cpu(cpu), _percent(cpu, can.get("cpu")), _memory(memory), _percent(memory, can.get("memory"))]
        )
    _print(session, ["NAME", "CPU", "CPU%", "MEMORY", "MEMORY%"], rows, no_headers)


@client_command(
    group="top",
    examples=("fleetplane top pods", "fleetplane top pods -A --sort-by cpu", "fleetplane top pods web --containers"),
)
@_shared
@all_namespaces_option()
@click.option("--containers", is_flag=True, help="Each container by itself.")
async def pods(
    session: Session,
    name: str,
    selector: str,
    sort_by: str,
    no_headers: bool,
    output: str,
    all_namespaces: bool,
    containers: bool,
) -> None:
    """Show what pods use."""
    form = parse_format(output)
    path = f"{_API}/pods" if all_namespaces else f"{_API}/namespaces/{session.namespace}/pods"
    found = await _metrics(session, path, name, selector)
    if not form.is_text:
        print_document(session.out, form, found)
        return
    rows = []
    for one in _sorted(found, sort_by):
        head = [namespace(one)] if all_namespaces else []
        if containers:
            for part in one.get("containers") or []:
                cpu, memory = _used({"containers": [part]})
                rows.append([*head, _name(one), str(part.get("name")), _cpu(cpu), _memory(memory)])
        else:
            cpu, memory = _used(one)
            rows.append([*head, _name(one), _cpu(cpu), _memory(memory)])
    heading = [
        *(["NAMESPACE"] if all_namespaces else []),
        "NAME",
        *(["CONTAINER"] if containers else []),
        "CPU",
        "MEMORY",
    ]
    _print(session, heading, rows, no_headers)


def _name(obj: Object) -> str:
    return name(obj)


async def _metrics(session: Session, path: str, one: str, selector: str) -> list[Object]:
    query = {"labelSelector": selector} if selector else {}
    try:
        answer = orjson.loads(await session.client.raw("GET", f"{path}/{one}" if one else path, query=query))
    except ApiError as error:
        if error.code in {404, 503} and (not one or not error.name):
            raise CommandError(
                "the server does not measure what nodes and pods use (metrics.k8s.io is not served); "
                "'fleetplane describe node' shows what is requested"
            ) from None
        raise
    return [answer] if one else answer.get("items") or []


def _used(one: Object) -> tuple[int, int]:
    """(CPU, memory) in billionths of a core and of a byte."""
    usages = [one["usage"]] if "usage" in one else [part.get("usage") or {} for part in one.get("containers") or []]
    return tuple(sum(Quantity.parse(usage.get(key) or 0).nanos for usage in usages) for key in ("cpu", "memory"))  # type: ignore[return-value]


def _sorted(found: list[Object], by: str) -> list[Object]:
    if not by:
        return sorted(found, key=lambda one: (namespace(one), name(one)))
    return sorted(found, key=lambda one: -_used(one)[by == "memory"])


def _cpu(nanos: int) -> str:
    return f"{-(-nanos // 10**6)}m"


def _memory(nanos: int) -> str:
    return f"{nanos // 10**9 // 1024**2}Mi"


def _percent(used: int, of: Any) -> str:
    whole = Quantity.parse(of or 0).nanos
    return f"{100 * used // whole}%" if whole else "-"


def _print(session: Session, heading: list[str], rows: list[list[str]], no_headers: bool) -> None:
    from fleetplane.interfaces.cli.tables import print_rows

    if not rows:
        session.out.warn("Nothing has been measured yet.")
        return
    print_rows(session.out, rows if no_headers else [heading, *rows], has_heading=not no_headers)


top = Group("top", "Show what nodes and pods use.", [nodes, pods])
