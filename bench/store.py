"""How fast the store is, by engine: ``python bench/store.py [sqlite|memory|postgresql://…] [--uvloop]``.

Values are 2 KB with two terms, as a small Kubernetes object has; commits are durable unless said otherwise.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from rich.console import Console
from rich.table import Table

from fleetplane.store.protocol import Key, Put, Selection, Store, TermMatch
from fleetplane.store.sqlite import SqliteStore

VALUE = b'{"x":"' + b"x" * 2040 + b'"}'
OBJECTS = 20_000
CONFIGS = Selection("", "configmaps", "root")


def put(number: int) -> Put:
    terms = (("label:app", f"app-{number % 100}"), ("owner", f"uid-{number}"))
    return Put(key(number), f"uid-{number}", VALUE, "v1/1", terms)


def key(number: int) -> Key:
    return Key("root", "", "configmaps", f"ns-{number % 20}", f"name-{number:06}")


class Report:
    def __init__(self, title: str) -> None:
        self.table = Table("what", "per second", "p50 ms", "p99 ms", "max ms", title=title)

    def times(self, what: str, seconds: float, each: list[float], per: int = 1) -> None:
        each.sort()
        p50, p99, worst = (each[min(len(each) - 1, int(len(each) * share))] * 1000 for share in (0.5, 0.99, 1.0))
        rate = len(each) * per / seconds
        self.table.add_row(what, f"{rate:,.0f}", f"{p50:.3f}", f"{p99:.3f}", f"{worst:.1f}")


async def timed(concurrent: int, total: int, work: Callable[[int], Awaitable[object]]) -> tuple[float, list[float]]:
    """Do ``work(0)`` … ``work(total - 1)``, so many at a time; the whole time and that of each."""
    numbers = iter(range(total))
    each: list[float] = []

    async def worker() -> None:
        for number in numbers:
            begun = time.perf_counter()
            await work(number)
            each.append(time.perf_counter() - begun)

    begun = time.perf_counter()
    await asyncio.gather(*(worker() for _ in range(concurrent)))
    return time.perf_counter() - begun, each


async def deliveries(store: Store, watchers: int, commits: int, report: Report) -> None:
    seen = 0

    async def watch() -> None:
        nonlocal seen
        watch = await store.watch(CONFIGS)
        while True:
            batch = await watch.next()
            seen += len(batch.events)

    async def write(number: int) -> None:
        await store.commit([put(number % OBJECTS)])

    watching = [asyncio.create_task(watch()) for _ in range(watchers)]
    await asyncio.sleep(0.01)
    seconds, _ = await timed(8, commits, write)
    begun = time.perf_counter()
    while seen < watchers * commits and time.perf_counter() - begun < 5:  # noqa: ASYNC110
        await asyncio.sleep(0.001)
    seconds += time.perf_counter() - begun
    report.table.add_row(f"deliveries, {watchers} watchers", f"{seen / seconds:,.0f}", "", "", "")
    for task in watching:
        task.cancel()
    await asyncio.gather(*watching, return_exceptions=True)


async def measure(store: Store, report: Report) -> None:
    await store.commit([put(0)])
    report.times("commit, 1 at a time", *await timed(1, 2_000, lambda n: store.commit([put(n)])))
    report.times("commit, 32 at a time", *await timed(32, OBJECTS, lambda n: store.commit([put(n)])))
    report.times("update, 32 at a time", *await timed(32, OBJECTS // 2, lambda n: store.commit([put(n)])))
    report.times("commit, not durable", *await timed(1, 5_000, lambda n: store.commit([put(n)], durable=False)))
    report.times(
        "commit of 100", *await timed(1, 50, lambda n: store.commit([put(n * 100 + i) for i in range(100)])), 100
    )
    report.times("get", *await timed(1, 20_000, lambda n: store.get(key(n))))
    report.times("list 1000", *await timed(1, 30, lambda _: store.list(CONFIGS, limit=1000)))
    by_term = Selection("", "configmaps", "root", matches=(TermMatch("label:app", "app-7"),))
    report.times(f"list by term, {OBJECTS // 100} found", *await timed(1, 100, lambda _: store.list(by_term)))
    revision = await store.revision()
    await store.commit([put(n) for n in range(0, OBJECTS, 50)])
    report.times(
        "list 1000 of the past", *await timed(1, 30, lambda _: store.list(CONFIGS, limit=1000, revision=revision))
    )
    report.times(
        "list by offset, 10 of 15000 on", *await timed(1, 100, lambda _: store.list(CONFIGS, limit=10, offset=15_000))
    )
    report.times(f"count {OBJECTS}", *await timed(1, 100, lambda _: store.count(CONFIGS)))
    await deliveries(store, 100, 3_000, report)


async def main(engine: str) -> None:
    report = Report(f"store: {engine}")
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as directory:
        if engine in ("sqlite", "memory"):
            store: Store = await SqliteStore.open(":memory:" if engine == "memory" else Path(directory) / "store.db")
        else:
            from fleetplane.store.postgres import PostgresStore  # noqa: PLC0415

            store = await PostgresStore.open(engine)
        try:
            await measure(store, report)
        finally:
            await store.close()
    Console().print(report.table)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("engine", nargs="?", default="sqlite")
    parser.add_argument("--uvloop", action="store_true")
    arguments = parser.parse_args()
    if arguments.uvloop:
        import uvloop

        uvloop.run(main(arguments.engine))
    else:
        asyncio.run(main(arguments.engine))
