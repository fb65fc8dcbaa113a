"""What others can teach the scheduler: more filters and more scores, found by the entry-point group.

A plug-in is any object with the attributes below, registered under ``fleetplane.scheduler``; the entry point names a
callable without arguments that makes it. ``concerns`` tells for which pods it is asked at all. A plug-in whose answer
depends only on what the pod asks for and on the one node says ``is_local = True``: its answers are then remembered
until the node changes. The built-in rules are not
plug-ins, so that nothing can be scheduled against what the node itself refuses.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Final, Protocol, runtime_checkable

from fleetplane.workloads.scheduler.cluster import Cluster
from fleetplane.workloads.scheduler.filters import Refusal
from fleetplane.workloads.scheduler.node import NodeInfo
from fleetplane.workloads.scheduler.shape import PodInfo, Shape

GROUP: Final = "fleetplane.scheduler"


@runtime_checkable
class Filter(Protocol):
    is_local: bool

    def concerns(self, shape: Shape) -> bool:
        """Whether it has anything to say about pods of this shape."""

    def refuse(self, pod: PodInfo, node: NodeInfo, cluster: Cluster) -> Refusal | None:
        """Why the pod may not run there; None when it may."""


@runtime_checkable
class Scorer(Protocol):
    is_local: bool
    weight: float

    def concerns(self, shape: Shape) -> bool:
        """Whether it has anything to say about pods of this shape."""

    def score(self, pod: PodInfo, node: NodeInfo, cluster: Cluster) -> float:
        """0 to 100, higher is better."""


@dataclass(frozen=True, slots=True)
class Plugins:
    filters: tuple[Filter, ...] = ()
    scorers: tuple[Scorer, ...] = ()

    @property
    def are_local(self) -> bool:
        return all(one.is_local for one in self.filters) and all(one.is_local for one in self.scorers)

    def concerning(self, shape: Shape) -> Plugins:
        """Those that have something to say about pods of this shape."""
        filters = tuple(one for one in self.filters if one.concerns(shape))
        scorers = tuple(one for one in self.scorers if one.concerns(shape))
        same = len(filters) == len(self.filters) and len(scorers) == len(self.scorers)
        return self if same else Plugins(filters, scorers)

    def with_filter(self, added: Filter) -> Plugins:
        return Plugins((*self.filters, added), self.scorers)

    @classmethod
    def of(cls, found: Sequence[object]) -> Plugins:
        """Sorts plug-ins by what they can do; one object may be both. Raises TypeError for what would never be asked."""
        for one in found:
            if not _is_complete(one):
                raise TypeError(
                    f"the scheduler plug-in {type(one).__name__} lacks {', '.join(_lacking(one))}: it would never be asked"
                )
        return cls(
            tuple(one for one in found if isinstance(one, Filter)),
            tuple(one for one in found if isinstance(one, Scorer)),
        )

    @classmethod
    def installed(cls) -> Plugins:
        """All plug-ins of installed packages, by name. Raises what a broken plug-in raises."""
        entries = sorted(entry_points(group=GROUP), key=lambda one: one.name)
        return cls.of([entry.load()() for entry in entries])


def _is_complete(one: object) -> bool:
    """Whether it is all of a filter or scorer that it begins to be."""
    if hasattr(one, "refuse") and not isinstance(one, Filter):
        return False
    if hasattr(one, "score") and not isinstance(one, Scorer):
        return False
    return isinstance(one, Filter | Scorer)


def _lacking(one: object) -> list[str]:
    wanted = ["concerns", "is_local"]
    if hasattr(one, "score"):
        wanted.append("weight")
    if not hasattr(one, "score") and not hasattr(one, "refuse"):
        wanted.append("refuse or score")
    return [name for name in wanted if not hasattr(one, name)]
