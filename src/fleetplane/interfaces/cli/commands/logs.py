"""``fleetplane logs``: what containers wrote, as it is or line by line with their pod's name."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass

import click

from fleetplane.interfaces.cli import completion
from fleetplane.interfaces.cli.command import client_command, selector_option
from fleetplane.interfaces.cli.connection import Session
from fleetplane.interfaces.cli.errors import CommandError, UsageError
from fleetplane.interfaces.cli.podselect import PODS, container_of, containers, pods_of
from fleetplane.model.errors import ApiError
from fleetplane.model.objects import Object, name, namespace

_SELECTED_TAIL = 10
_MAX_LINE_BYTES = 1024 * 1024
"""A longer line is broken, so that a container cannot fill our memory."""


@client_command(
    examples=(
        "fleetplane logs web",
        "fleetplane logs deploy/web -f --tail 20",
        "fleetplane logs web -c sidecar -p",
        "fleetplane logs -l app=web --all-containers --prefix",
        "fleetplane logs web --since 10m --timestamps",
    )
)
@click.argument("what", nargs=-1, metavar="POD | KIND/NAME", shell_complete=completion.pods)
@click.option("-f", "--follow", is_flag=True, help="Go on with what is written from now on.")
@click.option("-c", "--container", default="", help="Which container of the pod.")
@click.option("--all-containers", is_flag=True, help="All containers of the pod.")
@click.option("--all-pods", is_flag=True, help="All pods of the object that is named.")
@click.option("-p", "--previous", is_flag=True, help="Of the container's run before this one.")
@click.option(
    "--tail", type=click.IntRange(min=-1), default=None, help="Only the last lines; all by default, 10 with -l."
)
@click.option("--since", default="", help="Only what is younger than this: 10m, 2h.")
@click.option("--since-time", default="", help="Only what was written after this time (RFC 3339).")
@click.option("--timestamps", is_flag=True, help="Begin lines with the time they were written.")
@click.option(
    "--limit-bytes", type=click.IntRange(min=1), default=None, help="Stop after so many bytes of each container."
)
@click.option("--prefix", is_flag=True, help="Begin lines with pod and container.")
@click.option(
    "--max-log-requests", type=click.IntRange(min=1), default=20, show_default=True, help="How many to read at once."
)
@selector_option()
@click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text", help="How to print.")
async def logs(
    session: Session,
    what: tuple[str, ...],
    follow: bool,
    container: str,
    all_containers: bool,
    all_pods: bool,
    previous: bool,
    tail: int | None,
    since: str,
    since_time: str,
    timestamps: bool,
    limit_bytes: int | None,
    prefix: bool,
    max_log_requests: int,
    selector: str,
    output: str,
) -> None:
    """Print what a container wrote.

    Of a Deployment, Job or Service it is the first pod's, or every pod's with --all-pods.
    """
    words = list(what)
    if len(words) == 2 and "/" not in words[0] and not container:
        container = words.pop()  # POD CONTAINER, as kubectl takes it
    if since and since_time:
        raise UsageError("give either --since or --since-time, not both")
    pods = await pods_of(session, words, selector)
    if not selector and not all_pods and len(pods) > 1:
        session.out.warn(f"Found {len(pods)} pods, showing {name(pods[0])}; all of them with --all-pods.")
        pods = pods[:1]
    sources = [
        _Source(name(pod), namespace(pod), one)
        for pod in pods
        for one in (containers(pod) if all_containers else [container_of(pod, container)])
    ]
    if len(sources) > max_log_requests:
        raise CommandError(
            f"these are the logs of {len(sources)} containers; name fewer, or allow them with --max-log-requests {len(sources)}"
        )
    if tail is None and selector:
        tail = _SELECTED_TAIL
    query = _query(follow, previous, tail, since, since_time, timestamps, limit_bytes)
    lines = output == "json" or prefix or (follow and len(sources) > 1)
    if not follow:
        for source in sources:
            await _one(
                session, source, query, as_json=output == "json", by_line=lines, prefix=prefix, alone=len(sources) == 1
            )
        return
    async with asyncio.TaskGroup() as group:
        for source in sources:
            group.create_task(
                _one(
                    session,
                    source,
                    query,
                    as_json=output == "json",
                    by_line=lines,
                    prefix=prefix,
                    alone=len(sources) == 1,
                )
            )


@dataclass(frozen=True, slots=True)
class _Source:
    pod: str
    namespace: str
    container: str


def _query(
    follow: bool,
    previous: bool,
    tail: int | None,
    since: str,
    since_time: str,
    timestamps: bool,
    limit_bytes: int | None,
) -> list[tuple[str, str]]:
    from fleetplane.interfaces.cli.durations import seconds

    query = [("follow", follow), ("previous", previous), ("timestamps", timestamps)]
    found = [(key, "true") for key, is_set in query if is_set]
    if tail is not None and tail >= 0:
        found.append(("tailLines", str(tail)))
    if since:
        found.append(("sinceSeconds", str(max(round(seconds(since, "--since") or 1), 1))))
    if since_time:
        found.append(("sinceTime", since_time))
    if limit_bytes is not None:
        found.append(("limitBytes", str(limit_bytes)))
    return found


async def _one(
    session: Session,
    source: _Source,
    query: list[tuple[str, str]],
    *,
    as_json: bool,
    by_line: bool,
    prefix: bool,
    alone: bool,
) -> None:
    path = PODS.path(source.namespace, source.pod, "log")
    try:
        async with session.client.raw_stream("GET", path, query=[*query, ("container", source.container)]) as chunks:
            if not by_line:
                async for chunk in chunks:
                    sys.stdout.buffer.write(chunk)
                    sys.stdout.buffer.flush()
                return
            async for line in _lines(chunks):
                _print(session, source, line, as_json=as_json, prefix=prefix)
    except ApiError as error:
        if alone:
            raise
        session.fail(error)


def _print(session: Session, source: _Source, line: bytes, *, as_json: bool, prefix: bool) -> None:
    text = line.decode("utf-8", "replace")
    if as_json:
        shown: Object = {"namespace": source.namespace, "pod": source.pod, "container": source.container, "line": text}
        session.out.line(json.dumps(shown, ensure_ascii=False))
    elif prefix:
        session.out.line(session.out.style(f"[{source.pod}/{source.container}]", "cyan") + f" {text}")
    else:
        session.out.line(text)
    session.out.flush()


async def _lines(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Lines without their ends; the last one also when it has none."""
    rest = b""
    async for chunk in chunks:
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            yield line
        if len(rest) > _MAX_LINE_BYTES:
            yield rest
            rest = b""
    if rest:
        yield rest
