"""Several versions of one kind, one of them the hub.

Each version is a class of its own. Objects are stored in the hub's form; every other version has two pure functions, to
the hub and back, and two versions are converted through the hub. A conversion must lose nothing on a round trip: what the
other form has no place for is kept in an annotation.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from fleetplane.model.kind.view import Kind
from fleetplane.model.objects import Object, split_api_version

Convert = Callable[[Object], Object]


@dataclass(frozen=True, slots=True)
class Conversion:
    """How a version becomes the hub and the hub becomes it. Neither function may change its argument."""

    kind: type[Kind]
    to_hub: Convert
    from_hub: Convert


@dataclass(frozen=True)
class Versions:
    """``hub`` and the other versions, newest first. Raises ValueError where they are not versions of one kind."""

    hub: type[Kind]
    others: tuple[Conversion, ...] = ()

    def __post_init__(self) -> None:
        first = self.hub.resource
        seen = {first.version}
        for one in self.others:
            resource = one.kind.resource
            if (resource.group, resource.kind, resource.plural) != (first.group, first.kind, first.plural):
                raise ValueError(f"{resource.qualified} is not another version of {first.qualified}")
            if resource.version in seen:
                raise ValueError(f"{resource.qualified} declares the version {resource.version} twice")
            seen.add(resource.version)

    @property
    def kinds(self) -> tuple[type[Kind], ...]:
        return (self.hub, *(one.kind for one in self.others))

    def convert(self, obj: Mapping[str, Any], version: str) -> Object:
        """The object in another version; the same one when it is in that already. Raises KeyError for no such version."""
        _, current = split_api_version(str(obj["apiVersion"]))
        if current == version:
            return dict(obj)
        hub = self.hub.resource
        converted = dict(obj)
        if current != hub.version:
            converted = self._conversion(current).to_hub(converted)
        target = hub
        if version != hub.version:
            conversion = self._conversion(version)
            converted, target = conversion.from_hub(converted), conversion.kind.resource
        return {**converted, "apiVersion": target.api_version, "kind": target.kind}

    def _conversion(self, version: str) -> Conversion:
        for one in self.others:
            if one.kind.resource.version == version:
                return one
        raise KeyError(f"{self.hub.resource.qualified} has no version {version}")
