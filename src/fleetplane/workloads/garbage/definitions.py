"""What the collector reads of a definition: which resource it serves. Its schema, nearly all of it, is not kept."""

from __future__ import annotations

from typing import Final

import msgspec

from fleetplane.model.resources import ResourceType


class _Names(msgspec.Struct):
    kind: str
    plural: str


class _Version(msgspec.Struct):
    name: str
    served: bool = False
    storage: bool = False


class _Spec(msgspec.Struct):
    group: str
    names: _Names
    versions: list[_Version]
    scope: str = ""


class _Condition(msgspec.Struct):
    type: str
    status: str


class _Status(msgspec.Struct):
    conditions: list[_Condition] = []


class _Definition(msgspec.Struct):
    metadata: msgspec.Raw
    spec: _Spec
    status: _Status = msgspec.field(default_factory=_Status)


_decode: Final = msgspec.json.Decoder(_Definition).decode


def without_schemas(encoded: bytes) -> bytes:
    """A definition's JSON with what ``established`` reads, and its metadata."""
    return msgspec.json.encode(_decode(encoded))


def established(encoded: bytes) -> ResourceType | None:
    """The resource a definition serves, in the version it stores; None before it is established."""
    definition = _decode(encoded)
    if not any(one.type == "Established" and one.status == "True" for one in definition.status.conditions):
        return None
    spec = definition.spec
    served = [one for one in spec.versions if one.served] or spec.versions
    stored = next((one for one in served if one.storage), served[0])
    return ResourceType(
        spec.group, stored.name, spec.names.kind, spec.names.plural, namespaced=spec.scope == "Namespaced"
    )
