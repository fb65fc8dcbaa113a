"""The end of the tour: what was real, what was simulated and why, how long each took, and what to paste next."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from fleetplane.interfaces.cli.demonstration.place import KEPT, Place
from fleetplane.interfaces.cli.demonstration.steps import Done, duration

_NAME: Final = "fleetplane"


@dataclass(frozen=True, slots=True)
class Summary:
    """``failure`` is the sentence that says which step failed; ``pid`` and ``port`` are the plane's, where it goes on."""

    done: tuple[Done, ...]
    failure: str
    seconds: float
    place: Place
    kept: bool
    pid: int
    port: int

    @property
    def root(self) -> Path:
        """Where the commands find their files: here, or where the next kept demo will be."""
        return self.place.root if self.kept else KEPT

    def again(self, done: Done) -> str:
        """The command that repeats a step, in the folder of a demo that is kept."""
        up = "--data-dir plane" + (f" --port {self.port}" if self.kept else "")
        known = {"pid": self.pid if self.kept else "PID", "up": up, **done.outcome.facts}
        return self._called(done.step.again.format(**known))

    def paste(self) -> list[str]:
        """The kubeconfig, a ``get``, and a file to edit."""
        folder = shlex.quote(str(self.root))
        return [
            f"cd {folder} && export KUBECONFIG=$PWD/plane/admin.kubeconfig",
            self._called("fleetplane get vehpods,vehdeployments,peerpodconfigs,nodes"),
            self._called("${EDITOR:-vi} camera.yaml && fleetplane apply -f camera.yaml    # now edit this file"),
        ]

    def _called(self, command: str) -> str:
        return re.sub(rf"(?<![\w/.-]){_NAME}(?= )", lambda _: program(self.root), command)


def program(folder: Path = Path()) -> str:
    """How this program is called in a folder: by its name where the shell finds it, else by its path."""
    called = Path(sys.argv[0])
    found = shutil.which(_NAME)
    if called.name != _NAME or (found is not None and os.path.realpath(found) == os.path.realpath(called)):
        return _NAME
    return shlex.quote(min(os.path.relpath(called, folder), str(called.absolute()), key=len))


def as_json(summary: Summary) -> str:
    steps: list[dict[str, Any]] = [
        {
            "step": one.step.key,
            "title": one.step.title,
            "said": one.outcome.said,
            "seconds": round(one.outcome.seconds, 4),
            "real": one.outcome.real,
            "simulated": one.outcome.simulated,
            "why": one.outcome.why,
            "command": summary.again(one),
            **({"facts": dict(one.outcome.facts)} if one.outcome.facts else {}),
        }
        for one in summary.done
    ]
    shown: dict[str, Any] = {"ok": not summary.failure, "seconds": round(summary.seconds, 2), "steps": steps}
    if summary.failure:
        shown["error"] = summary.failure
    elif summary.kept:
        shown |= {"kubeconfig": str(summary.place.kubeconfig.absolute()), "pid": summary.pid}
    shown["folder"] = str(summary.root.absolute())
    shown["paste"] = summary.paste()
    return json.dumps(shown, indent=2)


def as_table(summary: Summary, terminal: bool) -> RenderableType:
    """What was real and what was not, then the times, each beside the command that repeats it."""
    whys = list(dict.fromkeys(one.outcome.why for one in summary.done if one.outcome.why))
    style = box.SIMPLE_HEAD if terminal else None
    table = Table(box=style, pad_edge=False, padding=(0, 2, 0, 0), show_edge=False, highlight=False)
    table.add_column("what happened", overflow="fold")
    table.add_column("real", overflow="fold")
    table.add_column("simulated", overflow="fold")
    repeat = Table(box=style, pad_edge=False, padding=(0, 2, 0, 0), show_edge=False)
    repeat.add_column("took", justify="right", no_wrap=True)
    repeat.add_column(f"how to do it again, in {summary.root}", overflow="fold")
    for one in summary.done:
        simulated = Text(one.outcome.simulated or "nothing", style="yellow" if one.outcome.simulated else "dim")
        if one.outcome.why:
            simulated.append(f" [{whys.index(one.outcome.why) + 1}]", style="dim")
        what = Text.assemble((f"{one.step.title}: ", "bold"), one.outcome.said)
        table.add_row(what, Text(one.outcome.real, style="green"), simulated)
        repeat.add_row(Text(duration(one.outcome.seconds), style="bold cyan"), summary.again(one))
    notes = [Text(f"[{number}] {why}", style="dim") for number, why in enumerate(whys, 1)]
    return Group(table, *notes, Text(""), repeat, Text(""))


def what_next(summary: Summary) -> list[Text]:
    """The last lines; those to paste must never be wrapped or cut."""
    head = f"All {len(summary.done)} steps came true in {duration(summary.seconds)}. "
    if summary.kept:
        stop = f"{program()} demo --stop" + ("" if summary.place.root == KEPT else f" --data-dir {summary.place.root}")
        head += f"The plane goes on as process {summary.pid}; '{stop}' removes everything. Paste:"
    else:
        head += f"Nothing was left behind. To try it yourself, '{program()} demo --keep' first, then paste:"
    return [Text(head), *(Text(f"  {line}", style="cyan") for line in summary.paste())]
