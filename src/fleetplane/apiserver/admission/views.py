"""What admission knows of objects it decides by, in memory: limits, quotas, classes, webhooks, policies.

A view is fed by a follower, so that a decision costs a look into a dict. Whoever writes such an object is answered only
after the follower has seen it (``following``): a limit holds for the very next request.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from fleetplane.apiserver.following import Apply
from fleetplane.model.objects import Object, name, namespace

ClusterId = Callable[[str], str]
"""The id of a logical cluster (what followers and storage know it by), by its name (what a request says)."""
Follow = Callable[[str, str, Apply, Callable[[], None]], None]
"""``follow(group, plural, apply, reset)``: have a view fed."""
_NOTHING: Mapping[str, Object] = {}


class View:
    """All objects of one resource, by cluster and namespace (empty for cluster-scoped ones). They are only read.

    ``generation`` rises with every change, so that whoever derives something from the view knows when it is stale.
    """

    def __init__(self) -> None:
        self._objects: dict[tuple[str, str], dict[str, Object]] = {}
        self.generation = 0

    def reset(self) -> None:
        self._objects.clear()
        self.generation += 1

    def apply(self, cluster: str, obj: Object, deleted: bool) -> None:
        place = (cluster, namespace(obj))
        self.generation += 1
        if not deleted:
            self._objects.setdefault(place, {})[name(obj)] = obj
            return
        kept = self._objects.get(place)
        if kept is not None:
            kept.pop(name(obj), None)
            if not kept:
                del self._objects[place]

    def get(self, cluster: str, name: str, namespace: str = "") -> Object | None:
        return self._objects.get((cluster, namespace), _NOTHING).get(name)

    def all(self, cluster: str, namespace: str = "") -> Sequence[Object]:
        """In the order of their names; empty, at no cost, where there are none."""
        found = self._objects.get((cluster, namespace))
        if not found:
            return ()
        return [found[name] for name in sorted(found)] if len(found) > 1 else tuple(found.values())

    def places(self) -> Sequence[tuple[str, str]]:
        """The (cluster, namespace) pairs that have any."""
        return list(self._objects)
