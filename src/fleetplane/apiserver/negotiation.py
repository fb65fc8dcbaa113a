"""Which representation the client wants: media types, Tables, partial metadata, and protobuf.

Follows RFC 9110 section 12.5.1 for ``Accept`` and apimachinery's ``as``/``g``/``v`` media-type parameters.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from fleetplane.model import errors

Shape = Literal["object", "Table", "PartialObjectMetadata", "PartialObjectMetadataList"]

JSON = "application/json"
YAML = "application/yaml"
PROTOBUF = "application/vnd.kubernetes.protobuf"
SUPPORTED = (JSON, YAML, PROTOBUF)
_TRANSFORMS = {"Table", "PartialObjectMetadata", "PartialObjectMetadataList"}
_META_VERSIONS = {"v1", "v1beta1"}


@dataclass(frozen=True, slots=True)
class MediaType:
    """One range of an Accept header."""

    name: str
    parameters: Mapping[str, str]
    quality: float


@dataclass(frozen=True, slots=True)
class Representation:
    """``encoding`` is one of ``SUPPORTED``; ``meta_version`` is the version of meta.k8s.io the shape is wanted in."""

    encoding: str = JSON
    shape: Shape = "object"
    meta_version: str = "v1"
    pretty: bool = False


PLAIN = Representation()


@lru_cache(maxsize=512)
def parse_accept(header: str) -> tuple[MediaType, ...]:
    """The ranges of an Accept header, most wanted first; malformed ones are dropped."""
    found = []
    for part in header[:4096].split(","):
        pieces = [piece.strip() for piece in part.split(";")]
        name = pieces[0].lower()
        if "/" not in name:
            continue
        parameters: dict[str, str] = {}
        for piece in pieces[1:]:
            key, _, value = piece.partition("=")
            parameters[key.strip().lower()] = value.strip().strip('"')
        try:
            quality = float(parameters.pop("q", "1"))
        except ValueError:
            quality = 0.0
        found.append(MediaType(name, parameters, quality))
    found.sort(key=lambda media: -media.quality)
    return tuple(found)


@lru_cache(maxsize=512)
def negotiate(accept: str, *, protobuf: bool = True) -> Representation:
    """The best representation we can give. Raises ApiError 406 when none is acceptable."""
    if not accept or accept in ("*/*", JSON):
        return PLAIN
    for media in parse_accept(accept):
        encoding = _encoding(media.name, protobuf=protobuf)
        if encoding is None or media.quality <= 0:
            continue
        wanted = media.parameters.get("as")
        pretty = media.parameters.get("pretty") == "1"
        if wanted is None:
            return Representation(encoding, pretty=pretty)
        version = media.parameters.get("v", "v1")
        if wanted not in _TRANSFORMS or media.parameters.get("g") != "meta.k8s.io" or version not in _META_VERSIONS:
            continue
        if encoding != JSON:
            continue
        return Representation(encoding, wanted, version, pretty)  # type: ignore[arg-type]
    raise errors.not_acceptable(SUPPORTED)


def _encoding(name: str, *, protobuf: bool) -> str | None:
    if name in ("*/*", "application/*", JSON):
        return JSON
    if name in (YAML, "application/x-yaml", "text/yaml"):
        return YAML
    if name == PROTOBUF and protobuf:
        return PROTOBUF
    return None
