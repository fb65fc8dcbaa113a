"""Vehicle manifests as plain ones: for a Kubernetes without this operator, for Podman, and for systemd (Quadlet).

Pure: objects in, files out. The expansion is the operator's own (``plan``), so what is printed is what the plane would
run, and what the plane would refuse is refused here, by the name of the rule. What a target cannot do is told in
a note, never left out silently; what would be unsafe without the plane (a standby that nobody keeps frozen) is not rendered.

Sources: podman-kube-play(1), podman-systemd.unit(5) (``.kube`` units, Podman 4.4 or newer).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import orjson

from fleetplane.model import names, yaml
from fleetplane.model.objects import Object, labels, metadata, name
from fleetplane.operators.vehicles import arrangement, deployment, plan, redundancy
from fleetplane.operators.vehicles.application import application_violations, wanted_of
from fleetplane.operators.vehicles.kinds import GROUP, VehDeployment, VehPod
from fleetplane.operators.vehicles.limits import Profile, Violation, canonical, profile_of

FORMATS: Final = ("kubernetes", "podman", "quadlet")
_DATA: Final = ("DevRes", "VehContainerConfig", "AppType")
_WORKLOADS: Final = ("VehPod", "VehDeployment", "VehApplication")
_OURS: Final = (plan.OWNER, plan.SPEC_HASH, plan.DEPENDENCY_HASH)
_PLACED: Final = (
    "affinity",
    "nodeName",
    "nodeSelector",
    "priorityClassName",
    "runtimeClassName",
    "schedulerName",
    "serviceAccountName",
    "tolerations",
    "topologySpreadConstraints",
)
"""What only a scheduler or a server can do something with."""
_BLOCK: Final = re.compile(
    r"/dev/((sd|vd|hd|xvd)[a-z]+\d*|nvme\d+n\d+(p\d+)?|mmcblk\d+.*|(loop|ram|dm-|md|sr|zram)\d+)$"
)


class RenderError(ValueError):
    """The manifests cannot be rendered; the message is one sentence for people."""


class Rendering(NamedTuple):
    """``files``: name to content, in the order in which they should be applied. ``notes``: what does not come along."""

    files: Mapping[str, str]
    notes: tuple[str, ...]


@dataclass(slots=True)
class _Unit:
    """One pod that should run, what it came from, and the pods that run before it."""

    pod: Object
    profile: Profile
    source: str
    level: str
    after: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return name(self.pod)


@dataclass(slots=True)
class _Notes:
    told: dict[str, None] = field(default_factory=dict)

    def __call__(self, text: str) -> None:
        self.told[text] = None


def render(objects: Sequence[Object], form: str) -> Rendering:
    """Everything these manifests make run. Raises RenderError.

    Args:
        objects: Vehicle objects with all they name (DevRes, VehContainerConfig, AppType), and others, such as ConfigMaps.
        form: One of ``FORMATS``.
    """
    if form not in FORMATS:
        raise RenderError(f"the format {form} is none of {', '.join(FORMATS)}")
    notes = _Notes()
    ours = [one for one in objects if str(one.get("apiVersion") or "").startswith(f"{GROUP}/")]
    others = [one for one in objects if not str(one.get("apiVersion") or "").startswith(f"{GROUP}/")]
    table = {(str(one.get("kind")), _space(one), name(one)): one for one in ours}
    units: list[_Unit] = []
    for one in ours:
        kind = str(one.get("kind"))
        if kind in _WORKLOADS:
            units += _units(one, table, notes)
        elif kind not in _DATA:
            notes(f"{kind} {name(one)} is not rendered: it needs the plane")
    if not units:
        why = "; ".join(notes.told) or "there is no VehPod, VehDeployment or VehApplication"
        raise RenderError(f"nothing of these manifests would run: {why}")
    if form == "kubernetes":
        return Rendering(_kubernetes(units, others), tuple(notes.told))
    return Rendering(_podman(units, others, form == "quadlet", notes), tuple(notes.told))


def _space(obj: Mapping[str, Any]) -> str:
    return "" if obj.get("kind") == "AppType" else str(metadata(obj).get("namespace") or "default")


# -- what runs


def _units(obj: Object, table: Mapping[tuple[str, str, str], Object], notes: _Notes) -> list[_Unit]:
    what = f"{obj['kind']} {name(obj)}"
    if (obj.get("spec") or {}).get("state") == "Stopped":
        notes(f"{what} is not rendered: its state is Stopped")
        return []
    if obj["kind"] == "VehApplication":
        return _application(obj, table, notes)
    obj = {**obj, "metadata": {**metadata(obj), "namespace": _space(obj)}}
    spec = obj.get("spec") or {}
    app_type = canonical(str(spec.get("appType") or ""))
    profile = profile_of(app_type, table.get(("AppType", "", app_type)))
    if profile is None:
        raise RenderError(f"{what}: there is no AppType {app_type!r} in these manifests (rule app-type)")
    for called in (name(obj), profile.name, profile.namespace):  # they become names of files, and lines of units
        if wrong := names.dns1123_subdomain(called):
            raise RenderError(f"{what}: the name {called!r} is refused: {wrong[0]}")
    known = plan.resolve(spec, lambda kind, wanted: table.get((kind, _space(obj), wanted)))
    if known.missing:
        raise RenderError(f"{what} names {', '.join(known.missing)}; give the manifests of these too")
    _refuse(what, plan.violations(profile, name(obj), spec, known))
    try:
        _check_policy(spec, what, notes)
        if obj["kind"] == "VehPod":
            _refuse(what, arrangement.violations(profile, spec))
            _refuse(what, plan.index_violations(arrangement.effective(spec, arrangement.arrange(spec))))
            pods = [plan.pod_of(VehPod.view(obj), known, profile)]
        else:
            _refuse(what, redundancy.arrangement_violations(profile, spec))
            app, planned = VehDeployment.view(obj), redundancy.instances_of(spec)
            pods = [deployment.pod_of(app, one, known, profile, apart=True) for one in planned]
    except plan.Refused as error:
        raise RenderError(f"{what}: {error}") from None
    level = str(spec.get("criticality") or "")
    return [_Unit(pod, profile, what, level) for pod in pods]


def _check_policy(spec: Mapping[str, Any], what: str, notes: _Notes) -> None:
    policy = redundancy.policy_of(str(spec.get("deploymentPolicy") or ""))
    if policy == redundancy.PASSIVE:
        raise RenderError(f"{what} keeps one active and the others frozen, which only the plane can do")
    if policy == redundancy.MONITORING:
        raise RenderError(f"{what} has a watcher that asks the plane for what is to be done; there is none to ask")
    if policy == redundancy.N_MODULAR:
        notes(f"{what}: its voters run, and nobody counts what they say")


def _application(obj: Object, table: Mapping[tuple[str, str, str], Object], notes: _Notes) -> list[_Unit]:
    """Its microservices in the order of their dependencies."""
    spec, app = obj.get("spec") or {}, name(obj)
    _refuse(f"VehApplication {app}", application_violations(spec))
    notes(f"VehApplication {app}: its microservices are not updated one by one, nor taken back by themselves")
    wanted = {one.name: one for one in wanted_of(spec)}
    made: dict[str, list[_Unit]] = {}

    def add(service: str) -> None:
        if service in made:
            return
        one = wanted[service]
        for each in one.depends_on:
            add(each)
        unit_labels = {plan.APPLICATION: app, plan.MICROSERVICE: service}
        meta = {"name": f"{app}-{service}", "namespace": _space(obj), "labels": unit_labels}
        child = {"apiVersion": obj["apiVersion"], "kind": one.kind, "metadata": meta, "spec": one.spec}
        before = tuple(unit.name for each in one.depends_on for unit in made[each])
        made[service] = _units(child, table, notes)
        for unit in made[service]:
            unit.after = before

    for service in wanted:
        add(service)
    return [unit for units in made.values() for unit in units]


def _refuse(what: str, broken: Iterable[Violation]) -> None:
    for one in broken:
        raise RenderError(f"{what}: {one}")


# -- Kubernetes


def _kubernetes(units: Sequence[_Unit], others: Sequence[Object]) -> dict[str, str]:
    """Namespaces and classes first, then what was given, then pods."""
    profiles = {one.profile.name: one.profile for one in units}
    spaces = [made for key in sorted(profiles) for made in plan.namespace_objects(profiles[key])]
    classes: list[Object] = [
        {
            "apiVersion": "scheduling.k8s.io/v1",
            "kind": "PriorityClass",
            "metadata": {"name": plan.priority_class(level)},
            "value": plan.PRIORITY_CLASSES[plan.priority_class(level)],
            "description": f"Vehicle workloads of criticality {level}.",
        }
        for level in sorted({one.level for one in units if one.level})
    ]
    files = {"00-namespaces.yaml": yaml.dump_all(spaces)}
    if classes:
        files["10-priority-classes.yaml"] = yaml.dump_all(classes)
    if others:
        files["20-others.yaml"] = yaml.dump_all(others)
    for one in units:
        files[f"30-{one.pod['metadata']['namespace']}-{one.name}.yaml"] = yaml.dump_all([_plain(one.pod)])
    return files


def _plain(pod: Object) -> Object:
    """Without the operator's book-keeping."""
    meta = dict(pod["metadata"])
    meta["annotations"] = {key: value for key, value in meta["annotations"].items() if key not in _OURS}
    return {**pod, "metadata": meta}


# -- Podman


def _podman(units: Sequence[_Unit], others: Sequence[Object], quadlet: bool, notes: _Notes) -> dict[str, str]:
    maps = {name(one): one for one in others if one.get("kind") == "ConfigMap"}
    for one in others:
        if one.get("kind") != "ConfigMap":
            notes(f"{one.get('kind')} {name(one)} is not rendered: Podman is not given it")
    files: dict[str, str] = {}
    for unit in units:
        file = f"{unit.name}.yaml"
        if file in files:
            raise RenderError(f"two pods are called {unit.name}; Podman has no namespaces, so rename one")
        pod = _for_podman(unit, notes)
        needed = [maps[key] for key in sorted(_config_maps(pod["spec"]) & maps.keys())]
        files[file] = yaml.dump_all([*needed, pod])
        if quadlet:
            files[f"{unit.name}.kube"] = _kube_unit(unit, file)
    return files


def _for_podman(unit: _Unit, notes: _Notes) -> Object:
    """The pod as ``podman kube play`` wants it: devices by type, limits of the class written out, no scheduling."""
    annotations = unit.pod["metadata"]["annotations"]
    spec: Object = {key: value for key, value in unit.pod["spec"].items() if key not in _PLACED}
    if dropped := [key for key in _PLACED if unit.pod["spec"].get(key)]:
        notes(f"{unit.source}: Podman does not know {', '.join(dropped)}")
    if plan.RESERVATION in annotations:
        notes(f"{unit.source}: its reservation is not applied")
    given = [one for some in orjson.loads(annotations.get(plan.DEVICES) or "{}").values() for one in some]
    for one in given:
        if one["permissions"] != "rwm":
            notes(f"{unit.source}: device {one['source']} is given with all permissions")
    nodes = {one["source"] for one in given}
    spec["volumes"] = [_device_typed(one, nodes) for one in spec.get("volumes") or ()]
    if not spec["volumes"]:
        del spec["volumes"]
    defaults = _defaults(unit.profile)
    for kind in ("initContainers", "containers"):
        if spec.get(kind):
            spec[kind] = [_container(one, unit, defaults) for one in spec[kind]]
    meta = {
        "name": unit.name,
        "labels": labels(unit.pod),
        "annotations": {plan.LEVEL: annotations[plan.LEVEL]},
    }
    return {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec}


def _device_typed(volume: Mapping[str, Any], nodes: set[str]) -> Object:
    """A hostPath of a device type is a device in the container's cgroup, as ``--device`` gives it."""
    path = str((volume.get("hostPath") or {}).get("path") or "")
    if path not in nodes:
        return dict(volume)
    kind = "BlockDevice" if _BLOCK.match(path) else "CharDevice"
    return {**volume, "hostPath": {**volume["hostPath"], "type": kind}}


def _defaults(profile: Profile) -> Mapping[str, Mapping[str, Any]]:
    """What the class's LimitRange would fill in; there is no server to do it."""
    for one in (profile.spec.limit_range or {}).get("limits") or ():
        if one.get("type") == "Container":
            return {"limits": one.get("default") or {}, "requests": one.get("defaultRequest") or {}}
    return {}


def _container(container: Mapping[str, Any], unit: _Unit, defaults: Mapping[str, Mapping[str, Any]]) -> Object:
    made: Object = dict(container)
    if defaults:
        asked = container.get("resources") or {}
        made["resources"] = {
            **asked,
            **{key: {**some, **(asked.get(key) or {})} for key, some in defaults.items()},
        }
    if container.get("env"):
        made["env"] = [_variable(one, unit) for one in container["env"]]
    return made


def _variable(variable: Mapping[str, Any], unit: _Unit) -> Object:
    path = ((variable.get("valueFrom") or {}).get("fieldRef") or {}).get("fieldPath")
    if path is None or path == "metadata.name" or str(path).startswith(("metadata.labels", "metadata.annotations")):
        return dict(variable)
    if path == "metadata.namespace":
        return {"name": variable["name"], "value": unit.pod["metadata"]["namespace"]}
    raise RenderError(f"{unit.source}: {variable['name']} is the pod's {path}, which Podman cannot say")


def _config_maps(spec: Mapping[str, Any]) -> set[str]:
    def names() -> Iterator[Any]:
        for one in spec.get("volumes") or ():
            yield (one.get("configMap") or {}).get("name")
        for container in [*(spec.get("initContainers") or ()), *(spec.get("containers") or ())]:
            for one in container.get("envFrom") or ():
                yield (one.get("configMapRef") or {}).get("name")
            for one in container.get("env") or ():
                yield ((one.get("valueFrom") or {}).get("configMapKeyRef") or {}).get("name")

    return {str(one) for one in names() if one}


def _kube_unit(unit: _Unit, file: str) -> str:
    """A unit for /etc/containers/systemd. Names are DNS labels, so nothing here needs quoting."""
    level = f", criticality {unit.level}" if unit.level else ""
    lines = ["[Unit]", f"Description={unit.source} ({unit.profile.name}{level})"]
    for one in unit.after:
        lines += [f"Requires={one}.service", f"After={one}.service"]
    lines += ["", "[Kube]", f"Yaml={file}", "", "[Install]", "WantedBy=default.target", ""]
    return "\n".join(lines)


__all__ = ["FORMATS", "RenderError", "Rendering", "render"]
