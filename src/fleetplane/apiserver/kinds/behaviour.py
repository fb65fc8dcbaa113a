"""What the server does for a kind beyond its schema: defaults, rules, printed columns, what can be selected on.

A behaviour is data: functions on plain objects, composed per kind in the module of its group and looked up in
``BEHAVIOURS``. A kind without one gets ``GENERIC``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fleetplane.model.errors import FieldError
from fleetplane.model.objects import Object
from fleetplane.model.table import Column


def nothing(obj: Object) -> None:
    """No change."""


def no_update_change(new: Object, old: Object) -> None:
    """No change."""


def no_errors(new: Object, old: Object | None) -> list[FieldError]:
    return []


def no_terms(obj: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    return ()


@dataclass(frozen=True, slots=True)
class SubresourceRules:
    """What a write through a subresource may change; takes the place of ``prepare_update`` and ``validate``."""

    prepare: Callable[[Object, Object], None] = no_update_change
    validate: Callable[[Object, Object | None], Sequence[FieldError]] = no_errors


@dataclass(frozen=True, slots=True)
class KindBehaviour:
    """How one kind is served. Every function gets objects in the kind's storage version.

    ``default`` fills what the schema's defaults cannot express, in place. ``prepare_create(obj)`` and
    ``prepare_update(new, old)`` enforce what clients may not set, in place (status by subresource is the server's own
    business and done for every kind with ``status_subresource``). ``validate`` and ``validate_status`` take (new, old
    or None on create). ``terms`` are index terms beyond labels and owners, named by the field selectors in
    ``indexed_fields``; an object carries each of them, with an empty value where the field is unset. ``fields`` are
    further field selectors, answered by reading the object. ``claims`` are (scope, value) pairs that no two objects of a
    cluster may have: the store sees to it. ``subresources`` says what holds for writes through one
    (other than ``status`` and ``scale``).
    """

    default: Callable[[Object], None] = nothing
    prepare_create: Callable[[Object], None] = nothing
    prepare_update: Callable[[Object, Object], None] = no_update_change
    validate: Callable[[Object, Object | None], Sequence[FieldError]] = no_errors
    validate_status: Callable[[Object, Object | None], Sequence[FieldError]] = no_errors
    validate_name: Callable[[str], Sequence[str]] | None = None
    columns: tuple[Column, ...] = ()
    terms: Callable[[Mapping[str, Any]], Iterable[tuple[str, str]]] = no_terms
    indexed_fields: frozenset[str] = frozenset()
    fields: Mapping[str, Callable[[Mapping[str, Any]], str]] = field(default_factory=dict)
    claims: Callable[[Mapping[str, Any]], Iterable[tuple[str, str]]] = no_terms
    subresources: Mapping[str, SubresourceRules] = field(default_factory=dict)
    has_generation: bool = True
    status_subresource: bool = True
    create_on_update: bool = False
    unconditional_update: bool = True
    status_on_create: bool = False
    """The status may be told when the object is created (nodes register themselves whole)."""
    graceful: bool = False
    """Deletion waits for a grace period somebody else ends (pods)."""


GENERIC = KindBehaviour()
