"""``POST /apis/fleetplane.io/v1/commits``: several writes as one, all or nothing.

Each part takes the same way as a request of its own: it is authorized, admitted and checked as the caller; only the commit is
shared. What Kubernetes cannot offer, an operator may use where it runs on a plane, and does without elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import orjson

from fleetplane.apiserver.call import Call, parse_write_options
from fleetplane.apiserver.decoding import decode_object
from fleetplane.apiserver.deleting import DeleteOptions, Deletes
from fleetplane.apiserver.encoding import decode
from fleetplane.apiserver.http import Response
from fleetplane.apiserver.kinds.behaviour import KindBehaviour
from fleetplane.apiserver.registry import Registry, Served, Storage
from fleetplane.apiserver.representation import load
from fleetplane.apiserver.routing import Target
from fleetplane.apiserver.storage import ObjectStorage, claim_taken
from fleetplane.apiserver.subresources import Handler
from fleetplane.apiserver.validation import normalise
from fleetplane.apiserver.writing import Plan, Writes
from fleetplane.model import errors
from fleetplane.model.objects import Object
from fleetplane.model.resources import ResourceType
from fleetplane.store.protocol import ClaimTaken, PreconditionFailed, Record

COMMITS = ResourceType("fleetplane.io", "v1", "Commit", "commits", False, "commit")
MAX_CHANGES = 1000
Authorize = Callable[[Call], None]
"""Raises ApiError 403 when the caller may not make this one write."""


def served_commits() -> Served:
    """The resource, as every registry serves it: it can be created and is not kept."""
    return Served(
        type=COMMITS,
        storage=Storage(COMMITS.group, COMMITS.plural, COMMITS.version),
        behaviour=KindBehaviour(has_generation=False, status_subresource=False),
        verbs=("create",),
        custom=True,
        preferred=True,
    )


@dataclass(slots=True)
class _Part:
    """``plan`` is None where nothing is to be written."""

    call: Call
    plan: Plan | None
    obj: Object


def commit_handler(
    storage: ObjectStorage, registry: Registry, writes: Writes, deletes: Deletes, authorize: Authorize
) -> Handler:
    """The handler of ``commits``."""

    async def handle(call: Call) -> Response:
        parse_write_options(call, call.request.query)
        body, _ = decode_object(call.request.body, call.request.headers.get("content-type", ""))
        listed = (body.get("spec") or {}).get("changes")
        if not isinstance(listed, list) or not all(isinstance(one, dict) for one in listed):
            raise errors.bad_request("spec.changes must be a list of changes")
        if len(listed) > MAX_CHANGES:
            raise errors.bad_request(f"a commit has at most {MAX_CHANGES} changes, not {len(listed)}")
        parts: list[_Part] = []
        try:
            for index, one in enumerate(listed):
                parts.append(await plan(call, one, f"spec.changes[{index}]"))
        except BaseException:
            for part in parts:
                if part.plan is not None:
                    await part.plan.claims.give_back()
            raise
        await commit(call, parts)
        objects = [part.obj for part in parts]
        for part in parts:
            for warning in part.call.warnings:
                call.warn(warning)
        answer = {
            "kind": COMMITS.kind,
            "apiVersion": COMMITS.api_version,
            "metadata": {},
            "status": {"objects": objects},
        }
        return Response(201, orjson.dumps(answer))

    async def plan(call: Call, change: Object, path: str) -> _Part:
        verb, obj = change.get("verb"), change.get("object")
        if verb not in ("create", "update", "delete") or not isinstance(obj, dict):
            raise errors.bad_request(f"{path} needs a verb (create, update or delete) and an object")
        group, version, plural = (str(change.get(key) or "") for key in ("group", "version", "resource"))
        served = registry.find(call.key_cluster, group, version, plural)
        if served is None or verb not in served.verbs:
            raise errors.bad_request(f"{path}: {plural}.{group}/{version} cannot be written here")
        metadata = obj.get("metadata")
        if not isinstance(metadata, dict):
            raise errors.bad_request(f"{path}.object.metadata must be an object")
        namespace = str(metadata.get("namespace") or "") if served.type.namespaced else ""
        name = str(metadata.get("name") or "")
        if served.type.namespaced and not namespace:
            raise errors.bad_request(f"{path}.object.metadata.namespace is required")
        target = Target(
            call.target.cluster,
            "",
            verb,
            True,
            group,
            version,
            plural,
            "",
            namespace,
            "" if verb == "create" else name,
        )
        part = replace(call, served=served, target=target, warnings=[])
        authorize(part)
        if verb == "create":
            if metadata.get("generateName") and not name:
                raise errors.bad_request(f"{path}: objects of a commit are named, not given a generated name")
            writes.place(part, obj)
            normalise(part, obj, [])
            made = await writes.plan_create(part, obj)
            return _Part(part, made, made.obj)
        if verb == "update":
            writes.place(part, obj)
            normalise(part, obj, [])
            planned = await writes.plan_update(part, obj)
            if isinstance(planned, Record):
                return _Part(part, None, await load(served, planned))
            return _Part(part, planned, planned.obj)
        record = await storage.record(served, part.key_cluster, namespace, name)
        before, marked = decode(record), decode(record)
        options = DeleteOptions(uid=metadata.get("uid"), resource_version=metadata.get("resourceVersion"))
        deletes.check_preconditions(part, record, options)
        change_ = deletes.plan(part, record, marked, options)
        return _Part(part, None if change_ is None else Plan(change_, marked, before), marked)

    async def commit(call: Call, parts: list[_Part]) -> None:
        planned = [(part, part.plan) for part in parts if part.plan is not None]
        if call.dry_run or not planned:
            return
        try:
            records = await writes.commit_all([(part.call.served, one) for part, one in planned])
        except PreconditionFailed as error:
            part = next(part for part, one in planned if one.change.key == error.key)
            resource = part.call.served.type
            if part.call.target.verb == "create":
                raise errors.already_exists(resource.plural, error.key.name, group=resource.group) from None
            raise errors.stale(resource.plural, error.key.name, group=resource.group) from None
        except ClaimTaken as error:
            raise claim_taken(planned[0][0].call.served.type, planned[0][1].change.key.name, error) from None
        for (part, _), record in zip(planned, records, strict=True):
            part.obj["metadata"]["resourceVersion"] = str(record.revision)

    return handle
