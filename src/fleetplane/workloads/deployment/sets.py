"""The ReplicaSets of a Deployment: which is the new one, what they are called and what is written on them. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from fleetplane.client.protocol import CLUSTER_ANNOTATION
from fleetplane.model.builtin.types import DEPLOYMENTS, REPLICA_SETS
from fleetplane.model.objects import Object, generation, metadata, name, namespace, uid
from fleetplane.model.objects import annotations as annotations_of
from fleetplane.workloads.shared.numbers import scaled
from fleetplane.workloads.shared.ownership import owner_reference
from fleetplane.workloads.shared.templates import TEMPLATE_HASH, same_template, template_hash

REVISION: Final = "deployment.kubernetes.io/revision"
REVISION_HISTORY: Final = "deployment.kubernetes.io/revision-history"
DESIRED_REPLICAS: Final = "deployment.kubernetes.io/desired-replicas"
MAX_REPLICAS: Final = "deployment.kubernetes.io/max-replicas"
_NOT_COPIED: Final = frozenset(
    {
        "kubectl.kubernetes.io/last-applied-configuration",
        REVISION,
        REVISION_HISTORY,
        DESIRED_REPLICAS,
        MAX_REPLICAS,
        CLUSTER_ANNOTATION,
        "deprecated.deployment.rollback.to",
    }
)
_HISTORY_LIMIT: Final = 2000


def replicas(obj: Mapping[str, Any]) -> int:
    found = obj["spec"].get("replicas")
    return 1 if found is None else int(found)


def status_count(obj: Mapping[str, Any], field: str) -> int:
    return int((obj.get("status") or {}).get(field) or 0)


def available(replica_set: Mapping[str, Any]) -> int:
    """Available pods that will stay: a status older than a scale-down may still count those that go."""
    return min(status_count(replica_set, "availableReplicas"), replicas(replica_set))


def is_observed(replica_set: Mapping[str, Any]) -> bool:
    """Whether its status was written after its controller saw the latest spec."""
    return status_count(replica_set, "observedGeneration") >= generation(replica_set)


def is_rolling(deployment: Mapping[str, Any]) -> bool:
    strategy = deployment["spec"].get("strategy") or {}
    return str(strategy.get("type")) != "Recreate"


def fenceposts(deployment: Mapping[str, Any]) -> tuple[int, int]:
    """(maxSurge, maxUnavailable) in pods; never both zero, and no surge when the Deployment is recreated."""
    if not is_rolling(deployment):
        return 0, 0
    total = replicas(deployment)
    rolling = (deployment["spec"].get("strategy") or {}).get("rollingUpdate") or {}
    surge = scaled(rolling.get("maxSurge", "25%"), total, round_up=True)
    unavailable = scaled(rolling.get("maxUnavailable", "25%"), total, round_up=False)
    if surge == 0 and unavailable == 0:
        unavailable = 1
    return surge, min(unavailable, total)


def revision(obj: Mapping[str, Any]) -> int:
    """The revision written on it; 0 when absent or unreadable."""
    try:
        return int(annotations_of(obj).get(REVISION) or 0)
    except ValueError:
        return 0


def by_age(sets: Iterable[Object]) -> list[Object]:
    """Oldest first."""
    return sorted(sets, key=lambda one: (metadata(one).get("creationTimestamp") or "", name(one)))


def find_new(deployment: Mapping[str, Any], sets: Sequence[Object]) -> Object | None:
    """The oldest set with the Deployment's template."""
    template = deployment["spec"]["template"]
    return next((one for one in by_age(sets) if same_template(one["spec"]["template"], template)), None)


def active(sets: Iterable[Object]) -> list[Object]:
    return [one for one in sets if replicas(one) > 0]


def make_new(deployment: Mapping[str, Any], count: int, new_revision: int) -> Object:
    """The ReplicaSet for the Deployment's present template, with ``count`` replicas."""
    spec = deployment["spec"]
    digest = template_hash(spec["template"], status_count(deployment, "collisionCount"))
    template = spec["template"]
    template_meta = template.get("metadata") or {}
    set_labels = {**(template_meta.get("labels") or {}), TEMPLATE_HASH: digest}
    selector = dict(spec.get("selector") or {})
    selector["matchLabels"] = {**(selector.get("matchLabels") or {}), TEMPLATE_HASH: digest}
    made: Object = {
        "apiVersion": REPLICA_SETS.api_version,
        "kind": REPLICA_SETS.kind,
        "metadata": {
            "name": f"{name(deployment)}-{digest}",
            "namespace": namespace(deployment),
            "labels": set_labels,
            "ownerReferences": [owner_reference(deployment, DEPLOYMENTS)],
        },
        "spec": {
            "replicas": count,
            "selector": selector,
            "template": {**template, "metadata": {**template_meta, "labels": set_labels}},
        },
    }
    if spec.get("minReadySeconds"):
        made["spec"]["minReadySeconds"] = spec["minReadySeconds"]
    made["metadata"]["annotations"] = {
        **copied_annotations(deployment),
        REVISION: str(new_revision),
        **replica_annotations(deployment),
    }
    return made


def belongs_to(replica_set: Mapping[str, Any], deployment: Mapping[str, Any]) -> bool:
    return any(ref.get("uid") == uid(deployment) for ref in metadata(replica_set).get("ownerReferences") or [])


def copied_annotations(deployment: Mapping[str, Any]) -> dict[str, str]:
    return {key: value for key, value in annotations_of(deployment).items() if key not in _NOT_COPIED}


def replica_annotations(deployment: Mapping[str, Any]) -> dict[str, str]:
    """How large the Deployment was when the set was last scaled: proportional scaling reads it."""
    total, (surge, _) = replicas(deployment), fenceposts(deployment)
    return {DESIRED_REPLICAS: str(total), MAX_REPLICAS: str(total + surge)}


def new_set_annotations(deployment: Mapping[str, Any], replica_set: Mapping[str, Any], wanted: int) -> dict[str, str]:
    """What the new set's annotations should become: the Deployment's own, and a revision that never falls."""
    current = annotations_of(replica_set)
    found = {**current, **copied_annotations(deployment)}
    old = revision(replica_set)
    if old < wanted:
        found[REVISION] = str(wanted)
        if old > 0:
            found[REVISION_HISTORY] = _history(current.get(REVISION_HISTORY, ""), old)
    return found


def _history(written: str, old: int) -> str:
    """Former revisions, oldest first; the oldest are forgotten when the text grows too long."""
    parts = [*filter(None, written.split(",")), str(old)]
    while len(",".join(parts)) > _HISTORY_LIMIT:
        parts.pop(0)
    return ",".join(parts)
