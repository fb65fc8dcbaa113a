"""Priority: from the name of a PriorityClass to a number, and at most one class for pods that name none."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fleetplane.apiserver.admission.refusals import refuse
from fleetplane.apiserver.admission.views import ClusterId, View
from fleetplane.apiserver.kinds.access import section, text
from fleetplane.model.admission import (
    ALLOWED,
    AdmissionPlugin,
    AdmissionRequest,
    AdmissionRule,
    Decision,
    Reader,
    changed,
)
from fleetplane.model.builtin.types import PRIORITY_CLASSES
from fleetplane.model.objects import Object, name

_NO_CLASS: Mapping[str, Any] = {"value": 0, "preemptionPolicy": "PreemptLowerPriority"}


def priority_plugins(classes: View, cluster_id: ClusterId) -> list[AdmissionPlugin]:
    def default_class(request: AdmissionRequest) -> Object | None:
        """The lowest of the default ones, should a race have made several."""
        found = [one for one in classes.all(cluster_id(request.cluster)) if one.get("globalDefault")]
        return min(found, key=lambda one: int(one["value"]), default=None)

    async def resolve(request: AdmissionRequest, reader: Reader) -> Decision:
        pod = request.new
        if pod is None:
            return ALLOWED
        spec = section(pod, "spec")
        wanted = text(spec, "priorityClassName")
        found: Mapping[str, Any] | None
        if wanted:
            found = classes.get(cluster_id(request.cluster), wanted) or await reader.get(PRIORITY_CLASSES, wanted)
            if found is None:
                return refuse(request, f"no PriorityClass with name {wanted} was found")
        else:
            found = default_class(request)
            wanted = name(found) if found is not None else ""
        chosen = found if found is not None else _NO_CLASS
        return _filled(request, pod, spec, wanted, chosen)

    async def keep(request: AdmissionRequest, _reader: Reader) -> Decision:
        if request.new is None or request.old is None:
            return ALLOWED
        spec, old = section(request.new, "spec"), section(request.old, "spec")
        kept = {key: old[key] for key in ("priority", "preemptionPolicy") if key in old and spec.get(key) is None}
        return changed({**request.new, "spec": {**spec, **kept}}) if kept else ALLOWED

    async def check(request: AdmissionRequest, _reader: Reader) -> Decision:
        if request.new is None or not request.new.get("globalDefault"):
            return ALLOWED
        other = default_class(request)
        if other is None or (request.operation == "UPDATE" and name(other) == request.name):
            return ALLOWED
        return refuse(request, f"PriorityClass {name(other)} is already marked as default. Only one default can exist")

    return [
        AdmissionPlugin("priority.fleetplane.io", "mutate", [AdmissionRule(["pods"], ["CREATE"])], resolve, order=150),
        AdmissionPlugin(
            "kept.priority.fleetplane.io", "mutate", [AdmissionRule(["pods"], ["UPDATE"])], keep, order=150
        ),
        AdmissionPlugin(
            "default.priority.fleetplane.io",
            "validate",
            [AdmissionRule(["priorityclasses.scheduling.k8s.io"])],
            check,
            order=150,
        ),
    ]


def _filled(request: AdmissionRequest, pod: Object, spec: Object, wanted: str, chosen: Mapping[str, Any]) -> Decision:
    value = chosen["value"]
    told = "must not be provided in pod spec; priority admission controller computed"
    if spec.get("priority") not in (None, value):
        return refuse(
            request,
            f"the integer value of priority ({spec['priority']}) {told} {value} from the given PriorityClass name",
        )
    policy = chosen.get("preemptionPolicy")
    if policy and spec.get("preemptionPolicy") not in (None, policy):
        return refuse(
            request,
            f"the string value of PreemptionPolicy ({spec['preemptionPolicy']}) {told} {policy} "
            "from the given PriorityClass name",
        )
    made = {**spec, "priority": value}
    if policy:
        made["preemptionPolicy"] = policy
    if wanted:
        made["priorityClassName"] = wanted
    return changed({**pod, "spec": made})
