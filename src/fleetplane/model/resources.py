"""What kinds of object there are: the identity of an API resource.

A ``ResourceType`` is what discovery tells about a resource and all that a client needs to reach it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol


@dataclass(frozen=True, slots=True)
class ResourceType:
    """One resource in one API version.

    ``plural`` is the name in paths (``deployments``), ``group`` is empty for the core group.
    """

    group: str
    version: str
    kind: str
    plural: str
    namespaced: bool = True
    singular: str = ""
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def list_kind(self) -> str:
        return self.kind + "List"

    @property
    def qualified(self) -> str:
        """``deployments.apps``, or ``pods`` in the core group."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    def path(self, namespace: str = "", name: str = "", subresource: str = "") -> str:
        """The URL path of the collection, an object or a subresource, without cluster prefix or query."""
        parts = ["/apis", self.group, self.version] if self.group else ["/api", self.version]
        if self.namespaced and namespace:
            parts += ["namespaces", namespace]
        parts.append(self.plural)
        if name:
            parts.append(name)
        if subresource:
            parts.append(subresource)
        return "/".join(parts)


class HasResource(Protocol):
    """A typed kind class: it carries the resource it describes."""

    resource: ClassVar[ResourceType]


ResourceRef = ResourceType | type[HasResource]
"""What clients and controllers take where a resource is named."""


def resource_of(ref: ResourceRef) -> ResourceType:
    return ref if isinstance(ref, ResourceType) else ref.resource
