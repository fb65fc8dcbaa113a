"""Resolve: what a path and a method ask for.

Mirrors apiserver's ``RequestInfo``: the verb, the resource and where it lives, before anything is known of the kind. An
optional ``/clusters/<name>`` prefix chooses a logical cluster; ``/clusters/*`` is every one of them, for reading.
"""

from __future__ import annotations

from dataclasses import dataclass

from fleetplane.apiserver.http import Request

ROOT_CLUSTER = "root"
ALL_CLUSTERS = "*"

_VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete", "GET": "get", "HEAD": "get"}
_NAMESPACE_SUBRESOURCES = frozenset({"status", "finalize"})


@dataclass(slots=True)
class Target:
    """``is_resource`` is false for everything outside ``/api/<version>/…`` and ``/apis/<group>/<version>/…``.

    ``tail`` is what follows a ``proxy`` subresource. ``path`` has no cluster prefix and no trailing slash.
    """

    cluster: str
    path: str
    verb: str
    is_resource: bool = False
    group: str = ""
    version: str = ""
    resource: str = ""
    subresource: str = ""
    namespace: str = ""
    name: str = ""
    tail: str = ""


def resolve(request: Request) -> Target:
    cluster, path = _split_cluster(request.path)
    target = Target(cluster, path, request.method.lower())
    parts = path.split("/")[1:]
    if len(parts) >= 3 and parts[0] == "api":
        target.version, rest = parts[1], parts[2:]
    elif len(parts) >= 4 and parts[0] == "apis":
        target.group, target.version, rest = parts[1], parts[2], parts[3:]
    else:
        return target
    target.is_resource = True
    target.verb = _VERBS.get(request.method, target.verb)
    if rest[0] == "watch" and len(rest) > 1:
        rest = rest[1:]
        target.verb = "watch"
    _place(target, rest)
    query = request.query
    if target.verb == "get" and not target.name:
        target.verb = "watch" if _is_true(query.get("watch")) else "list"
    elif target.verb == "get" and not target.subresource and _is_true(query.get("watch")):
        target.verb = "watch"
    elif target.verb == "delete" and not target.name:
        target.verb = "deletecollection"
    return target


def _split_cluster(path: str) -> tuple[str, str]:
    cluster = ROOT_CLUSTER
    if path.startswith("/clusters/"):
        cluster, _, rest = path[len("/clusters/") :].partition("/")
        path = "/" + rest
    if len(path) > 1 and path.endswith("/"):  # kr8s asks for /version/
        path = path.rstrip("/") or "/"
    return cluster, path


def _place(target: Target, rest: list[str]) -> None:
    if rest[0] == "namespaces" and len(rest) > 1:
        target.namespace = rest[1]
        if len(rest) == 2 or (len(rest) == 3 and rest[2] in _NAMESPACE_SUBRESOURCES):
            target.resource, target.name = "namespaces", rest[1]
            target.subresource = rest[2] if len(rest) == 3 else ""
            return
        rest = rest[2:]
    target.resource = rest[0]
    if len(rest) > 1:
        target.name = rest[1]
    if len(rest) > 2:
        target.subresource = rest[2]
        target.tail = "/".join(rest[3:])


def _is_true(value: str | None) -> bool:
    return value is not None and value.lower() in {"true", "1", ""}
