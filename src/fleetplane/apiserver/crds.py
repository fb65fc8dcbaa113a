"""CustomResourceDefinitions: what a definition serves, the conditions it reports, and its end.

A definition is checked when it is written, so ``NamesAccepted`` and ``Established`` stand in the very object its creator is
answered with, and by then its resources are served. Deleting it deletes its objects first, under its own finalizer.
Follows KEP-95 (CRD v1) and the apiextensions API reference.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import orjson

from fleetplane.apiserver.kinds.behaviour import KindBehaviour
from fleetplane.apiserver.own_writes import OwnWrites
from fleetplane.apiserver.registry import ALL_VERBS, Converter, Registry, Scale, Served, Storage
from fleetplane.apiserver.unique import Claims, unique_claims
from fleetplane.model import errors
from fleetplane.model.builtin.types import CUSTOM_RESOURCE_DEFINITIONS
from fleetplane.model.jsonpath import JsonPath
from fleetplane.model.objects import Object, is_condition_true
from fleetplane.model.resources import ResourceType
from fleetplane.model.schema import Schema
from fleetplane.model.table import custom_columns
from fleetplane.store.protocol import StoreError

log = logging.getLogger(__name__)

CLEANUP_FINALIZER = "customresourcecleanup.apiextensions.k8s.io"
_PROSE = frozenset({"description", "title"})
_VALUES = frozenset({"default", "enum", "example", "x-kubernetes-validations"})
ConverterFor = Callable[[str, Object], Converter | None]
"""From (cluster, definition) the conversion between its versions."""


class Definitions:
    """Keeps a registry in step with the definitions of all clusters; fed by a follower."""

    def __init__(self, registry: Registry, converter_for: ConverterFor) -> None:
        self._registry = registry
        self._converter_for = converter_for
        self._refused: dict[tuple[str, str], str] = {}
        self._again: set[tuple[str, str]] = set()
        self._freed = asyncio.Event()

    def reset(self) -> None:
        """Nothing to forget: what is gone is noticed when it is not seen again."""

    def apply(self, cluster: str, definition: Object, deleted: bool) -> None:
        spec = definition["spec"]
        group, plural = spec["group"], spec["names"]["plural"]
        served: Sequence[Served] = ()
        if not deleted and is_condition_true(definition, "Established"):
            served = serve_definition(definition, self._converter_for(cluster, definition))
        self._registry.replace_custom(cluster, group, plural, served)
        self._look_again(cluster, definition, deleted)

    def _look_again(self, cluster: str, definition: Object, deleted: bool) -> None:
        """Note whose names are refused, and ask those again whose competitor has changed or gone."""
        key, group = (cluster, definition["metadata"]["name"]), definition["spec"]["group"]
        if deleted or is_condition_true(definition, "NamesAccepted"):
            self._refused.pop(key, None)
        else:
            self._refused[key] = group
        waiting = {one for one, its in self._refused.items() if one[0] == cluster and its == group and one != key}
        if waiting:
            self._again |= waiting
            self._freed.set()

    async def run(self, own: OwnWrites) -> None:
        """Have definitions judged again whose names may be free now. Until cancelled."""
        while True:
            await self._freed.wait()
            self._freed.clear()
            again, self._again = self._again, set()
            for cluster, name in sorted(again):
                try:
                    await own.change(cluster, CUSTOM_RESOURCE_DEFINITIONS, name, _as_it_is)
                except errors.ApiError as error:
                    if error.code != 404:
                        log.warning("definition %s cannot be judged again: %s", name, error)
                except StoreError as error:
                    log.warning("definition %s cannot be judged again: %s", name, error)


async def _as_it_is(definition: Object) -> Object:
    """Admission fills in the conditions anew."""
    return definition


def serve_definition(definition: Object, converter: Converter | None) -> list[Served]:
    """The resources a definition serves, one per served version."""
    spec = definition["spec"]
    names = (definition.get("status") or {}).get("acceptedNames") or spec["names"]
    versions: list[Object] = spec["versions"]
    stored = next(one["name"] for one in versions if one.get("storage"))
    terminating = bool(definition["metadata"].get("deletionTimestamp"))
    fingerprint = hashlib.sha256(orjson.dumps([one.get("schema") for one in versions])).hexdigest()[:12]
    storage = Storage(spec["group"], names["plural"], stored, fingerprint)
    made = []
    preferred = True
    claims = unique_claims(definition)
    for version in sorted(versions, key=lambda one: version_priority(one["name"])):
        if not version.get("served"):
            continue
        made.append(
            _serve_version(
                spec, names, version, storage, converter, claims, preferred=preferred, terminating=terminating
            )
        )
        preferred = False
    return made


def _serve_version(
    spec: Object,
    names: Object,
    version: Object,
    storage: Storage,
    converter: Converter | None,
    claims: Claims,
    *,
    preferred: bool,
    terminating: bool,
) -> Served:
    # Kept as text: most definitions are served for a long time before anything of their kind is written, if ever.
    schema = orjson.dumps((version.get("schema") or {}).get("openAPIV3Schema"))
    sub = version.get("subresources") or {}
    api_version = f"{spec['group']}/{version['name']}"
    subresources: dict[str, tuple[str, str]] = {}
    if "status" in sub:
        subresources["status"] = (api_version, names["kind"])
    scale: Scale | None = None
    if "scale" in sub:
        subresources["scale"] = ("autoscaling/v1", "Scale")
        scale = _scale(sub["scale"])
    fields = {
        one["jsonPath"].lstrip("."): _selectable(one["jsonPath"]) for one in version.get("selectableFields") or []
    }
    indexed = frozenset(fields)
    return Served(
        type=ResourceType(
            spec["group"],
            version["name"],
            names["kind"],
            names["plural"],
            spec["scope"] == "Namespaced",
            names.get("singular") or names["kind"].lower(),
            tuple(names.get("shortNames") or ()),
            tuple(names.get("categories") or ()),
        ),
        storage=storage,
        behaviour=KindBehaviour(
            terms=partial(_field_terms, fields),
            indexed_fields=indexed,
            claims=claims,
            has_generation=True,
            status_subresource="status" in sub,
            unconditional_update=False,
        ),
        verbs=ALL_VERBS,
        subresources=subresources,
        raw_schema=partial(orjson.loads, schema),
        make_schema=partial(_compile, schema),
        columns=custom_columns(version.get("additionalPrinterColumns")),
        custom=True,
        preferred=preferred,
        scale=scale,
        converter=converter,
        deprecated=_deprecation(version, names["kind"], api_version),
        terminating=terminating,
    )


def _compile(schema: bytes) -> Schema:
    raw = orjson.loads(schema) or {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    return Schema.compile(_without_prose(raw), root=True)


def _without_prose(raw: Any) -> Any:
    """What is only for people makes up half of a schema, and no check looks at it. A field may be called ``description``."""
    if isinstance(raw, list):
        return [_without_prose(value) for value in raw]
    if not isinstance(raw, dict):
        return raw
    return {
        key: value if key in _VALUES else _without_prose(value)
        for key, value in raw.items()
        if not (key in _PROSE and type(value) is str)
    }


def _deprecation(version: Object, kind: str, api_version: str) -> str:
    if not version.get("deprecated"):
        return ""
    return version.get("deprecationWarning") or f"{api_version} {kind} is deprecated"


def _scale(declared: Object) -> Scale:
    selector = declared.get("labelSelectorPath")
    return Scale(
        _keys(declared["specReplicasPath"]),
        _keys(declared["statusReplicasPath"]),
        _keys(selector) if selector else None,
    )


def _keys(path: str) -> tuple[str, ...]:
    return tuple(path.lstrip(".").split("."))


def _selectable(path: str) -> Callable[[Mapping[str, Any]], str]:
    compiled = JsonPath.parse(f"{{{path}}}")

    def read(obj: Mapping[str, Any]) -> str:
        found = compiled.find(obj)
        if not found or found[0] is None:
            return ""
        value = found[0]
        return str(value).lower() if isinstance(value, bool) else str(value)

    return read


def _field_terms(
    fields: Mapping[str, Callable[[Mapping[str, Any]], str]], obj: Mapping[str, Any]
) -> list[tuple[str, str]]:
    return [(name, read(obj)) for name, read in fields.items()]


def version_priority(name: str) -> tuple[int, int, int, str]:
    """Sort key of a version name: GA, beta, alpha, then the rest by name; newest first."""
    rest = name[1:] if name.startswith("v") else ""
    for rank, word in ((1, "beta"), (2, "alpha")):
        major, found, minor = rest.partition(word)
        if found and major.isdigit() and (minor.isdigit() or not minor):
            return rank, -int(major), -int(minor or 0), ""
    return (0, -int(rest), 0, "") if rest.isdigit() else (3, 0, 0, name)


def with_conditions(definition: Object, registry: Registry, cluster: str, now: str) -> Object:
    """The definition with the status a server gives it: accepted names, conditions, stored versions; changed in place."""
    spec = definition["spec"]
    status = definition.setdefault("status", {})
    names = spec["names"]
    conflict = _name_conflict(spec, registry, cluster)
    if conflict is None:
        status["acceptedNames"] = _accepted(names)
        _set_condition(status, "NamesAccepted", "True", "NoConflicts", "no conflicts found", now)
        _set_condition(
            status, "Established", "True", "InitialNamesAccepted", "the initial names have been accepted", now
        )
    else:
        reason, message = conflict
        status.setdefault("acceptedNames", {"plural": "", "kind": ""})
        _set_condition(status, "NamesAccepted", "False", reason, message, now)
        if not is_condition_true(definition, "Established"):
            _set_condition(status, "Established", "False", "NotAccepted", "not all names are accepted", now)
    stored = next((one["name"] for one in spec["versions"] if one.get("storage")), None)
    versions = status.setdefault("storedVersions", [])
    if stored and stored not in versions:
        versions.append(stored)
    return definition


def _accepted(names: Object) -> Object:
    made = {"kind": names["kind"], "plural": names["plural"]}
    made["listKind"] = names.get("listKind") or names["kind"] + "List"
    made["singular"] = names.get("singular") or names["kind"].lower()
    for key in ("shortNames", "categories"):
        if names.get(key):
            made[key] = list(names[key])
    return made


def _name_conflict(spec: Object, registry: Registry, cluster: str) -> tuple[str, str] | None:
    names = spec["names"]
    wanted_names = {names["plural"], names.get("singular") or names["kind"].lower(), *(names.get("shortNames") or ())}
    wanted_kinds = {names["kind"], names.get("listKind") or names["kind"] + "List"}
    for one in registry.all(cluster):
        resource = one.type
        if resource.group != spec["group"] or (one.custom and resource.plural == names["plural"]):
            continue
        taken = {resource.plural, resource.singular, *resource.short_names} & wanted_names
        if taken:
            word = sorted(taken)[0]
            reason = "PluralConflict" if word == names["plural"] else "NamesConflict"
            return reason, f'"{word}" is already in use'
        kinds = {resource.kind, resource.list_kind} & wanted_kinds
        if kinds:
            return "KindConflict", f'"{sorted(kinds)[0]}" is already in use'
    return None


def _set_condition(status: Object, kind: str, value: str, reason: str, message: str, now: str) -> None:
    conditions: list[Object] = status.setdefault("conditions", [])
    for one in conditions:
        if one["type"] == kind:
            if one["status"] != value:
                one["lastTransitionTime"] = now
            one |= {"status": value, "reason": reason, "message": message}
            return
    conditions.append({"lastTransitionTime": now, "message": message, "reason": reason, "status": value, "type": kind})
