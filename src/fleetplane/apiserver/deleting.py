"""Delete and deletecollection: what goes at once, what waits, and for whom.

An object goes when nothing holds it: no finalizer, no grace period. Otherwise it is marked (``deletionTimestamp``) and
goes with the write that removes the last hold. Propagation turns into the finalizers ``foregroundDeletion`` and
``orphan``, which the garbage collector answers.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import orjson

from fleetplane.apiserver.admission.chain import AdmissionChain
from fleetplane.apiserver.call import Call
from fleetplane.apiserver.clusters import Clusters
from fleetplane.apiserver.decoding import decode_object
from fleetplane.apiserver.encoding import decode, encode
from fleetplane.apiserver.http import Response
from fleetplane.apiserver.representation import load, respond_object
from fleetplane.apiserver.selection import narrow
from fleetplane.apiserver.shared import is_shared
from fleetplane.apiserver.storage import ObjectStorage, convert_to, terms_of
from fleetplane.apiserver.writing import Plan, Writes, is_held
from fleetplane.model import errors
from fleetplane.model.admission import AdmissionRequest
from fleetplane.model.environment import Environment, timestamp
from fleetplane.model.objects import Object
from fleetplane.store.protocol import Delete, Expect, PreconditionFailed, Put, Record

_ATTEMPTS = 12
_PROPAGATIONS = ("Foreground", "Background", "Orphan")
_DEFAULT_GRACE_SECONDS = 30
_MAX_GRACE_SECONDS = 100 * 365 * 24 * 3600
_MAX_SHOWN = 200
_NUMBER = re.compile(r"-?[0-9]{1,18}")
_RETURNS_OBJECT = frozenset(
    {
        ("", "persistentvolumeclaims"),
        ("", "persistentvolumes"),
        ("", "pods"),
        ("", "podtemplates"),
        ("", "resourcequotas"),
        ("", "serviceaccounts"),
        ("", "services"),
        ("resource.k8s.io", "deviceclasses"),
        ("resource.k8s.io", "resourceclaims"),
        ("resource.k8s.io", "resourceclaimtemplates"),
        ("resource.k8s.io", "resourceslices"),
        ("storage.k8s.io", "csidrivers"),
        ("storage.k8s.io", "csinodes"),
        ("storage.k8s.io", "storageclasses"),
        ("storage.k8s.io", "volumeattachments"),
        ("storage.k8s.io", "volumeattributesclasses"),
    }
)
"""What answers with itself when it goes, as the published OpenAPI says; everything else with a Status."""
_OLD_ORPHANS = frozenset(
    {("", "v1", "replicationcontrollers"), ("batch", "v1", "jobs"), ("batch", "v1beta1", "cronjobs")}
)
"""What leaves its dependents behind unless told otherwise, as it always did."""


@dataclass(slots=True)
class DeleteOptions:
    grace_seconds: int | None = None
    propagation: str | None = None
    uid: str | None = None
    resource_version: str | None = None
    dry_run: bool = False


class Deletes:
    """The deleting verbs over one store."""

    def __init__(
        self,
        storage: ObjectStorage,
        writes: Writes,
        admission: AdmissionChain,
        clusters: Clusters,
        environment: Environment,
    ) -> None:
        self._storage = storage
        self._writes = writes
        self._admission = admission
        self._clusters = clusters
        self._environment = environment

    async def delete(self, call: Call) -> Response:
        options = self._options(call)
        record, obj, gone = await self.delete_object(call, options)
        resource = call.served.type
        if gone and (resource.group, resource.plural) not in _RETURNS_OBJECT:
            details = {"name": call.target.name, "kind": resource.plural, "uid": record.uid}
            if resource.group:
                details["group"] = resource.group
            status = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details}
            return Response(200, orjson.dumps(status))
        shown = await convert_to(call.served, obj, resource.api_version)
        return respond_object(call.served, shown, call.representation, now=self._environment.now())

    async def delete_object(self, call: Call, options: DeleteOptions) -> tuple[Record, Object, bool]:
        """Delete what the target names; (record, object as left, whether it is gone)."""
        served, target = call.served, call.target
        resource = served.type
        for _ in range(_ATTEMPTS):
            record = await self._storage.record(served, call.key_cluster, target.namespace, target.name)
            self.check_preconditions(call, record, options)
            if is_shared(record):
                message = "it is one every cluster has by default; change it instead of deleting it"
                raise errors.forbidden(message, group=resource.group, resource=resource.plural, name=target.name)
            obj = await load(served, record)
            request = AdmissionRequest(
                "DELETE",
                resource,
                call.user,
                old=obj,
                namespace=target.namespace if resource.namespaced else "",
                name=target.name,
                dry_run=call.dry_run,
                cluster=self._clusters.name_of(call.key_cluster),
            )
            await self._admission.validate(call, request)
            stored = decode(record)
            try:
                return await self._delete(call, record, stored, options)
            except PreconditionFailed:
                continue
        raise errors.stale(resource.plural, target.name, group=resource.group)

    def check_preconditions(self, call: Call, record: Record, options: DeleteOptions) -> None:
        """Raises ApiError 409 when the object is not the one the caller means."""
        resource = call.served.type
        given = (("UID", options.uid, record.uid), ("ResourceVersion", options.resource_version, str(record.revision)))
        for word, wanted, found in given:
            if wanted and wanted != found:
                raise errors.conflict(
                    resource.kind,
                    call.target.name,
                    f"the {word} in the precondition ({wanted}) does not match the {word} in record ({found})."
                    " The object might have been deleted and then recreated",
                    group=resource.group,
                )

    async def _delete(
        self, call: Call, record: Record, obj: Object, options: DeleteOptions
    ) -> tuple[Record, Object, bool]:
        change = self.plan(call, record, obj, options)
        gone = change is None or isinstance(change, Delete)
        if call.dry_run or change is None:
            return record, obj, isinstance(change, Delete)
        before = decode(record)
        left = await self._writes.commit_change(call.served, change)
        self._writes.tell_released(Plan(change, obj, before), left.revision)
        obj["metadata"]["resourceVersion"] = str(left.revision)
        return left, obj, gone

    def plan(self, call: Call, record: Record, obj: Object, options: DeleteOptions) -> Put | Delete | None:
        """What to commit to delete an object, None when it is already on its way; ``obj`` is marked in place."""
        served = call.served
        metadata = obj["metadata"]
        before = orjson.dumps(obj)
        is_namespace = served.type.kind == "Namespace" and served.type.group == ""
        if is_namespace and metadata.get("deletionTimestamp") and is_held(obj):
            return None
        self._mark_propagation(call, metadata, options)
        grace = self._grace(call, obj, options)
        at_once = not is_held(obj) and grace == 0
        now = self._environment.now()
        if not metadata.get("deletionTimestamp") and (served.behaviour.graceful or not at_once):
            metadata["deletionTimestamp"] = timestamp(now + timedelta(seconds=grace))
            if is_namespace:
                obj.setdefault("status", {})["phase"] = "Terminating"
            else:
                metadata["deletionGracePeriodSeconds"] = grace
            if served.behaviour.has_generation:
                metadata["generation"] = int(metadata.get("generation") or 0) + 1
        elif grace < int(metadata.get("deletionGracePeriodSeconds") or 0):
            metadata["deletionTimestamp"] = timestamp(now + timedelta(seconds=grace))
            metadata["deletionGracePeriodSeconds"] = grace
        if at_once:
            return Delete(record.key, Expect(revision=record.revision), encode(obj))
        if orjson.dumps(obj) == before:
            return None
        return Put(
            record.key,
            record.uid,
            encode(obj),
            record.encoding,
            terms_of(served, obj),
            self._writes.claims_of(served, obj),
            Expect(revision=record.revision),
        )

    def _mark_propagation(self, call: Call, metadata: Object, options: DeleteOptions) -> None:
        """Turn the propagation policy into finalizers, as the garbage collector reads them."""
        resource = call.served.type
        if resource.plural == "events":  # nothing depends on them
            return
        finalizers: list[str] = list(metadata.get("finalizers") or [])
        policy = options.propagation
        if policy is None and not {"orphan", "foregroundDeletion"} & set(finalizers):
            policy = "Orphan" if (resource.group, resource.version, resource.plural) in _OLD_ORPHANS else "Background"
        if policy is not None:
            finalizers = [one for one in finalizers if one not in ("orphan", "foregroundDeletion")]
            if policy == "Orphan":
                finalizers.append("orphan")
            elif policy == "Foreground":
                finalizers.append("foregroundDeletion")
        if finalizers:
            metadata["finalizers"] = finalizers
        else:
            metadata.pop("finalizers", None)

    def _grace(self, call: Call, obj: Object, options: DeleteOptions) -> int:
        """Seconds somebody else has to end the object; 0 for kinds nobody runs."""
        if not call.served.behaviour.graceful:
            return 0
        spec, status = obj.get("spec") or {}, obj.get("status") or {}
        if not spec.get("nodeName") or status.get("phase") in ("Succeeded", "Failed"):
            return 0
        asked = options.grace_seconds
        if asked is None:
            asked = spec.get("terminationGracePeriodSeconds", _DEFAULT_GRACE_SECONDS)
        grace = max(int(asked), 0)
        already = obj["metadata"].get("deletionGracePeriodSeconds")
        if obj["metadata"].get("deletionTimestamp") and already is not None:
            return min(grace, int(already)) if options.grace_seconds is not None else int(already)
        return grace

    async def delete_collection(self, call: Call) -> Response:
        options = self._options(call)
        narrowed = narrow(call.served, call.key_cluster, call.target.namespace, call.request.query)
        target = call.target
        items: list[Object] = []
        async for page in self._storage.store.stream(narrowed.selection):
            for record in page.records:
                if narrowed.matches is not None and not narrowed.matches(record):
                    continue
                target.namespace, target.name = record.key.namespace, record.key.name
                try:
                    _, obj, _ = await self.delete_object(call, options)
                except errors.ApiError as error:
                    if error.code != 404:
                        raise
                    continue
                items.append(obj)
        revision = await self._storage.store.revision()
        resource = call.served.type
        listed: Object = {
            "kind": resource.list_kind,
            "apiVersion": resource.api_version,
            "metadata": {"resourceVersion": str(revision)},
            "items": items,
        }
        return Response(200, orjson.dumps(listed))

    def _options(self, call: Call) -> DeleteOptions:
        query = call.request.query
        body: Object = {}
        if call.request.body.strip():
            body, _ = decode_object(call.request.body, call.request.headers.get("content-type", ""))
            if body.get("kind") not in (None, "", "DeleteOptions"):
                raise errors.bad_request(f"the body of a delete must be DeleteOptions, not {body.get('kind')}")
        asked: Object = {
            key: query[key] for key in ("gracePeriodSeconds", "propagationPolicy", "orphanDependents") if key in query
        }
        if query.get("dryRun"):
            asked["dryRun"] = [query["dryRun"]]
        made = read_options(asked | body)
        call.dry_run = call.dry_run or made.dry_run
        return made


def read_options(given: Mapping[str, Any]) -> DeleteOptions:
    """Options as a body or a query gives them. Raises ApiError 400 for what has the wrong type, 422 for what cannot be."""
    made = DeleteOptions(_seconds(given.get("gracePeriodSeconds")))
    made.propagation = _text(given, "propagationPolicy")
    orphan = given.get("orphanDependents")
    if orphan is not None and made.propagation is not None:
        problem = "orphanDependents and deletionPropagation cannot be both set"
        raise _refused(errors.FieldError.invalid("propagationPolicy", made.propagation, problem))
    if orphan is not None:
        made.propagation = "Orphan" if orphan in (True, "true", "1") else "Background"
    if made.propagation is not None and made.propagation not in _PROPAGATIONS:
        raise _refused(errors.FieldError.not_supported("propagationPolicy", made.propagation, [*_PROPAGATIONS, "nil"]))
    preconditions = given.get("preconditions") or {}
    if not isinstance(preconditions, dict):
        raise errors.bad_request("preconditions must be an object with uid and resourceVersion")
    made.uid = _text(preconditions, "uid")
    made.resource_version = _text(preconditions, "resourceVersion")
    dry_run = given.get("dryRun") or []
    if dry_run not in ([], ["All"]):
        raise _refused(errors.FieldError.not_supported("dryRun", dry_run, ["All"]))
    made.dry_run = bool(dry_run)
    return made


def _refused(cause: errors.FieldError) -> errors.ApiError:
    return errors.invalid("DeleteOptions", "", [cause], group="meta.k8s.io")


def _text(given: Mapping[str, Any], key: str) -> str | None:
    value = given.get(key)
    if value is None or value == "":
        return None
    if not isinstance(value, str):
        raise errors.bad_request(f"{key} must be a string, not {value!r}"[:_MAX_SHOWN])
    return value


def _seconds(value: Any) -> int | None:
    if value is None or value == "":
        return None
    if isinstance(value, str) and _NUMBER.fullmatch(value):
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool):
        raise errors.bad_request(f"gracePeriodSeconds must be a whole number, not {value!r}"[:_MAX_SHOWN])
    return min(value, _MAX_GRACE_SECONDS)
