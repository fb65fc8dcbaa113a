"""The ledger: the one way in which the usage of a ResourceQuota changes.

What is used stands in the quota's own status, and every change of it is a write on condition that nobody else wrote
meanwhile; so a quota holds with any number of requests and servers at once. Requests of one namespace that come
together share a write: whoever holds the namespace's lock serves all that wait. Such a write need not reach the disk
before its request goes on, because the object's own commit comes later in the same log.

Usage rises before an object is written (``claim``) and falls after it is gone (``released``). A crash in between leaves
usage too high, never too low; a recount, which also counts claims still under way, puts it right: at the start, for a
new or changed quota, and every few minutes where something happened. Where servers share a store, a recount cannot see
what another has claimed and not written yet: it only raises usage until nobody else has changed the quota for longer
than any request lives.

What is counted is known by its revision: a release that the count has seen already is not taken off again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fleetplane.apiserver.admission.quotas.checking import (
    Balance,
    DoesNotFit,
    Wanted,
    add,
    balance_of,
    charge,
    subtract,
)
from fleetplane.apiserver.admission.views import View
from fleetplane.apiserver.encoding import decode, encode
from fleetplane.model import errors
from fleetplane.model.environment import Environment
from fleetplane.model.objects import Object, name, namespace
from fleetplane.model.pod_resources import Amounts
from fleetplane.model.quantity import ZERO
from fleetplane.model.quotas import Measure, in_scopes, increase, measure_of, resources_counted, usage_under
from fleetplane.store.protocol import (
    Expect,
    Key,
    PreconditionFailed,
    Put,
    Record,
    Selection,
    Store,
    StoreError,
    StoreUnavailable,
)

log = logging.getLogger(__name__)

Place = tuple[str, str]
"""(cluster id, namespace)"""
Charges = dict[str, Amounts]
"""By the name of a quota."""

_ATTEMPTS = 12
_RECOUNT_SECONDS = 300.0
_LONGEST_CLAIM_SECONDS = 90.0
"""After so long a claim of another server is either an object or given back."""
_AGAIN_SECONDS = 1.0


@dataclass(slots=True, eq=False)
class _Waiting:
    wanted: Wanted
    dry_run: bool
    charges: Charges | None = None
    claim: QuotaClaim | None = None
    error: Exception | None = None

    @property
    def decided(self) -> bool:
        return self.charges is not None or self.error is not None


@dataclass(slots=True, eq=False)
class _Namespace:
    """What is going on in one namespace with quotas."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    waiting: list[_Waiting] = field(default_factory=list)
    released: Charges = field(default_factory=dict)
    under_way: set[QuotaClaim] = field(default_factory=set)
    counted: dict[tuple[str, str], int] = field(default_factory=dict)
    """By quota and resource: the revision up to which a count has seen everything."""
    known: dict[str, int] = field(default_factory=dict)
    """By quota: the revision in which we last saw or wrote it."""
    foreign: dict[str, float] = field(default_factory=dict)
    """By quota: when we last found that another server had changed it."""
    recount: bool = False
    touched: bool = False


class QuotaClaim:
    """Usage claimed for one write."""

    def __init__(self, ledger: QuotaLedger, place: Place, charges: Charges) -> None:
        self._ledger = ledger
        self._place = place
        self.charges = charges

    def keep(self) -> None:
        self._ledger.settle(self._place, self, kept=True)

    async def give_back(self) -> None:
        self._ledger.settle(self._place, self, kept=False)


class QuotaLedger:
    """See the module. ``apply`` and ``reset`` are for the follower of ``resourcequotas``; ``run`` is background work."""

    def __init__(self, store: Store, environment: Environment) -> None:
        self._store = store
        self._environment = environment
        self._quotas = View()
        self._is_shared = bool(getattr(store, "is_shared", False))
        self._namespaces: dict[Place, _Namespace] = {}
        self._work = asyncio.Event()
        self._to_do: set[Place] = set()

    # -- what the follower tells ---------------------------------------------------------------------------------------

    def reset(self) -> None:
        self._quotas.reset()

    def apply(self, cluster: str, quota: Object, deleted: bool) -> None:
        place = (cluster, namespace(quota))
        known = self._quotas.get(cluster, name(quota), place[1])
        self._quotas.apply(cluster, quota, deleted)
        if deleted:
            if not self._quotas.all(*place):
                self._namespaces.pop(place, None)
            return
        status = quota.get("status") or {}
        hard = (quota.get("spec") or {}).get("hard") or {}
        if known is None or status.get("hard") != hard or (status.get("used") or {}).keys() != hard.keys():
            self._of(place).recount = True
            self._wake(place)

    def watches(self, cluster: str, namespace: str) -> bool:
        """Whether a namespace has any quota."""
        return bool(self._quotas.all(cluster, namespace))

    # -- usage rises ---------------------------------------------------------------------------------------------------

    async def claim(self, cluster: str, namespace: str, wanted: Wanted, *, dry_run: bool = False) -> QuotaClaim | None:
        """Claim what a write uses; None when it uses nothing. Raises DoesNotFit, or ApiError when it cannot be told."""
        place = (cluster, namespace)
        if not any(self._concerns(quota, wanted) for quota in self._quotas.all(*place)):
            return None
        here = self._of(place)
        mine = _Waiting(wanted, dry_run)
        here.waiting.append(mine)
        try:
            async with here.lock:
                if not mine.decided:
                    with contextlib.suppress(StoreError, errors.ApiError):  # told to all that waited, us among them
                        await self._serve(place, here)
        except asyncio.CancelledError:
            if mine in here.waiting:
                here.waiting.remove(mine)
            elif mine.claim is not None:
                self.settle(place, mine.claim, kept=False)
            raise
        if mine.error is not None:
            raise mine.error
        return mine.claim

    def _concerns(self, quota: Object, wanted: Wanted) -> bool:
        hard = (quota.get("spec") or {}).get("hard") or {}
        return any(wanted.measure.counts(one) for one in hard) and in_scopes(quota, wanted.measure, wanted.new)

    def settle(self, place: Place, claim: QuotaClaim, *, kept: bool) -> None:
        """A claim is under way no more."""
        here = self._namespaces.get(place)
        if here is None:
            return
        here.under_way.discard(claim)
        here.touched = True
        if not kept:
            self._release(place, claim.charges)

    # -- usage falls ---------------------------------------------------------------------------------------------------

    def released(self, key: Key, old: Mapping[str, Any], new: Mapping[str, Any] | None, revision: int) -> None:
        """Told of an object that was deleted (``new`` None) or changed, after the commit, which was ``revision``."""
        place = (key.cluster, key.namespace)
        here = self._namespaces.get(place)
        quotas = self._quotas.all(*place)
        if here is None and not quotas:
            return
        now = self._environment.now()
        measure = measure_of(key.group, key.resource)
        charges: Charges = {}
        for quota in quotas:
            before = usage_under(quota, measure, old, now)
            if before:
                less = increase(before, usage_under(quota, measure, new, now) if new is not None else {})
                if here is not None:  # what a count has seen already is not taken off again
                    counted = here.counted
                    less = {one: less[one] for one in less if revision > counted.get((name(quota), one), 0)}
                if less:
                    charges[name(quota)] = less
        if charges:
            self._release(place, charges)
        elif new is None and here is not None:
            here.touched = True  # it may have counted until it was overdue

    def _release(self, place: Place, charges: Charges) -> None:
        here = self._of(place)
        for quota, less in charges.items():
            add_up(here.released.setdefault(quota, {}), less)
        here.touched = True
        self._wake(place)

    # -- the background ------------------------------------------------------------------------------------------------

    def _of(self, place: Place) -> _Namespace:
        found = self._namespaces.get(place)
        if found is None:
            found = self._namespaces[place] = _Namespace()
        return found

    def _wake(self, place: Place) -> None:
        self._to_do.add(place)
        self._work.set()

    async def run(self) -> None:
        """Write down what was released, recount what must be. Until cancelled."""
        next_round = self._environment.monotonic() + _RECOUNT_SECONDS
        while True:
            try:
                async with asyncio.timeout(max(next_round - self._environment.monotonic(), 0)):
                    await self._work.wait()
            except TimeoutError:
                next_round = self._environment.monotonic() + _RECOUNT_SECONDS
                self._plan_recounts()
            self._work.clear()
            todo, self._to_do = self._to_do, set()
            for place in todo:
                await self._catch_up(place)

    def _plan_recounts(self) -> None:
        for place, here in self._namespaces.items():
            if here.touched:
                here.recount, here.touched = True, False
                self._to_do.add(place)

    async def _catch_up(self, place: Place) -> None:
        here = self._namespaces.get(place)
        if here is None:
            return
        async with here.lock:
            if not (here.released or here.recount or here.waiting):
                return
            try:
                await self._serve(place, here)
            except (StoreError, errors.ApiError) as error:
                log.warning("the usage of quotas in namespace %s cannot be written yet: %s", place[1], error)
                await asyncio.sleep(_AGAIN_SECONDS)
                self._wake(place)
            except Exception:  # an object nobody foresaw must not end the server
                log.exception("the usage of quotas in namespace %s cannot be counted", place[1])

    # -- one write for all that wait -----------------------------------------------------------------------------------

    async def _serve(self, place: Place, here: _Namespace) -> None:
        """Decide all that wait and write down all that was released. Every waiting request is decided afterwards."""
        waiting, here.waiting = here.waiting, []
        released, here.released = here.released, {}
        recount, here.recount = here.recount, False
        try:
            await self._settle_all(place, here, waiting, released, recount=recount)
        except Exception as error:
            self._put_back(here, released, recount=recount)
            for one in waiting:
                one.error = one.error or _told(error)
            raise
        except BaseException:  # cancelled: what the others want is decided by the next of them
            self._put_back(here, released, recount=True)
            here.waiting = [*(one for one in waiting if not one.decided), *here.waiting]
            self._wake(place)
            raise

    def _put_back(self, here: _Namespace, released: Charges, *, recount: bool) -> None:
        for quota, less in released.items():
            add_up(here.released.setdefault(quota, {}), less)
        here.recount = here.recount or recount

    async def _settle_all(
        self, place: Place, here: _Namespace, waiting: Sequence[_Waiting], released: Charges, *, recount: bool
    ) -> None:
        for _ in range(_ATTEMPTS):
            records, balances, unknown = await self._read(place, here)
            before = {quota: dict(balance.used) for quota, balance in balances.items()} if recount else {}
            new = {quota: frozenset(names) for quota, names in unknown.items()}
            if recount:
                unknown = {quota: list(balance.hard) for quota, balance in balances.items()}
            await self._count(place, here, balances, unknown)
            for quota, used in before.items():
                self._keep_what_others_hold(here, balances[quota], used, new.get(quota, frozenset()))
            for quota, less in released.items():
                if quota in balances:
                    counted = unknown.get(quota, ())
                    subtract(balances[quota].used, {one: less[one] for one in less if one not in counted})
            decided = [(one, *_decide(one, balances.values())) for one in waiting]
            changes = _changes(records, balances)
            try:
                if changes:
                    for written in await self._store.commit(changes, durable=False):
                        here.known[written.key.name] = written.revision
            except PreconditionFailed:
                continue
            for one, charges, error in decided:
                one.charges, one.error = charges, error
                if charges and not one.dry_run:  # known from now on, also to a recount that comes before it goes on
                    one.claim = QuotaClaim(self, place, charges)
                    here.under_way.add(one.claim)
            return
        raise errors.conflict(
            "resourcequotas", "", "too many writers changed the quotas of the namespace at once; please try again"
        )

    def _keep_what_others_hold(self, here: _Namespace, balance: Balance, before: Amounts, new: frozenset[str]) -> None:
        """After a recount: usage does not fall while another server may have claims under way."""
        last = here.foreign.get(balance.name)
        if last is None or self._environment.monotonic() - last > _LONGEST_CLAIM_SECONDS:
            return
        for one, amount in before.items():
            if one not in new and balance.used[one] < amount:
                balance.used[one] = amount
                here.touched = True

    async def _read(
        self, place: Place, here: _Namespace
    ) -> tuple[dict[str, Record], dict[str, Balance], dict[str, list[str]]]:
        """(records, balances, resources whose usage is not known), by the name of the quota."""
        records: dict[str, Record] = {}
        balances: dict[str, Balance] = {}
        unknown: dict[str, list[str]] = {}
        for quota in self._quotas.all(*place):
            record = await self._store.get(Key(place[0], "", "resourcequotas", place[1], name(quota)))
            if record is None:
                continue
            records[name(quota)] = record
            if self._is_shared and here.known.get(name(quota)) != record.revision:
                here.foreign[name(quota)] = self._environment.monotonic()
                here.known[name(quota)] = record.revision
            balances[name(quota)], missing = balance_of(decode(record))
            if missing:
                unknown[name(quota)] = missing
        return records, balances, unknown

    async def _count(
        self, place: Place, here: _Namespace, balances: Mapping[str, Balance], unknown: Mapping[str, Sequence[str]]
    ) -> None:
        """Set the usage of ``unknown`` resources to what is stored and what is on its way there."""
        if not unknown:
            return
        for quota, names in unknown.items():
            balances[quota].used |= dict.fromkeys(names, ZERO)
        under_way = [claim.charges for claim in here.under_way]
        for group, plural in sorted(resources_counted({one for names in unknown.values() for one in names})):
            await self._count_resource(place, group, plural, balances, unknown)
        for charges in under_way:
            for quota in charges.keys() & unknown.keys():
                add(balances[quota].used, {one: charges[quota][one] for one in charges[quota] if one in unknown[quota]})
        # What was released or stored meanwhile may be counted or not: too high is safe, and put right by the next recount.
        seen = await self._store.revision()
        for quota, names in unknown.items():
            for one in names:
                here.counted[quota, one] = seen
                if here.released.get(quota, {}).pop(one, None) is not None:
                    here.touched = True
        here.touched = here.touched or bool(under_way)

    async def _count_resource(
        self,
        place: Place,
        group: str,
        plural: str,
        balances: Mapping[str, Balance],
        unknown: Mapping[str, Sequence[str]],
    ) -> None:
        measure = measure_of(group, plural)
        concerned = [
            (balances[quota], set(names)) for quota, names in unknown.items() if any(map(measure.counts, names))
        ]
        selection = Selection(group, plural, place[0], place[1])
        if measure.only_number:
            number = measure.usage({}, self._environment.now())
            count = await self._store.count(selection)
            for balance, names in concerned:
                if in_scopes(balance.quota, measure, {}):
                    add(balance.used, {one: amount * count for one, amount in number.items() if one in names})
            return
        async for page in self._store.stream(selection):
            now = self._environment.now()
            for record in page.records:
                obj = decode(record)
                for balance, names in concerned:
                    usage = usage_under(balance.quota, measure, obj, now)
                    add(balance.used, {one: amount for one, amount in usage.items() if one in names})


def _decide(one: _Waiting, balances: Iterable[Balance]) -> tuple[Charges | None, Exception | None]:
    """(charges, None) when the write fits into every quota, which then show it; (None, why not) otherwise."""
    charges: Charges = {}
    try:
        for balance in balances:
            asked = charge(balance, one.wanted)
            if asked:
                charges[balance.name] = asked
    except DoesNotFit as error:
        return None, error
    if not one.dry_run:
        for balance in balances:
            add(balance.used, charges.get(balance.name, {}))
    return charges, None


def _changes(records: Mapping[str, Record], balances: Mapping[str, Balance]) -> list[Put]:
    made = []
    for quota, balance in balances.items():
        changed = balance.with_status()
        if changed["status"] != balance.quota.get("status"):
            record = records[quota]
            made.append(
                Put(
                    record.key,
                    record.uid,
                    encode(changed),
                    record.encoding,
                    record.terms,
                    precondition=Expect(revision=record.revision),
                )
            )
    return made


def _told(error: BaseException) -> Exception:
    if isinstance(error, StoreUnavailable):
        return errors.unavailable(f"the store cannot serve this request: {error}", retry_after=1)
    if isinstance(error, errors.ApiError):
        return error
    return errors.unavailable("the quotas of the namespace could not be checked; try again", retry_after=1)


def add_up(total: Amounts, more: Amounts) -> None:
    for one, amount in more.items():
        total[one] = total[one] + amount if one in total else amount


def wanted_by(
    group: str, plural: str, new: Mapping[str, Any], old: Mapping[str, Any] | None, environment: Environment
) -> Wanted:
    measure: Measure = measure_of(group, plural)
    return Wanted(measure, new, old, environment.now())
