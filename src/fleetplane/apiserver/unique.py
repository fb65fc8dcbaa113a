"""Custom kinds whose objects must not share a value: what a definition's annotation makes of an object.

Admission may read what is a moment old, so it can never promise that something is unique. The store can: what an object
claims is taken by the commit that writes it. Built-in kinds have allocators for that; a definition says it in the annotation
``fleetplane.io/unique``, as ``{"spec.addresses": [".spec.network", ".spec.addresses[*]"]}``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import orjson

from fleetplane.apiserver.kinds.behaviour import no_terms
from fleetplane.model.jsonpath import JsonPath
from fleetplane.model.kind.crd import UNIQUE_ANNOTATION
from fleetplane.model.objects import Object

Claims = Callable[[Mapping[str, Any]], Iterable[tuple[str, str]]]
Find = Callable[[Any], Sequence[Any]]
_SIMPLE = re.compile(r"((?:\.[A-Za-z0-9]+)+)(\[\*\])?")


def unique_claims(definition: Object) -> Claims:
    """From an object what no other of its cluster may have, as (scope, value).

    Objects written before the annotation claim nothing until they are written again. Raises ValueError for an annotation
    that cannot be read; such a definition is refused when it is written.
    """
    text = (definition["metadata"].get("annotations") or {}).get(UNIQUE_ANNOTATION)
    if not text:
        return no_terms
    declared = orjson.loads(text)
    if not isinstance(declared, dict) or not all(map(_is_list_of_paths, declared.values())):
        raise ValueError("must be a JSON object of lists of JSONPaths")
    scope = f"{definition['spec']['names']['plural']}.{definition['spec']['group']}"
    paths = {field: [_finder(one) for one in texts] for field, texts in declared.items()}
    return partial(_claims_of, [(f"{scope}/{field}", found) for field, found in paths.items()])


def _is_list_of_paths(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(one, str) for one in value)


def _finder(path: str) -> Find:
    """Raises ValueError. The paths that are meant here, ``.a.b`` and ``.a.b[*]``, are walked without ceremony."""
    compiled = JsonPath.parse(f"{{{path}}}")
    simple = _SIMPLE.fullmatch(path)
    if simple is None:
        return compiled.find
    keys, many = tuple(simple[1][1:].split(".")), bool(simple[2])

    def find(obj: Any) -> Sequence[Any]:
        try:
            for key in keys:
                obj = obj[key]
        except (KeyError, TypeError):
            return ()
        if many:
            return obj if isinstance(obj, list) else ()
        return (obj,)

    return find


def _claims_of(declared: Sequence[tuple[str, Sequence[Find]]], obj: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    """Nothing where the last path finds nothing; earlier ones that find nothing count as empty."""
    found: list[tuple[str, str]] = []
    for scope, (*first, last) in declared:
        values = [str(one) for one in last(obj) if one]
        if not values:
            continue
        head = ""
        for one in first:
            of_path = one(obj)
            head += f"{(of_path[0] if of_path else None) or ''}/"
        found += (
            [(scope, head + value) for value in dict.fromkeys(values)] if values[1:] else [(scope, head + values[0])]
        )
    return found
