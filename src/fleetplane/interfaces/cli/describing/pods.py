"""Pods, and what objects that make pods say about them: containers, volumes, where they run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fleetplane.interfaces.cli.connection import Session
from fleetplane.interfaces.cli.describing.sheet import Sheet
from fleetplane.interfaces.cli.readiness import container_trouble
from fleetplane.model.objects import Object
from fleetplane.model.table import time_since


def describe(session: Session, sheet: Sheet, obj: Object) -> None:
    spec, status = obj.get("spec") or {}, obj.get("status") or {}
    sheet.field("Phase", status.get("phase"))
    sheet.field("Message", status.get("message") or status.get("reason"))
    sheet.field("Node", _node(spec, status))
    sheet.field("Addresses", ", ".join(one.get("ip", "") for one in status.get("podIPs") or []) or status.get("podIP"))
    sheet.field("Priority", spec.get("priorityClassName"))
    sheet.field("Quality", status.get("qosClass"))
    sheet.field("Account", spec.get("serviceAccountName"))
    sheet.field("Runtime", spec.get("runtimeClassName"))
    template(session, sheet, spec, status)
    scheduling(sheet, spec)


def template(session: Session, sheet: Sheet, spec: Object, status: Object) -> None:
    """The containers and volumes of a pod, or of a pod template (then without status)."""
    for group, states, label in (
        ("initContainers", "initContainerStatuses", "Init container"),
        ("containers", "containerStatuses", "Container"),
        ("ephemeralContainers", "ephemeralContainerStatuses", "Ephemeral container"),
    ):
        known = {one.get("name"): one for one in status.get(states) or []}
        for one in spec.get(group) or []:
            sheet.block(f"{label} {one.get('name')}", _container(session, one, known.get(one.get("name"))))
    sheet.table("Volumes", ("NAME", "FROM"), [[one.get("name"), _volume(one)] for one in spec.get("volumes") or []])


def scheduling(sheet: Sheet, spec: Object) -> None:
    sheet.pairs("Node selector", spec.get("nodeSelector") or {})
    sheet.field("Tolerations", ", ".join(_toleration(one) for one in spec.get("tolerations") or []))


def _node(spec: Object, status: Object) -> str:
    host = status.get("hostIP")
    return f"{spec.get('nodeName')}" + (f" ({host})" if host else "") if spec.get("nodeName") else "not placed yet"


def _container(session: Session, one: Object, status: Object | None) -> list[str]:
    resources = one.get("resources") or {}
    lines = [("image", one.get("image"))]
    if status is not None:
        lines += [("state", _state(session, status)), ("restarts", status.get("restartCount"))]
        last = (status.get("lastState") or {}).get("terminated")
        if last:
            lines.append(("before", f"ended with exit code {last.get('exitCode')} ({last.get('reason')})"))
    lines += [
        ("command", _command(one)),
        (
            "ports",
            ", ".join(
                f"{port.get('containerPort')}/{port.get('protocol') or 'TCP'}" for port in one.get("ports") or []
            ),
        ),
        ("requests", _amounts(resources.get("requests"))),
        ("limits", _amounts(resources.get("limits"))),
        *(
            (f"{probe} probe", _probe(one[f"{probe}Probe"]))
            for probe in ("startup", "readiness", "liveness")
            if one.get(f"{probe}Probe")
        ),
        ("environment", ", ".join(_variable(variable) for variable in one.get("env") or [])),
        (
            "mounts",
            ", ".join(f"{mount.get('mountPath')} from {mount.get('name')}" for mount in one.get("volumeMounts") or []),
        ),
    ]
    return [f"{label}: {value}" for label, value in lines if value not in (None, "")]


def _state(session: Session, status: Object) -> str:
    state = status.get("state") or {}
    if running := state.get("running"):
        ready = "" if status.get("ready") else ", not ready"
        return f"running for {time_since(running.get('startedAt'), session.environment.now())}{ready}"
    if ended := state.get("terminated"):
        return f"ended with exit code {ended.get('exitCode')} ({ended.get('reason')})"
    return container_trouble(status) or "waiting"


def _command(one: Object) -> str:
    return " ".join(str(part) for part in [*(one.get("command") or []), *(one.get("args") or [])])


def _amounts(amounts: Mapping[str, Any] | None) -> str:
    return ", ".join(f"{key} {value}" for key, value in sorted((amounts or {}).items()))


def _variable(variable: Object) -> str:
    source = variable.get("valueFrom") or {}
    for kind in ("secretKeyRef", "configMapKeyRef", "fieldRef", "resourceFieldRef"):
        if kind in source:
            found = source[kind]
            return f"{variable.get('name')} from {found.get('name') or found.get('fieldPath') or found.get('resource')}"
    return f"{variable.get('name')}={variable.get('value') or ''}"


def _probe(probe: Object) -> str:
    if http := probe.get("httpGet"):
        how = f"HTTP {http.get('path') or '/'} on port {http.get('port')}"
    elif tcp := probe.get("tcpSocket"):
        how = f"TCP on port {tcp.get('port')}"
    elif command := probe.get("exec"):
        how = " ".join(command.get("command") or [])
    else:
        how = f"gRPC on port {(probe.get('grpc') or {}).get('port')}"
    return f"{how}, every {probe.get('periodSeconds') or 10}s"


def _volume(volume: Object) -> str:
    for kind, found in volume.items():
        if kind == "name" or not isinstance(found, dict):
            continue
        which = (
            found.get("name")
            or found.get("secretName")
            or found.get("claimName")
            or found.get("path")
            or found.get("driver")
        )
        return f"{kind} {which}" if which else kind
    return "emptyDir"


def _toleration(one: Object) -> str:
    what = str(one.get("key") or "everything") + (f"={one['value']}" if one.get("value") else "")
    effect = f":{one['effect']}" if one.get("effect") else ""
    limit = f" for {one['tolerationSeconds']}s" if one.get("tolerationSeconds") is not None else ""
    return f"{what}{effect}{limit}"
