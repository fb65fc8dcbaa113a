"""Where the CEL rules of a schema apply in an object.

Evaluating ``x-kubernetes-validations`` is the business of ``model.cel``; this walk finds every value that has rules,
with its old self. Old values are correlated as Kubernetes does: fields and map keys by name, items of a list of type
map by key. Items of other lists have no old self (``ABSENT``), nor has anything below them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from fleetplane.model.schema.listtypes import ABSENT
from fleetplane.model.schema.validate import old_items

if TYPE_CHECKING:
    from fleetplane.model.schema.schema import Schema


class RuleSite(NamedTuple):
    """A value with rules. ``old`` is ABSENT when the value is new or cannot be correlated.

    An evaluator leaves out rules about a change (those that name ``oldSelf``) where ``old`` is ABSENT, and may ignore
    failures of the others where ``old`` equals ``value`` (ratcheting, KEP-4008).
    """

    path: str
    rules: tuple[Mapping[str, Any], ...]
    value: Any
    old: Any
    schema: Schema


def walk_rules(schema: Schema, obj: Any, old: Any = ABSENT) -> Iterator[RuleSite]:
    """Every value of ``obj`` whose node has rules, outermost first. ``old`` may be None or ABSENT.

    Costs nothing where the schema has no rules, and only descends to where it has some.
    """
    return _walk(schema, obj, ABSENT if old is None else old, "")


def _walk(schema: Schema, value: Any, old: Any, path: str) -> Iterator[RuleSite]:
    if value is None or not schema.leads_to_rules():
        return
    if schema.rules:
        yield RuleSite(path, schema.rules, value, old, schema)
    if type(value) is dict:
        before = old if type(old) is dict else {}
        prefix = f"{path}." if path else ""
        for name, one in value.items():
            child = schema.field(name)
            if child is not None:
                here = prefix + name if name in schema.properties else f"{path}[{name}]"
                yield from _walk(child, one, before.get(name, ABSENT), here)
    elif type(value) is list and schema.items is not None:
        for index, (one, previous) in enumerate(zip(value, old_items(schema, value, old), strict=True)):
            yield from _walk(schema.items, one, previous, f"{path}[{index}]")
