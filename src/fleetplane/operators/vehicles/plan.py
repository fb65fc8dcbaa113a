"""What should be: from a VehPod and what it names to the one pod that should run.

Pure, and idempotent by construction: expansion starts from the VehPod's own spec every time, copies what it changes, and
never looks at a pod that exists. So nothing is ever injected twice, however often it runs.

Order matters and is kept: devices first, then configurations, each in the order they are named (section by section as
the operator of 2023 did it). Where two things claim the same volume, mount path or variable, the same claim is one
claim, and different ones are refused by name instead of surprising somebody at run time.
"""

from __future__ import annotations

import copy
import hashlib
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from fleetplane.model.objects import Object, labels
from fleetplane.operators.vehicles import arrangement, monitoring
from fleetplane.operators.vehicles.kinds import VehDeployment, VehPod
from fleetplane.operators.vehicles.limits import (
    LEVELS,
    Profile,
    Violation,
    config_violations,
    device_violation,
    domain_violations,
    level_of,
    level_violations,
    pod_violations,
    volumes_of,
)
from fleetplane.operators.vehicles.redundancy import MONITORING, PASSIVE, where_it_freezes
from fleetplane.operators.vehicles.reservations import reservation_violations

PREFIX: Final = "vehicles.fleetplane.io/"
FINALIZER: Final = PREFIX + "cleanup"
APP_TYPE_LABEL: Final = "application-type"
CLASS_LABEL: Final = PREFIX + "app-type"
"""Of a namespace that was made for a class."""
APPLICATION: Final = PREFIX + "application"
MICROSERVICE: Final = PREFIX + "microservice"
"""Labels of a microservice's workload and of its pods: by them an application is looked at as one."""
LEVEL: Final = PREFIX + "criticality"
OWNER: Final = PREFIX + "owner"
"""Annotation: kind/namespace/name of what a pod belongs to; pods live in another namespace than their owner."""
SPEC_HASH: Final = PREFIX + "spec-hash"
DEPENDENCY_HASH: Final = PREFIX + "dependency-hash"
DEVICES: Final = "node.fleetplane.io/devices"
"""Annotation read by the node: {container: [{source, target, permissions}]}, device nodes to be really given."""
HOST_PATHS: Final = PREFIX + "writable-host-paths"
"""Annotation for the scheduler, which does not see volumes: what of the host the pod may write, devices aside."""
RESERVATION: Final = "node.fleetplane.io/reservation"

LIMITS_NAME: Final = "vehicles"
"""Of the LimitRange, the ResourceQuota and the NetworkPolicy in the namespace of a class."""

PRIORITY_CLASSES: Final[Mapping[str, int]] = {
    f"vehicle-{'qm' if level == 'QM' else 'asil-' + level.lower()}": 1000 * (number + 1)
    for number, level in enumerate(LEVELS)
}
NODE_FACTS: Final[Mapping[str, str]] = {
    "NODE_NAME": "spec.nodeName",
    "NODE_IP": "status.hostIP",
    "POD_NAME": "metadata.name",
    "POD_NAMESPACE": "metadata.namespace",
    "POD_IP": "status.podIP",
}
"""${NAME} in a configuration that the node answers, by where a pod's own fields say it."""

_WHILE_IT_RUNS: Final = frozenset({"state", "onDependencyChange", "voting", "watcherLoss"})
_WHILE_IT_IS_WATCHED: Final = frozenset({"allowedActions", "heartbeatSeconds", "missedHeartbeats"})
_PLACEHOLDER: Final = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_MAX_VOLUME_NAME: Final = 63

Workload = VehPod | VehDeployment
Find = Callable[[str, str], Mapping[str, Any] | None]
"""(kind, name) to the object in the workload's namespace."""


@dataclass(frozen=True, slots=True)
class Dependencies:
    """What a workload names: what is there, and what is missing (``Kind/name``), both in the order named."""

    devices: tuple[Mapping[str, Any], ...] = ()
    configs: tuple[Mapping[str, Any], ...] = ()
    missing: tuple[str, ...] = ()


def dependencies_of(spec: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(kind, name) of everything a workload names, without repetition."""
    named = [("DevRes", str(one.get("devName") or "")) for one in spec.get("devResInfo") or ()]
    named += [("VehContainerConfig", str(one)) for one in spec.get("vehContainerConfigInfo") or ()]
    return list(dict.fromkeys(named))


def resolve(spec: Mapping[str, Any], find: Find) -> Dependencies:
    devices, configs = [], []
    found: dict[tuple[str, str], Mapping[str, Any] | None] = {one: find(*one) for one in dependencies_of(spec)}
    missing = [f"{kind}/{name}" for (kind, name), one in found.items() if one is None]
    for one in spec.get("devResInfo") or ():
        if (device := found["DevRes", str(one.get("devName") or "")]) is not None:
            devices.append(device)
    for name in spec.get("vehContainerConfigInfo") or ():
        if (config := found["VehContainerConfig", str(name)]) is not None:
            configs.append(config)
    return Dependencies(tuple(devices), tuple(configs), tuple(missing))


# -- checks


def container_index(index: int, count: int) -> tuple[int, str]:
    """The container an index means, counted from 0, and a warning where it must have been counted from 1.

    Raises IndexError. The original's samples say 1 for the only container.
    """
    if 0 <= index < count:
        return index, ""
    if count and index == count:
        return index - 1, f"container index {index} is taken to be counted from 1; the first container is 0"
    raise IndexError(f"there is no container {index}; the pod has {count}, counted from 0")


def index_violations(spec: Mapping[str, Any]) -> Iterator[Violation]:
    count = len((spec.get("podSpec") or {}).get("containers") or ())
    for name, used in (("devContainerIdx", "devResInfo"), ("vehContainerConfigIdx", "vehContainerConfigInfo")):
        if not count and not spec.get(used):
            continue
        try:
            container_index(int(spec.get(name) or 0), count)
        except IndexError as error:
            yield Violation("container-index", f"spec.{name}", str(error))


def violations(profile: Profile, app: str, spec: Mapping[str, Any], known: Dependencies) -> Iterator[Violation]:
    """Every rule a workload breaks, as far as its dependencies are known."""
    yield from level_violations(profile, str(spec.get("criticality") or ""))
    yield from reservation_violations(profile, spec.get("reservation") or {})
    yield from pod_violations(profile, spec.get("podSpec") or {})
    for index, device in enumerate(known.devices):
        if (found := device_violation(profile, app, device, f"spec.devResInfo[{index}].devName")) is not None:
            yield found
    for index, config in enumerate(known.configs):
        yield from config_violations(profile, config, f"spec.vehContainerConfigInfo[{index}]")


# -- expansion


class Refused(Exception):
    """The parts do not fit together."""

    def __init__(self, violation: Violation) -> None:
        super().__init__(str(violation))
        self.violation = violation


@dataclass(slots=True)
class _Draft:
    """A pod spec being put together."""

    spec: Object
    profile: Profile
    devices: dict[str, list[Object]] = field(default_factory=dict)

    def add_volume(self, volume: Mapping[str, Any], where: str) -> None:
        volumes: list[Any] = self.spec.setdefault("volumes", [])
        same = next((one for one in volumes if one.get("name") == volume.get("name")), None)
        if same is None:
            volumes.append(copy.deepcopy(dict(volume)))
        elif same != volume:
            name = volume.get("name")
            raise Refused(
                Violation("volume-conflict", where, f"volume {name} is already there and says something else")
            )

    def add_mount(self, container: Object, mount: Mapping[str, Any], where: str) -> None:
        mounts: list[Any] = container.setdefault("volumeMounts", [])
        same = next((one for one in mounts if one.get("mountPath") == mount.get("mountPath")), None)
        if same is None:
            mounts.append(copy.deepcopy(dict(mount)))
        elif same != mount:
            path = mount.get("mountPath")
            raise Refused(Violation("mount-conflict", where, f"something else is already mounted at {path}"))

    def add_env(self, container: Object, variable: Object, where: str, ours: dict[str, Object]) -> None:
        """A variable of the configuration wins over the container's own, as it always did."""
        name = str(variable.get("name"))
        if ours.setdefault(name, variable) != variable:
            raise Refused(Violation("env-conflict", where, f"two configurations give {name} different values"))
        env: list[Any] = container.setdefault("env", [])
        for index, one in enumerate(env):
            if one.get("name") == name:
                env[index] = variable
                return
        env.append(variable)


def expand(
    app: str, spec: Mapping[str, Any], known: Dependencies, profile: Profile, alike: Collection[str] = ()
) -> tuple[Object, Object]:
    """The pod spec with everything injected, and its annotations.

    Raises Refused. ``spec`` and the dependencies stay as they are. What one of the containers named in ``alike`` gets,
    all of them get.
    """
    draft = _Draft(copy.deepcopy(dict(spec.get("podSpec") or {})), profile)
    containers: list[Object] = draft.spec.get("containers") or []
    if known.devices:
        index = int(spec.get("devContainerIdx") or 0)
        for target in _containers(containers, index, alike, "spec.devContainerIdx"):
            for number, (wanted, device) in enumerate(zip(spec["devResInfo"], known.devices, strict=True)):
                _inject_device(draft, target, number, wanted, device)
    if known.configs:
        index = int(spec.get("vehContainerConfigIdx") or 0)
        for target in _containers(containers, index, alike, "spec.vehContainerConfigIdx"):
            ours: dict[str, Object] = {}
            for number, config in enumerate(known.configs):
                _inject_config(draft, target, config, f"spec.vehContainerConfigInfo[{number}]", ours)
    level = level_of(str(spec.get("criticality") or ""))
    annotations: Object = {LEVEL: level}
    if spec.get("criticality") and not draft.spec.get("priorityClassName"):
        draft.spec["priorityClassName"] = priority_class(level)
    if draft.devices:
        annotations[DEVICES] = orjson.dumps(draft.devices, option=orjson.OPT_SORT_KEYS).decode()
    if shared := writable_host_paths(draft.spec):
        annotations[HOST_PATHS] = ",".join(shared)
    if spec.get("reservation"):
        annotations[RESERVATION] = orjson.dumps(spec["reservation"], option=orjson.OPT_SORT_KEYS).decode()
    if profile.limited and not profile.spec.allow_privileged:
        for container in [*(draft.spec.get("initContainers") or ()), *containers]:
            _confine(container)
    for broken in domain_violations(profile, [e for c in containers for e in c.get("env") or ()], "spec.podSpec"):
        raise Refused(broken)
    return draft.spec, annotations


def _containers(containers: list[Object], index: int, alike: Collection[str], where: str) -> list[Object]:
    """The container that is meant, and those that stand for it."""
    try:
        meant = containers[container_index(index, len(containers))[0]]
    except IndexError as error:
        raise Refused(Violation("container-index", where, str(error))) from None
    return [one for one in containers if one.get("name") in alike] if meant.get("name") in alike else [meant]


def _confine(container: Object) -> None:
    """Limited applications start without capabilities; those they list (and may) are added back."""
    security = dict(container.get("securityContext") or {})
    security.setdefault("allowPrivilegeEscalation", False)
    capabilities = dict(security.get("capabilities") or {})
    capabilities["drop"] = ["ALL"]
    container["securityContext"] = {**security, "capabilities": capabilities}


def device_nodes(spec: Mapping[str, Any]) -> list[str]:
    """The device nodes of a DevRes: one or several."""
    path = spec.get("path")
    return [str(one) for one in path] if isinstance(path, list) else [str(path)] if path else []


def device_volume_name(device: str, number: int, node: int = 0) -> str:
    """``a.b.c`` at index 2 is ``a-b-c-mount-path-2``; further nodes of one device are numbered after that."""
    name = f"{device.replace('.', '-')}-mount-path-{number}" + (f"-{node}" if node else "")
    if len(name) <= _MAX_VOLUME_NAME:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:8]
    return f"{name[-(_MAX_VOLUME_NAME - 9) :].lstrip('-')}-{digest}"


def _inject_device(
    draft: _Draft, container: Object, number: int, wanted: Mapping[str, Any], device: Mapping[str, Any]
) -> None:
    name = str(wanted["devName"])
    where = f"spec.devResInfo[{number}]"
    spec = device.get("spec") or {}
    nodes = device_nodes(spec)
    if not nodes:
        raise Refused(Violation("device-path", where, f"DevRes {name} names no path"))
    for index, source in enumerate(nodes):
        # The first node appears where the application wants it, the others where the host has them.
        target = str(wanted["devDestPath"]) if index == 0 else source
        volume = device_volume_name(name, number, index)
        draft.add_volume({"name": volume, "hostPath": {"path": source}}, where)
        draft.add_mount(container, {"name": volume, "mountPath": target}, where)
        given = {"source": source, "target": target, "permissions": str(spec.get("permissions") or "rwm")}
        draft.devices.setdefault(str(container.get("name")), []).append(given)


def _inject_config(
    draft: _Draft, container: Object, config: Mapping[str, Any], where: str, ours: dict[str, Object]
) -> None:
    spec = config.get("spec") or {}
    for pair in volumes_of(spec):
        draft.add_volume(_filled(pair["volume"], draft.profile, where), where)
        draft.add_mount(container, pair["volumeMount"], where)
    for one in spec.get("piccoloEnv") or ():
        variable = copy.deepcopy(dict(one))
        if "value" in variable:
            variable["value"], facts = _fill(str(variable["value"]), draft.profile, where)
            for fact in facts:
                draft.add_env(container, _fact(fact), where, ours)
        draft.add_env(container, variable, where, ours)


def _filled(value: Any, profile: Profile, where: str) -> Any:
    """A volume with its placeholders filled; the node's facts have no place there."""
    if isinstance(value, Mapping):
        return {key: _filled(one, profile, where) for key, one in value.items()}
    if isinstance(value, list):
        return [_filled(one, profile, where) for one in value]
    if not isinstance(value, str):
        return value
    text, facts = _fill(value, profile, where)
    if facts:
        raise Refused(Violation("placeholder", where, f"${{{facts[0]}}} can stand in the environment only"))
    return text


def _fill(text: str, profile: Profile, where: str) -> tuple[str, list[str]]:
    """The text with ``${NAME}`` replaced, and the node's facts it refers to. Raises Refused for other names."""
    known, facts = profile.spec.placeholders, []

    def value(found: re.Match[str]) -> str:
        name = found[1]
        if name in known:
            return known[name]
        if name in NODE_FACTS:
            facts.append(name)
            return f"$({_fact_name(name)})"
        shown = f"${{{name}}} is not among the placeholders of AppType {profile.name}"
        raise Refused(Violation("placeholder", where, shown))

    return _PLACEHOLDER.sub(value, text), facts


def _fact_name(fact: str) -> str:
    return f"VEHICLE_{fact}"


def _fact(fact: str) -> Object:
    return {"name": _fact_name(fact), "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": NODE_FACTS[fact]}}}


def writable_host_paths(spec: Mapping[str, Any]) -> list[str]:
    paths = {
        str(one.get("name")): str(one["hostPath"].get("path"))
        for one in spec.get("volumes") or ()
        if one.get("hostPath")
    }
    containers = [*(spec.get("initContainers") or ()), *(spec.get("containers") or ())]
    mounts = [mount for one in containers for mount in one.get("volumeMounts") or ()]
    found = {paths[one["name"]] for one in mounts if one.get("name") in paths and not one.get("readOnly")}
    return sorted(path for path in found if not path.startswith("/dev/"))


def priority_class(level: str) -> str:
    return "vehicle-qm" if level == "QM" else f"vehicle-asil-{level.lower()}"


# -- whole objects


def digest(value: Any) -> str:
    return hashlib.sha256(orjson.dumps(value, option=orjson.OPT_SORT_KEYS)).hexdigest()[:16]


def pod_of(app: Workload, known: Dependencies, profile: Profile) -> Object:
    """The pod a VehPod should be: its own name, in its class's namespace. Raises Refused."""
    arranged = arrangement.arrange(app.spec.object)
    wanted = arrangement.effective(app.spec.object, arranged)
    alike = arranged.alike if arranged is not None else ()
    spec, annotations = expand(app.name, wanted, known, profile, alike)
    if arranged is not None:
        annotations |= arrangement.notes_of(arranged)
        if arranged.policy == MONITORING:
            known_to = monitoring.environment(app.name, profile.namespace, arranged.members, app.name)
            spec = monitoring.watching_within(spec, arranged.watcher, app.name, known_to)
        if arranged.policy == PASSIVE:
            spec = where_it_freezes(spec)
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": app.name,
            "namespace": profile.namespace,
            "labels": {APP_TYPE_LABEL: profile.name, **unit_labels(app)},
            "annotations": {
                **annotations,
                OWNER: f"{app.resource.kind}/{app.namespace}/{app.name}",
                SPEC_HASH: digest(making_of(app.spec.object)),
                DEPENDENCY_HASH: digest([spec, annotations]),
            },
        },
        "spec": spec,
    }


def making_of(spec: Mapping[str, Any]) -> Object:
    """Of a VehPod's spec what its pod is made from; the rest takes effect while it runs."""
    made = {key: value for key, value in spec.items() if key not in _WHILE_IT_RUNS}
    if watched := spec.get("monitoring"):
        made["monitoring"] = {key: value for key, value in watched.items() if key not in _WHILE_IT_IS_WATCHED}
    return made


def unit_labels(app: Workload) -> dict[str, str]:
    """The labels by which all pods of an application are found."""
    return {key: value for key, value in labels(app.object).items() if key in {APPLICATION, MICROSERVICE}}


def namespace_objects(profile: Profile) -> list[Object]:
    """The namespace of a class with its limits."""
    labels = {CLASS_LABEL: profile.name}
    name = profile.namespace
    made: list[Object] = [{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}]
    for version, kind, spec in (
        ("v1", "LimitRange", profile.spec.limit_range),
        ("v1", "ResourceQuota", profile.spec.resource_quota),
        ("networking.k8s.io/v1", "NetworkPolicy", profile.spec.network_policy),
    ):
        if spec is not None:
            meta = {"name": LIMITS_NAME, "namespace": name, "labels": labels}
            made.append({"apiVersion": version, "kind": kind, "metadata": meta, "spec": spec})
    return made


def phase_of(pod: Mapping[str, Any] | None) -> str:
    """A workload's phase, from its pod."""
    if pod is None:
        return "Admitted"
    if (pod.get("metadata") or {}).get("deletionTimestamp"):
        return "Terminating"
    status = pod.get("status") or {}
    match status.get("phase"):
        case "Failed":
            return "Failed"
        case "Succeeded":
            return "Succeeded"
        case "Running":
            return "Running" if is_ready(pod) else "Starting"
        case _:
            return "Starting" if (pod.get("spec") or {}).get("nodeName") else "Admitted"


def is_ready(pod: Mapping[str, Any]) -> bool:
    conditions: Sequence[Mapping[str, Any]] = (pod.get("status") or {}).get("conditions") or ()
    return any(one.get("type") == "Ready" and one.get("status") == "True" for one in conditions)


def must_replace(pod: Mapping[str, Any], wanted: Mapping[str, Any], on_dependency_change: str) -> bool:
    """Whether a pod that exists has to go before the wanted one can be: it ended for good, or is of another making."""
    if (pod.get("status") or {}).get("phase") == "Failed":
        return True
    have, want = ((one.get("metadata") or {}).get("annotations") or {} for one in (pod, wanted))
    if have.get(SPEC_HASH) != want.get(SPEC_HASH):
        return True
    return on_dependency_change == "Restart" and have.get(DEPENDENCY_HASH) != want.get(DEPENDENCY_HASH)


def may_keep(pod: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    """Whether the pod is of an older making that waits for its next start."""
    have, want = ((one.get("metadata") or {}).get("annotations") or {} for one in (pod, wanted))
    return have.get(DEPENDENCY_HASH) != want.get(DEPENDENCY_HASH)
