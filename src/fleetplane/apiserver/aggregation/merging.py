"""Other servers' OpenAPI v2 in ours, as kube-aggregator merges it. Pure.

Our paths stay ours. A definition that two documents share word for word is one; where they differ, the other's is renamed
(``…ObjectMeta_v2``), and with it everything of its document that refers to it, so that each document goes on meaning what
it meant.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from fleetplane.apiserver.aggregation.swagger import DEFINITION, GVK
from fleetplane.model.objects import Object

_MOST_NAMES: Final = 64
"""So many suffixes are tried; a document for which all are taken is left out."""


def merge(document: Object, others: Iterable[Mapping[str, Any]]) -> None:
    """Add the ``paths`` and ``definitions`` of others (see ``swagger.cut``), in their order, to a document of ours."""
    used = {
        operation["operationId"]
        for item in document["paths"].values()
        for operation in item.values()
        if isinstance(operation, dict) and "operationId" in operation
    }
    for other in others:
        _add(document, other, used)


def _add(document: Object, other: Mapping[str, Any], used: set[str]) -> None:
    ours: dict[str, Object] = document["definitions"]
    theirs: Mapping[str, Object] = other["definitions"]
    renames = _renames(ours, theirs)
    if renames is None:
        return
    for name, schema in theirs.items():
        target = renames.get(name, name)
        if target not in ours:
            ours[target] = _renamed(schema, renames)
        elif schema.get(GVK):
            kinds = list(ours[target].get(GVK) or ())
            ours[target] = ours[target] | {GVK: kinds + [one for one in schema[GVK] if one not in kinds]}
    for path, item in other["paths"].items():
        if path not in document["paths"]:
            document["paths"][path] = _without_taken_ids(_renamed(item, renames), used)


def _renames(ours: Mapping[str, Object], theirs: Mapping[str, Object]) -> dict[str, str] | None:
    """New names for the definitions that mean something else here; None when there are none left."""
    differing = _differing(ours, theirs)
    for number in range(2, _MOST_NAMES + 2):
        renames = {name: f"{name}_v{number}" for name in differing}
        if all(
            target not in theirs and (target not in ours or _same(ours[target], _renamed(theirs[name], renames)))
            for name, target in renames.items()
        ):
            return renames
    return None


def _differing(ours: Mapping[str, Object], theirs: Mapping[str, Object]) -> set[str]:
    """Names both have for different things; different is also what refers to something different."""
    shared = [name for name in theirs if name in ours]
    referring: dict[str, list[str]] = {}
    for name in shared:
        for reference in _references(theirs[name]):
            referring.setdefault(reference, []).append(name)
    pending = [name for name in shared if not _same(ours[name], theirs[name])]
    found: set[str] = set()
    while pending:
        name = pending.pop()
        if name not in found:
            found.add(name)
            pending += referring.get(name, ())
    return found


def _same(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Equal but for the kinds they say they are: DeleteOptions is of every group."""
    return _bare(one) == _bare(other)


def _bare(schema: Mapping[str, Any]) -> Object:
    return {key: value for key, value in schema.items() if key != GVK}


def _references(value: Any) -> Iterator[str]:
    """The names of the definitions a schema refers to."""
    if isinstance(value, dict):
        reference = value.get("$ref")
        if isinstance(reference, str):
            yield reference.removeprefix(DEFINITION)
        for one in value.values():
            yield from _references(one)
    elif isinstance(value, list):
        for one in value:
            yield from _references(one)


def _renamed(value: Any, renames: Mapping[str, str]) -> Any:
    if not renames:
        return value
    if isinstance(value, dict):
        made = {key: _renamed(one, renames) for key, one in value.items()}
        reference = value.get("$ref")
        if isinstance(reference, str) and (name := reference.removeprefix(DEFINITION)) in renames:
            made["$ref"] = DEFINITION + renames[name]
        return made
    if isinstance(value, list):
        return [_renamed(one, renames) for one in value]
    return value


def _without_taken_ids(item: Object, used: set[str]) -> Object:
    """A path whose operations have no id that another has: ids are optional, and unique where they are."""
    made: Object = {}
    for method, operation in item.items():
        taken = isinstance(operation, dict) and operation.get("operationId") in used
        made[method] = {key: one for key, one in operation.items() if key != "operationId"} if taken else operation
        if isinstance(operation, dict) and "operationId" in operation:
            used.add(operation["operationId"])
    return made
