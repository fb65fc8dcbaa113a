"""Whether a request fits into a quota, and what it uses of it: the pure part."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from fleetplane.model.objects import Object, name
from fleetplane.model.pod_resources import Amounts, parsed
from fleetplane.model.quantity import ZERO, Quantity
from fleetplane.model.quotas import Measure, as_object, in_scopes, increase, shown


class DoesNotFit(Exception):
    """The message is what Kubernetes tells the user."""


@dataclass(slots=True)
class Wanted:
    """A write that uses a quota: ``old`` is the object before an update."""

    measure: Measure
    new: Mapping[str, Any]
    old: Mapping[str, Any] | None
    now: datetime


@dataclass(slots=True)
class Balance:
    """A quota and what is used of it; ``used`` has an entry for everything in ``hard``."""

    quota: Object
    hard: Amounts
    used: Amounts

    @property
    def name(self) -> str:
        return name(self.quota)

    def with_status(self) -> Object:
        """The quota that says so."""
        hard = (self.quota.get("spec") or {}).get("hard") or {}
        status = {**(self.quota.get("status") or {}), "hard": hard, "used": as_object(self.used)}
        return {**self.quota, "status": status}


def balance_of(quota: Object) -> tuple[Balance, list[str]]:
    """(the balance as the quota's status tells it, the resources it does not tell the usage of)."""
    hard = parsed((quota.get("spec") or {}).get("hard"))
    told = parsed((quota.get("status") or {}).get("used"))
    used = {name: told.get(name, ZERO) for name in hard}
    return Balance(quota, hard, used), [name for name in hard if name not in told]


def charge(balance: Balance, wanted: Wanted) -> Amounts:
    """What the write uses of the quota in addition, empty for nothing. Raises DoesNotFit."""
    measure = wanted.measure
    limited = [one for one in balance.hard if measure.counts(one)]
    if not limited or not in_scopes(balance.quota, measure, wanted.new):
        return {}
    if missing := measure.missing(limited, wanted.new):
        raise DoesNotFit(f"failed quota: {balance.name}: must specify {'; '.join(missing)}")
    before = {} if wanted.old is None else measure.usage(wanted.old, wanted.now)
    asked = increase(measure.usage(wanted.new, wanted.now), before)
    asked = {one: amount for one, amount in asked.items() if one in balance.hard}
    over = [one for one, amount in asked.items() if balance.used[one] + amount > balance.hard[one]]
    if over:
        raise DoesNotFit(
            f"exceeded quota: {balance.name}, requested: {_only(asked, over)}, "
            f"used: {_only(balance.used, over)}, limited: {_only(balance.hard, over)}"
        )
    return asked


def _only(amounts: Amounts, names: list[str]) -> str:
    return shown({one: amounts[one] for one in names})


def add(used: Amounts, more: Mapping[str, Quantity]) -> None:
    """Add in place, to what is limited."""
    for one, amount in more.items():
        if one in used:
            used[one] = used[one] + amount


def subtract(used: Amounts, less: Mapping[str, Quantity]) -> None:
    """Take away in place; usage is never negative."""
    for one, amount in less.items():
        if one in used:
            used[one] = max(used[one] - amount, Quantity(0, used[one].format))
