"""What an operator package offers, and finding the packages that are installed.

A package names its ``Operator`` in the entry-point group ``fleetplane.operators``; ours and third parties' are found the
same way. Loading one imports it: nothing may happen at import but definitions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from fleetplane.controller.controller import Controller
from fleetplane.controller.manager import Manager
from fleetplane.model.admission import AdmissionPlugin
from fleetplane.model.kind import Kind, Versions, crd_manifest
from fleetplane.model.objects import Object

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

GROUP: Final = "fleetplane.operators"

KindLike = type[Kind] | Versions


@dataclass(frozen=True, slots=True)
class Operator:
    """One operator.

    Attributes:
        name: As users choose it (``--operators vehicles``).
        controllers: Makes its controllers for a manager.
        kinds: The kinds it defines.
        admission: What it refuses and fills in.
        rules: RBAC rules it needs beyond what its controllers' declarations say.
        description: One sentence for people.
    """

    name: str
    controllers: Callable[[Manager], Iterable[Controller]]
    kinds: Sequence[KindLike] = ()
    admission: Sequence[AdmissionPlugin] = ()
    rules: Sequence[Object] = ()
    description: str = ""

    def manifests(self) -> list[Object]:
        """The CRDs of its kinds."""
        return [crd_manifest(kind) for kind in self.kinds]

    def install(self, manager: Manager) -> None:
        """Add its controllers to a manager."""
        manager.add(*self.controllers(manager))


class UnknownOperator(Exception):
    """The message names what there is."""


def installed() -> dict[str, EntryPoint]:
    """What is installed, by name, not yet imported."""
    # A megabyte of imports that an operator which names its parts itself has no use for.
    from importlib.metadata import entry_points  # noqa: PLC0415

    return {point.name: point for point in sorted(entry_points(group=GROUP), key=lambda point: point.name)}


def load_operators(names: Sequence[str] | None = None) -> list[Operator]:
    """Import the operators named, or all that are installed.

    Raises:
        UnknownOperator: one that was named is not installed, or what it names is no ``Operator``.
    """
    known = installed()
    loaded = []
    for name in known if names is None else names:
        if name not in known:
            raise UnknownOperator(f"there is no operator {name!r}; installed are: {', '.join(known) or 'none'}")
        operator = known[name].load()
        if not isinstance(operator, Operator):
            raise UnknownOperator(f"{known[name].value} of the operator {name!r} is not an Operator")
        loaded.append(operator)
    return loaded
