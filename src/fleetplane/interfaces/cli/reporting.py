"""What commands that change objects say: a line per object for people, the objects themselves for programs."""

from __future__ import annotations

from dataclasses import dataclass, field

from fleetplane.interfaces.cli.connection import Session
from fleetplane.interfaces.cli.output import Format, print_objects
from fleetplane.interfaces.cli.resources import reference
from fleetplane.model.objects import Object, name, namespace
from fleetplane.model.resources import ResourceType

_COLOURS = {"created": "green", "configured": "yellow", "deleted": "red", "pruned": "red", "unchanged": "dim"}


@dataclass(slots=True)
class Report:
    """Collects results in order. People see each as it comes, programs all at the end (``finish``)."""

    session: Session
    format: Format
    suffix: str = ""
    results: list[tuple[ResourceType, Object]] = field(default_factory=list)

    def add(self, resource: ResourceType, obj: Object, what: str) -> None:
        self.results.append((resource, obj))
        if self.format.kind == "name":
            self.session.out.line(reference(resource, name(obj)))
        elif self.format.is_text:
            said = (
                self.session.out.style(what, _COLOURS[what.partition(" ")[0]])
                if what.partition(" ")[0] in _COLOURS
                else what
            )
            where = ""
            if namespace(obj) and namespace(obj) != self.session.namespace:
                where = f" in {namespace(obj)}"
            self.session.out.line(f"{reference(resource, name(obj))} {said}{where}{self.suffix}")
        self.session.out.flush()

    def finish(self, *, single: bool = False) -> None:
        if not self.format.is_text and self.format.kind != "name":
            print_objects(self.session.out, self.format, self.results, single=single and len(self.results) == 1)
