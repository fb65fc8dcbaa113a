"""Commit: the one way from objects to the store and back.

Keys, index terms, versions: what a store does not know of Kubernetes is added here, and what a store raises becomes the
ApiError a client understands.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fleetplane.apiserver.encoding import decode
from fleetplane.apiserver.registry import Served
from fleetplane.model import errors
from fleetplane.model.objects import Object
from fleetplane.model.resources import ResourceType
from fleetplane.store.protocol import (
    Change,
    ClaimTaken,
    Expired,
    FutureRevision,
    Key,
    Record,
    Store,
    StoreError,
    StoreUnavailable,
    Term,
)

LABEL_TERM = "label/"
FIELD_TERM = "field/"
OWNER_TERM = "owner"


def key_of(served: Served, cluster: str, namespace: str, name: str) -> Key:
    storage = served.storage
    return Key(cluster, storage.group, storage.plural, namespace if served.type.namespaced else "", name)


def terms_of(served: Served, obj: Mapping[str, Any]) -> tuple[Term, ...]:
    """The index terms of an object in its storage version."""
    metadata = obj["metadata"]
    terms: list[Term] = []
    labels = metadata.get("labels")
    if labels:
        terms.extend((LABEL_TERM + key, value) for key, value in labels.items())
    for reference in metadata.get("ownerReferences") or ():
        terms.append((OWNER_TERM, str(reference.get("uid"))))
    terms.extend((FIELD_TERM + name, value) for name, value in served.behaviour.terms(obj))
    return tuple(terms)


def labels_in(terms: Sequence[Term]) -> dict[str, str]:
    """The labels of a record, from its terms."""
    start = len(LABEL_TERM)
    return {name[start:]: value for name, value in terms if name.startswith(LABEL_TERM)}


FindShared = Callable[[Key], Record | None]
"""The shared object that stands where nothing is stored."""


def _nothing_shared(_key: Key) -> Record | None:
    return None


class ObjectStorage:
    """Objects in and out of one store."""

    def __init__(self, store: Store, find_shared: FindShared = _nothing_shared) -> None:
        self.store = store
        self._find_shared = find_shared

    async def record(self, served: Served, cluster: str, namespace: str, name: str) -> Record:
        """The stored record, or the shared one where there is none. Raises ApiError 404."""
        key = key_of(served, cluster, namespace, name)
        found = await self.store.get(key) or self._find_shared(key)
        if found is None:
            raise not_found(served.type, name)
        return found

    async def find(self, served: Served, cluster: str, namespace: str, name: str) -> Object | None:
        """The object in its storage version, if it exists."""
        found = await self.store.get(key_of(served, cluster, namespace, name))
        return None if found is None else decode(found)

    async def commit(self, served: Served, changes: Sequence[Change], *, durable: bool = True) -> list[Record]:
        """``Store.commit``, with everything but ``PreconditionFailed`` translated to an ApiError."""
        try:
            return await self.store.commit(changes, durable=durable)
        except ClaimTaken as error:
            raise claim_taken(served.type, changes[0].key.name, error) from None
        except StoreUnavailable as error:
            raise unavailable(error) from error


async def convert_to(served: Served, obj: Object, api_version: str) -> Object:
    """The object in another served version of its kind."""
    return (await convert_all(served, [obj], api_version))[0]


async def convert_all(served: Served, objects: Sequence[Object], api_version: str) -> list[Object]:
    """The objects in another served version of their kind, all in one go."""
    if all(obj.get("apiVersion") == api_version for obj in objects):
        return list(objects)
    if served.converter is None:
        return [obj | {"apiVersion": api_version, "kind": served.type.kind} for obj in objects]
    converted: list[Object] = await served.converter(objects, api_version)
    return converted


def not_found(resource: ResourceType, name: str) -> errors.ApiError:
    return errors.not_found(resource.plural, name, group=resource.group)


def claim_taken(resource: ResourceType, name: str, error: ClaimTaken) -> errors.ApiError:
    """The refusal for something unique that somebody else holds."""
    field = error.claim.scope.rpartition("/")[2]
    cause = errors.FieldError.invalid(field, error.claim.value, "provided value is already allocated")
    return errors.invalid(resource.kind, name, [cause], group=resource.group)


def unavailable(error: StoreError) -> errors.ApiError:
    return errors.unavailable(f"the store cannot serve this request: {error}", retry_after=1)


def expired(error: Expired) -> errors.ApiError:
    return errors.expired(f"too old resource version: {error.revision} ({error.compacted})")


def too_large_version(error: FutureRevision) -> errors.ApiError:
    cause = errors.FieldError("ResourceVersionTooLarge", "", "Too large resource version")
    return errors.ApiError(
        504,
        f"Timeout: Too large resource version: {error.revision}, current: {error.current}",
        causes=[cause],
        retry_after=1,
    )
