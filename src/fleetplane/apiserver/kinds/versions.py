"""A behaviour for every version its kind is served in.

Behaviours know the storage version. Where an object comes in another one (an Event of ``events.k8s.io``, an old
Ingress) it is converted there and, where it was changed, back. Field paths in errors are then those of the storage
version.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from fleetplane.apiserver.kinds.behaviour import KindBehaviour, SubresourceRules
from fleetplane.model.builtin.conversion import convert, hub_of
from fleetplane.model.errors import FieldError
from fleetplane.model.objects import Object
from fleetplane.model.table import Cell, Column

Check = Callable[[Object, Object | None], Sequence[FieldError]]


def in_every_version(behaviour: KindBehaviour) -> KindBehaviour:
    """The same behaviour, for objects of any served version of the kind."""
    return replace(
        behaviour,
        default=_changing(behaviour.default),
        prepare_create=_changing(behaviour.prepare_create),
        prepare_update=_updating(behaviour.prepare_update),
        validate=_checking(behaviour.validate),
        validate_status=_checking(behaviour.validate_status),
        columns=tuple(_shown(column) for column in behaviour.columns),
        subresources={
            name: SubresourceRules(_updating(rules.prepare), _checking(rules.validate))
            for name, rules in behaviour.subresources.items()
        },
    )


def _hub(obj: Mapping[str, Any]) -> str | None:
    return hub_of(str(obj.get("apiVersion")), str(obj.get("kind")))


def _stored(obj: Object) -> Object:
    hub = _hub(obj)
    return obj if hub is None else convert(obj, hub)


def _changing(change: Callable[[Object], None]) -> Callable[[Object], None]:
    def changed(obj: Object) -> None:
        hub = _hub(obj)
        if hub is None:
            change(obj)
            return
        stored = convert(obj, hub)
        change(stored)
        _become(obj, convert(stored, str(obj["apiVersion"])))

    return changed


def _updating(change: Callable[[Object, Object], None]) -> Callable[[Object, Object], None]:
    def changed(new: Object, old: Object) -> None:
        hub = _hub(new)
        if hub is None:
            change(new, _stored(old))
            return
        stored = convert(new, hub)
        change(stored, _stored(old))
        _become(new, convert(stored, str(new["apiVersion"])))

    return changed


def _become(obj: Object, other: Object) -> None:
    kept = dict(other)
    obj.clear()
    obj.update(kept)


def _checking(check: Check) -> Check:
    def checked(new: Object, old: Object | None) -> Sequence[FieldError]:
        return check(_stored(new), None if old is None else _stored(old))

    return checked


def _shown(column: Column) -> Column:
    def cell(obj: Mapping[str, Any], now: datetime) -> Cell:
        hub = _hub(obj)
        return column.cell(obj if hub is None else convert(dict(obj), hub), now)

    return replace(column, cell=cell)
