"""Encryption at rest: the values of some resources are ciphertext in the database, and plain to everybody above.

A wrapper around any engine. Values of the chosen resources are sealed with AES-256-GCM; their key in the store is authenticated
along, so a ciphertext moved to another name does not open. Keys, index terms and claims stay readable: they are what the
database searches by. Values written before encryption was turned on are read as they are and sealed when next written.
Format: ``fpe1`` + key id (8 bytes) + nonce (12 bytes) + ciphertext with tag. Source: NIST SP 800-38D.
"""

from __future__ import annotations

import hashlib
import os
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from fleetplane.store.protocol import (
    Batch,
    Change,
    Delete,
    Event,
    Key,
    Page,
    PreconditionFailed,
    Put,
    Record,
    Selection,
    Store,
    StoreUnavailable,
    Watch,
)

_MARK = b"fpe1"
_NONCE = 12
_ID = 8
_KEPT_OPEN = 512
"""Newest changes that stay opened, for all watchers to share, and with them their encodings."""

IsSecret = Callable[[str, str], bool]
"""Whether the values of a (group, resource) are sealed."""


def secrets_only(group: str, resource: str) -> bool:
    return group == "" and resource == "secrets"


class Sealer:
    """Seals with the first key, opens with any; all are 32 bytes."""

    def __init__(self, keys: Sequence[bytes]) -> None:
        if not keys or any(len(key) != 32 for key in keys):
            raise ValueError("encryption needs at least one key, and keys of 32 bytes")
        self._keys = {hashlib.sha256(key).digest()[:_ID]: AESGCM(key) for key in keys}
        self._id = hashlib.sha256(keys[0]).digest()[:_ID]

    def seal(self, key: Key, value: bytes) -> bytes:
        nonce = os.urandom(_NONCE)
        return _MARK + self._id + nonce + self._keys[self._id].encrypt(nonce, value, _place(key))

    def open(self, key: Key, value: bytes) -> bytes:
        """Raises StoreUnavailable when no key opens it."""
        if not value.startswith(_MARK):
            return value
        start = len(_MARK)
        cipher = self._keys.get(value[start : start + _ID])
        if cipher is None:
            raise StoreUnavailable(f"the value of {'/'.join(key)} is sealed with a key that is not here")
        nonce = value[start + _ID : start + _ID + _NONCE]
        try:
            return cipher.decrypt(nonce, value[start + _ID + _NONCE :], _place(key))
        except InvalidTag:
            raise StoreUnavailable(f"the value of {'/'.join(key)} is damaged: it does not open") from None


def _place(key: Key) -> bytes:
    return "\x00".join(key).encode()


class EncryptingStore:
    """A ``Store`` over another one; see the module."""

    def __init__(self, inner: Store, sealer: Sealer, is_secret: IsSecret = secrets_only) -> None:
        self._inner = inner
        self._sealer = sealer
        self._is_secret = is_secret
        self.is_shared = bool(getattr(inner, "is_shared", False))
        self._opened: OrderedDict[tuple[Key, int], Record] = OrderedDict()

    async def commit(self, changes: Sequence[Change], *, durable: bool = True) -> list[Record]:
        try:
            written = await self._inner.commit([self._sealed(one) for one in changes], durable=durable)
        except PreconditionFailed as error:
            current = None if error.current is None else self._plain(error.current)
            raise PreconditionFailed(error.key, current) from None
        return [self._plain(one) for one in written]

    async def get(self, key: Key) -> Record | None:
        found = await self._inner.get(key)
        return None if found is None else self._plain(found)

    async def list(
        self,
        selection: Selection,
        *,
        limit: int | None = None,
        after: Key | None = None,
        revision: int | None = None,
        offset: int = 0,
        count_remaining: bool = False,
    ) -> Page:
        page = await self._inner.list(
            selection, limit=limit, after=after, revision=revision, offset=offset, count_remaining=count_remaining
        )
        return self._page(page)

    async def stream(self, selection: Selection, *, chunk: int = 500) -> AsyncIterator[Page]:
        async for page in self._inner.stream(selection, chunk=chunk):
            yield self._page(page)

    async def count(self, selection: Selection) -> int:
        return await self._inner.count(selection)

    async def watch(self, selection: Selection, after: int | None = None) -> Watch:
        watch = await self._inner.watch(selection, after)
        return _PlainWatch(watch, self._told) if self._is_secret(selection.group, selection.resource) else watch

    async def history(self, key: Key, *, limit: int = 100) -> Sequence[Event]:
        return [_event(one, self._plain) for one in await self._inner.history(key, limit=limit)]

    async def revision(self) -> int:
        return await self._inner.revision()

    async def compact(self, revision: int) -> None:
        await self._inner.compact(revision)

    @property
    def compacted(self) -> int:
        return self._inner.compacted

    async def drop_cluster(self, cluster: str) -> int:
        return await self._inner.drop_cluster(cluster)

    async def close(self) -> None:
        await self._inner.close()

    def _sealed(self, change: Change) -> Change:
        if not self._is_secret(change.key.group, change.key.resource):
            return change
        if isinstance(change, Put):
            return replace(change, value=self._sealer.seal(change.key, change.value))
        if isinstance(change, Delete) and change.final is not None:
            return replace(change, final=self._sealer.seal(change.key, change.final))
        return change

    def _plain(self, record: Record) -> Record:
        if not self._is_secret(record.key.group, record.key.resource):
            return record
        return Record(
            record.key,
            record.uid,
            record.revision,
            record.created_revision,
            record.encoding,
            self._sealer.open(record.key, record.value),
            record.terms,
        )

    def _page(self, page: Page) -> Page:
        if page.records and self._is_secret(page.records[0].key.group, page.records[0].key.resource):
            page.records = [self._plain(one) for one in page.records]
        return page

    def _told(self, event: Event) -> Event:
        return _event(event, self._opened_once)

    def _opened_once(self, record: Record) -> Record:
        """``_plain`` for what many watchers are told of: one record for all of them."""
        at = (record.key, record.revision)
        found = self._opened.get(at)
        if found is None:
            found = self._opened[at] = self._plain(record)
            if len(self._opened) > _KEPT_OPEN:
                self._opened.popitem(last=False)
        return found


def _event(event: Event, plain: Callable[[Record], Record]) -> Event:
    return Event(event.deleted, plain(event.record), None if event.previous is None else plain(event.previous))


class _PlainWatch:
    def __init__(self, inner: Watch, plain: Callable[[Event], Event]) -> None:
        self._inner = inner
        self._plain = plain

    async def next(self) -> Batch:
        batch = await self._inner.next()
        return Batch([self._plain(event) for event in batch.events], batch.revision)

    @property
    def progress(self) -> int:
        return self._inner.progress

    def close(self) -> None:
        self._inner.close()
