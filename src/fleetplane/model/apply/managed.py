"""Server-side apply and the tracking of who owns which field.

``apply`` merges what a manager wants into the live object: fields it applied before and no longer mentions go, unless
someone else owns them; fields someone else owns with another value are a conflict, unless forced. ``track_update``
records who changed what by any other write: the changed fields become the writer's and stop being anyone else's.

Both are pure: they return a new object whose ``managedFields`` are up to date. Where nothing changed they return an
equal object with the same times, so that a repeated request writes nothing. An entry's time changes when its manager
changes any field it owns, as ``metav1.ManagedFieldsEntry`` says.

Sources: KEP-555; apimachinery's ``managedfields`` for the manager names, the limits and the words of conflicts.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from fleetplane.model.apply import lastapplied
from fleetplane.model.apply.entries import (
    APPLY,
    BEFORE_FIRST_APPLY,
    UPDATE,
    Entries,
    Entry,
    FieldFilter,
    Id,
    cap_updates,
    of_object,
    read,
    strip,
    with_entries,
    with_rows,
)
from fleetplane.model.apply.fieldset import Trie, difference, overlap, paths, shown, union, without_below
from fleetplane.model.apply.typed import Comparison, all_fields, applied_fields, compare, merge, remove
from fleetplane.model.errors import ApiError, FieldError, bad_request
from fleetplane.model.jsonvalue import MAX_DEPTH, copied
from fleetplane.model.objects import Object
from fleetplane.model.schema.schema import Schema

Convert = Callable[[Object, str], Object | None]
"""An object in another version, given as ``group/version``; None when that version is no longer served."""
SchemaOf = Callable[[str], Schema | None]
"""The schema of the kind in another version."""


def track_update(
    schema: Schema | None,
    old: Object | None,
    new: Object,
    *,
    manager: str,
    operation: str = UPDATE,
    now: str,
    subresource: str = "",
    api_version: str,
    fields: FieldFilter | None = None,
    convert: Convert | None = None,
    schema_of: SchemaOf | None = None,
) -> Object:
    """``new`` with its managedFields, after a create (``old`` is None), update or patch.

    ``now`` is an RFC 3339 time. ``fields`` says which fields this request can own; ``convert`` and ``schema_of`` are
    needed where managers use other versions (without them all versions are taken to have the same fields). A client may
    change managedFields itself; what is malformed is ignored. Raises ApiError when the objects nest too deep.
    """
    try:
        if old is None:
            return _track_create(
                schema, new, Id.of(manager, operation, subresource, api_version), now, api_version, fields
            )
        entries = _entries_of_request(old, new, subresource)
        if not entries:
            return with_rows(new, [])
        versions = _Versions(schema, old, new, api_version, fields, convert, schema_of)
        changed = versions.comparison(api_version)
        touched = changed.changed
        _take_away(entries, versions)
        if touched:
            own = Id.of(manager, operation, subresource, api_version)
            before = entries.get(own)
            mine = touched if before is None else union(before.fields, touched)
            entries[own] = Entry(api_version, now, mine)
    except RecursionError:
        raise bad_request(f"the object is nested deeper than {MAX_DEPTH} levels") from None
    cap_updates(entries)
    return with_entries(new, entries)


def _track_create(
    schema: Schema | None, new: Object, own: Id, now: str, api_version: str, fields: FieldFilter | None
) -> Object:
    trie = strip(all_fields(schema, new))
    trie.pop(".", None)
    if fields is not None:
        trie = fields.apply(trie)
    entries = _requested(of_object(new)) or {}
    entries[own] = Entry(api_version, now, trie)
    return with_entries(new, entries)


def _entries_of_request(old: Object, new: Object, subresource: str) -> Entries:
    """The entries to start from: the request's own where it set any, otherwise those of the live object."""
    live, requested = of_object(old), of_object(new)
    if not subresource and requested and requested != live:
        found = _requested(requested)
        if found is not None:
            return found
    return read(live)


def _requested(raw: Any) -> Entries | None:
    """Entries that a client sent; None when it sent none that can be read."""
    try:
        return read(raw, trusted=False) if raw else None
    except ValueError:
        return None


class _Versions:
    """The difference between two objects, in each version that a manager uses."""

    def __init__(
        self,
        schema: Schema | None,
        old: Object,
        new: Object,
        api_version: str,
        fields: FieldFilter | None,
        convert: Convert | None,
        schema_of: SchemaOf | None,
    ) -> None:
        self.old, self.new = old, new
        self.fields, self.convert, self.schema_of = fields, convert, schema_of
        self.schema, self.api_version = schema, api_version
        self.known: dict[str, Comparison | None] = {api_version: self.compared(schema, old, new)}

    def compared(self, schema: Schema | None, old: Object, new: Object) -> Comparison:
        found = Comparison(*map(strip, compare(schema, old, new)))
        return found if self.fields is None else Comparison(*map(self.fields.apply, found))

    def comparison(self, version: str) -> Comparison:
        """Only for versions that are served; see ``find``."""
        found = self.find(version)
        return Comparison({}, {}, {}) if found is None else found

    def find(self, version: str) -> Comparison | None:
        """None when the version is no longer served."""
        if self.convert is None or not version:
            return self.known[self.api_version]
        if version not in self.known:
            old, new = self.convert(self.old, version), self.convert(self.new, version)
            schema = self.schema_of(version) if self.schema_of is not None else self.schema
            self.known[version] = None if old is None or new is None else self.compared(schema, old, new)
        return self.known[version]


def _take_away(entries: Entries, versions: _Versions, spare: Id | None = None) -> None:
    """Everyone but ``spare`` loses what was changed and what is gone, in place; who owns nothing goes."""
    for key, entry in list(entries.items()):
        found = versions.find(entry.api_version)
        if found is None:
            del entries[key]
        elif key != spare:
            left = without_below(entry.fields, union(found.changed, found.removed))
            if not left:
                del entries[key]
            elif left is not entry.fields:
                entries[key] = entry._replace(fields=left)


# --- Apply -----------------------------------------------------------------------------------------------------------


def apply(
    schema: Schema | None,
    live: Object | None,
    applied: Object,
    *,
    manager: str,
    force: bool = False,
    now: str,
    subresource: str = "",
    api_version: str,
    fields: FieldFilter | None = None,
    convert: Convert | None = None,
    schema_of: SchemaOf | None = None,
) -> Object:
    """The live object after ``manager`` applied its configuration; ``live`` is None when there is no object yet.

    Both objects are in ``api_version``. Other arguments are those of ``track_update``. Raises ApiError: 409 with a cause
    ``FieldManagerConflict`` per field owned by others, 400 for a configuration that cannot be applied.
    """
    if of_object(applied):
        raise bad_request("metadata.managedFields must be nil")
    try:
        return _Apply(schema, live, applied, manager, now, subresource, api_version, fields, convert, schema_of).run(
            force=force
        )
    except RecursionError:
        raise bad_request(f"the object is nested deeper than {MAX_DEPTH} levels") from None


class _Apply:
    """One apply, step by step."""

    def __init__(
        self,
        schema: Schema | None,
        live: Object | None,
        applied: Object,
        manager: str,
        now: str,
        subresource: str,
        api_version: str,
        fields: FieldFilter | None,
        convert: Convert | None,
        schema_of: SchemaOf | None,
    ) -> None:
        self.schema, self.applied, self.manager, self.now = schema, applied, manager, now
        self.live: Object = with_rows(live, []) if live is not None else {}
        self.api_version, self.fields = api_version, fields
        self.convert, self.schema_of = convert, schema_of
        self.own = Id.of(manager, APPLY, subresource, api_version)
        self.before = live
        self.entries = read(of_object(live))
        if live is not None and not self.entries:
            self.entries = self.owners_of_old_object()

    def owners_of_old_object(self) -> Entries:
        """An object nobody tracked is taken to be of whoever wrote it before the first apply."""
        trie = self.owned(all_fields(self.schema, self.live))
        key = Id.of(BEFORE_FIRST_APPLY, UPDATE, "", self.api_version)
        return {key: Entry(self.api_version, self.now, trie)} if trie else {}

    def owned(self, trie: Trie) -> Trie:
        trie = strip({element: node for element, node in trie.items() if element != "."})
        return trie if self.fields is None else self.fields.apply(trie)

    def run(self, *, force: bool) -> Object:
        wanted = applied_fields(self.schema, self.applied)
        config = self.owned(wanted)
        last = self.entries.get(self.own)
        merged: Object = copied(self.live)
        merge(self.schema, merged, copied(self.applied))
        if last is not None and (last.fields != config or self.version_of(last) != self.api_version):
            merged = self.pruned(merged, last, wanted)
        if self.before is None:
            return self.first(merged, config)

        versions = _Versions(
            self.schema, self.live, merged, self.api_version, self.fields, self.convert, self.schema_of
        )
        if not force:
            self.refuse_conflicts(versions)
        _take_away(self.entries, versions, spare=self.own)
        lastapplied.refresh(self.manager, merged, self.applied)

        changed = versions.comparison(self.api_version)
        is_new = last is None or not changed.is_same or last.fields != config or last.api_version != self.api_version
        self.entries[self.own] = Entry(self.api_version, self.now if is_new or last is None else last.time, config)
        if not config:
            del self.entries[self.own]
        cap_updates(self.entries)
        return with_entries(merged, self.entries)

    def first(self, merged: Object, config: Trie) -> Object:
        """A new object: there is nobody to conflict with, or to take anything from."""
        lastapplied.refresh(self.manager, merged, self.applied)
        if config:
            self.entries[self.own] = Entry(self.api_version, self.now, config)
        return with_entries(merged, self.entries)

    def pruned(self, merged: Object, last: Entry, wanted: Trie) -> Object:
        """``merged`` without what this manager applied last time, applies no more, and nobody else owns.

        Fields are taken out in the version they were applied in; owners in other versions then get back what was
        theirs, each in its version.
        """
        owned = {self.api_version: wanted}
        for key, entry in self.entries.items():
            if key != self.own:
                version = self.version_of(entry)
                owned[version] = union(owned.get(version, {}), entry.fields)
        start = self.version_of(last)
        result = self.in_version(merged, start)
        if result is None:
            return merged
        result = copied(result)
        remove(self.schema_in(start), result, last.fields, union(owned.pop(start, {}), _IDENTITY))
        for version, theirs in owned.items():
            before, after = self.in_version(merged, version), self.in_version(result, version)
            if before is None or after is None:
                continue
            lost = compare(self.schema_in(version), before, after).removed
            if lost:
                result = copied(before)
                remove(self.schema_in(version), result, lost, union(theirs, _IDENTITY))
        back = self.in_version(result, self.api_version)
        return merged if back is None else back

    def version_of(self, entry: Entry) -> str:
        return entry.api_version if self.convert is not None and entry.api_version else self.api_version

    def in_version(self, obj: Object, version: str) -> Object | None:
        if self.convert is None or obj.get("apiVersion") == version:
            return obj
        return self.convert(obj, version)

    def schema_in(self, version: str) -> Schema | None:
        return self.schema if self.schema_of is None or version == self.api_version else self.schema_of(version)

    def refuse_conflicts(self, versions: _Versions) -> None:
        """Raises ApiError 409 when this would change what others own."""
        found: list[tuple[Id, Trie]] = []
        for key, entry in self.entries.items():
            if key != self.own and (changed := versions.find(entry.api_version)) is not None:
                common = overlap(entry.fields, changed.changed)
                if common:
                    found.append((key, common))
        if not found:
            return
        allowed = lastapplied.unchanged(self.schema, self.manager, self.live)
        if allowed:
            left = ((key, difference(trie, allowed)) for key, trie in found)
            found = [(key, trie) for key, trie in left if trie]
        if found:
            raise _conflict(found, self.entries)


_IDENTITY: Final[Trie] = {
    "f:apiVersion": {},
    "f:kind": {},
    "f:metadata": {".": {}, "f:name": {}, "f:namespace": {}},
}
"""What an object never loses."""


def _conflict(found: list[tuple[Id, Trie]], entries: Entries) -> ApiError:
    conflicts = sorted((_shown_manager(key, entries[key]), shown(path)) for key, trie in found for path in paths(trie))
    causes = [FieldError("FieldManagerConflict", path, f"conflict with {manager}") for manager, path in conflicts]
    if len(conflicts) == 1:
        manager, path = conflicts[0]
        return ApiError(409, f"Apply failed with 1 conflict: conflict with {manager}: {path}", causes=causes)
    lines: list[str] = []
    last = ""
    for manager, path in conflicts:
        if manager != last:
            lines.append(f"conflicts with {manager}:")
            last = manager
        lines.append(f"- {path}")
    return ApiError(409, f"Apply failed with {len(conflicts)} conflicts: " + "\n".join(lines), causes=causes)


def _shown_manager(key: Id, entry: Entry) -> str:
    text = f'"{key.manager}"'
    if key.subresource:
        text += f' with subresource "{key.subresource}"'
    return text if key.operation == APPLY else f"{text} using {entry.api_version}"
