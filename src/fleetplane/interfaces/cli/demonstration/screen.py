"""Progress: all steps on one screen, with a spinner and a live word on the one that runs; plain lines into a pipe.

For a program (``--output json``) there is one object at the end, and progress only where a person watches standard error.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from types import TracebackType
from typing import Final, Self

from rich.console import Console, RenderableType
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from fleetplane.interfaces.cli.demonstration.steps import Done, Step, duration
from fleetplane.interfaces.cli.demonstration.summary import Summary, as_json, as_table, what_next

_PIPE_WIDTH: Final = 240


class Screen:
    """``told`` is the last live word."""

    def __init__(self, steps: Sequence[Step], *, as_json: bool, console: Console | None = None) -> None:
        self._steps = steps
        self._json = as_json
        self._console = console or _console(as_json)
        self._done: dict[str, Done] = {}
        self._spinner = Spinner("dots", style="cyan")
        self._current = ""
        self.told = ""
        self._live = Live(get_renderable=self.picture, console=self._console, refresh_per_second=12, transient=True)

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def begin(self, step: Step) -> None:
        self._current, self.told = step.key, ""

    def say(self, text: str) -> None:
        self.told = text

    def end(self, done: Done) -> None:
        self._done[done.step.key] = done
        self._current = ""
        if not self._console.is_terminal and not self._json:
            took = duration(done.outcome.seconds)
            self._console.print(f"done  {done.step.title}: {done.outcome.said} ({took})", soft_wrap=True)

    def finish(self, summary: Summary) -> None:
        """What is left on the screen."""
        if self._json:
            sys.stdout.write(as_json(summary) + "\n")
            sys.stdout.flush()
        elif not summary.failure:
            with self._console.capture() as shown:
                self._console.print(as_table(summary, self._console.is_terminal))
            for row in shown.get().splitlines():
                self._console.print(Text.from_ansi(row.rstrip()), soft_wrap=True)
            for line in what_next(summary):
                self._console.print(line, soft_wrap=True)
        elif self._console.is_terminal:
            self._console.print(self.picture())

    def picture(self) -> RenderableType:
        """Every step: done, running, or to come."""
        grid = Table.grid(padding=(0, 1))
        grid.add_column(width=1)
        grid.add_column(no_wrap=True)
        grid.add_column(overflow="ellipsis", no_wrap=True)
        grid.add_column(justify="right", no_wrap=True)
        for step in self._steps:
            done = self._done.get(step.key)
            if done is not None:
                took = Text(duration(done.outcome.seconds), style="bold")
                grid.add_row(Text("✓", style="green"), step.title, Text(done.outcome.said, style="green"), took)
            elif step.key == self._current:
                grid.add_row(self._spinner, Text(step.title, style="bold"), Text(self.told, style="cyan"), "")
            else:
                grid.add_row(Text("·", style="dim"), Text(step.title, style="dim"), "", "")
        return grid


def _console(as_json: bool) -> Console:
    """A pipe has no width: nothing is wrapped there."""
    stream = sys.stderr if as_json else sys.stdout
    return Console(stderr=as_json, highlight=False, width=None if stream.isatty() else _PIPE_WIDTH)
