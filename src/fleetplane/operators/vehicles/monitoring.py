"""What a watcher may see, say and ask for: the restricted control interface of the policy Monitoring.

Pure. For every monitored workload there is one VehMonitor beside its pods. The watcher writes its spec: heartbeats, a
verdict for each primary, and one request at a time. The operator writes its status: the primaries and how they do, what
became of the last request, and which primaries are stopped because of one. A request is judged once, by its id, against
``spec.monitoring`` of the workload; who has written a newer one has given up on the older.

The watcher runs under a ServiceAccount of its own. Its Role names what it may touch, one by one: the pods of its
primaries (to read), their logs, and its own VehMonitor. All three belong to the VehMonitor and go with it.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final, Literal, NamedTuple

from fleetplane.model.objects import Object

ACCEPTED: Final = "Accepted"
DONE: Final = "Done"
REFUSED: Final = "Refused"
ALIVE: Final = "Alive"
STARTING: Final = "Starting"
LOST: Final = "Lost"
Pulse = Literal["Starting", "Alive", "Lost"]
TOKEN_PATH: Final = "/var/run/secrets/kubernetes.io/serviceaccount"  # noqa: S105 - a path
_TOKEN_VOLUME: Final = "watcher-access"  # noqa: S105 - a name
_RBAC: Final = "rbac.authorization.k8s.io"
_GROUP: Final = "crd.piccolo.org"


# -- requests


class Answer(NamedTuple):
    """``status``: the fields that change."""

    status: Object
    state: str
    text: str


def judge(
    request: Mapping[str, Any] | None,
    allowed: Collection[str],
    targets: Mapping[str, str],
    status: Mapping[str, Any],
) -> Answer | None:
    """What becomes of a request that has not been judged; ``None`` where there is none.

    Args:
        targets: Every primary by name, with what runs it now: the uid of a pod or the id of a container, or nothing.
        status: The VehMonitor's.
    """
    before = status.get("outcome") or {}
    if not request or not request.get("id") or request["id"] == before.get("id"):
        return None
    action, primary = str(request.get("action") or ""), str(request.get("primary") or "")
    outcome: Object = {"id": str(request["id"]), "action": action, "state": ACCEPTED}
    if primary:
        outcome["primary"] = primary
    held = set(held_of(status, targets))
    refusal = _refusal(action, primary, allowed, targets, held)
    if refusal is not None:
        rule, text = refusal
        said = f"{action} {primary}: {text} (rule {rule})"
        return Answer({"outcome": _whole({**outcome, "state": REFUSED, "rule": rule, "message": text})}, REFUSED, said)
    safe = bool(status.get("safe"))
    meant = {primary} if primary else set(targets)
    match action:
        case "restart":
            outcome["target"] = targets[primary]
        case "stop":
            held |= meant
        case "start":
            held, safe = held - meant, False
        case _:
            held, safe = set(targets), True
    said = " ".join(filter(None, [action, primary, str(request.get("reason") or "")]))
    return Answer({"outcome": _whole(outcome), "held": sorted(held), "safe": safe}, ACCEPTED, said)


def _refusal(
    action: str, primary: str, allowed: Collection[str], targets: Mapping[str, str], held: Collection[str]
) -> tuple[str, str] | None:
    if action not in allowed:
        listed = ", ".join(sorted(allowed)) or "nothing"
        return "monitor-action", f"spec.monitoring.allowedActions lists {listed}"
    if primary and primary not in targets:
        return "monitor-primary", f"it is none of {', '.join(sorted(targets))}"
    if action == "restart" and not primary:
        return "monitor-primary", "name the primary that is to be restarted"
    if action == "restart" and primary in held:
        return "monitor-state", "it is stopped; ask for start"
    return None


def _whole(outcome: Object) -> Object:
    """With every field, so that a merge leaves nothing of the outcome before."""
    usual: Object = {"primary": None, "rule": None, "message": None, "target": None}
    return {**usual, **{key: value for key, value in outcome.items() if value != ""}}


def held_of(status: Mapping[str, Any], primaries: Collection[str]) -> list[str]:
    """The primaries that must not run. In the safe state also those that were added since."""
    if status.get("safe"):
        return sorted(primaries)
    return sorted(set(status.get("held") or ()) & set(primaries))


def restarting(status: Mapping[str, Any], targets: Mapping[str, str]) -> str:
    """The primary that must make way for its successor: what was to be restarted is still there."""
    outcome = status.get("outcome") or {}
    name, target = str(outcome.get("primary") or ""), outcome.get("target")
    waits = outcome.get("action") == "restart" and outcome.get("state") == ACCEPTED
    return name if waits and target and targets.get(name) == target else ""


def finished(status: Mapping[str, Any], targets: Mapping[str, str]) -> Object | None:
    """The status once what was accepted has come true; ``None`` while it has not, or where nothing is due."""
    outcome = status.get("outcome") or {}
    if outcome.get("state") != ACCEPTED or restarting(status, targets):
        return None
    if any(targets.get(name) for name in held_of(status, targets)) and outcome.get("action") != "restart":
        return None
    return {"outcome": {"state": DONE}}


# -- heartbeats


def pulse(*, ready: bool, since: float, beat: float | None, now: float, window: float) -> Pulse:
    """Whether the watcher is there. Times are monotonic seconds.

    Args:
        since: When this watcher was first seen.
        beat: Its last heartbeat; ``None`` before its first.
        window: How long it may be silent; 0 where it need not say anything.
    """
    if not ready:
        return STARTING
    if not window:
        return ALIVE
    if now - (since if beat is None else beat) > window:
        return LOST
    return STARTING if beat is None else ALIVE


def window_of(monitoring: Mapping[str, Any]) -> float:
    return float(monitoring.get("heartbeatSeconds") or 0) * int(monitoring.get("missedHeartbeats") or 3)


def verdicts_of(spec: Mapping[str, Any]) -> dict[str, Object]:
    """What the watcher says of each primary: the fields of an instance."""
    found: dict[str, Object] = {}
    for one in spec.get("verdicts") or ():
        said = {key: str(one[key]) for key in ("verdict", "message") if one.get(key)}
        found[str(one.get("primary"))] = said
    return found


# -- objects


def monitor_of(name: str, namespace: str, labels: Mapping[str, str], annotations: Mapping[str, str]) -> Object:
    meta = {"name": name, "namespace": namespace, "labels": dict(labels), "annotations": dict(annotations)}
    return {"apiVersion": f"{_GROUP}/v1alpha1", "kind": "VehMonitor", "metadata": meta}


def access_of(monitor: Mapping[str, Any], pods: Sequence[str]) -> list[Object]:
    """The ServiceAccount, Role and RoleBinding of a VehMonitor's watcher. ``pods``: those it may read."""
    meta = monitor["metadata"]
    name, namespace = str(meta["name"]), str(meta["namespace"])
    owner = {
        "apiVersion": f"{_GROUP}/v1alpha1",
        "kind": "VehMonitor",
        "name": name,
        "uid": meta["uid"],
        "controller": True,
    }
    own = {"name": name, "namespace": namespace, "ownerReferences": [owner]}
    names = list(pods)
    rules: list[Object] = [
        {"apiGroups": [""], "resources": ["pods"], "resourceNames": names, "verbs": ["get", "list", "watch"]},
        {"apiGroups": [""], "resources": ["pods/log"], "resourceNames": names, "verbs": ["get"]},
        {
            "apiGroups": [_GROUP],
            "resources": ["vehmonitors"],
            "resourceNames": [name],
            "verbs": ["get", "list", "watch", "patch", "update"],
        },
    ]
    return [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": own},
        {"apiVersion": f"{_RBAC}/v1", "kind": "Role", "metadata": own, "rules": rules},
        {
            "apiVersion": f"{_RBAC}/v1",
            "kind": "RoleBinding",
            "metadata": own,
            "roleRef": {"apiGroup": _RBAC, "kind": "Role", "name": name},
            "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": namespace}],
        },
    ]


def environment(monitor: str, namespace: str, primaries: Sequence[str], pod: str = "") -> list[Object]:
    """How the watcher finds the interface; the address of the API is where every pod has it."""
    known = {
        "VEHICLE_MONITOR": monitor,
        "VEHICLE_NAMESPACE": namespace,
        "VEHICLE_PRIMARIES": ",".join(primaries),
        "VEHICLE_POD": pod,
    }
    return [{"name": name, "value": value} for name, value in known.items() if value]


def with_environment(container: Mapping[str, Any], variables: Sequence[Object]) -> Object:
    names = {one["name"] for one in variables}
    own = [one for one in container.get("env") or () if one.get("name") not in names]
    return {**container, "env": [*own, *copy.deepcopy(list(variables))]}


def watching(spec: Mapping[str, Any], account: str, variables: Sequence[Object]) -> Object:
    """The spec of a watcher's own pod."""
    return {
        **spec,
        "serviceAccountName": account,
        "automountServiceAccountToken": True,
        "containers": [with_environment(one, variables) for one in spec.get("containers") or ()],
    }


def watching_within(spec: Mapping[str, Any], watcher: str, account: str, variables: Sequence[Object]) -> Object:
    """The spec of a pod with a watcher in it: of its containers only the watcher gets the account's token."""
    made: Object = {**spec, "serviceAccountName": account, "automountServiceAccountToken": False}
    made["volumes"] = [*(spec.get("volumes") or ()), _token_volume()]
    made["initContainers"] = [
        _with_token(with_environment(one, variables)) if one.get("name") == watcher else one
        for one in spec.get("initContainers") or ()
    ]
    return made


def _with_token(container: Object) -> Object:
    mount = {"name": _TOKEN_VOLUME, "mountPath": TOKEN_PATH, "readOnly": True}
    return {**container, "volumeMounts": [*(container.get("volumeMounts") or ()), mount]}


def _token_volume() -> Object:
    """As the server itself gives it to pods that do not say otherwise."""
    own = {"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}
    sources: list[Object] = [
        {"serviceAccountToken": {"path": "token", "expirationSeconds": 3607}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [own]}},
    ]
    return {"name": _TOKEN_VOLUME, "projected": {"sources": sources}}
