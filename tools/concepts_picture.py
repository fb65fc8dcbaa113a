"""The picture of the concepts page: ``python tools/concepts_picture.py`` writes ``docs/pictures/concepts.svg``.

A test compares what it names with the source: a room or a stage that is renamed must be renamed here, too.
"""

from __future__ import annotations

from pathlib import Path
from xml.sax.saxutils import escape

TARGET = Path(__file__).parents[1] / "docs" / "pictures" / "concepts.svg"

STAGES = ("routing", "authentication", "authorization", "decoding", "writing", "admission", "validation", "storage")
"""Of a request, in order; each is a module or package of ``fleetplane.apiserver``."""
OPERATORS = ("vehicles", "peerpods", "vclusters")
CLIENTS = ("kubectl, Helm", "fleetplane, your programs", "an operator elsewhere")
NODES = (
    (40, 262, "a machine behind NAT", "one connection, which it dials"),
    (420, 240, "this machine", "real containers on Podman"),
    (680, 240, "simulated nodes", "as many as you like"),
)

_INK, _PALE, _LINE = "#1f2a44", "#f5f7fb", "#8a96b0"
_BLUE, _GREEN, _AMBER, _ROSE = "#dfe8fb", "#dff3e6", "#fdf0d2", "#fbe1e3"


class Picture:
    def __init__(self, width: int, height: int) -> None:
        self.width, self.height = width, height
        self._parts: list[str] = []

    def box(self, x: int, y: int, w: int, h: int, fill: str = "#ffffff", dashed: bool = False) -> None:
        dash = ' stroke-dasharray="5 4"' if dashed else ""
        self._parts.append(
            f'<rect x="{x}" y="{y}" width="{w}" height="{h}" rx="7" fill="{fill}" stroke="{_LINE}"{dash}/>'
        )

    def text(self, x: float, y: float, words: str, size: int = 13, bold: bool = False, middle: bool = True) -> None:
        anchor = "middle" if middle else "start"
        weight = ' font-weight="600"' if bold else ""
        self._parts.append(
            f'<text x="{x}" y="{y}" font-size="{size}" text-anchor="{anchor}"{weight}>{escape(words)}</text>'
        )

    def labelled(self, x: int, y: int, w: int, h: int, title: str, under: str = "", fill: str = "#ffffff") -> None:
        self.box(x, y, w, h, fill)
        self.text(x + w / 2, y + (h / 2 + 5 if not under else h / 2 - 3), title, 13, True)
        if under:
            self.text(x + w / 2, y + h / 2 + 14, under, 11)

    def lines(self, x: int, y: int, *lines: str) -> None:
        for number, line in enumerate(lines):
            self.text(x, y + number * 18, line, 12)

    def arrow(self, x1: int, y1: int, x2: int, y2: int, both: bool = False) -> None:
        start = ' marker-start="url(#a)"' if both else ""
        self._parts.append(
            f'<line x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}" stroke="{_INK}" stroke-width="1.4" marker-end="url(#a)"{start}/>'
        )

    def svg(self) -> str:
        head = (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {self.width} {self.height}" role="img" '
            f'font-family="Helvetica, Arial, sans-serif" fill="{_INK}">\n<title>What a plane is made of</title>\n'
            '<defs><marker id="a" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" markerHeight="7" '
            f'orient="auto-start-reverse"><path d="M0 0 10 5 0 10z" fill="{_INK}"/></marker></defs>\n'
            f'<rect width="{self.width}" height="{self.height}" fill="#ffffff"/>\n'
        )
        return head + "\n".join(self._parts) + "\n</svg>\n"


def draw() -> str:
    picture = Picture(960, 520)
    picture.box(24, 82, 912, 326, _PALE)
    for number, client in enumerate(CLIENTS):
        picture.labelled(40 + number * 226, 16, 206, 36, client, fill=_PALE)
        picture.arrow(143 + number * 226, 52, 143 + number * 226, 98)
    picture.text(153, 74, "TLS", 11, middle=False)
    picture.text(40, 398, "one process: fleetplane up", 12, True, middle=False)

    picture.box(40, 98, 660, 122, _BLUE)
    picture.text(370, 119, "apiserver: every request, from anybody, goes down the same stages", 13, True)
    for number, stage in enumerate(STAGES):
        x, y = 52 + number % 4 * 160, 132 + number // 4 * 42
        picture.labelled(x, y, 148, 32, f"{number + 1}  {stage}")
    picture.arrow(700, 159, 738, 159, both=True)
    picture.box(740, 98, 180, 122, _GREEN)
    picture.text(830, 119, "store", 13, True)
    for number, words in enumerate(
        ("one order of revisions,", "history, watches;", "logical clusters in every key;", "SQLite or PostgreSQL")
    ):
        picture.text(830, 142 + number * 19, words, 12)

    picture.box(40, 266, 262, 112, _AMBER)
    picture.text(171, 288, "controllers and scheduler", 13, True)
    for number, words in enumerate(
        ("Deployments, Jobs, quotas,", "garbage and their like: once,", "over all logical clusters")
    ):
        picture.text(171, 311 + number * 18, words, 12)
    picture.box(322, 266, 316, 112, _ROSE)
    picture.text(480, 288, "operators", 13, True)
    for number, words in enumerate(OPERATORS):
        picture.labelled(334 + number * 100, 300, 92, 30, words)
    picture.text(480, 350, "each with an account and rights of its own;", 12)
    picture.text(480, 367, "the same code runs on any Kubernetes", 12)
    picture.box(658, 266, 262, 112, _AMBER)
    picture.text(789, 288, "node", 13, True)
    for number, words in enumerate(
        ("the life cycle of pods, network,", "Services, DNS; what it should run", "also stands on its own disk")
    ):
        picture.text(789, 311 + number * 18, words, 12)
    for x in (171, 480, 680):
        picture.arrow(x, 266, x, 222)
    picture.text(181, 248, "no socket, the same stages", 11, middle=False)

    for left, width, title, under in NODES:
        picture.labelled(left, 448, width, 52, title, under, _PALE)
    picture.arrow(171, 448, 171, 410)
    picture.text(181, 434, "its node agent talks to the apiserver", 11, middle=False)
    picture.arrow(690, 378, 600, 446)
    picture.arrow(800, 378, 800, 446)
    return picture.svg()


if __name__ == "__main__":
    TARGET.parent.mkdir(exist_ok=True)
    TARGET.write_text(draw())
