"""The picture in the README: ``python tools/demo_picture.py`` takes the tour and draws what a terminal shows of it.

The numbers are those of the run; the drawing is done by the code that draws the screen. The picture needs nothing from the
network: its fonts are the reader's own.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from io import StringIO
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from fleetplane.interfaces.cli.demonstration.screen import Screen
from fleetplane.interfaces.cli.demonstration.steps import Done, Outcome, duration
from fleetplane.interfaces.cli.demonstration.tour import STEPS

TARGET = Path(__file__).parents[1] / "docs" / "pictures" / "demo.svg"
WIDTH = 108


def take_the_tour() -> dict[str, Any]:
    words = [sys.executable, "-m", "fleetplane.interfaces.cli", "demo", "--output", "json"]
    done = subprocess.run(words, stdout=subprocess.PIPE, check=True)
    told: dict[str, Any] = json.loads(done.stdout)
    return told


def draw(told: dict[str, Any]) -> str:
    steps = {step.key: step for step in STEPS}
    done = [
        Done(
            steps[one["step"]],
            Outcome(one["seconds"], one["said"], one["real"], one["simulated"], one["why"], one.get("facts", {})),
        )
        for one in told["steps"]
    ]
    console = Console(
        record=True, width=WIDTH, file=StringIO(), force_terminal=True, color_system="truecolor", highlight=False
    )
    screen = Screen(STEPS, as_json=False, console=console)
    for one in done:
        screen.end(one)
    console.print(Text.assemble(("$ ", "dim"), ("make demo", "bold")))
    console.print(screen.picture())
    console.print()
    for one in done:
        if one.outcome.simulated:
            console.print(Text(f"simulated: {one.outcome.simulated} ({one.outcome.why})", style="yellow"))
    console.print(Text(f"All {len(done)} steps came true in {duration(told['seconds'])}. Nothing was left behind."))
    return without_web_fonts(console.export_svg(title="fleetplane demo"))


def without_web_fonts(svg: str) -> str:
    svg = re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL)
    return svg.replace("Fira Code, monospace", "DejaVu Sans Mono, Menlo, Consolas, monospace")


if __name__ == "__main__":
    TARGET.parent.mkdir(exist_ok=True)
    TARGET.write_text(draw(take_the_tour()))
