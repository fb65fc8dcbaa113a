"""The facts of the wire: which number a field has, what it is called in JSON, what type it is.

``facts.txt`` holds them for every built-in message (``tools/extract_protobuf_facts.py`` makes it and tells its format).
The file is split when the first message is asked for and parsed message by message.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import NamedTuple

META = "io.k8s.apimachinery.pkg.apis.meta.v1."

_META_KINDS = frozenset(
    {
        "APIGroup",
        "APIGroupList",
        "APIResourceList",
        "APIVersions",
        "ApplyOptions",
        "CreateOptions",
        "DeleteOptions",
        "GetOptions",
        "ListOptions",
        "PatchOptions",
        "Status",
        "UpdateOptions",
        "WatchEvent",
    }
)
"""Kinds of meta/v1 that every group registers under its own name."""

_PACKAGES = {
    "": "io.k8s.api.core.",
    "apiextensions.k8s.io": "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.",
    "apiregistration.k8s.io": "io.k8s.kube-aggregator.pkg.apis.apiregistration.",
    "meta.k8s.io": "io.k8s.apimachinery.pkg.apis.meta.",
}


class Field(NamedTuple):
    """One field of a message.

    ``type`` is a scalar's name, a special's word or a message's name; ``shape`` says what there is of it: ``one``,
    ``list``, ``map`` from strings, or ``items`` (a message that only wraps a list) and ``mapitems`` (a map of those).
    ``pointer`` fields tell zero from absent; ``omit_zero`` ones leave zero out of JSON; the fields of an ``inline``
    message stand in its parent.
    """

    number: int
    name: str
    type: str
    shape: str
    pointer: bool
    omit_zero: bool
    inline: bool


@cache
def _blocks() -> Mapping[str, str]:
    text = resources.files(__package__).joinpath("facts.txt").read_text("ascii")
    blocks = {}
    for block in text.split("\n\n"):
        name, _, rest = block.strip("\n").partition("\n")
        blocks[name] = rest
    return blocks


def message_fields(message: str) -> tuple[Field, ...]:
    """The fields of a message by ascending number; none for a message without fields."""
    return tuple(_field(line) for line in _blocks().get(message, "").splitlines())


def json_names(message: str) -> frozenset[str]:
    """What the fields of a message are called in JSON, those of inlined messages included."""
    names: set[str] = set()
    for field in message_fields(message):
        names |= json_names(field.type) if field.inline else {field.name}
    return frozenset(names)


def _field(line: str) -> Field:
    number, name, word, flags, *_ = (line + " ").split(" ")
    shape = "one"
    for prefix, found, ending in (("map[items[]", "mapitems", "]"), ("map[", "map", "]"), ("items[]", "items", "")):
        if word.startswith(prefix):
            word, shape = word[len(prefix) : len(word) - len(ending)], found
            break
    if word.startswith("[]"):
        word, shape = word[2:], "list"
    return Field(int(number), name, word, shape, "?" in flags, "-" in flags, "<" in flags)


def message_name(api_version: str, kind: str) -> str | None:
    """The message of a kind, or None when the kind has no protobuf form."""
    group, _, version = api_version.rpartition("/")
    package = _PACKAGES.get(group) or f"io.k8s.api.{group.partition('.')[0]}."
    name = f"{package}{version}.{kind}"
    if name in _blocks():
        return name
    if kind in _META_KINDS or (group == "meta.k8s.io" and version == "v1beta1"):
        name = META + kind
        return name if name in _blocks() else None
    return None
