"""The small parts: durations, order, what reaches a terminal, progress, streams of changes."""

from __future__ import annotations

import asyncio
import io
from typing import Any

import pytest

from fleetplane.client.protocol import Unreachable
from fleetplane.interfaces.cli.differences import unified
from fleetplane.interfaces.cli.durations import seconds
from fleetplane.interfaces.cli.errors import UsageError
from fleetplane.interfaces.cli.manifests import Manifest
from fleetplane.interfaces.cli.ordering import steps
from fleetplane.interfaces.cli.output import columns, parse_format
from fleetplane.interfaces.cli.patience import Counted, patience
from fleetplane.interfaces.cli.progress import Progress
from fleetplane.interfaces.cli.tables import Layout, parsed, print_rows
from fleetplane.interfaces.cli.tables import cells as cells_of
from fleetplane.interfaces.cli.terminal import Terminal, printable
from fleetplane.interfaces.cli.watching import changes
from fleetplane.model.errors import ApiError
from fleetplane.model.resources import ResourceType

CONFIG_MAPS = ResourceType("", "v1", "ConfigMap", "configmaps")


class Screen(io.StringIO):
    """A terminal in memory."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("30s", 30),
        ("5m", 300),
        ("1h30m", 5400),
        ("250ms", 0.25),
        ("90", 90),
        ("0", None),
        ("0s", None),
        ("-1s", None),
        ("1.5m", 90),
    ],
)
def test_lengths_of_time(text: str, expected: Any) -> None:
    assert seconds(text) == expected


@pytest.mark.parametrize("text", ["", "soon", "5 minutes", "5x", "m5"])
def test_what_is_no_length_of_time(text: str) -> None:
    with pytest.raises(UsageError, match="is not a length of time"):
        seconds(text)


def test_nothing_goes_before_what_it_needs() -> None:
    def of(kind: str) -> Manifest:
        return Manifest({"apiVersion": "v1", "kind": kind, "metadata": {"name": "a"}}, "file")

    kinds = [
        "ValidatingWebhookConfiguration",
        "Deployment",
        "ConfigMap",
        "Basket",
        "CustomResourceDefinition",
        "Namespace",
    ]
    found = [[one.kind for one in step] for step in steps([of(kind) for kind in kinds])]

    assert found == [
        ["Namespace"],
        ["CustomResourceDefinition"],
        ["ConfigMap"],
        ["Deployment", "Basket"],
        ["ValidatingWebhookConfiguration"],
    ]


@pytest.mark.parametrize(
    "text", ["xml", "go-template={{.}}", "jsonpath", "jsonpath={.a", "custom-columns=A", "custom-columns=A:{"]
)
def test_formats_that_are_not_known(text: str) -> None:
    with pytest.raises(UsageError):
        parse_format(text)


def test_columns_line_up_without_trailing_space() -> None:
    assert columns([["A", "LONG"], ["abc", ""]]) == ["A     LONG", "abc"]


def test_text_from_a_server_cannot_command_a_terminal() -> None:
    assert printable("a\x1b]0;owned\x07b\rc") == "a\ufffd]0;owned\ufffdb\ufffdc"


def test_colour_only_where_a_person_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    rows = [["NAME", "STATUS"], ["a", "Running"]]
    on_screen, in_pipe = Screen(), io.StringIO()

    print_rows(Terminal(on_screen), rows)
    print_rows(Terminal(in_pipe), rows)
    monkeypatch.setenv("NO_COLOR", "1")
    without = Screen()
    print_rows(Terminal(without), rows)

    assert "\x1b[32mRunning\x1b[0m" in on_screen.getvalue()
    assert in_pipe.getvalue() == without.getvalue() == "NAME   STATUS\na      Running\n"


def test_a_server_without_tables_still_gives_one() -> None:
    table = parsed(
        {"kind": "FooList", "items": [{"metadata": {"name": "a", "creationTimestamp": "2026-01-01T00:00:00Z"}}]}
    )

    assert cells_of(table, table.rows[0], Layout()) == ["a", "2026-01-01T00:00:00Z"]


def test_progress_appears_only_when_something_takes_long(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr("fleetplane.interfaces.cli.progress.time.monotonic", lambda: clock[0])
    log = io.StringIO()
    shown = Progress(Terminal(io.StringIO(), log), "waiting for a")

    for at, text in ((0.5, "a"), (1.5, "a"), (2.0, "b"), (3.0, "b"), (7.0, "b"), (8.0, "b")):
        clock[0] = at
        shown.say(text)
        shown.tick()

    assert log.getvalue() == "a (2s)\nb (7s)\n"


def test_progress_on_a_terminal_is_one_line_that_disappears(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr("fleetplane.interfaces.cli.progress.time.monotonic", lambda: clock[0])
    screen = Screen()
    terminal = Terminal(screen, screen)
    shown = Progress(terminal, "x" * 500)

    clock[0] = 2.0
    shown.tick()
    terminal.line("result")

    text = screen.getvalue()
    assert text.endswith("\r\x1b[Kresult\n")
    assert text.count("\n") == 1
    assert len(text) < 250


async def test_a_slow_server_is_mentioned_once_in_a_log(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fleetplane.interfaces.cli.patience._PATIENCE_SECONDS", 0.02)
    monkeypatch.setattr("fleetplane.interfaces.cli.patience._TICK_SECONDS", 0.01)
    log = io.StringIO()

    class Slow:
        async def request(self, *_: Any) -> Any:
            await asyncio.sleep(0.15)

    slow: Any = Slow()
    transport = Counted(slow)
    async with patience(Terminal(io.StringIO(), log), transport, "https://far.example.org"):
        await transport.request("GET", "/", (), (), b"")

    assert log.getvalue() == "waiting for https://far.example.org, 0 requests answered so far\n"


def test_a_diff_leaves_out_what_only_the_server_writes() -> None:
    before = {"metadata": {"name": "a", "resourceVersion": "1"}, "data": {"x": "1"}, "status": {"seen": 1}}
    after = {"metadata": {"name": "a", "resourceVersion": "2"}, "data": {"x": "1"}, "status": {"seen": 2}}

    assert unified(before, after, "a") == []


class Interrupted:
    """A client whose watch ends again and again: lost connections, expired revisions."""

    def __init__(self) -> None:
        self.lists = [self._page("1", "a", "b"), self._page("9", "b", "c")]
        self.watches: Any = iter([Unreachable("gone"), ApiError(410, "expired"), []])

    @staticmethod
    def _page(version: str, *names: str) -> Any:
        from fleetplane.client.protocol import ObjectList

        return ObjectList([{"metadata": {"name": one, "uid": one, "resourceVersion": "1"}} for one in names], version)

    async def list(self, *_: Any, **__: Any) -> Any:
        return self.lists.pop(0)

    async def watch(self, *_: Any, **__: Any) -> Any:
        result = next(self.watches)
        if isinstance(result, Exception):
            raise result
        for event in result:
            yield event


async def test_an_interrupted_watch_goes_on_and_tells_what_was_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fleetplane.interfaces.cli.watching._RETRY_SECONDS", 0)
    seen = []

    async with asyncio.timeout(5):
        client: Any = Interrupted()
        async for event in changes(client, CONFIG_MAPS, "default"):
            seen.append((event.type, event.object.get("metadata", {}).get("name", "")))
            if len(seen) == 6:
                break

    assert seen == [
        ("ADDED", "a"),
        ("ADDED", "b"),
        ("BOOKMARK", ""),
        ("DELETED", "a"),
        ("ADDED", "c"),
        ("BOOKMARK", ""),
    ]
