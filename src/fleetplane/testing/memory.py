"""A small server in memory, behind the ``Transport`` protocol: for unit tests of things that talk to a server.

It keeps the behaviours a client or controller can trip over (revisions, conflicts, uids, finalizers, generation, status
as its own door, watch with bookmarks and expiry, logical clusters, dry run) and leaves out what a server is otherwise
for: no schema, no defaults, no admission, no authorization. Apply is a three-way merge by field manager, not the full
algebra of server-side apply: lists are atomic. Whoever needs the truth starts a plane.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import orjson

from fleetplane.client.protocol import CLUSTER_ANNOTATION, INITIAL_EVENTS_END, ROOT, Capabilities, Pairs
from fleetplane.client.rest import RestClient
from fleetplane.model.environment import Environment, name_suffix, timestamp
from fleetplane.model.errors import ApiError, already_exists, bad_request, expired, not_found, stale, unknown_path
from fleetplane.model.objects import Object
from fleetplane.model.selectors import FieldSelector, LabelSelector

CAPABILITIES = Capabilities(logical_clusters=True, watch_list=True)


class Place(NamedTuple):
    """Where a request points; ``cluster`` is ``*`` for all of them, ``namespace`` empty for all or none."""

    cluster: str
    group: str
    version: str
    resource: str
    namespace: str
    name: str
    subresource: str


class Key(NamedTuple):
    cluster: str
    group: str
    resource: str
    namespace: str
    name: str


@dataclass(frozen=True, slots=True)
class Change:
    """One entry of the log: ``new`` is the state after it (for a deletion the last one, at the deletion's revision)."""

    revision: int
    key: Key
    deleted: bool
    old: Object | None
    new: Object


@dataclass
class Recorded:
    """One request as the server saw it."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes


@dataclass
class MemoryServer:
    """A ``Transport``. ``requests`` records everything but reads of streams; ``writes`` what changed something."""

    environment: Environment
    objects: dict[Key, Object] = field(default_factory=dict)
    requests: list[Recorded] = field(default_factory=list)
    writes: list[tuple[str, Key]] = field(default_factory=list)
    page_size: int | None = None
    revision: int = 1
    compacted: int = 0
    _log: list[Change] = field(default_factory=list)
    _changed: asyncio.Event = field(default_factory=asyncio.Event)
    _applied: dict[tuple[Key, str], Object] = field(default_factory=dict)
    _pages: dict[str, list[Object]] = field(default_factory=dict)

    def client(self, cluster: str | None = ROOT) -> RestClient:
        return RestClient(self, cluster=cluster, capabilities=CAPABILITIES)

    def compact(self) -> None:
        """Forget the log: watches from an earlier revision expire."""
        self.compacted = self.revision
        self._log.clear()

    # -- Transport

    async def request(
        self, method: str, path: str, query: Pairs, headers: Pairs, body: bytes
    ) -> tuple[int, Mapping[str, str], bytes]:
        await asyncio.sleep(0)  # as any transport, it may yield
        sent = Recorded(method, path, dict(query), dict(headers), body)
        self.requests.append(sent)
        try:
            if path == "/version":
                return 200, {}, orjson.dumps({"major": "1", "minor": "37", "gitVersion": "v1.37.0+fleetplane"})
            answer = self._handle(sent, _place(path))
        except ApiError as error:
            return error.code, {}, orjson.dumps(error.to_status())
        return 200, {}, orjson.dumps(answer)

    @asynccontextmanager
    async def stream(
        self, method: str, path: str, query: Pairs, headers: Pairs, body: bytes
    ) -> AsyncIterator[tuple[int, AsyncIterator[bytes]]]:
        wanted = dict(query)
        since = int(wanted.get("resourceVersion") or 0)
        if since and since < self.compacted:
            yield 410, _one(orjson.dumps(expired("too old resource version").to_status()))
        else:
            yield 200, self._follow(_place(path), wanted)

    async def close(self) -> None:
        pass

    # -- reading

    async def _follow(self, place: Place, query: dict[str, str]) -> AsyncIterator[bytes]:
        seen = int(query.get("resourceVersion") or self.revision)
        if query.get("sendInitialEvents") == "true":
            seen = self.revision  # before the first is handed over: what changes meanwhile follows as a change
            for obj in self._selected(place, query):
                yield _line("ADDED", obj)
            yield _line("BOOKMARK", _bookmark(seen, {INITIAL_EVENTS_END: "true"}))
        loop = asyncio.get_running_loop()
        end = loop.time() + float(query["timeoutSeconds"]) if "timeoutSeconds" in query else None
        while True:
            if seen < self.compacted:
                yield _line("ERROR", expired("too old resource version").to_status())
                return
            changed = self._changed  # taken before looking, so that no change falls between looking and waiting
            for change in self._log[bisect_right(self._log, seen, key=_revision) :]:
                seen = change.revision
                if (line := _event(change, place, query)) is not None:
                    yield line
            try:
                async with asyncio.timeout_at(end):
                    await changed.wait()
            except TimeoutError:
                yield _line("BOOKMARK", _bookmark(self.revision, {}))
                return

    def _selected(self, place: Place, query: Mapping[str, str]) -> list[Object]:
        found = [(key, obj) for key, obj in sorted(self.objects.items()) if _is_in(place, key)]
        return [_shown(obj, place, key) for key, obj in found if _matches(obj, query)]

    def _list(self, place: Place, query: Mapping[str, str]) -> Object:
        token = query.get("continue", "")
        if token and token not in self._pages:
            raise expired("the provided continue parameter is too old")
        rest = self._pages.pop(token) if token else self._selected(place, query)
        meta: Object = {"resourceVersion": str(self.revision)}
        limit = min(int(query.get("limit") or 0) or len(rest), self.page_size or len(rest))
        if len(rest) > limit:
            meta["continue"] = f"page-{self.revision}-{len(rest)}"
            meta["remainingItemCount"] = len(rest) - limit
            self._pages[meta["continue"]] = rest[limit:]
        return {"kind": "List", "apiVersion": "v1", "metadata": meta, "items": rest[:limit]}

    # -- writing

    def _handle(self, sent: Recorded, place: Place) -> Object:
        key = Key(place.cluster, place.group, place.resource, place.namespace, place.name)
        current = self.objects.get(key)
        body = orjson.loads(sent.body) if sent.body else {}
        dry_run = sent.query.get("dryRun") == "All" or bool(body and "All" in (_mapping(body).get("dryRun") or ()))
        if sent.method == "GET" and not place.name:
            return self._list(place, sent.query)
        if sent.method == "POST" and not place.name:
            return self._create(key, _mapping(body), dry_run)
        if sent.method == "DELETE" and not place.name:
            for one in [one for one, obj in self.objects.items() if _is_in(place, one) and _matches(obj, sent.query)]:
                self._delete(one, self.objects[one], {}, dry_run)
            return {"kind": "Status", "apiVersion": "v1", "status": "Success"}
        is_apply = sent.headers.get("content-type") == "application/apply-patch+yaml"
        if current is None:
            if is_apply and not place.subresource:
                return self._apply(key, None, body, sent.query["fieldManager"], dry_run, "")
            raise not_found(place.resource, place.name, group=place.group)
        match sent.method:
            case "GET":
                return current
            case "DELETE":
                return self._delete(key, current, body, dry_run)
            case "PUT":
                return self._update(key, current, body, place.subresource, dry_run)
            case "PATCH" if is_apply:
                return self._apply(key, current, body, sent.query["fieldManager"], dry_run, place.subresource)
            case "PATCH":
                patched = _patched(current, body, sent.headers["content-type"])
                return self._update(key, current, patched, place.subresource, dry_run)
            case "POST" if place.subresource == "binding":
                bound = {**current, "spec": {**current.get("spec", {}), "nodeName": body["target"]["name"]}}
                return self._update(key, current, bound, "", dry_run)
        raise unknown_path()

    def _create(self, key: Key, obj: Object, dry_run: bool) -> Object:
        meta = dict(obj.get("metadata") or {})
        if not meta.get("name"):
            if not meta.get("generateName"):
                raise bad_request("name or generateName is required")
            meta["name"] = meta["generateName"] + name_suffix(self.environment)
        key = key._replace(name=meta["name"])
        if key in self.objects:
            raise already_exists(key.resource, key.name, group=key.group)
        meta |= {
            "uid": self.environment.uuid(),
            "creationTimestamp": timestamp(self.environment.now()),
            "generation": 1,
        }
        if key.namespace:
            meta["namespace"] = key.namespace
        return self._put("create", key, None, {**obj, "metadata": meta}, dry_run)

    def _update(self, key: Key, current: Object, obj: Object, subresource: str, dry_run: bool) -> Object:
        old, new = current["metadata"], obj.get("metadata") or {}
        if new.get("resourceVersion") and new["resourceVersion"] != old["resourceVersion"]:
            raise stale(key.resource, key.name, group=key.group)
        if new.get("uid") and new["uid"] != old["uid"]:
            raise stale(key.resource, key.name, group=key.group)
        if subresource == "status":
            updated = {**current, "status": obj.get("status", {})}
        else:
            meta = {**new, **{k: old[k] for k in _KEPT if k in old}}
            updated = {**obj, "metadata": meta}
            updated.pop("status", None)
            if "status" in current:
                updated["status"] = current["status"]
            if _content(updated) != _content(current):
                meta["generation"] = int(old.get("generation", 1)) + 1
        if updated == current:
            return current
        if updated["metadata"].get("deletionTimestamp") and not updated["metadata"].get("finalizers"):
            return self._remove(key, updated, dry_run)
        return self._put("update", key, current, updated, dry_run)

    def _apply(
        self, key: Key, current: Object | None, obj: Object, manager: str, dry_run: bool, subresource: str
    ) -> Object:
        before = self._applied.get((key, manager + subresource), {})
        if not dry_run:
            self._applied[key, manager + subresource] = obj
        entry = {"manager": manager, "operation": "Apply", "fieldsType": "FieldsV1", "fieldsV1": _fields(obj)}
        if subresource:
            entry["subresource"] = subresource
        others = [
            one
            for one in (current or {}).get("metadata", {}).get("managedFields", [])
            if (one["manager"], one.get("subresource", "")) != (manager, subresource)
        ]
        merged = _three_way(current or {}, before, obj)
        merged["metadata"] = {**merged["metadata"], "managedFields": [*others, entry]}
        if current is None:
            return self._create(key, merged, dry_run)
        return self._update(key, current, merged, subresource, dry_run)

    def _delete(self, key: Key, current: Object, options: Object, dry_run: bool) -> Object:
        meta = current["metadata"]
        wanted = options.get("preconditions") or {}
        if wanted.get("uid", meta["uid"]) != meta["uid"]:
            raise stale(key.resource, key.name, group=key.group)
        if wanted.get("resourceVersion", meta["resourceVersion"]) != meta["resourceVersion"]:
            raise stale(key.resource, key.name, group=key.group)
        if not meta.get("finalizers"):
            return self._remove(key, current, dry_run)
        if meta.get("deletionTimestamp"):
            return current
        marked = {**meta, "deletionTimestamp": timestamp(self.environment.now()), "deletionGracePeriodSeconds": 0}
        return self._put("delete", key, current, {**current, "metadata": marked}, dry_run)

    def _put(self, verb: str, key: Key, old: Object | None, obj: Object, dry_run: bool) -> Object:
        if dry_run:
            return obj
        self.revision += 1
        stored = {**obj, "metadata": {**obj["metadata"], "resourceVersion": str(self.revision)}}
        self.objects[key] = stored
        self._tell(verb, Change(self.revision, key, False, old, stored))
        return stored

    def _remove(self, key: Key, last: Object, dry_run: bool) -> Object:
        if dry_run:
            return last
        self.revision += 1
        old = self.objects.pop(key)
        for applied in [one for one in self._applied if one[0] == key]:
            del self._applied[applied]
        final = {**last, "metadata": {**last["metadata"], "resourceVersion": str(self.revision)}}
        self._tell("remove", Change(self.revision, key, True, old, final))
        return final

    def _tell(self, verb: str, change: Change) -> None:
        self.writes.append((verb, change.key))
        self._log.append(change)
        self._changed.set()
        self._changed = asyncio.Event()


_KEPT = ("uid", "creationTimestamp", "generation", "resourceVersion", "namespace", "name", "deletionTimestamp")


def _place(path: str) -> Place:
    parts = path.strip("/").split("/")
    cluster = ROOT
    if parts[0] == "clusters":
        cluster, parts = parts[1], parts[2:]
    group = ""
    if parts[0] == "apis":
        group, parts = parts[1], parts[1:]
    elif parts[0] != "api":
        raise unknown_path()
    version, rest = parts[1], parts[2:]
    namespace = ""
    if rest[0] == "namespaces" and len(rest) > 2:
        namespace, rest = rest[1], rest[2:]
    resource, name, subresource = [*rest, "", ""][:3]
    return Place(cluster, group, version, resource, namespace, name, subresource)


def _is_in(place: Place, key: Key) -> bool:
    return (
        place.cluster in {"*", key.cluster}
        and (place.group, place.resource) == (key.group, key.resource)
        and place.namespace in {"", key.namespace}
    )


def _shown(obj: Object, place: Place, key: Key) -> Object:
    if place.cluster != "*":
        return obj
    meta = obj["metadata"]
    annotated = {**(meta.get("annotations") or {}), CLUSTER_ANNOTATION: key.cluster}
    return {**obj, "metadata": {**meta, "annotations": annotated}}


def _matches(obj: Object, query: Mapping[str, str]) -> bool:
    labels = LabelSelector.parse(query.get("labelSelector", ""))
    fields = FieldSelector.parse(query.get("fieldSelector", ""))
    values = {path: _at(obj, path) for path in fields.fields()}
    return labels.matches(obj["metadata"].get("labels") or {}) and fields.matches(values)


def _at(obj: Object, path: str) -> str:
    found: Any = obj
    for part in path.split("."):
        found = found.get(part) if isinstance(found, dict) else None
    return "" if found is None else str(found)


def _event(change: Change, place: Place, query: Mapping[str, str]) -> bytes | None:
    if not _is_in(place, change.key):
        return None
    was = change.old is not None and _matches(change.old, query)
    is_ = not change.deleted and _matches(change.new, query)
    shown = _shown(change.new, place, change.key)
    if is_:
        return _line("MODIFIED" if was else "ADDED", shown)
    return _line("DELETED", shown) if was else None


def _revision(change: Change) -> int:
    return change.revision


def _line(event: str, obj: Object) -> bytes:
    return orjson.dumps({"type": event, "object": obj}) + b"\n"


def _bookmark(revision: int, annotations: dict[str, str]) -> Object:
    return {
        "kind": "Bookmark",
        "apiVersion": "v1",
        "metadata": {"resourceVersion": str(revision), "annotations": annotations},
    }


async def _one(chunk: bytes) -> AsyncIterator[bytes]:
    yield chunk


def _mapping(body: Any) -> Object:
    return body if isinstance(body, dict) else {}


def _content(obj: Object) -> Object:
    return {key: value for key, value in obj.items() if key not in {"metadata", "status"}}


def _patched(current: Object, patch: Any, media_type: str) -> Object:
    if media_type == "application/json-patch+json":
        return _json_patched(current, patch)
    merged = _merged(current, patch)
    return merged if isinstance(merged, dict) else {}


def _merged(target: Any, patch: Any) -> Any:
    """RFC 7386."""
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = _merged(result.get(key), value)
    return result


def _json_patched(current: Object, patch: list[Object]) -> Object:
    """RFC 6902's add, replace, remove and test."""
    result = orjson.loads(orjson.dumps(current))
    for operation in patch:
        *parents, last = [part.replace("~1", "/").replace("~0", "~") for part in operation["path"].split("/")[1:]]
        target: Any = result
        for part in parents:
            target = target[int(part)] if isinstance(target, list) else target[part]
        match operation["op"], target:
            case "test", dict():
                if target.get(last) != operation["value"]:
                    raise ApiError(422, "the server rejected our request due to an error in our request")
            case "remove", dict():
                del target[last]
            case "remove", list():
                del target[int(last)]
            case "add", list():
                target.insert(len(target) if last == "-" else int(last), operation["value"])
            case _, _:
                target[int(last) if isinstance(target, list) else last] = operation["value"]
    return dict(result)


_IDENTITY = frozenset({"apiVersion", "kind", "name", "namespace", "uid", "resourceVersion"})


def _fields(obj: Object) -> Object:
    """FieldsV1 of an applied object, with lists as leaves."""
    fields = {
        f"f:{key}": _fields(value) if isinstance(value, dict) else {}
        for key, value in obj.items()
        if key not in _IDENTITY
    }
    return {key: value for key, value in fields.items() if value or key != "f:metadata"}


def _three_way(current: Any, before: Any, after: Any) -> Any:
    if not isinstance(after, dict) or not isinstance(current, dict):
        return after
    before = before if isinstance(before, dict) else {}
    kept = {key: value for key, value in current.items() if key not in before or key in after}
    return kept | {key: _three_way(current.get(key), before.get(key), value) for key, value in after.items()}
