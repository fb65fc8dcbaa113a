"""Admission of requests that write no object of their own: connections into pods (CONNECT), and evictions.

What is admitted is what Kubernetes makes of such a request: the options of the connection as an object, the Eviction as it
was sent.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from fleetplane.apiserver.admission.chain import AdmissionChain
from fleetplane.apiserver.call import Call
from fleetplane.apiserver.clusters import Clusters
from fleetplane.apiserver.decoding import decode_object
from fleetplane.model.admission import AdmissionRequest
from fleetplane.model.environment import Environment
from fleetplane.model.objects import Object

_CONNECTIONS: Final = frozenset({"exec", "attach", "portforward", "proxy"})
_FLAGS: Final = ("stdin", "stdout", "stderr", "tty")


async def admit_connection(chain: AdmissionChain, clusters: Clusters, environment: Environment, call: Call) -> None:
    """Ask for a connection or an eviction; at no cost for anything else. Raises the ApiError of a refusal."""
    subresource = call.target.subresource
    if subresource in _CONNECTIONS:
        await chain.validate(call, _request(call, clusters, environment, options_object(call)))
    elif subresource == "eviction" and call.target.verb == "create":
        eviction, _ = decode_object(call.request.body, call.request.headers.get("content-type", ""))
        dry_run = call.request.query.get("dryRun") == "All" or (eviction.get("deleteOptions") or {}).get("dryRun")
        await chain.validate(call, _request(call, clusters, environment, eviction, dry_run=bool(dry_run)))


def _request(
    call: Call, clusters: Clusters, environment: Environment, obj: Object, *, dry_run: bool = False
) -> AdmissionRequest:
    target = call.target
    return AdmissionRequest(
        "CREATE" if target.subresource == "eviction" else "CONNECT",
        call.served.type,
        call.user,
        new=obj,
        namespace=target.namespace,
        name=target.name,
        subresource=target.subresource,
        dry_run=dry_run,
        cluster=clusters.name_of(call.key_cluster),
        uid=environment.uuid(),
    )


def options_object(call: Call) -> Object:
    """``PodExecOptions`` and kin, from the query of the request."""
    target = call.target
    api_version, kind = call.served.subresources[target.subresource]
    made: Object = {"kind": kind, "apiVersion": api_version}
    query: Mapping[str, str] = call.request.query
    if target.subresource in ("exec", "attach"):
        made |= {flag: True for flag in _FLAGS if query.get(flag) in ("true", "1")}
        if query.get("container"):
            made["container"] = query["container"]
        if target.subresource == "exec":
            made["command"] = list(call.request.queries.get("command") or ())
    elif target.subresource == "portforward":
        ports = [one for text in call.request.queries.get("ports") or () for one in text.split(",")]
        made["ports"] = [int(one) for one in ports if one.isascii() and one.isdigit() and len(one) <= 5]
    else:
        made["path"] = f"/{target.tail}"
    return made
