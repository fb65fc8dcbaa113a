"""Tolerations: how long a pod stays on a node that is lost, and the union of two lists of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from fleetplane.apiserver.kinds.access import entries, section
from fleetplane.model.admission import AdmissionPlugin, AdmissionRequest, AdmissionRule, mutating
from fleetplane.model.objects import Object

SECONDS: Final = 300
_TAINTS: Final = ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable")


def default_tolerations() -> AdmissionPlugin:
    """DefaultTolerationSeconds: five minutes, unless the pod says otherwise."""
    return mutating("defaulttolerationseconds.fleetplane.io", [AdmissionRule(["pods"])], _fill, order=160)


def _fill(request: AdmissionRequest) -> Object:
    pod = request.new or {}
    spec = section(pod, "spec")
    given = entries(spec, "tolerations")
    missing = [
        {"effect": "NoExecute", "key": taint, "operator": "Exists", "tolerationSeconds": SECONDS}
        for taint in _TAINTS
        if not any(_speaks_of(one, taint) for one in given)
    ]
    if not missing:
        return pod
    return {**pod, "spec": {**spec, "tolerations": [*given, *missing]}}


def _speaks_of(toleration: Object, taint: str) -> bool:
    return toleration.get("key") in (None, "", taint) and toleration.get("effect") in (None, "", "NoExecute")


def merged(first: Sequence[Object], second: Sequence[Object]) -> list[Object]:
    """Both lists, without what another toleration covers."""
    every = [*first, *second]
    made: list[Object] = []
    for index, one in enumerate(every):
        if any(_covers(other, one) for other in made):
            continue
        if any(other != one and _covers(other, one) for other in every[index + 1 :]):
            continue
        made.append(one)
    return made


def _covers(wide: Object, narrow: Object) -> bool:
    """Whether ``wide`` tolerates all that ``narrow`` does."""
    if wide == narrow:
        return True
    operator = wide.get("operator") or "Equal"
    if (wide.get("key") or "") != (narrow.get("key") or "") and (wide.get("key") or operator != "Exists"):
        return False
    if wide.get("effect") and wide.get("effect") != narrow.get("effect"):
        return False
    limit = wide.get("tolerationSeconds")
    if wide.get("effect") == "NoExecute" and limit is not None:
        other = narrow.get("tolerationSeconds")
        if other is None or other > limit:
            return False
    if operator == "Exists":
        return True
    return (narrow.get("operator") or "Equal") == "Equal" and (wide.get("value") or "") == (narrow.get("value") or "")
