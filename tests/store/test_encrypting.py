"""Encryption at rest: nothing of a secret in the file, everything of it above."""

from __future__ import annotations

from pathlib import Path

import pytest

from fleetplane.store.encrypting import EncryptingStore, Sealer
from fleetplane.store.protocol import Key, Put, Selection, StoreUnavailable
from fleetplane.store.sqlite import SqliteStore

SECRET = Key("root", "", "secrets", "default", "s")
OTHER = Key("root", "", "configmaps", "default", "c")
OLD, NEW = b"o" * 32, b"n" * 32


async def written(path: Path, *keys: bytes) -> None:
    store = EncryptingStore(await SqliteStore.open(path), Sealer(keys))
    await store.commit([Put(SECRET, "u1", b'{"password":"swordfish"}'), Put(OTHER, "u2", b'{"colour":"vermilion"}')])
    await store.close()


def everything_in(directory: Path) -> bytes:
    return b"".join(path.read_bytes() for path in directory.glob("s.db*"))


async def test_the_file_holds_secrets_only_as_ciphertext(tmp_path: Path) -> None:
    await written(tmp_path / "s.db", NEW)

    everything = everything_in(tmp_path)
    assert b"swordfish" not in everything
    assert b"vermilion" in everything


async def test_an_old_key_still_opens_what_it_sealed(tmp_path: Path) -> None:
    await written(tmp_path / "s.db", OLD)

    store = EncryptingStore(await SqliteStore.open(tmp_path / "s.db"), Sealer([NEW, OLD]))
    found = await store.get(SECRET)
    await store.close()

    assert found is not None
    assert found.value == b'{"password":"swordfish"}'


async def test_without_its_key_a_value_is_refused_in_words(tmp_path: Path) -> None:
    await written(tmp_path / "s.db", OLD)
    store = EncryptingStore(await SqliteStore.open(tmp_path / "s.db"), Sealer([NEW]))

    with pytest.raises(StoreUnavailable, match="sealed with a key that is not here"):
        await store.get(SECRET)

    await store.close()


def test_a_ciphertext_does_not_open_under_another_name() -> None:
    sealer = Sealer([NEW])

    with pytest.raises(StoreUnavailable, match="damaged"):
        sealer.open(SECRET._replace(name="other"), sealer.seal(SECRET, b"x"))


async def test_watchers_of_one_secret_share_what_was_opened(tmp_path: Path) -> None:
    store = EncryptingStore(await SqliteStore.open(tmp_path / "s.db"), Sealer([NEW]))
    watches = [await store.watch(Selection("", "secrets", "root"), 0) for _ in range(2)]
    await store.commit([Put(SECRET, "u1", b'{"password":"swordfish"}')])

    one, other = [(await watch.next()).events[0].record for watch in watches]
    for watch in watches:
        watch.close()
    await store.close()

    assert one is other
    assert one.value == b'{"password":"swordfish"}'
