"""A vehicle application as one file: an OCI archive that holds its manifests and its images, each blob by its digest.

The archive is an OCI image layout in a tar. Its index lists the package (a manifest of an artifact type of our own, with
the Kubernetes manifests as one layer and the digests of all images as the other) and every image by name, so ``podman
load`` and ``skopeo`` understand the rest of it. Packing is reproducible: the same parts make the same bytes. Nothing of an
archive is believed: sizes are bounded, every blob is compared with its digest, what the index does not reach is refused,
the images must be those the package was made with, and the application's own digest must be that of its microservices.

    fleetplane vehicles pack cockpit.yaml --image signals.tar --image view.tar --sign key.pem -o cockpit.tar
    fleetplane vehicles verify cockpit.tar --key public.pem
    fleetplane vehicles unpack cockpit.tar --key public.pem --into folder

Images are OCI archives as ``podman save --format oci-archive`` makes them. With ``pack --no-images`` and an output that ends
in ``.yaml`` the package is one file of manifests with the digest filled in.

With a key the package is signed: the signature is a manifest of its own, which names the package's as its subject and
holds a payload of cosign's form; the application gets signatures of its own, for the server (see ``package_signing``).

Sources: OCI image specification 1.1 (image layout, manifest, artifact types, subject); cosign's signature specification.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import sys
import tarfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Final, cast

import orjson

from fleetplane.model import yaml
from fleetplane.model.objects import Object
from fleetplane.operators.vehicles.application import application_violations, digest_of
from fleetplane.operators.vehicles.kinds import GROUP
from fleetplane.operators.vehicles.package_signing import (
    APPLICATION,
    PACKAGE,
    Private,
    SigningError,
    is_signed,
    payload,
    private_key,
    public_key,
    sign,
)

ARTIFACT: Final = "application/vnd.fleetplane.vehicle.application.v1"
MANIFESTS: Final = "application/vnd.fleetplane.vehicle.manifests.v1+json"
IMAGES: Final = "application/vnd.fleetplane.vehicle.images.v1+json"
MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
INDEX: Final = "application/vnd.oci.image.index.v1+json"
EMPTY: Final = "application/vnd.oci.empty.v1+json"
_LEADING: Final = frozenset({MANIFEST, INDEX, "application/vnd.docker.distribution.manifest.v2+json"})
"""What leads to other blobs."""
SIGNATURE: Final = "application/vnd.dev.cosign.artifact.sig.v1+json"
SIGNED: Final = "application/vnd.dev.cosign.simplesigning.v1+json"
SIGNED_BY: Final = "dev.cosignproject.cosign/signature"
REF: Final = "org.opencontainers.image.ref.name"
_LAYOUT: Final = b'{"imageLayoutVersion":"1.0.0"}'
_MOST_BLOBS: Final = 4096
_MOST_BYTES: Final = 16 << 30
_MOST_JSON: Final = 8 << 20
_MOST_SIGNATURES: Final = 16
_CHUNK: Final = 1 << 20


class PackageError(ValueError):
    """The package is not what it says it is; the message is one sentence for people."""


@dataclass(slots=True)
class Package:
    """``objects`` are what will be applied, ``images`` the names of what is inside, ``digest`` the package's own."""

    digest: str
    objects: list[Object]
    images: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    """Name to descriptor."""


def digest(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def with_digests(objects: Sequence[Object], key: Private | None = None) -> list[Object]:
    """The manifests with every application's digest filled in, and signed where there is a key. Raises PackageError."""
    made = []
    for one in objects:
        if one.get("kind") == "VehApplication" and str(one.get("apiVersion") or "").startswith(f"{GROUP}/"):
            spec = {name: value for name, value in (one.get("spec") or {}).items() if name != "digest"}
            spec["digest"] = digest_of(spec.get("microservices") or ())
            if key is not None:
                called = str((one.get("metadata") or {}).get("name") or "")
                signature = sign(key, payload(APPLICATION, called, spec["digest"]))
                spec["signatures"] = list(dict.fromkeys([*(spec.get("signatures") or ()), signature]))
            one = {**one, "spec": spec}
        made.append(one)
    check_objects(made)
    return made


def check_objects(objects: Sequence[Object]) -> None:
    """Raises PackageError."""
    applications = [one for one in objects if one.get("kind") == "VehApplication"]
    if not applications:
        raise PackageError("the manifests hold no VehApplication")
    for one in applications:
        name, spec = (one.get("metadata") or {}).get("name"), one.get("spec") or {}
        if not spec.get("digest"):
            raise PackageError(f"VehApplication {name} has no digest")
        for broken in application_violations(spec):
            raise PackageError(f"VehApplication {name}: {broken}")


def images_of(objects: Sequence[Object]) -> set[str]:
    """Every image a microservice names."""
    found: set[str] = set()

    def walk(value: Any) -> None:
        if isinstance(value, Mapping):
            if isinstance(value.get("image"), str):
                found.add(value["image"])
            for one in value.values():
                walk(one)
        elif isinstance(value, list):
            for one in value:
                walk(one)

    for one in objects:
        for service in (one.get("spec") or {}).get("microservices") or ():
            walk(service.get("spec"))
    return found


# -- packing


def pack(objects: Sequence[Object], archives: Iterable[Path], target: Path, key: Private | None = None) -> Package:
    """Write the archive. Raises PackageError, also where an image that is named is not among the archives."""
    ready = with_digests(objects, key)
    blobs: dict[str, Path | bytes] = {}
    images: dict[str, Mapping[str, Any]] = {}
    opened: list[_Archive] = []
    for path in archives:
        archive = _Archive(path)
        opened.append(archive)
        for name, descriptor in archive.images().items():
            images[name] = descriptor
            for each in archive.reached(descriptor):
                blobs[each["digest"]] = path
    if missing := sorted(images_of(ready) - set(images)):
        raise PackageError(f"no archive holds the image {', '.join(missing)}")
    layer = orjson.dumps(ready, option=orjson.OPT_SORT_KEYS)
    held = orjson.dumps(images, option=orjson.OPT_SORT_KEYS)
    manifest = orjson.dumps(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "artifactType": ARTIFACT,
            "config": _descriptor(EMPTY, b"{}"),
            "layers": [_descriptor(MANIFESTS, layer), _descriptor(IMAGES, held)],
        },
        option=orjson.OPT_SORT_KEYS,
    )
    blobs |= {digest(part): part for part in (b"{}", layer, held, manifest)}
    listed = [{**_descriptor(MANIFEST, manifest), "artifactType": ARTIFACT}]
    if key is not None:
        signature, signed = _signature(key, listed[0])
        blobs |= {digest(part): part for part in (signature, signed)}
        listed.append({**_descriptor(MANIFEST, signature), "artifactType": SIGNATURE})
    listed += [{**images[name], "annotations": {REF: name}} for name in sorted(images)]
    index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": listed}
    with _written(target) as tar:
        _add(tar, "oci-layout", _LAYOUT)
        _add(tar, "index.json", orjson.dumps(index, option=orjson.OPT_SORT_KEYS))
        for one in sorted(blobs):
            found = blobs[one]
            if isinstance(found, bytes):
                _add(tar, _place(one), found)
            else:
                next(a for a in opened if a.path == found).copy(one, tar)
    return Package(digest(manifest), ready, images)


def _signature(key: Private, package: Mapping[str, Any]) -> tuple[bytes, bytes]:
    """The manifest of a signature, and what was signed."""
    signed = payload(PACKAGE, "", str(package["digest"]))
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "artifactType": SIGNATURE,
        "config": _descriptor(EMPTY, b"{}"),
        "layers": [{**_descriptor(SIGNED, signed), "annotations": {SIGNED_BY: sign(key, signed)}}],
        "subject": {name: package[name] for name in ("mediaType", "digest", "size")},
    }
    return orjson.dumps(manifest, option=orjson.OPT_SORT_KEYS), signed


def _descriptor(media_type: str, data: bytes) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": digest(data), "size": len(data)}


@contextmanager
def _written(target: Path) -> Iterator[tarfile.TarFile]:
    """A tar that is there when all of it is."""
    part = target.with_name(f"{target.name}.part")
    try:
        with tarfile.open(part, "w") as tar:
            yield tar
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)


def _place(key: str) -> str:
    return f"blobs/sha256/{key.removeprefix('sha256:')}"


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(data), 0o644
    tar.addfile(entry, io.BytesIO(data))


# -- reading


class _Digesting:
    """Reads from a file, and knows the digest of what was read."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self._hash = file, hashlib.sha256()

    def read(self, size: int = _CHUNK) -> bytes:
        data = self._file.read(size)
        self._hash.update(data)
        return data

    @property
    def digest(self) -> str:
        return "sha256:" + self._hash.hexdigest()


class _Archive:
    """An OCI layout in a tar, read with suspicion. Blobs are read when they are asked for, and checked then.

    Only what is small is ever in memory: images are as large as they like. A compressed archive is refused: it would have to be
    read from the beginning for every blob, and may be of any size inside.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with tarfile.open(path, "r:") as tar:
                members = [one for one in _bounded(tar) if one.isreg() and one.sparse is None]
        except (OSError, tarfile.TarError) as error:
            raise PackageError(f"{path.name} is no OCI archive: {error}") from None
        self._members = {one.name.removeprefix("./"): one for one in members}
        if len(self._members) != len(members):
            raise PackageError(f"{path.name} holds a file twice")
        self.sizes = {name: one.size for name, one in self._members.items()}
        self.index = self._json(self._small("index.json"), "index.json")

    @contextmanager
    def _open(self, name: str) -> Iterator[IO[bytes]]:
        if name not in self._members:
            raise PackageError(f"{self.path.name} is no OCI archive: it has no {name}")
        try:
            with tarfile.open(self.path, "r:") as tar:
                file = tar.extractfile(self._members[name])
                if file is None:
                    raise PackageError(f"{self.path.name} is no OCI archive: {name} cannot be read")
                yield file
        except tarfile.TarError as error:
            raise PackageError(f"{name} of {self.path.name} cannot be read: {error}") from None

    def _small(self, name: str) -> bytes:
        if self.sizes.get(name, 0) > _MOST_JSON:
            raise PackageError(f"{name} of {self.path.name} is larger than {_MOST_JSON >> 20} MiB")
        with self._open(name) as file:
            return file.read()

    def _json(self, data: bytes, what: str) -> dict[str, Any]:
        try:
            found = orjson.loads(data) if len(data) <= _MOST_JSON else None
        except orjson.JSONDecodeError:
            found = None
        if not isinstance(found, dict):
            raise PackageError(f"{what} of {self.path.name} is not a JSON object")
        return found

    def read(self, key: str) -> bytes:
        """A small blob, compared with its digest. Raises PackageError."""
        data = self._small(self._blob(key))
        self._compare(key, digest(data))
        return data

    def check(self, key: str) -> None:
        """Compare a blob with its digest. Raises PackageError."""
        with self._open(self._blob(key)) as file:
            through = _Digesting(file)
            while through.read():
                pass
        self._compare(key, through.digest)

    def copy(self, key: str, into: tarfile.TarFile) -> None:
        """Compare a blob with its digest while it is written to another tar. Raises PackageError."""
        name = self._blob(key)
        entry = tarfile.TarInfo(_place(key))
        entry.size, entry.mode = self.sizes.get(name, 0), 0o644
        with self._open(name) as file:
            through = _Digesting(file)
            into.addfile(entry, cast("IO[bytes]", through))
        self._compare(key, through.digest)

    def _blob(self, key: str) -> str:
        kind, _, name = key.partition(":")
        if kind != "sha256" or len(name) != 64 or not set(name) <= set("0123456789abcdef"):
            raise PackageError(f"{self.path.name} names a blob by {key!r}; only sha256 is taken")
        return _place(key)

    def _compare(self, key: str, found: str) -> None:
        if found != key:
            raise PackageError(f"the blob {key} of {self.path.name} has other content than its digest says")

    def listed(self) -> Iterator[dict[str, Any]]:
        for one in self.index.get("manifests") or ():
            if not isinstance(one, dict) or not isinstance(one.get("digest"), str):
                raise PackageError(f"the index of {self.path.name} lists something without a digest")
            yield one

    def images(self) -> dict[str, Mapping[str, Any]]:
        found: dict[str, Mapping[str, Any]] = {}
        for one in self.listed():
            name = (one.get("annotations") or {}).get(REF)
            if name:
                found[str(name)] = {key: one[key] for key in ("mediaType", "digest", "size") if key in one}
        return found

    def reached(self, descriptor: Mapping[str, Any]) -> list[Mapping[str, Any]]:
        """The descriptor and all it leads to, sizes compared."""
        found, waiting, seen = [], [descriptor], set[str]()
        while waiting:
            one = waiting.pop()
            key = str(one.get("digest"))
            if key in seen:
                continue
            seen.add(key)
            size = self.sizes.get(_place(key))
            if size is None or size != one.get("size"):
                raise PackageError(f"the blob {key} of {self.path.name} is missing or has another size than said")
            found.append(one)
            if one.get("mediaType") in _LEADING:
                parts = self._json(self.read(key), key)
                further = [parts.get("config"), *(parts.get("layers") or ()), *(parts.get("manifests") or ())]
                waiting += [each for each in further if isinstance(each, dict)]
        return found


def _bounded(tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    total = 0
    for number, member in enumerate(tar):
        total += max(0, member.size)
        if number > _MOST_BLOBS or total > _MOST_BYTES:
            raise PackageError(f"the archive holds more than {_MOST_BLOBS} files or {_MOST_BYTES >> 30} GiB")
        yield member


def verify(path: Path, expected: str = "", trusted: Sequence[str] = ()) -> Package:
    """Read a package and check all of it. Raises PackageError.

    Args:
        path: The archive.
        expected: The digest the package must have, if that is known.
        trusted: Public keys (PEM); one of them must have signed it, where there are any.
    """
    archive = _Archive(path)
    own = [one for one in archive.listed() if one.get("artifactType") == ARTIFACT]
    if len(own) != 1:
        raise PackageError(f"{path.name} holds {len(own)} vehicle applications instead of one")
    found = str(own[0]["digest"])
    if expected and expected != found:
        raise PackageError(f"{path.name} is {found} and not {expected}")
    if trusted and not _is_vouched_for(archive, found, trusted):
        raise PackageError(f"{path.name} is not signed by a key that is trusted")
    manifest = archive._json(archive.read(found), "the package's manifest")
    layer, held = (_only_layer(manifest, kind, path.name) for kind in (MANIFESTS, IMAGES))
    reached = {str(one["digest"]) for each in archive.listed() for one in archive.reached(each)}
    for key in sorted(reached):
        archive.check(key)
    blobs = {f"sha256:{name.rpartition('/')[2]}" for name in archive.sizes if name.startswith("blobs/")}
    if stray := sorted(blobs - reached):
        raise PackageError(f"{path.name} holds {stray[0]}, which nothing in it refers to")
    try:
        objects = orjson.loads(archive.read(layer))
    except orjson.JSONDecodeError:
        raise PackageError(f"the manifests of {path.name} are not JSON") from None
    if not isinstance(objects, list) or not all(isinstance(one, dict) for one in objects):
        raise PackageError(f"the manifests of {path.name} are not a list of objects")
    check_objects(objects)
    images = archive.images()
    if archive._json(archive.read(held), "the list of images") != images:
        raise PackageError(f"{path.name} holds other images than it was made with")
    if missing := sorted(images_of(objects) - set(images)):
        raise PackageError(f"{path.name} names the image {', '.join(missing)} and does not hold it")
    return Package(found, objects, images)


def _only_layer(manifest: Mapping[str, Any], kind: str, file: str) -> str:
    """The digest of the one layer of a kind. Raises PackageError."""
    found = [one for one in manifest.get("layers") or () if one.get("mediaType") == kind]
    if len(found) != 1:
        raise PackageError(
            f"{file} holds {len(found)} lists of {'manifests' if kind == MANIFESTS else 'images'}, not one"
        )
    return str(found[0]["digest"])


def _is_vouched_for(archive: _Archive, package: str, trusted: Sequence[str]) -> bool:
    """Whether one of the signatures inside is of this package and by one of these keys."""
    signatures = [one for one in archive.listed() if one.get("artifactType") == SIGNATURE]
    for one in signatures[:_MOST_SIGNATURES]:
        manifest = archive._json(archive.read(str(one["digest"])), "a signature's manifest")
        for layer in (manifest.get("layers") or ())[:_MOST_SIGNATURES]:
            # What is signed is made anew and never taken from the archive: it can only be about this package.
            given = (layer.get("annotations") or {}).get(SIGNED_BY)
            if isinstance(given, str) and is_signed(payload(PACKAGE, "", package), [given], trusted):
                return True
    return False


def unpack(path: Path, into: Path, expected: str = "", trusted: Sequence[str] = ()) -> Package:
    """Verify, then write ``manifests.yaml`` and an OCI archive for each image. Raises PackageError, OSError."""
    package = verify(path, expected, trusted)
    archive = _Archive(path)
    folder = into / "images"
    folder.mkdir(parents=True, exist_ok=True)
    (into / "manifests.yaml").write_text(yaml.dump_all(package.objects))
    for number, (name, descriptor) in enumerate(sorted(package.images.items())):
        index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [{**descriptor, "annotations": {REF: name}}]}
        with _written(folder / f"{number:03d}.tar") as tar:
            _add(tar, "oci-layout", _LAYOUT)
            _add(tar, "index.json", orjson.dumps(index))
            for one in archive.reached(descriptor):
                archive.copy(str(one["digest"]), tar)
    return package


# -- the command


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="package", description="Vehicle applications as one file.")
    commands = parser.add_subparsers(required=True, dest="command")
    packing = commands.add_parser("pack")
    packing.add_argument("manifests", type=Path)
    packing.add_argument("--image", type=Path, action="append", default=[])
    packing.add_argument("--no-images", action="store_true")
    packing.add_argument("--sign", type=Path, help="a private key (PEM; Ed25519 or ECDSA P-256)")
    packing.add_argument("-o", "--output", type=Path, required=True)
    for command in ("verify", "unpack"):
        one = commands.add_parser(command)
        one.add_argument("package", type=Path)
        one.add_argument("--digest", default="", help="what the package's digest must be")
        one.add_argument("--key", type=Path, action="append", default=[], help="a public key that must have signed it")
        if command == "unpack":
            one.add_argument("--into", type=Path, required=True)
    options = parser.parse_args(words)
    try:
        if options.command == "pack":
            told = do_pack(options.manifests, options.image, options.output, options.sign, options.no_images)
        else:
            told = do_verify(options.package, options.digest, options.key, getattr(options, "into", None))
    except (PackageError, SigningError, yaml.YamlError, OSError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    sys.stdout.writelines(f"{line}\n" for line in told)
    return 0


def do_pack(
    manifests: Path, images: Iterable[Path], output: Path, key_file: Path | None, without_images: bool
) -> list[str]:
    """What to print. Raises PackageError, SigningError, YamlError, OSError."""
    key = private_key(key_file.read_bytes()) if key_file is not None else None
    objects = [one.value for one in yaml.load_all(manifests.read_bytes())]
    if without_images:
        output.write_text(yaml.dump_all(with_digests(objects, key)))
        return []
    return _told(pack(objects, images, output, key))


def do_verify(package: Path, expected: str, key_files: Iterable[Path], into: Path | None) -> list[str]:
    """What to print; unpacks where it is said into what. Raises PackageError, SigningError, OSError."""
    trusted = [one.read_text() for one in key_files]
    for pem in trusted:
        public_key(pem)  # a key that cannot be read is a mistake, and not merely nobody's
    if into is None:
        return _told(verify(package, expected, trusted))
    return _told(unpack(package, into, expected, trusted))


def _told(package: Package) -> list[str]:
    return [package.digest, *(f"  {name}" for name in sorted(package.images))]


if __name__ == "__main__":
    sys.exit(main())
