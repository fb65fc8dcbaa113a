"""An application as one unit: its microservices in dependency order, updated one by one behind a health gate.

``decide`` is pure: from what is wanted, what there is and what was tried before to the next step. A microservice is
started when all it depends on run; stopping goes the other way round. An update takes one microservice at a time and
only while all others run; one that does not run by its deadline goes back to the last form that did, and the form
that failed is not tried again until the application says something new.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple

import orjson

from fleetplane.client.snapshot import Snapshot
from fleetplane.controller import Condition, Context, Controller, Manager, Request, Result, Watch, controller_for
from fleetplane.model import objects
from fleetplane.model.environment import parse_timestamp, timestamp
from fleetplane.model.objects import Object, is_deleting, metadata
from fleetplane.operators.vehicles.kinds import GROUP, VERSION, AppType, VehApplication, VehDeployment, VehPod
from fleetplane.operators.vehicles.limits import Violation, canonical
from fleetplane.operators.vehicles.package_signing import APPLICATION as APPLICATION_SIGNATURE
from fleetplane.operators.vehicles.package_signing import RULE, is_signed, keys_of, payload
from fleetplane.operators.vehicles.plan import APPLICATION, MICROSERVICE, PREFIX

DIGEST: Final = PREFIX + "digest"
GOOD: Final = PREFIX + "good-spec"
"""Annotation of a microservice: the last spec with which it ran."""
HISTORY: Final = 10


class Wanted(NamedTuple):
    name: str
    kind: str
    depends_on: tuple[str, ...]
    spec: Object

    @property
    def digest(self) -> str:
        return _sha(self.spec)


class There(NamedTuple):
    """A microservice as it is. ``good`` is the last spec with which it ran, ``current`` whether its status is of its spec."""

    digest: str
    running: bool
    stopped: bool
    good: Object | None


class Step(NamedTuple):
    """``apply``: (microservice, spec, state) to make hold. ``updating`` stays or becomes what is being updated."""

    apply: tuple[tuple[str, Object, str], ...] = ()
    updating: str = ""
    begun: bool = False
    outcome: str = ""
    refused: Mapping[str, str] = {}


def _sha(value: Any) -> str:
    return hashlib.sha256(orjson.dumps(value, option=orjson.OPT_SORT_KEYS)).hexdigest()


def digest_of(microservices: Sequence[Mapping[str, Any]]) -> str:
    """The digest of an application: everything that will run, in canonical JSON, whether defaults are written or not."""
    written = [
        {
            **one,
            "kind": one.get("kind") or "VehPod",
            "dependsOn": list(one.get("dependsOn") or ()),
        }
        for one in microservices
    ]
    return "sha256:" + _sha(written)


def wanted_of(spec: Mapping[str, Any]) -> list[Wanted]:
    return [
        Wanted(str(one["name"]), str(one.get("kind") or "VehPod"), tuple(one.get("dependsOn") or ()), one["spec"])
        for one in spec.get("microservices") or ()
    ]


def application_violations(spec: Mapping[str, Any]) -> Iterator[Violation]:
    wanted = {one.name: one for one in wanted_of(spec)}
    for one in wanted.values():
        for name in one.depends_on:
            if name not in wanted:
                yield Violation("dependencies", f"spec.microservices[{one.name}].dependsOn", f"there is no {name}")
    if (loop := _loop(wanted)) is not None:
        yield Violation("dependencies", "spec.microservices", f"{' needs '.join(loop)}: nothing could start first")
    given = spec.get("digest")
    if given and given != digest_of(spec.get("microservices") or ()):
        yield Violation(
            "package-digest", "spec.digest", "is not the digest of the microservices: the package was changed"
        )


def classes_of(spec: Mapping[str, Any]) -> list[str]:
    """The classes its microservices are of."""
    named = {canonical(str((one.get("spec") or {}).get("appType") or "")) for one in spec.get("microservices") or ()}
    return sorted(named - {""})


def unsigned_classes(called: str, spec: Mapping[str, Any], trusted: Mapping[str, Sequence[str]]) -> list[str]:
    """Classes of its microservices that trust certain keys, none of which signed these microservices under this name."""
    signed = payload(APPLICATION_SIGNATURE, called, digest_of(spec.get("microservices") or ()))
    given = spec.get("signatures") or ()
    return [one for one in classes_of(spec) if trusted.get(one) and not is_signed(signed, given, trusted[one])]


def _loop(wanted: Mapping[str, Wanted]) -> list[str] | None:
    done: set[str] = set()

    def walk(name: str, path: list[str]) -> list[str] | None:
        if name in path:
            return [*path[path.index(name) :], name]
        if name in done or name not in wanted:
            return None
        for one in wanted[name].depends_on:
            if (found := walk(one, [*path, name])) is not None:
                return found
        done.add(name)
        return None

    for name in wanted:
        if (found := walk(name, [])) is not None:
            return found
    return None


def decide(
    wanted: Sequence[Wanted],
    there: Mapping[str, There],
    *,
    state: str,
    updating: str,
    overdue: bool,
    refused: Mapping[str, str],
) -> Step:
    """The next step. ``overdue``: the update under way has had its time."""
    by_name = {one.name: one for one in wanted}
    if state == "Stopped":
        needed_by = {
            name for one in wanted for name in one.depends_on if name in there and not _is_down(there, one.name)
        }
        stop = [one for one in wanted if one.name in there and one.name not in needed_by]
        return Step(tuple((one.name, _kept(one, there, refused), "Stopped") for one in stop))
    if updating and updating in by_name and updating in there:
        one, now = by_name[updating], there[updating]
        if now.running and now.digest == one.digest:
            return Step(outcome="Updated", updating=updating)
        if overdue:
            back = now.good
            bad = {**refused, updating: one.digest}
            if back is not None and _sha(back) != one.digest:
                return Step(((updating, back, "Running"),), updating, outcome="RolledBack", refused=bad)
            return Step(updating=updating, outcome="Failed", refused=bad)
        return Step(((updating, one.spec, "Running"),), updating)
    apply: list[tuple[str, Object, str]] = []
    for one in wanted:
        served = all(name in there and there[name].running for name in one.depends_on)
        if served and _is_down(there, one.name):
            apply.append((one.name, _kept(one, there, refused), "Running"))
    if apply:
        return Step(tuple(apply))
    for one in wanted:
        known = there.get(one.name)
        if known is None or known.digest == one.digest or refused.get(one.name) == one.digest:
            continue
        others_run = all(there[name].running for name in by_name if name in there and name != one.name)
        if others_run:
            return Step(((one.name, one.spec, "Running"),), one.name, begun=True)
    return Step()


def _is_down(there: Mapping[str, There], name: str) -> bool:
    return name not in there or there[name].stopped


def _kept(one: Wanted, there: Mapping[str, There], refused: Mapping[str, str]) -> Object:
    """A form that failed before does not come back by stopping and starting."""
    now = there.get(one.name)
    if now is not None and now.good is not None and refused.get(one.name) == one.digest:
        return now.good
    return one.spec


class VehApplications:
    """The controller of VehApplications."""

    def __init__(self, manager: Manager) -> None:
        self._manager = manager
        self._applications = manager.informer(VehApplication)
        self._app_types = manager.informer(AppType)

    def controller(self) -> Controller:
        def of_this_class(snapshot: Snapshot) -> list[Request]:
            every = self._applications.list(cluster=snapshot.key.cluster)
            found = [one for one in every if canonical(snapshot.key.name) in classes_of(one.get("spec") or {})]
            return [Request(snapshot.key.cluster, str(metadata(one)["namespace"]), objects.name(one)) for one in found]

        return controller_for(
            self._manager,
            VehApplication,
            self.reconcile,
            owns=[VehPod, VehDeployment],
            watches=[Watch(AppType, of_this_class)],
        )

    def _unsigned(self, context: Context[VehApplication], app: VehApplication) -> list[str]:
        """Asked again here, because a class may begin to trust certain keys, or no longer trust them."""
        spec, cluster = app.spec.object, context.request.cluster
        trusted = {one: keys_of(self._app_types.get(one, cluster=cluster)) for one in classes_of(spec)}
        return unsigned_classes(app.name, spec, trusted)

    async def reconcile(self, context: Context[VehApplication], app: VehApplication) -> Result | None:
        if app.spec.state == "Running" and (classes := self._unsigned(context, app)):
            shown = f"not signed by a key that {', '.join(classes)} trusts (rule {RULE}); what runs goes on"
            await context.set_status({}, Condition("Ready", False, "NotSigned", shown))
            return None
        wanted = wanted_of(app.spec.object)
        children = {metadata(one)["name"]: one for one in context.children() if not is_deleting(one)}
        names = {one.name: f"{app.name}-{one.name}" for one in wanted}
        there = {name: _there(children[child]) for name, child in names.items() if child in children}
        status = app.status
        refused = {k: v for k, v in status.refused.items() if any(one.name == k and one.digest == v for one in wanted)}
        overdue = bool(status.since) and self._overdue(app, context.now())
        step = decide(wanted, there, state=app.spec.state, updating=status.updating, overdue=overdue, refused=refused)
        if step.begun:  # the intent first: a crash after this finds an update under way
            await context.set_status({"updating": step.updating, "since": timestamp(context.now())})
        steps = {name: (spec, state) for name, spec, state in step.apply}
        desired = []
        for one in wanted:
            current = children.get(names[one.name])
            if one.name in steps:
                spec, state = steps[one.name]
                desired.append(_child(one, names[one.name], spec, state, there.get(one.name)))
            elif current is not None:
                desired.append(_as_it_is(one, current, there[one.name]))
        await context.apply_children(desired)
        await self._report(context, app, wanted, there, step, refused)
        if step.outcome:
            return Result(requeue_after=0.05)
        if status.updating or step.updating:
            return Result(requeue_after=1.0)
        return None

    def _overdue(self, app: VehApplication, now: datetime) -> bool:
        return now >= parse_timestamp(app.status.since) + timedelta(seconds=app.spec.progress_deadline_seconds)

    async def _report(
        self,
        context: Context[VehApplication],
        app: VehApplication,
        wanted: Sequence[Wanted],
        there: Mapping[str, There],
        step: Step,
        refused: Mapping[str, str],
    ) -> None:
        running = sum(one.name in there and there[one.name].running for one in wanted)
        down = all(_is_down(there, one.name) for one in wanted)
        if app.spec.state == "Stopped":
            phase = "Stopped" if down else "Stopping"
        else:
            phase = "Running" if running == len(wanted) else "Degraded" if running else "Starting"
        status: Object = {"ready": f"{running}/{len(wanted)}", "phase": "Updating" if step.updating else phase}
        status["microservices"] = [_line(app.name, one, there.get(one.name), refused) for one in wanted]
        if step.outcome:
            one = next(one for one in wanted if one.name == step.updating)
            entry = {
                "microservice": one.name,
                "digest": one.digest,
                "outcome": step.outcome,
                "time": timestamp(context.now()),
            }
            history = [*((app.object.get("status") or {}).get("history") or ()), entry]
            status |= {"updating": "", "since": "", "history": history[-HISTORY:], "phase": phase}
            context.event(step.outcome, f"microservice {one.name}", warning=step.outcome != "Updated")
            refused = step.refused or {k: v for k, v in refused.items() if k != one.name}
        known = (context.object.get("status") or {}).get("refused") or {}
        status["refused"] = {**{name: None for name in known if name not in refused}, **refused}
        await context.set_status(status, Condition("Ready", running == len(wanted), phase, status["ready"]))


def _line(app: str, one: Wanted, now: There | None, refused: Mapping[str, str]) -> Object:
    """What ``kubectl get -o yaml`` shows of one microservice."""
    state = "Missing" if now is None else "Running" if now.running else "Stopped" if now.stopped else "Starting"
    found: Object = {"name": one.name, "workload": f"{one.kind}/{app}-{one.name}", "state": state}
    if now is not None:
        found["digest"] = now.digest
        found["current"] = now.digest == one.digest
    if refused.get(one.name) == one.digest:
        found["refused"] = True
    return found


def _there(child: Object) -> There:
    status, notes = child.get("status") or {}, objects.annotations(child)
    fresh = int(status.get("observedGeneration") or 0) == objects.generation(child)
    good = notes.get(GOOD)
    phase = status.get("phase")
    return There(
        notes.get(DIGEST, ""),
        fresh and phase == "Running",
        (child.get("spec") or {}).get("state") == "Stopped" and fresh and phase == "Stopped",
        orjson.loads(good) if good else None,
    )


def _child(one: Wanted, name: str, spec: Object, state: str, now: There | None) -> Object:
    good = now.good if now is not None else None
    notes = {DIGEST: _sha(spec)}
    if good is not None:
        notes[GOOD] = orjson.dumps(good, option=orjson.OPT_SORT_KEYS).decode()
    return {
        "apiVersion": f"{GROUP}/{VERSION}",
        "kind": one.kind,
        "metadata": {
            "name": name,
            "annotations": notes,
            "labels": {APPLICATION: name.removesuffix(f"-{one.name}"), MICROSERVICE: one.name},
        },
        "spec": {**spec, "state": state},
    }


def _as_it_is(one: Wanted, current: Object, now: There) -> Object:
    """A child that nothing is done to; what runs becomes the form to go back to."""
    good = now.good
    digest = now.digest
    if now.running and digest == one.digest:
        good = one.spec
    spec = one.spec if digest == one.digest else good
    state = str((current.get("spec") or {}).get("state") or "Running")
    if spec is None:
        spec = {key: value for key, value in current["spec"].items() if key != "state"}
    made = _child(one, metadata(current)["name"], spec, state, There(digest, now.running, now.stopped, good))
    made["metadata"]["annotations"][DIGEST] = digest
    return made
