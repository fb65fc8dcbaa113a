"""Short ways to write columns, and words that several kinds print."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from fleetplane.apiserver.kinds.access import entries, section
from fleetplane.model.selectors import LabelSelector
from fleetplane.model.table import Cell, Column

NONE: Final = "<none>"
UNSET: Final = "<unset>"

Read = Callable[[Mapping[str, Any]], Cell]


def text_column(name: str, description: str, read: Read, *, wide: bool = False) -> Column:
    return Column(name, "string", "", description, int(wide), _timeless(read))


def integer_column(name: str, description: str, read: Read, *, wide: bool = False) -> Column:
    return Column(name, "integer", "", description, int(wide), _timeless(read))


def boolean_column(name: str, description: str, read: Read, *, wide: bool = False) -> Column:
    return Column(name, "boolean", "", description, int(wide), _timeless(read))


def timed_column(
    name: str, description: str, cell: Callable[[Mapping[str, Any], datetime], Cell], *, wide: bool = False
) -> Column:
    return Column(name, "string", "", description, int(wide), cell)


def _timeless(read: Read) -> Callable[[Mapping[str, Any], datetime], Cell]:
    def cell(obj: Mapping[str, Any], now: datetime) -> Cell:
        return read(obj)

    return cell


def at(*path: str, default: Cell = "") -> Read:
    """The value at a path of keys, or the default."""

    def read(obj: Mapping[str, Any]) -> Cell:
        found = section(obj, *path[:-1]).get(path[-1])
        return found if isinstance(found, str | int | float | bool) else default

    return read


def joined(values: Iterable[Any], empty: str = NONE) -> str:
    return ",".join(str(one) for one in values) or empty


def at_most(values: Sequence[str], limit: int = 3, separator: str = ",") -> str:
    """The first few, and how many more there are."""
    shown = separator.join(values[:limit])
    return shown if len(values) <= limit else f"{shown} + {len(values) - limit} more..."


def container_names(spec: Mapping[str, Any]) -> str:
    return ",".join(str(one.get("name", "")) for one in entries(spec, "containers"))


def container_images(spec: Mapping[str, Any]) -> str:
    return ",".join(str(one.get("image", "")) for one in entries(spec, "containers"))


def selector_text(selector: Any) -> str:
    """A ``metav1.LabelSelector`` as kubectl prints it."""
    if not isinstance(selector, dict):
        return NONE
    try:
        return str(LabelSelector.from_object(selector)) or NONE
    except ValueError:
        return "<error>"


def labels_text(labels: Any) -> str:
    """A plain map of labels."""
    if not isinstance(labels, dict) or not labels:
        return NONE
    return ",".join(f"{key}={value}" for key, value in sorted(labels.items()))


def template_columns(*path: str) -> tuple[Column, Column]:
    """Containers and images of a pod template at a path, for wide output."""

    def spec(obj: Mapping[str, Any]) -> Mapping[str, Any]:
        return section(obj, *path, "spec")

    return (
        text_column(
            "Containers", "Names of the containers in the template.", lambda o: container_names(spec(o)), wide=True
        ),
        text_column(
            "Images", "Images of the containers in the template.", lambda o: container_images(spec(o)), wide=True
        ),
    )


def selector_column(*path: str) -> Column:
    return text_column(
        "Selector",
        "Which pods belong to the object.",
        lambda o: selector_text(section(o, *path[:-1]).get(path[-1])),
        wide=True,
    )
