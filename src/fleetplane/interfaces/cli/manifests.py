"""Objects from files, folders, addresses and standard input.

Every document is one object or a ``List`` of them; each remembers where it came from, so that a message can say which
file to mend. Nothing of a set is used before all of it could be read.
"""

from __future__ import annotations

import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from fleetplane.interfaces.cli.connection import Session
from fleetplane.interfaces.cli.errors import CommandError
from fleetplane.interfaces.cli.resources import Target
from fleetplane.model.errors import ApiError
from fleetplane.model.objects import Object, metadata, name
from fleetplane.model.resources import ResourceType

_SUFFIXES: Final = frozenset({".yaml", ".yml", ".json"})
_URL_SECONDS: Final = 30.0
_MAX_URL_BYTES: Final = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Manifest:
    object: Object
    source: str

    @property
    def kind(self) -> str:
        return str(self.object["kind"])

    @property
    def api_version(self) -> str:
        return str(self.object["apiVersion"])


def read_all(filenames: Sequence[str], recursive: bool) -> list[Manifest]:
    """Raises CommandError, naming the file and line."""
    found = [
        manifest
        for given in filenames
        for source, text in _texts(given, recursive)
        for manifest in _parsed(source, text)
    ]
    if not found:
        raise CommandError(f"there is no object in {', '.join(filenames)}")
    return found


def _texts(given: str, recursive: bool) -> Iterator[tuple[str, bytes]]:
    if given == "-":
        yield "standard input", sys.stdin.buffer.read()
        return
    if given.startswith(("http://", "https://")):
        yield given, _fetched(given)
        return
    path = Path(given).expanduser()
    for file in _files(path, recursive):
        try:
            yield str(file), file.read_bytes()
        except OSError as error:
            raise CommandError(f"cannot read {file}: {error.strerror}") from None


def _files(path: Path, recursive: bool) -> list[Path]:
    if not path.is_dir():
        return [path]
    found = path.rglob("*") if recursive else path.iterdir()
    files = sorted(file for file in found if file.suffix in _SUFFIXES and file.is_file())
    if not files:
        deeper = "" if recursive else "; use -R for the folders below it"
        raise CommandError(f"there is no .yaml, .yml or .json file in {path}{deeper}")
    return files


def _fetched(url: str) -> bytes:
    request = urllib.request.Request(url, headers={"User-Agent": "fleetplane"})  # noqa: S310 - http or https, checked
    try:
        with urllib.request.urlopen(request, timeout=_URL_SECONDS) as response:  # noqa: S310
            text: bytes = response.read(_MAX_URL_BYTES + 1)
    except urllib.error.HTTPError as error:
        raise CommandError(f"cannot read {url}: the server answered {error.code} {error.reason}") from None
    except (urllib.error.URLError, OSError, ValueError) as error:
        raise CommandError(f"cannot read {url}: {getattr(error, 'reason', error)}") from None
    if len(text) > _MAX_URL_BYTES:
        raise CommandError(f"{url} is larger than {_MAX_URL_BYTES // 1024**2} MiB; download and split it")
    return text


def _parsed(source: str, text: bytes) -> Iterator[Manifest]:
    from fleetplane.model import yaml

    try:
        documents = yaml.load_all(text)
    except (yaml.YamlError, UnicodeDecodeError) as error:
        raise CommandError(f"{source} cannot be read: {error}") from None
    for number, document in enumerate(documents, 1):
        where = source if len(documents) == 1 else f"document {number} of {source}"
        if document.duplicates:
            raise CommandError(f"{where} sets a key twice ({document.duplicates[0]}); keep one")
        yield from _objects(document.value, source, where)


def _objects(value: Any, source: str, where: str) -> Iterator[Manifest]:
    if not isinstance(value, dict):
        raise CommandError(f"{where} is not an object: it should have apiVersion, kind and metadata")
    for key in ("apiVersion", "kind"):
        if not isinstance(value.get(key), str) or not value[key]:
            raise CommandError(f"{where} has no {key}; every object needs one")
    if value["kind"].endswith("List") and isinstance(value.get("items"), list):
        for at, item in enumerate(value["items"]):
            yield from _objects(item, source, f"item {at} of {where}")
        return
    if not isinstance(value.get("metadata") or {}, dict) or not (name(value) or metadata(value).get("generateName")):
        raise CommandError(f"{where}: the {value['kind']} has no metadata.name; give it one")
    yield Manifest(value, source)


# --- With the server's help ---------------------------------------------------------------------------------------


async def resource_of(session: Session, manifest: Manifest) -> ResourceType:
    """Raises CommandError when the server has no such kind."""
    try:
        return (await session.discovery.by_kind(manifest.api_version, manifest.kind)).type
    except ApiError as error:
        if error.code != 404:
            raise
        raise CommandError(
            f"the server has no kind {manifest.kind} in {manifest.api_version} ({manifest.source}); "
            "apply the CustomResourceDefinition that defines it first, or correct apiVersion"
        ) from None


def namespace_of(session: Session, manifest: Manifest, resource: ResourceType) -> str:
    """Where the object belongs. Raises CommandError when file and command line disagree."""
    if not resource.namespaced:
        return ""
    own = str(metadata(manifest.object).get("namespace") or "")
    if own and session.namespace_given and own != session.namespace:
        raise CommandError(
            f"{manifest.source} puts {manifest.kind} {name(manifest.object)} into namespace {own!r}, "
            f"but --namespace says {session.namespace!r}; drop one of them"
        )
    return own or session.namespace


async def targets_of_files(session: Session, filenames: Sequence[str], recursive: bool) -> list[Target]:
    """The objects that files name, for commands that only need to know which."""
    found = []
    for manifest in read_all(filenames, recursive):
        resource = await resource_of(session, manifest)
        found.append(Target(resource, name(manifest.object), namespace_of(session, manifest, resource)))
    return found
