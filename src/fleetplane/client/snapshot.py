"""One object as a cache keeps it: its JSON, and what has been read out of it so far.

A cache may hold a hundred thousand objects of which few are looked into at a time, and a decoded object takes about
five times the memory of its JSON. So bytes are what is kept; the decoded form is made on first touch, shared by
everyone, and forgotten again after enough other objects have been touched.

Objects handed out are **immutable by convention**: they are shared between everyone who reads the cache. Whoever wants
to change one makes a copy (and will usually rather apply or patch).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from sys import intern
from typing import Final, NamedTuple

import msgspec
import orjson

from fleetplane.client.protocol import CLUSTER_ANNOTATION, ROOT
from fleetplane.model.objects import Object
from fleetplane.model.resources import ResourceType


class ObjectKey(NamedTuple):
    """Which object of a resource. ``namespace`` is empty for cluster-scoped ones."""

    cluster: str
    namespace: str
    name: str

    def __str__(self) -> str:
        where = "" if self.cluster == ROOT else f"{self.cluster}:"
        return where + (f"{self.namespace}/{self.name}" if self.namespace else self.name)


class Owner(msgspec.Struct, rename="camel", frozen=True):
    api_version: str = ""
    kind: str = ""
    name: str = ""
    uid: str = ""
    controller: bool | None = None

    @property
    def group(self) -> str:
        return self.api_version.rpartition("/")[0]


class Meta(msgspec.Struct, rename="camel", frozen=True):
    """The part of ObjectMeta that caches, predicates and mappings ask for."""

    name: str = ""
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""
    generation: int = 0
    deletion_timestamp: str | None = None
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None
    finalizers: list[str] | None = None
    owner_references: list[Owner] | None = None


class _Partial(msgspec.Struct):
    metadata: Meta = msgspec.field(default_factory=Meta)


_decode_meta: Final = msgspec.json.Decoder(_Partial).decode
_decode_members: Final = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_NOTHING: Final[Mapping[str, str]] = {}


class DecodedPool:
    """Remembers which snapshots are decoded, and lets the longest-decoded go when there are more than ``limit``."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._decoded: deque[Snapshot] = deque()

    def add(self, snapshot: Snapshot) -> None:
        self._decoded.append(snapshot)
        if len(self._decoded) > self.limit:
            self._decoded.popleft().forget()


class Snapshot:
    """A state of an object. Reading anything of it is cheap the second time.

    ``verified`` belongs to whoever applies to the object: the digest of what this very state was found to satisfy.
    """

    __slots__ = ("_meta", "_object", "_pool", "_resource", "encoded", "key", "verified", "version")

    def __init__(self, encoded: bytes, resource: ResourceType, pool: DecodedPool, cluster: str | None = ROOT) -> None:
        meta = _decode_meta(encoded).metadata
        if cluster is None:
            cluster = (meta.annotations or _NOTHING).get(CLUSTER_ANNOTATION, ROOT)
        self.encoded = encoded
        # Objects are many, namespaces few: each name of one is kept once.
        self.key = ObjectKey(intern(cluster), intern(meta.namespace), meta.name)
        self.verified = 0
        self.version = version_number(meta.resource_version)
        self._resource = resource
        self._pool = pool
        self._meta: Meta | None = meta
        self._object: Object | None = None
        pool.add(self)

    @property
    def object(self) -> Object:
        """The whole object, decoded. Shared: never change it."""
        if self._object is None:
            if self._meta is None:
                self._pool.add(self)
                self._meta = _decode_meta(self.encoded).metadata
            obj: Object = orjson.loads(self.encoded)
            if "kind" not in obj:
                obj = {"apiVersion": self._resource.api_version, "kind": self._resource.kind, **obj}
            self._object = obj
        return self._object

    @property
    def meta(self) -> Meta:
        if self._meta is None:
            self._meta = _decode_meta(self.encoded).metadata
            self._pool.add(self)
        return self._meta

    @property
    def uid(self) -> str:
        return self.meta.uid

    @property
    def resource_version(self) -> str:
        return self.meta.resource_version

    @property
    def generation(self) -> int:
        return self.meta.generation

    @property
    def labels(self) -> Mapping[str, str]:
        return self.meta.labels or _NOTHING

    @property
    def annotations(self) -> Mapping[str, str]:
        return self.meta.annotations or _NOTHING

    @property
    def owners(self) -> list[Owner]:
        return self.meta.owner_references or []

    @property
    def is_deleting(self) -> bool:
        return self.meta.deletion_timestamp is not None

    def forget(self) -> None:
        """Drop what can be decoded again."""
        self._meta = None
        self._object = None


def without_managed_fields(encoded: bytes) -> bytes:
    """The object's JSON without ``metadata.managedFields``, which are often half of it and rarely read."""
    if b'"managedFields"' not in encoded:
        return encoded
    whole = _decode_members(encoded)
    members = _decode_members(whole["metadata"])
    members.pop("managedFields", None)
    whole["metadata"] = msgspec.Raw(msgspec.json.encode(members))
    return msgspec.json.encode(whole)


def version_number(resource_version: str) -> int:
    """A resourceVersion as the number it is (KEP-5504); 0 where a server gives something else."""
    return int(resource_version) if resource_version.isdigit() else 0
