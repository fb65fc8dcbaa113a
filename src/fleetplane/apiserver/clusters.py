"""Logical clusters: which names there are, and the ids under which their objects are kept.

The id of a cluster is the uid of the object that made it, so a name can be used again without anything of the dead one
coming back. The root cluster's id is its name.
"""

from __future__ import annotations

from collections.abc import Iterator

from fleetplane.apiserver.routing import ALL_CLUSTERS, ROOT_CLUSTER
from fleetplane.model import errors


class Clusters:
    """The names and ids of all logical clusters, ``root`` first."""

    def __init__(self) -> None:
        self._ids: dict[str, str] = {ROOT_CLUSTER: ROOT_CLUSTER}
        self._names: dict[str, str] = {ROOT_CLUSTER: ROOT_CLUSTER}

    def resolve(self, name: str) -> str | None:
        """The id behind a name of a path; None for all clusters. Raises ApiError 404."""
        if name == ALL_CLUSTERS:
            return None
        found = self._ids.get(name)
        if found is None:
            raise errors.not_found("logicalclusters", name, group="fleetplane.io")
        return found

    def name_of(self, cluster_id: str) -> str:
        """The name of a cluster; its id while it is being removed and has no name any more."""
        return self._names.get(cluster_id, cluster_id)

    def add(self, name: str, cluster_id: str) -> None:
        self._ids[name] = cluster_id
        self._names[cluster_id] = name

    def announce(self, name: str, cluster_id: str) -> None:
        """A cluster that is about to be: whoever sees its objects may ask for its name, nobody can reach it yet."""
        self._names[cluster_id] = name

    def retire(self, cluster_id: str) -> None:
        """Answer no more requests for a cluster; it keeps its name until it is removed."""
        name = self._names.get(cluster_id)
        if name is not None and self._ids.get(name) == cluster_id:
            del self._ids[name]

    def remove(self, cluster_id: str) -> None:
        name = self._names.pop(cluster_id, None)
        if name is not None and self._ids.get(name) == cluster_id:
            del self._ids[name]

    def __contains__(self, cluster_id: str) -> bool:
        """Whether there is a cluster of this id that answers requests."""
        return self._ids.get(self._names.get(cluster_id, "")) == cluster_id

    def __iter__(self) -> Iterator[str]:
        """The ids."""
        return iter(list(self._names))

    def __len__(self) -> int:
        return len(self._names)
