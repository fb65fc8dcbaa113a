"""Create, update, patch, apply: the writing verbs.

All of them are one thing: from the stored object make the object to be, admit and check it, and commit it if nobody
changed the stored one meanwhile (else start over). They differ only in how the new object is made, which is a function
handed to ``_change``. Nothing is ever half written: an error anywhere before the commit leaves the store as it was.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from typing import Any

import orjson

from fleetplane.apiserver import metadata as meta
from fleetplane.apiserver import validation
from fleetplane.apiserver.admission.chain import NO_CLAIMS, AdmissionChain
from fleetplane.apiserver.admission.chain import Claims as AdmissionClaims
from fleetplane.apiserver.allocation import Allocators
from fleetplane.apiserver.call import Call, parse_write_options
from fleetplane.apiserver.clusters import Clusters
from fleetplane.apiserver.decoding import MAX_BODY, YAML_TYPES, decode_json, decode_object, decode_yaml, media_type
from fleetplane.apiserver.encoding import decode, encode
from fleetplane.apiserver.following import Follower
from fleetplane.apiserver.http import Response
from fleetplane.apiserver.ownership import disown_fixed_parts
from fleetplane.apiserver.registry import Served
from fleetplane.apiserver.representation import load, respond_object, respond_record
from fleetplane.apiserver.shared import is_shared
from fleetplane.apiserver.storage import ObjectStorage, claim_taken, convert_to, key_of, terms_of, unavailable
from fleetplane.model import errors
from fleetplane.model.admission import AdmissionRequest, Operation
from fleetplane.model.apply import FieldFilter, track_update
from fleetplane.model.apply import apply as server_side_apply
from fleetplane.model.environment import Environment, name_suffix, timestamp
from fleetplane.model.objects import Object
from fleetplane.model.patch import json_patch, merge_patch, strategic_merge_patch
from fleetplane.store.protocol import (
    ABSENT,
    Claim,
    ClaimTaken,
    Delete,
    Expect,
    Key,
    Precondition,
    PreconditionFailed,
    Put,
    Record,
    StoreUnavailable,
)

_ATTEMPTS = 12
_MAX_GENERATED_PREFIX = 58
_FAST = frozenset({("coordination.k8s.io", "leases"), ("", "events")})
"""Losing the last of these in a crash harms nobody, so nobody waits for the disk."""
APPLY_TYPES = frozenset({"application/apply-patch+yaml", "application/apply-patch"})
PATCH_TYPES = (
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    "application/apply-patch+yaml",
)

Make = Callable[[Object], Awaitable[Object]]
"""From the stored object, in the request's version, the object to be, which shares nothing with it that may change."""
Released = Callable[[Key, Mapping[str, Any], Mapping[str, Any] | None, int], None]
"""Told of every committed change and deletion: ``released(key, old, new or None, revision)``. Must not wait or raise."""


@dataclass(slots=True)
class Plan:
    """A write that is ready: what to commit, the object as it will be and as it was, what it holds while it commits."""

    change: Put | Delete
    obj: Object
    old: Object | None = None
    claims: AdmissionClaims = NO_CLAIMS


Undo = Callable[[], None]
Companions = Callable[["Writes", Call, Plan], Awaitable[tuple[list[tuple[Served, Plan]], Undo]]]
"""From an object that is about to be created (its plan may be changed) to what is created in the same commit, and what to
call if nothing comes of it."""


class Writes:
    """The writing verbs over one store.

    ``companions`` are by (group, resource): what comes into being with an object, all of it or none.
    """

    def __init__(
        self,
        storage: ObjectStorage,
        admission: AdmissionChain,
        allocators: Allocators,
        clusters: Clusters,
        environment: Environment,
        followers: Mapping[tuple[str, str], list[Follower]],
        released: Released | None = None,
        companions: Mapping[tuple[str, str], Companions] | None = None,
    ) -> None:
        self._companions = companions or {}
        self._storage = storage
        self._admission = admission
        self._allocators = allocators
        self._clusters = clusters
        self._environment = environment
        self._followers = followers
        self._released = released or _nobody_asks

    # -- create ------------------------------------------------------------------------------------------------------

    async def create(self, call: Call) -> Response:
        parse_write_options(call, call.request.query)
        obj, strict = self._read_body(call)
        record, obj = await self.create_object(call, obj, strict)
        return await self._respond(call, record, obj, status=201)

    async def create_object(
        self, call: Call, obj: Object, strict: list[str], managed: list[Object] | None = None
    ) -> tuple[Record | None, Object]:
        """Create what the call's target and this object describe; (None, object) for a dry run.

        ``managed`` are the managedFields where an apply has already found them, and looked at the object's shape.
        """
        self.place(call, obj)
        metadata = obj["metadata"]
        if metadata.get("resourceVersion"):
            raise errors.bad_request("resourceVersion should not be set on objects to be created")
        generate = metadata.get("generateName") if not metadata.get("name") else None
        if managed is None:
            validation.normalise(call, obj, strict)
        refused: Claim | None = None
        for attempt in range(_ATTEMPTS):
            candidate = decode_copy(obj) if attempt + 1 < _ATTEMPTS and (generate or attempt) else obj
            if generate:
                prefix = str(generate)[:_MAX_GENERATED_PREFIX]
                candidate["metadata"]["name"] = prefix + name_suffix(self._environment)
            try:
                return await self._create(call, candidate, managed)
            except PreconditionFailed as error:
                if generate and attempt + 1 < _ATTEMPTS:
                    continue
                raise _exists(call.served, candidate["metadata"]["name"], error.current) from None
            except ClaimTaken as error:
                again = error.claim != refused and attempt + 1 < _ATTEMPTS
                refused = error.claim
                if not again or not self._allocators.may_retry(call.served, error):
                    raise claim_taken(call.served.type, str(metadata.get("name")), error) from None
        raise errors.internal("could not find a free name or address; try again")

    async def _create(self, call: Call, obj: Object, managed: list[Object] | None) -> tuple[Record | None, Object]:
        plan = await self.plan_create(call, obj, managed)
        if call.dry_run:
            there = await self._storage.store.get(plan.change.key)
            if there is not None:
                raise PreconditionFailed(plan.change.key, there)
            return None, plan.obj
        companions = self._companions.get((call.served.storage.group, call.served.storage.plural))
        if companions is not None:
            more, undo = await companions(self, call, plan)
            try:
                records = await self.commit_all([(call.served, plan), *more])
            except BaseException:
                undo()
                raise
            return records[0], plan.obj
        async with plan.claims:
            return await self.commit_change(call.served, plan.change), plan.obj

    async def plan_create(self, call: Call, obj: Object, managed: list[Object] | None = None) -> Plan:
        """A new object, defaulted, admitted and checked; nothing is committed yet."""
        served = call.served
        metadata = obj["metadata"]
        now = timestamp(self._environment.now())
        for owned in (*meta.SERVER_OWNED, "managedFields", "generation"):
            metadata.pop(owned, None)
        metadata["uid"] = self._environment.uuid()
        metadata["creationTimestamp"] = now
        behaviour = served.behaviour
        if behaviour.status_subresource and "status" in served.subresources and not behaviour.status_on_create:
            obj.pop("status", None)
        if behaviour.has_generation:
            metadata["generation"] = 1
        validation.fill_defaults(call, obj)
        if managed is None:
            obj = self._tracked(call, None, obj, now)
            if not served.custom:
                disown_fixed_parts(obj)
        else:
            obj["metadata"]["managedFields"] = managed
        obj = await self._admission.mutate(call, self._admission_request(call, "CREATE", obj, None))
        behaviour.prepare_create(obj)
        await self._allocators.prepare(served, call.key_cluster, obj, None)
        validation.check(call, obj, None)
        claims = await self._admission.validate(call, self._admission_request(call, "CREATE", obj, None))
        stored = await self._stored_form(served, obj, claims)
        key = key_of(served, call.key_cluster, metadata.get("namespace") or "", obj["metadata"]["name"])
        put = Put(
            key,
            metadata["uid"],
            encode(stored),
            served.storage.encoding,
            terms_of(served, stored),
            self._allocators.claims(served, stored),
            ABSENT,
        )
        return Plan(put, obj, None, claims)

    # -- update, patch, apply ------------------------------------------------------------------------------------------

    async def update(self, call: Call) -> Response:
        parse_write_options(call, call.request.query)
        obj, strict = self._read_body(call)
        self.place(call, obj)
        target = call.target
        if obj["metadata"].get("name") != target.name:
            raise _other_name(obj["metadata"].get("name", ""), call)
        validation.normalise(call, obj, strict)
        version = str(obj["metadata"].get("resourceVersion") or "")
        if not version and not call.served.behaviour.unconditional_update:
            cause = errors.FieldError.invalid("metadata.resourceVersion", 0, "must be specified for an update")
            raise errors.invalid(call.served.type.plural, target.name, [cause], group=call.served.type.group)

        async def replace_all(_current: Object) -> Object:
            return decode_copy(obj)

        try:
            record, made = await self._change(call, replace_all)
        except errors.ApiError as error:
            creates = call.served.behaviour.create_on_update and not target.subresource
            if error.code == 404 and creates and not version and not obj["metadata"].get("uid"):
                created, made = await self.create_object(call, obj, [])
                return await self._respond(call, created, made, status=201)
            raise
        return await self._respond(call, record, made)

    async def patch(self, call: Call) -> Response:
        parse_write_options(call, call.request.query)
        kind = media_type(call.request.headers.get("content-type", ""))
        if kind in APPLY_TYPES:
            return await self._apply(call)
        make = self._patcher(call, kind)
        record, obj = await self._change(call, make)
        return await self._respond(call, record, obj)

    def _patcher(self, call: Call, kind: str) -> Make:
        body = call.request.body
        if len(body) > MAX_BODY:
            raise errors.too_large(MAX_BODY)
        if kind not in PATCH_TYPES:
            raise errors.unsupported_media_type(PATCH_TYPES)
        document, strict = decode_json(body)
        schema = call.served.schema
        if kind == "application/strategic-merge-patch+json" and (call.served.custom or schema is None):
            raise errors.unsupported_media_type([one for one in PATCH_TYPES if "strategic" not in one])

        async def make(current: Object) -> Object:
            if kind == "application/json-patch+json":
                patched = json_patch(current, document)
            elif kind == "application/merge-patch+json":
                patched = merge_patch(current, document)
            else:
                patched = strategic_merge_patch(schema, current, document)
            if not isinstance(patched, dict) or not isinstance(patched.get("metadata"), dict):
                raise errors.invalid(
                    call.served.type.kind,
                    call.target.name,
                    [errors.FieldError.invalid("patch", None, "the patched object would not be an object any more")],
                    group=call.served.type.group,
                )
            if not call.served.custom:
                patched = meta.drop_nulls(patched)
            self.place(call, patched)
            validation.normalise(call, patched, strict)
            if patched["metadata"].get("name") != call.target.name:
                raise _other_name(patched["metadata"].get("name", ""), call)
            return patched

        return make

    async def _apply(self, call: Call) -> Response:
        query = call.request.query
        manager = query.get("fieldManager") or ""
        if not manager:
            cause = errors.FieldError.required("fieldManager", "is required for apply patch")
            raise errors.invalid("PatchOptions", "", [cause], group="meta.k8s.io")
        force = query.get("force") in ("true", "1")
        applied, strict = decode_yaml(call.request.body)
        if not isinstance(applied, dict):
            raise errors.bad_request("the body must be one object")
        self.place(call, applied)
        name = applied["metadata"].setdefault("name", call.target.name)
        if name != call.target.name:
            raise _other_name(name, call)
        if applied["metadata"].get("managedFields"):
            raise errors.bad_request("metadata.managedFields must be nil")
        if not call.served.custom:
            applied = meta.drop_nulls(applied)
        validation.normalise(call, applied, strict)
        wanted_uid = applied["metadata"].get("uid")
        served, target = call.served, call.target
        schema = served.schema

        def merged(live: Object | None) -> Object:
            return server_side_apply(
                schema,
                live,
                applied,
                manager=manager,
                force=force,
                now=timestamp(self._environment.now()),
                subresource=target.subresource,
                api_version=served.type.api_version,
                fields=_ownable(served, target.subresource),
            )

        async def make(current: Object) -> Object:
            return merged(current)

        for _ in range(_ATTEMPTS):
            try:
                record, obj = await self._change(call, make, operation="Apply")
                return await self._respond(call, record, obj)
            except errors.ApiError as error:
                if error.code != 404 or target.subresource or wanted_uid:
                    raise
            created = merged(None)
            managed = created["metadata"].get("managedFields") or []
            try:
                record_or_none, obj = await self.create_object(call, created, [], managed)
                return await self._respond(call, record_or_none, obj, status=201)
            except errors.ApiError as error:
                if error.reason != "AlreadyExists":
                    raise
        raise errors.stale(served.type.plural, target.name, group=served.type.group)

    async def _change(self, call: Call, make: Make, *, operation: str = "Update") -> tuple[Record | None, Object]:
        """Read, make, admit, check, commit; again from the start when somebody else wrote in between.

        Returns the record in the store (None for a dry run) and the object. A change that changes nothing writes nothing.
        """
        served, target = call.served, call.target
        refused: Claim | None = None
        for _ in range(_ATTEMPTS):
            record = await self._storage.record(served, call.key_cluster, target.namespace, target.name)
            current = await load(served, record)
            new = await make(current)
            self._check_preconditions(call, new, record)
            prepared = await self._prepare_update(call, new, current, operation)
            if prepared is None:
                return record, current
            new, claims = prepared
            plan = await self._plan_write(call, record, current, new, claims)
            if call.dry_run:
                return None, new
            try:
                async with claims:
                    written = await self.commit_change(served, plan.change)
            except PreconditionFailed:
                if new["metadata"].get("resourceVersion") not in (None, "", str(record.revision)):
                    raise errors.stale(served.type.plural, target.name, group=served.type.group) from None
            except ClaimTaken as error:
                if error.claim == refused or not self._allocators.may_retry(served, error):
                    raise claim_taken(served.type, target.name, error) from None
                refused = error.claim
            else:
                self.tell_released(plan, written.revision)
                return written, new
        raise errors.stale(served.type.plural, target.name, group=served.type.group)

    async def change_object(self, call: Call, make: Make, *, tracked: bool = True) -> tuple[Record | None, Object]:
        """``_change`` for those that do their own making, of an object that is theirs to change.

        Not ``tracked`` where nobody comes to own anything.
        """

        async def make_of_copy(current: Object) -> Object:
            return await make(decode_copy(current))

        return await self._change(call, make_of_copy, operation="Update" if tracked else "")

    def _check_preconditions(self, call: Call, new: Object, record: Record) -> None:
        resource = call.served.type
        metadata = new["metadata"]
        uid = metadata.get("uid")
        if uid and uid != record.uid:
            raise errors.conflict(
                resource.plural,
                call.target.name,
                f"Precondition failed: UID in precondition: {uid}, UID in object meta: {record.uid}",
                group=resource.group,
            )
        version = metadata.get("resourceVersion")
        if version and version != str(record.revision):
            raise errors.stale(resource.plural, call.target.name, group=resource.group)

    async def _prepare_update(
        self, call: Call, new: Object, current: Object, operation: str
    ) -> tuple[Object, AdmissionClaims] | None:
        """The object as it will be, and what was claimed for it; None when it is as it was."""
        served, subresource = call.served, call.target.subresource
        behaviour = served.behaviour
        metadata, old_metadata = new["metadata"], current["metadata"]
        new.setdefault("kind", served.type.kind)
        new.setdefault("apiVersion", served.type.api_version)
        metadata.setdefault("name", old_metadata["name"])
        if "namespace" in old_metadata:
            metadata.setdefault("namespace", old_metadata["namespace"])
        for key in (*meta.SERVER_OWNED, "generation"):
            if key in old_metadata:
                metadata[key] = old_metadata[key]
            else:
                metadata.pop(key, None)
        if subresource == "status":
            new = _status_only(new, current, keep_metadata=served.custom)
        elif not subresource and behaviour.status_subresource and "status" in served.subresources:
            _restore(new, current, "status")
        validation.fill_defaults(call, new)
        if operation == "Update":
            new = self._tracked(call, current, new, timestamp(self._environment.now()))
        rules = behaviour.subresources.get(subresource)
        if rules is not None:
            rules.prepare(new, current)
        elif not subresource:
            behaviour.prepare_update(new, current)
        request = self._admission_request(call, "UPDATE", new, current)
        new = await self._admission.mutate(call, request)
        if not subresource:
            await self._allocators.prepare(served, call.key_cluster, new, current)
        if behaviour.has_generation and subresource != "status" and _spec_changed(new, current):
            new["metadata"]["generation"] = int(old_metadata.get("generation") or 0) + 1
        if _same(new, current):
            return None
        validation.check(call, new, current, subresource=subresource)
        if new is not request.new:
            request = replace(request, new=new)
        return new, await self._admission.validate(call, request)

    async def plan_update(self, call: Call, obj: Object) -> Plan | Record:
        """A new state of an object, admitted and checked; the record as it is when nothing changes."""
        target = call.target
        record = await self._storage.record(call.served, call.key_cluster, target.namespace, target.name)
        current = await load(call.served, record)
        self._check_preconditions(call, obj, record)
        prepared = await self._prepare_update(call, obj, current, "Update")
        if prepared is None:
            return record
        new, claims = prepared
        return await self._plan_write(call, record, current, new, claims)

    async def _plan_write(
        self, call: Call, record: Record, current: Object, new: Object, claims: AdmissionClaims
    ) -> Plan:
        served = call.served
        uid = record.uid
        expect: Precondition = Expect(revision=record.revision)
        if is_shared(record):  # it gets a life of its own, which ends with it
            uid, expect = self._environment.uuid(), ABSENT
            new["metadata"]["uid"] = uid
        stored = await self._stored_form(served, new, claims)
        if _finished(new):
            return Plan(Delete(record.key, expect, encode(stored)), new, current, claims)
        put = Put(
            record.key,
            uid,
            encode(stored),
            served.storage.encoding,
            terms_of(served, stored),
            self._allocators.claims(served, stored),
            expect,
        )
        return Plan(put, new, current, claims)

    def claims_of(self, served: Served, obj: Object) -> tuple[Claim, ...]:
        return self._allocators.claims(served, obj)

    def tell_released(self, plan: Plan, revision: int) -> None:
        """Tell whoever counts what a plan replaced or removed, and in which revision it was committed."""
        if plan.old is not None:
            gone = isinstance(plan.change, Delete)
            self._released(plan.change.key, plan.old, None if gone else plan.obj, revision)

    async def commit_all(self, plans: Sequence[tuple[Served, Plan]]) -> list[Record]:
        """Commit all plans or none. Raises PreconditionFailed and ClaimTaken."""
        async with AsyncExitStack() as stack:
            for _, plan in plans:
                await stack.enter_async_context(plan.claims)
            try:
                records = await self._storage.store.commit([plan.change for _, plan in plans])
            except StoreUnavailable as error:
                raise unavailable(error) from error
            except ValueError as error:
                raise unstorable(plans[0][0], plans[0][1].change, error) from None
        for (served, plan), record in zip(plans, records, strict=True):
            self.tell_released(plan, record.revision)
            await self._followed(served, record)
        return records

    async def _followed(self, served: Served, record: Record) -> None:
        for follower in self._followers.get((served.storage.group, served.storage.plural), ()):
            await follower.reached(record.revision)

    async def commit_change(self, served: Served, change: Put | Delete) -> Record:
        """Commit one change; returns once everything in the server that follows the resource has seen it."""
        storage = served.storage
        try:
            (record,) = await self._storage.store.commit([change], durable=(storage.group, storage.plural) not in _FAST)
        except StoreUnavailable as error:
            raise unavailable(error) from error
        except ValueError as error:
            raise unstorable(served, change, error) from None
        await self._followed(served, record)
        return record

    # -- shared --------------------------------------------------------------------------------------------------------

    def _read_body(self, call: Call) -> tuple[Object, list[str]]:
        body, content_type = call.request.body, call.request.headers.get("content-type", "")
        obj, strict = decode_object(body, content_type)
        if media_type(content_type) in YAML_TYPES or (not call.served.custom and b"null" in body):
            obj = meta.drop_nulls(obj)
        return obj, strict

    def place(self, call: Call, obj: Object) -> None:
        """Check that the object is of the kind and place the URL names, and fill in what it leaves out."""
        resource, target = call.served.type, call.target
        api_version, kind = resource.api_version, resource.kind
        if target.subresource and target.subresource in call.served.subresources:
            api_version, kind = call.served.subresources[target.subresource]
        given_kind, given_version = obj.get("kind"), obj.get("apiVersion")
        if given_kind and given_kind != kind:
            raise errors.bad_request(
                f'{given_kind} in version "{resource.version}" cannot be handled as a {kind}: '
                "the kind in the data does not match the expected kind"
            )
        if given_version and given_version != api_version:
            raise errors.bad_request(
                f"the API version in the data ({given_version}) does not match the expected API version ({api_version})"
            )
        obj["kind"], obj["apiVersion"] = kind, api_version
        metadata = obj.get("metadata")
        if metadata is None:
            metadata = obj["metadata"] = {}
        if not isinstance(metadata, dict):
            raise errors.invalid(
                resource.kind, "", [errors.FieldError.type_invalid("metadata", metadata, "must be an object")]
            )
        if resource.namespaced:
            namespace = metadata.setdefault("namespace", target.namespace)
            if namespace != target.namespace:
                raise errors.bad_request(
                    f"the namespace of the provided object does not match the namespace sent on the request"
                    f" ({namespace!r} and {target.namespace!r})"
                )
        elif metadata.get("namespace") == "":
            del metadata["namespace"]

    def _tracked(self, call: Call, old: Object | None, new: Object, now: str) -> Object:
        return track_update(
            call.served.schema,
            old,
            new,
            manager=call.field_manager,
            now=now,
            subresource=call.target.subresource,
            api_version=call.served.type.api_version,
            fields=_ownable(call.served, call.target.subresource),
        )

    async def _stored_form(self, served: Served, obj: Object, claims: AdmissionClaims) -> Object:
        """The object in its storage version; a conversion that fails ends the write, and so what was claimed for it."""
        if served.is_storage_version:
            return obj
        try:
            return await convert_to(served, obj, served.storage.api_version)
        except BaseException:
            await claims.give_back()
            raise

    def _admission_request(
        self, call: Call, operation: Operation, new: Object | None, old: Object | None
    ) -> AdmissionRequest:
        metadata = (new or old or {}).get("metadata") or {}
        return AdmissionRequest(
            operation=operation,
            resource=call.served.type,
            user=call.user,
            new=new,
            old=old,
            namespace=call.target.namespace if call.served.type.namespaced else _namespace_of(call),
            name=str(metadata.get("name") or ""),
            subresource=call.target.subresource,
            dry_run=call.dry_run,
            cluster=self._clusters.name_of(call.key_cluster),
        )

    async def _respond(self, call: Call, record: Record | None, obj: Object, *, status: int = 200) -> Response:
        now = self._environment.now()
        if record is None:
            return respond_object(call.served, obj, call.representation, status=status, now=now)
        return await respond_record(call.served, record, call.representation, status=status, now=now)


def unstorable(served: Served, change: Put | Delete, error: ValueError) -> errors.ApiError:
    """The refusal for what a store cannot keep: characters no text may have, names or labels beyond a kibibyte."""
    cause = errors.FieldError.invalid("metadata", change.key.name, f"the object cannot be stored: {error}")
    return errors.invalid(served.type.kind, change.key.name, [cause], group=served.type.group)


def _nobody_asks(_key: Key, _old: Mapping[str, Any], _new: Mapping[str, Any] | None, _revision: int) -> None:
    """Nobody wants to know."""


_NOT_STATUS = FieldFilter.without("status")
_ONLY_STATUS = FieldFilter.only("status")


def _ownable(served: Served, subresource: str) -> FieldFilter | None:
    """The fields a request can become the owner of; the server resets the others."""
    if "status" not in served.subresources:
        return None
    if subresource == "status":
        return _ONLY_STATUS if served.custom else None
    return None if subresource else _NOT_STATUS


def _exists(served: Served, name: str, current: Record | None) -> errors.ApiError:
    """The refusal of a name that is taken; whoever waits for an object to go is told that it is still going."""
    error = errors.already_exists(served.type.plural, name, group=served.type.group)
    if current is not None and decode(current)["metadata"].get("deletionTimestamp"):
        error.message = f"object is being deleted: {error.message}"
    return error


def _other_name(name: str, call: Call) -> errors.ApiError:
    return errors.bad_request(
        f"the name of the object ({name}) does not match the name on the URL ({call.target.name})"
    )


def _namespace_of(call: Call) -> str:
    return call.target.name if call.target.resource == "namespaces" and not call.target.group else ""


def decode_copy(obj: Object) -> Object:
    """A deep copy of plain JSON data."""
    copied: Object = orjson.loads(orjson.dumps(obj))
    return copied


def _status_only(new: Object, current: Object, *, keep_metadata: bool) -> Object:
    """What a write to ``status`` may change: the status, and for built-in kinds labels and annotations."""
    made = decode_copy(current)
    _restore(made, new, "status")
    if not keep_metadata:
        for key in ("labels", "annotations", "ownerReferences", "finalizers"):
            _restore(made["metadata"], new["metadata"], key)
    if "managedFields" in new["metadata"]:
        made["metadata"]["managedFields"] = new["metadata"]["managedFields"]
    return made


def _restore(new: Object, old: Mapping[str, Any], key: str) -> None:
    if key in old:
        new[key] = old[key]
    else:
        new.pop(key, None)


def _spec_changed(new: Object, old: Object) -> bool:
    skip = ("metadata", "status", "apiVersion", "kind")
    return {key: value for key, value in new.items() if key not in skip} != {
        key: value for key, value in old.items() if key not in skip
    }


def _same(new: Object, old: Object) -> bool:
    """Whether there is nothing to write: equal but for resourceVersion and the times of managedFields."""
    if new.keys() != old.keys() or any(value != old[key] for key, value in new.items() if key != "metadata"):
        return False
    return _timeless(new["metadata"]) == _timeless(old["metadata"])


def _timeless(metadata: Mapping[str, Any]) -> Object:
    kept = {name: one for name, one in metadata.items() if name != "resourceVersion"}
    if "managedFields" in kept:
        kept["managedFields"] = [
            {name: one for name, one in entry.items() if name != "time"} for entry in kept["managedFields"]
        ]
    return kept


def _finished(obj: Object) -> bool:
    """Whether an object that is being deleted has nothing left to wait for."""
    metadata = obj["metadata"]
    return bool(
        metadata.get("deletionTimestamp") and not is_held(obj) and not metadata.get("deletionGracePeriodSeconds")
    )


def is_held(obj: Object) -> bool:
    """Whether a finalizer holds the object; a namespace has some in its spec, too."""
    if obj["metadata"].get("finalizers"):
        return True
    return obj.get("kind") == "Namespace" and obj.get("apiVersion") == "v1" and bool(obj["spec"].get("finalizers"))
