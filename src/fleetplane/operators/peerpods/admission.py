"""What is refused and what is filled in: configs that could not work, and pods that are to become peer pods.

A peer pod runs in a VM beside the node, so what it asks of the node is one thing only: a VM. What it asked for before
becomes the size of that VM, written in annotations, and is remembered whole in one more annotation. Asked again, the
same comes out; asked again after somebody added a container, that one counts too. What users wrote themselves wins.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

import orjson

from fleetplane.model.admission import (
    ALLOWED,
    AdmissionPlugin,
    AdmissionRequest,
    AdmissionRule,
    Decision,
    Elsewhere,
    Reader,
    changed,
    validating,
)
from fleetplane.model.errors import FieldError
from fleetplane.model.names import dns1123_subdomain, label_key, label_value
from fleetplane.model.objects import Object, finalizers, is_deleting
from fleetplane.model.pod_resources import pod_limits, pod_requests
from fleetplane.model.quantity import ZERO, Quantity
from fleetplane.operators.peerpods.kinds import FINALIZER, GROUP, RUNTIME_CLASS, VM_RESOURCE, PeerPod, PeerPodConfig
from fleetplane.operators.peerpods.plan import BadLimit, parse_limit

HYPERVISOR: Final = "io.katacontainers.config.hypervisor."
VCPUS: Final = HYPERVISOR + "default_vcpus"
MEMORY: Final = HYPERVISOR + "default_memory"
GPUS: Final = HYPERVISOR + "default_gpus"
GPU: Final = "nvidia.com/gpu"
ORIGINAL: Final = f"{GROUP}/original-resources"
"""What the containers asked for (JSON), and which annotations followed from it."""
EXEMPT: Final = frozenset({"kube-system", "peer-pods-webhook-system"})
MAX_ORIGINAL: Final = 64 * 1024

_MEBI: Final = 1 << 20
_LISTS: Final = ("initContainers", "containers")
_POD: Final = ""
"""The name under which amounts of the pod itself are remembered: no container can have it."""


def as_peer_pod(pod: Object) -> Object:
    """The pod as it should be; the same object when it is that already. Raises ValueError for a malformed quantity."""
    spec, meta = pod.get("spec") or {}, pod.get("metadata") or {}
    given: Mapping[str, str] = meta.get("annotations") or {}
    remembered = _remembered(given.get(ORIGINAL))
    asked = {name: found for name, found in _asked(spec, remembered["resources"]).items() if found}
    computed = size_of(_with_resources(spec, asked))
    earlier = remembered["annotations"]
    kept = {key: value for key, value in given.items() if key != ORIGINAL and earlier.get(key) != value}
    ours = {key: value for key, value in computed.items() if key not in kept}
    note = orjson.dumps({"resources": asked, "annotations": ours}, option=orjson.OPT_SORT_KEYS).decode()
    made = {
        **pod,
        "metadata": {**meta, "annotations": {**kept, **ours, ORIGINAL: note}},
        "spec": _with_resources(spec, {_first(spec): {"requests": {VM_RESOURCE: "1"}, "limits": {VM_RESOURCE: "1"}}}),
    }
    return pod if made == pod else made


def size_of(spec: Mapping[str, Any]) -> dict[str, str]:
    """The annotations that say how large the VM is.

    The limit where there is one that is not below the request, otherwise the request; whole cores and MiB, rounded up.
    Init containers count by the scheduler's rule (the largest of them, and those that stay for all time); the overhead
    of the runtime class is the node's, not the VM's.
    """
    pod = {"spec": spec}
    requests, limits = pod_requests(pod, overhead=False), pod_limits(pod, overhead=False)

    def chosen(resource: str) -> Quantity:
        request, limit = requests.get(resource, ZERO), limits.get(resource, ZERO)
        return limit if request <= limit else request

    amounts = {
        VCPUS: chosen("cpu").value(),
        MEMORY: -(-chosen("memory").value() // _MEBI),
        GPUS: requests.get(GPU, limits.get(GPU, ZERO)).value(),
    }
    return {key: str(amount) for key, amount in amounts.items() if amount > 0}


def _asked(spec: Mapping[str, Any], remembered: Mapping[str, Any]) -> dict[str, Any]:
    """What each container asks for: what it says now, or what it said before it was changed to a VM."""
    found = {}
    holders = [(_POD, spec), *((str(one.get("name")), one) for key in _LISTS for one in spec.get(key) or ())]
    for name, holder in holders:
        now = _without_vm(holder.get("resources") or {})
        found[name] = now or remembered.get(name) or {}
    return found


def _without_vm(resources: Mapping[str, Any]) -> Object:
    """Requests and limits, without the VM; a limit alone is a request too. Claims of devices stay out: see docs."""
    limits = {key: value for key, value in (resources.get("limits") or {}).items() if key != VM_RESOURCE}
    requests = {key: value for key, value in (resources.get("requests") or {}).items() if key != VM_RESOURCE}
    requests = {**limits, **requests}
    return {key: value for key, value in (("requests", requests), ("limits", limits)) if value}


def _with_resources(spec: Mapping[str, Any], resources: Mapping[str, Any]) -> Object:
    """The spec, with exactly these resources by container. A container without any keeps no field."""

    def put(holder: Mapping[str, Any], name: str) -> Object:
        had = holder.get("resources") or {}
        wanted = {**{key: had[key] for key in had if key not in {"requests", "limits"}}, **(resources.get(name) or {})}
        rest = {key: value for key, value in holder.items() if key != "resources"}
        return {**rest, "resources": wanted} if wanted or ("resources" in holder and name != _POD) else rest

    made = put(spec, _POD)
    for key in _LISTS:
        if key in spec:
            made[key] = [put(one, str(one.get("name"))) for one in spec[key]]
    return made


def _first(spec: Mapping[str, Any]) -> str:
    containers = spec.get("containers") or ()
    return str(containers[0].get("name")) if containers else "\0"


def _remembered(text: str | None) -> dict[str, Any]:
    """What an earlier time left behind. Anything else that stands there is as nothing."""
    nothing: dict[str, Any] = {"resources": {}, "annotations": {}}
    if not text or len(text) > MAX_ORIGINAL:
        return nothing
    try:
        found = orjson.loads(text)
    except orjson.JSONDecodeError:
        return nothing
    if not isinstance(found, dict) or not all(isinstance(found.get(key), dict) for key in nothing):
        return nothing
    good = {
        name: one
        for name, one in found["resources"].items()
        if isinstance(one, dict) and all(isinstance(amounts, dict) for amounts in one.values())
    }
    return {"resources": good, "annotations": found["annotations"]}


async def _mutate_pod(request: AdmissionRequest, _reader: Reader) -> Decision:
    pod = request.new or {}
    if request.namespace in EXEMPT or (pod.get("spec") or {}).get("runtimeClassName") != RUNTIME_CLASS:
        return ALLOWED
    try:
        made = as_peer_pod(pod)
    except (ValueError, TypeError):
        return ALLOWED  # validation says better what is wrong with it
    if made is pod:
        return ALLOWED
    return changed(made, *_warnings(made))


def _warnings(pod: Mapping[str, Any]) -> Iterator[str]:
    note = orjson.loads(pod["metadata"]["annotations"][ORIGINAL])
    known = {"cpu", "memory", GPU}
    others = {key for one in note["resources"].values() for amounts in one.values() for key in amounts} - known
    if others:
        yield f"a peer pod asks its node for one VM only; kept in the annotation {ORIGINAL}: {', '.join(sorted(others))}"


async def _fill_record(request: AdmissionRequest, _reader: Reader) -> Decision:
    """The finalizer, before there is a VM that it guards."""
    new = request.new or {}
    if FINALIZER in finalizers(new):
        return ALLOWED
    return changed({**new, "metadata": {**(new.get("metadata") or {}), "finalizers": [*finalizers(new), FINALIZER]}})


def _check_config(request: AdmissionRequest) -> Iterator[FieldError]:
    new = request.new or {}
    if is_deleting(new):
        return
    spec = new.get("spec") or {}
    try:
        parse_limit(spec.get("limit"))
    except BadLimit as error:
        yield FieldError.invalid("spec.limit", spec.get("limit"), str(error).split(" ", 1)[1])
    for key in ("cloudSecretName", "configMapName"):
        for problem in dns1123_subdomain(spec[key]) if spec.get(key) else ():
            yield FieldError.invalid(f"spec.{key}", spec[key], problem)
    for key, value in (spec.get("nodeSelector") or {}).items():
        for problem in label_key(key):
            yield FieldError.invalid("spec.nodeSelector", key, problem)
        for problem in label_value(value):
            yield FieldError.invalid(f"spec.nodeSelector[{key}]", value, problem)


def _check_record(request: AdmissionRequest) -> Iterator[FieldError]:
    """A record never comes to speak of another VM: the one it spoke of would be forgotten."""
    new, old = (request.new or {}).get("spec") or {}, (request.old or {}).get("spec") or {}
    if request.old is None:
        if new.get("vm") is not None and not new.get("cloudProvider"):
            yield FieldError.required("spec.cloudProvider", "who shall make the VM")
        return
    for key in ("cloudProvider", "instanceID"):
        if old.get(key) and new.get(key) != old[key]:
            yield FieldError.forbidden(f"spec.{key}", "is fixed once it is set; make a new PeerPod")
    fixed = [{k: v for k, v in (one.get("vm") or {}).items() if k not in _SIZES} for one in (old, new)]
    if fixed[0] != fixed[1] or (old.get("vm") is None) != (new.get("vm") is None):
        yield FieldError.forbidden("spec.vm", "only vcpus, memoryMiB and instanceType of a VM can change")


_SIZES: Final = frozenset({"vcpus", "memoryMiB", "instanceType"})

PLUGINS: Final = (
    # After LimitRanger (100), which would give amounts back to containers that have lost theirs here.
    AdmissionPlugin(
        "pods.peerpods.fleetplane.io",
        "mutate",
        [AdmissionRule(["pods"], ["CREATE"])],
        _mutate_pod,
        order=105,
        elsewhere=Elsewhere(
            namespaces={
                "matchExpressions": [
                    {"key": "kubernetes.io/metadata.name", "operator": "NotIn", "values": sorted(EXEMPT)}
                ]
            }
        ),
    ),
    AdmissionPlugin("fill.peerpods.fleetplane.io", "mutate", [AdmissionRule([PeerPod], ["CREATE"])], _fill_record),
    validating("check-config.peerpods.fleetplane.io", [AdmissionRule([PeerPodConfig])], _check_config),
    validating("check-record.peerpods.fleetplane.io", [AdmissionRule([PeerPod])], _check_record),
)
