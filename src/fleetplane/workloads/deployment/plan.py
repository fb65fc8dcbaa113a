"""What a Deployment is to do next. Pure: one pass decides on copies and says what changed.

A pass makes one step (create the new set, or scale, or clean up) and reports the state after it; the writes wake the
next pass. Every write carries the resourceVersion it was decided on, so a step decided on a stale view is refused by
the server instead of being done twice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from fleetplane.model.objects import Object, generation, is_deleting, metadata, name, uid
from fleetplane.model.objects import annotations as annotations_of
from fleetplane.workloads.deployment import progress, scaling, sets
from fleetplane.workloads.shared import conditions
from fleetplane.workloads.shared.pods import Pod

_KEEP_ALL: Final = (1 << 31) - 1


@dataclass(slots=True)
class Plan:
    """``create`` is a whole ReplicaSet; ``patches`` are merge patches by ReplicaSet name; ``delete`` are names.

    ``revision`` is to be written on the Deployment when it differs. ``events`` are (reason, message), all normal.
    ``status`` is the whole new status; None leaves it to the next pass.
    """

    create: Object | None = None
    patches: dict[str, Object] = field(default_factory=dict)
    delete: list[Object] = field(default_factory=list)
    revision: str | None = None
    events: list[tuple[str, str]] = field(default_factory=list)
    status: Object | None = None
    recheck_after: float | None = None


def plan(deployment: Object, owned: Sequence[Object], pods_by_set: Mapping[str, Sequence[Pod]], now: datetime) -> Plan:
    """``owned`` are the Deployment's ReplicaSets; ``pods_by_set`` their pods (by the set's uid) in any phase."""
    made = Plan()
    if is_deleting(deployment):
        made.status = progress.rollout_status(deployment, sets.find_new(deployment, owned), owned, now)
        return made
    deployment = _with_pause_condition(deployment, now)
    step = _Step(deployment, owned, pods_by_set, now, made)
    if deployment["spec"].get("paused") or scaling.is_scaling_event(deployment, owned):
        step.scale_only()
    elif sets.is_rolling(deployment):
        step.roll()
    else:
        step.recreate()
    if made.status is not None:
        made.recheck_after = progress.recheck_after(deployment, made.status, now)
    return made


def _with_pause_condition(deployment: Object, now: datetime) -> Object:
    """While paused, the deadline does not run: Progressing is unknown."""
    if progress.deadline(deployment) is None:
        return deployment
    status = deployment.get("status") or {}
    current = conditions.find(status.get("conditions"), "Progressing")
    if current is not None and current.get("reason") == progress.TIMED_OUT:
        return deployment
    is_paused = bool(deployment["spec"].get("paused"))
    says_paused = current is not None and current.get("reason") == "DeploymentPaused"
    if is_paused and not says_paused:
        made = progress.progressing("Unknown", "DeploymentPaused", "Deployment is paused", now)
    elif not is_paused and says_paused:
        made = progress.progressing("Unknown", "DeploymentResumed", "Deployment is resumed", now)
    else:
        return deployment
    return {**deployment, "status": {**status, "conditions": conditions.with_condition(status.get("conditions"), made)}}


class _Step:
    """One pass, on copies of the sets; what it decides goes into the plan."""

    def __init__(
        self,
        deployment: Object,
        owned: Sequence[Object],
        pods_by_set: Mapping[str, Sequence[Pod]],
        now: datetime,
        made: Plan,
    ) -> None:
        self.deployment = deployment
        self.sets = {uid(one): one for one in owned}
        self.new_uid = uid(found) if (found := sets.find_new(deployment, owned)) is not None else None
        self.pods_by_set = pods_by_set
        self.now = now
        self.made = made

    @property
    def new(self) -> Object | None:
        return self.sets.get(self.new_uid) if self.new_uid is not None else None

    @property
    def old(self) -> list[Object]:
        return [one for key, one in self.sets.items() if key != self.new_uid]

    # the three ways of a pass

    def scale_only(self) -> None:
        self._sync_new_set()
        self._resize(scaling.rescale(self.deployment, self.new, self.old))
        if self.deployment["spec"].get("paused"):
            self._clean_up()
        self.made.status = progress.counts(self.deployment, self.new, list(self.sets.values()), self.now)

    def roll(self) -> None:
        if not self._sync_new_set() and not self._create_new_set():
            return
        new = self.new
        assert new is not None
        sizes = scaling.roll_new(self.deployment, new, self.old) or scaling.roll_old(self.deployment, new, self.old)
        if sizes:
            self._resize(sizes)
        self._finish()

    def recreate(self) -> None:
        has_new = self._sync_new_set()
        if going := {uid(one): 0 for one in sets.active(self.old)}:
            self._resize(going)
        elif not self._old_pods_remain():
            if not has_new and not self._create_new_set():
                return
            new = self.new
            assert new is not None
            if sets.replicas(new) != sets.replicas(self.deployment):
                self._resize({uid(new): sets.replicas(self.deployment)})
        self._finish()

    def _finish(self) -> None:
        if progress.is_complete(self.deployment, self.deployment.get("status") or {}):
            self._clean_up()
        everything = list(self.sets.values())
        self.made.status = progress.rollout_status(self.deployment, self.new, everything, self.now)

    # the steps

    def _sync_new_set(self) -> bool:
        """Brings annotations, revision and minReadySeconds of the new set up to date; False when there is none."""
        new = self.new
        if new is None:
            return False
        wanted = max(map(sets.revision, self.old), default=0) + 1
        patch: Object = {}
        notes = sets.new_set_annotations(self.deployment, new, wanted)
        changed = {key: value for key, value in notes.items() if annotations_of(new).get(key) != value}
        if changed:
            patch["metadata"] = {"annotations": changed}
        min_ready = int(self.deployment["spec"].get("minReadySeconds") or 0)
        if int(new["spec"].get("minReadySeconds") or 0) != min_ready:
            patch["spec"] = {"minReadySeconds": min_ready}
        if patch:
            self._change(new, patch)
        self._note_revision(notes.get(sets.REVISION, str(wanted)))
        if progress.deadline(self.deployment) is not None and not self._has_progress_condition():
            self._say_progress("FoundNewReplicaSet", f'Found new replica set "{name(new)}"')
        return True

    def _create_new_set(self) -> bool:
        """Always ends the pass: the set must exist before it is counted."""
        wanted = max(map(sets.revision, self.old), default=0) + 1
        size = scaling.first_size(self.deployment, self.old)
        made = sets.make_new(self.deployment, size, wanted)
        self.made.create = made
        if size > 0:
            self.made.events.append(("ScalingReplicaSet", f"Scaled up replica set {name(made)} from 0 to {size}"))
        self._note_revision(str(wanted))
        if progress.deadline(self.deployment) is not None:
            self._say_progress("NewReplicaSetCreated", f'Created new replica set "{name(made)}"')
        self.made.status = progress.counts(self.deployment, None, list(self.sets.values()), self.now)
        return False

    def _note_revision(self, wanted: str) -> None:
        if annotations_of(self.deployment).get(sets.REVISION) != wanted:
            self.made.revision = wanted

    def _has_progress_condition(self) -> bool:
        return conditions.find((self.deployment.get("status") or {}).get("conditions"), "Progressing") is not None

    def _say_progress(self, reason: str, message: str) -> None:
        status = self.deployment.get("status") or {}
        found = conditions.with_condition(
            status.get("conditions"), progress.progressing("True", reason, message, self.now)
        )
        self.deployment = {**self.deployment, "status": {**status, "conditions": found}}

    def _resize(self, sizes: scaling.Sizes) -> None:
        """Gives sets their new size, and every set with pods (or a new size) the Deployment's size to remember."""
        notes = sets.replica_annotations(self.deployment)
        for key, one in list(self.sets.items()):
            if key not in sizes and not sets.replicas(one):
                continue
            patch: Object = {}
            if any(annotations_of(one).get(label) != value for label, value in notes.items()):
                patch["metadata"] = {"annotations": notes}
            before, after = sets.replicas(one), sizes.get(key, sets.replicas(one))
            if before != after:
                patch["spec"] = {"replicas": after}
                way = "up" if after > before else "down"
                message = f"Scaled {way} replica set {name(one)} from {before} to {after}"
                self.made.events.append(("ScalingReplicaSet", message))
            if patch:
                self._change(one, patch)

    def _change(self, one: Object, patch: Object) -> None:
        meta, spec = patch.get("metadata") or {}, patch.get("spec") or {}
        pending = self.made.patches.setdefault(
            name(one), {"metadata": {"uid": uid(one), "resourceVersion": metadata(one).get("resourceVersion")}}
        )
        if meta.get("annotations"):
            pending["metadata"].setdefault("annotations", {}).update(meta["annotations"])
        if spec:
            pending.setdefault("spec", {}).update(spec)
        notes = {**annotations_of(one), **(meta.get("annotations") or {})}
        changed = {**one, "metadata": {**metadata(one), "annotations": notes}, "spec": {**one["spec"], **spec}}
        self.sets[uid(one)] = changed

    def _old_pods_remain(self) -> bool:
        if any(sets.status_count(one, "replicas") for one in self.old):
            return True
        mine = self.pods_by_set.items()
        return any(not pod.is_terminal for key, found in mine if key != self.new_uid for pod in found)

    def _clean_up(self) -> None:
        """Forgets the oldest empty sets beyond ``revisionHistoryLimit``."""
        limit = self.deployment["spec"].get("revisionHistoryLimit")
        limit = 10 if limit is None else int(limit)
        if limit >= _KEEP_ALL:
            return
        alive = [one for one in self.old if not is_deleting(one)]
        for one in sorted(alive, key=sets.revision)[: max(0, len(alive) - limit)]:
            observed = sets.status_count(one, "observedGeneration")
            if sets.replicas(one) or sets.status_count(one, "replicas") or generation(one) > observed:
                continue
            self.made.delete.append(one)
            del self.sets[uid(one)]
