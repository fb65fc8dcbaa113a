"""Which nodes a DaemonSet's pods belong on. Pure.

A pod is made for a node, not scheduled to any: it carries a node affinity to that node's name, and tolerations so that
trouble of the node does not drive it away. Whether it *should run* there and whether one that runs *may stay* are two
questions: a NoSchedule taint only answers the first.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from fleetplane.model.objects import Object, labels, name
from fleetplane.workloads.scheduler.terms import (
    NO_EXECUTE,
    NO_SCHEDULE,
    first_untolerated,
    matches_any,
    node_terms,
    taints,
    tolerations,
)

_ALL_EFFECTS: Final = frozenset({NO_SCHEDULE, NO_EXECUTE})
_EVICTING: Final = frozenset({NO_EXECUTE})
_TOLERATED: Final = (
    ("node.kubernetes.io/not-ready", NO_EXECUTE),
    ("node.kubernetes.io/unreachable", NO_EXECUTE),
    ("node.kubernetes.io/disk-pressure", NO_SCHEDULE),
    ("node.kubernetes.io/memory-pressure", NO_SCHEDULE),
    ("node.kubernetes.io/pid-pressure", NO_SCHEDULE),
    ("node.kubernetes.io/unschedulable", NO_SCHEDULE),
)
_FOR_HOST_NETWORK: Final = ("node.kubernetes.io/network-unavailable", NO_SCHEDULE)


class Verdict(NamedTuple):
    should_run: bool
    may_stay: bool


def judge(pod_spec: Mapping[str, Any], node: Mapping[str, Any]) -> Verdict:
    """``pod_spec`` is the template's, with the tolerations that ``with_tolerations`` adds."""
    if not _matches(pod_spec, node):
        return Verdict(should_run=False, may_stay=False)
    found = taints((node.get("spec") or {}).get("taints"))
    by = tolerations(pod_spec.get("tolerations"))
    may_stay = first_untolerated(found, by, _EVICTING) is None
    return Verdict(may_stay and first_untolerated(found, by, _ALL_EFFECTS) is None, may_stay)


def _matches(pod_spec: Mapping[str, Any], node: Mapping[str, Any]) -> bool:
    wanted = pod_spec.get("nodeName")
    if wanted and wanted != name(node):
        return False
    node_labels = labels(node)
    if any(node_labels.get(key) != value for key, value in (pod_spec.get("nodeSelector") or {}).items()):
        return False
    required = _required(pod_spec)
    return required is None or matches_any(node_terms(required), name(node), node_labels)


def _required(pod_spec: Mapping[str, Any]) -> list[Object] | None:
    affinity = (pod_spec.get("affinity") or {}).get("nodeAffinity") or {}
    required = affinity.get("requiredDuringSchedulingIgnoredDuringExecution")
    return None if required is None else list(required.get("nodeSelectorTerms") or ())


def with_tolerations(pod_spec: Mapping[str, Any]) -> Object:
    """The same spec, tolerating what a daemon must live with."""
    added = [*_TOLERATED, *([_FOR_HOST_NETWORK] if pod_spec.get("hostNetwork") else [])]
    kept = list(pod_spec.get("tolerations") or ())
    for key, effect in added:
        one = {"key": key, "operator": "Exists", "effect": effect}
        if one not in kept:
            kept.append(one)
    return {**pod_spec, "tolerations": kept}


def for_node(pod_spec: Mapping[str, Any], node_name: str) -> Object:
    """The same spec, bound to one node by affinity; it replaces what required terms there were (they hold already)."""
    term = {"matchFields": [{"key": "metadata.name", "operator": "In", "values": [node_name]}]}
    affinity = dict(pod_spec.get("affinity") or {})
    node_affinity = dict(affinity.get("nodeAffinity") or {})
    node_affinity["requiredDuringSchedulingIgnoredDuringExecution"] = {"nodeSelectorTerms": [term]}
    return {**pod_spec, "affinity": {**affinity, "nodeAffinity": node_affinity}}


def target_node(pod: Mapping[str, Any]) -> str:
    """The node a daemon pod is on, or is meant for."""
    spec = pod.get("spec") or {}
    if spec.get("nodeName"):
        return str(spec["nodeName"])
    for term in _required(spec) or ():
        for one in term.get("matchFields") or ():
            if one.get("key") == "metadata.name" and one.get("operator") == "In" and len(one.get("values") or ()) == 1:
                return str(one["values"][0])
    return ""
