"""The built-in resources in the order of discovery.

Some objects are served under several names: an Event in the core group and in ``events.k8s.io``, a
HorizontalPodAutoscaler in three versions. They are stored once; ``stored_as`` says where.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

from fleetplane.model.builtin.data import header
from fleetplane.model.resources import ResourceType


@dataclass(frozen=True, slots=True)
class Subresource:
    """A path below an object; ``kind`` is what is sent to it, in its own group and version."""

    name: str
    group: str
    version: str
    kind: str
    verbs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class BuiltinResource:
    """One built-in resource in one version.

    ``verbs`` is sorted. ``stored_as`` is the (group, version) under which its objects are kept, ``preferred`` whether
    this is its group's preferred version. ``definition`` names its schema.
    """

    type: ResourceType
    verbs: tuple[str, ...]
    subresources: tuple[Subresource, ...]
    definition: str
    stored_as: tuple[str, str]
    preferred: bool

    @property
    def is_storage_version(self) -> bool:
        return self.stored_as == (self.type.group, self.type.version)

    def subresource(self, name: str) -> Subresource | None:
        return next((one for one in self.subresources if one.name == name), None)


@cache
def catalog() -> tuple[BuiltinResource, ...]:
    """Every built-in resource: core first, then groups in Kubernetes' order, best version first, by plural."""
    return tuple(
        BuiltinResource(
            type=ResourceType(
                group=entry["group"],
                version=entry["version"],
                kind=entry["kind"],
                plural=entry["plural"],
                namespaced=entry["namespaced"],
                singular=entry["singular"],
                short_names=tuple(entry["short_names"]),
                categories=tuple(entry["categories"]),
            ),
            verbs=tuple(entry["verbs"]),
            subresources=tuple(
                Subresource(one["name"], one["group"], one["version"], one["kind"], tuple(one["verbs"]))
                for one in entry["subresources"]
            ),
            definition=entry["definition"],
            stored_as=(entry["stored_as"][0], entry["stored_as"][1]),
            preferred=entry["preferred"],
        )
        for entry in header()["catalogue"]
    )


@cache
def _by_name() -> Mapping[tuple[str, str, str], BuiltinResource]:
    return {(one.type.group, one.type.version, one.type.plural): one for one in catalog()}


def builtin_resource(group: str, version: str, plural: str) -> BuiltinResource | None:
    """The built-in resource with this path, if there is one."""
    return _by_name().get((group, version, plural))
