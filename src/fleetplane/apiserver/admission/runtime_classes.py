"""RuntimeClass: what a class of runtimes adds to the pods that choose it: overhead, nodes, tolerations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from fleetplane.apiserver.admission.refusals import refuse
from fleetplane.apiserver.admission.tolerations import merged
from fleetplane.apiserver.admission.views import ClusterId, View
from fleetplane.apiserver.kinds.access import entries, section, text
from fleetplane.model.admission import (
    ALLOWED,
    AdmissionPlugin,
    AdmissionRequest,
    AdmissionRule,
    Decision,
    Reader,
    changed,
)
from fleetplane.model.builtin.types import RUNTIME_CLASSES
from fleetplane.model.objects import Object
from fleetplane.model.pod_resources import parsed

_RULES: Final = [AdmissionRule(["pods"], ["CREATE"])]
_DIFFERS: Final = "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead"


def runtime_class_plugins(classes: View, cluster_id: ClusterId) -> list[AdmissionPlugin]:
    async def find(request: AdmissionRequest, reader: Reader, wanted: str) -> Object | None:
        found = classes.get(cluster_id(request.cluster), wanted)
        return found if found is not None else await reader.get(RUNTIME_CLASSES, wanted)

    async def fill(request: AdmissionRequest, reader: Reader) -> Decision:
        pod = request.new or {}
        spec = section(pod, "spec")
        wanted = text(spec, "runtimeClassName")
        if not wanted:
            return ALLOWED
        found = await find(request, reader, wanted)
        if found is None:
            return refuse(request, f'pod rejected: RuntimeClass "{wanted}" not found')
        made = dict(spec)
        overhead = section(found, "overhead", "podFixed")
        if overhead:
            if spec.get("overhead") is not None and not _equal(overhead, spec["overhead"]):
                return refuse(request, _DIFFERS)
            made["overhead"] = overhead
        scheduling = section(found, "scheduling")
        selector = section(scheduling, "nodeSelector")
        given = section(spec, "nodeSelector")
        for key in sorted(selector.keys() & given.keys()):
            if selector[key] != given[key]:
                return refuse(
                    request,
                    f"conflict: runtimeClass.scheduling.nodeSelector[{key}] = {selector[key]}; "
                    f"pod.spec.nodeSelector[{key}] = {given[key]}",
                )
        if selector:
            made["nodeSelector"] = {**given, **selector}
        if scheduling.get("tolerations"):
            made["tolerations"] = merged(entries(spec, "tolerations"), entries(scheduling, "tolerations"))
        return changed({**pod, "spec": made}) if made != spec else ALLOWED

    async def check(request: AdmissionRequest, reader: Reader) -> Decision:
        spec = (request.new or {})["spec"]
        wanted, given = spec.get("runtimeClassName"), spec.get("overhead")
        if not wanted and not given:
            return ALLOWED
        found = await find(request, reader, wanted) if wanted else None
        overhead = section(found or {}, "overhead", "podFixed")
        if not overhead:
            if not given:
                return ALLOWED
            return refuse(request, "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead")
        return ALLOWED if _equal(overhead, given) else refuse(request, _DIFFERS)

    return [
        AdmissionPlugin("runtimeclass.fleetplane.io", "mutate", _RULES, fill, order=190),
        AdmissionPlugin("overhead.runtimeclass.fleetplane.io", "validate", _RULES, check, order=190),
    ]


def _equal(one: Mapping[str, Any], other: Any) -> bool:
    if not isinstance(other, dict):
        return False
    try:
        return parsed(one) == parsed(other)
    except ValueError:
        return False
