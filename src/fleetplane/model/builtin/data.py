"""Reading the data file with the built-in kinds.

The file is made when the wheel is built (``tools/extract_builtin_kinds.py`` says how it is laid out) and is read
lazily: the header when the catalogue is first asked for, a package of definitions when one of its names is. What is
loaded is shared by everyone: nobody may change a schema it was handed.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Mapping
from functools import cache
from importlib import resources
from typing import Any

import orjson

from fleetplane.model.objects import Object

_MAGIC = b"FPK1"
_PREFIX = len(_MAGIC) + 4


class Definitions(Mapping[str, Object]):
    """Raw OpenAPI v3 schemas by definition name (``io.k8s.api.core.v1.Pod``).

    References are ``{"$ref": "#/components/schemas/<name>"}``, possibly with a description beside them; types are never
    lists, so null is nowhere declared. The values are shared: never change them.
    """

    def __init__(self, blocks: Mapping[str, Any], body: bytes) -> None:
        self._blocks = blocks
        self._body = body
        self._loaded: dict[str, Object] = {}

    def __getitem__(self, name: str) -> Object:
        found = self._loaded.get(name)
        if found is None:
            block = self._blocks[name.rpartition(".")[0]]
            start = block["offset"]
            self._loaded |= orjson.loads(zlib.decompress(self._body[start : start + block["length"]]))
            found = self._loaded[name]
        return found

    def __iter__(self) -> Iterator[str]:
        for package, block in self._blocks.items():
            for name in block["names"]:
                yield f"{package}.{name}"

    def __len__(self) -> int:
        return sum(len(block["names"]) for block in self._blocks.values())

    def __contains__(self, name: object) -> bool:
        if not isinstance(name, str):
            return False
        package, _, last = name.rpartition(".")
        return package in self._blocks and last in self._blocks[package]["names"]


@cache
def _file() -> tuple[Mapping[str, Any], bytes]:
    """(header, blocks). Raises RuntimeError when the file is absent or not ours."""
    place = resources.files(__package__).joinpath("kinds.bin")
    try:
        content = place.read_bytes()
    except FileNotFoundError:
        raise RuntimeError(
            "the data of the built-in kinds is missing: install Fleetplane with pip, "
            "or run tools/extract_builtin_kinds.py in a source tree"
        ) from None
    if content[: len(_MAGIC)] != _MAGIC:
        raise RuntimeError("the data of the built-in kinds is damaged: install Fleetplane again")
    (length,) = struct.unpack_from(">I", content, len(_MAGIC))
    header = orjson.loads(zlib.decompress(content[_PREFIX : _PREFIX + length]))
    return header, content[_PREFIX + length :]


def header() -> Mapping[str, Any]:
    """The header as it stands in the file."""
    return _file()[0]


def kubernetes_version() -> str:
    """The Kubernetes release the data describes, such as ``1.37.0``."""
    return str(header()["kubernetes"])


@cache
def definitions() -> Definitions:
    """All definitions of the built-in kinds and what they embed."""
    head, body = _file()
    return Definitions(head["blocks"], body)


def definition_name(gvk: tuple[str, str, str]) -> str | None:
    """The definition of a (group, version, kind), or None when no built-in kind is called so."""
    name: str | None = header()["kinds"].get("/".join(gvk))
    return name
