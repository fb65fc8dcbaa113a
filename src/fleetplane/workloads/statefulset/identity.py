"""The numbered pods of a StatefulSet: their names, labels, host names and claims. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from fleetplane.model.builtin.types import PERSISTENT_VOLUME_CLAIMS, STATEFUL_SETS
from fleetplane.model.objects import Object, labels, name, namespace
from fleetplane.workloads.shared.ownership import owner_reference
from fleetplane.workloads.shared.pods import from_template
from fleetplane.workloads.shared.revisions import POD_REVISION

POD_NAME: Final = "statefulset.kubernetes.io/pod-name"
POD_INDEX: Final = "apps.kubernetes.io/pod-index"


def first_ordinal(stateful_set: Mapping[str, Any]) -> int:
    return int((stateful_set["spec"].get("ordinals") or {}).get("start") or 0)


def pod_name(stateful_set: Mapping[str, Any], ordinal: int) -> str:
    return f"{name(stateful_set)}-{ordinal}"


def ordinal_of(stateful_set: Mapping[str, Any], pod_name: str) -> int | None:
    """The ordinal in a pod's name; None for a pod of another shape of name."""
    parent, _, number = pod_name.rpartition("-")
    if parent != name(stateful_set) or not number.isdigit() or str(int(number)) != number:
        return None
    return int(number)


def claim_name(template: Mapping[str, Any], stateful_set: Mapping[str, Any], ordinal: int) -> str:
    return f"{name(template)}-{name(stateful_set)}-{ordinal}"


def new_pod(stateful_set: Mapping[str, Any], template: Mapping[str, Any], ordinal: int, revision: str) -> Object:
    """The pod of this ordinal as ``template`` (of ``revision``) describes it."""
    made_name = pod_name(stateful_set, ordinal)
    pod = from_template(template, made_name, namespace(stateful_set), owner_reference(stateful_set, STATEFUL_SETS))
    own = {POD_NAME: made_name, POD_INDEX: str(ordinal), POD_REVISION: revision}
    pod["metadata"]["labels"] = {**pod["metadata"].get("labels", {}), **own}
    spec = pod["spec"]
    spec["hostname"] = made_name
    if stateful_set["spec"].get("serviceName"):
        spec["subdomain"] = stateful_set["spec"]["serviceName"]
    claims = stateful_set["spec"].get("volumeClaimTemplates") or []
    if claims:
        ours = {name(one) for one in claims}
        kept = [one for one in spec.get("volumes") or [] if one.get("name") not in ours]
        mounted = [
            {"name": name(one), "persistentVolumeClaim": {"claimName": claim_name(one, stateful_set, ordinal)}}
            for one in claims
        ]
        spec["volumes"] = [*mounted, *kept]
    return pod


def new_claims(stateful_set: Mapping[str, Any], ordinal: int) -> list[Object]:
    """The claims that the pod of this ordinal mounts."""
    selector = stateful_set["spec"].get("selector") or {}
    found = []
    for template in stateful_set["spec"].get("volumeClaimTemplates") or []:
        meta = {
            "name": claim_name(template, stateful_set, ordinal),
            "namespace": namespace(stateful_set),
            "labels": {**labels(template), **(selector.get("matchLabels") or {})},
        }
        if template["metadata"].get("annotations"):
            meta["annotations"] = dict(template["metadata"]["annotations"])
        found.append(
            {
                "apiVersion": PERSISTENT_VOLUME_CLAIMS.api_version,
                "kind": PERSISTENT_VOLUME_CLAIMS.kind,
                "metadata": meta,
                "spec": dict(template.get("spec") or {}),
            }
        )
    return found


def has_identity(stateful_set: Mapping[str, Any], pod: Mapping[str, Any], ordinal: int) -> bool:
    """Whether labels that tell the pod's identity stand as they should."""
    wanted = {POD_NAME: pod_name(stateful_set, ordinal), POD_INDEX: str(ordinal)}
    return wanted.items() <= labels(pod).items()
