"""Make the table of protobuf facts: message -> field number, JSON name, type.

The facts are read from the type information that a compiled Go program carries about its own structures: every field of
a Kubernetes type is tagged with its JSON name and its protobuf number. Any program that links client-go will do; a
newer one is named first, and types it lacks are taken from the next::

    python tools/extract_protobuf_facts.py PROGRAM [OLDER_PROGRAM ...] > src/fleetplane/model/protobuf/facts.txt

Only ELF files for 64-bit little-endian machines are understood, executables and shared libraries alike. The layout of
Go's type descriptors (``internal/abi``: Type, StructType, PtrType, SliceType, MapType, UncommonType) is that of Go 1.16
and later.

Format of the result: one block per message, a blank line between. The first line names the message by its OpenAPI
definition; each further line is ``number name type flags``. Types: ``bool int32 int64 double string bytes``, the name
of a message, one of the words of HAND_WRITTEN, ``[]T``, ``map[T]`` (keys are strings), and ``items[]T``, a message
whose only field is a list. Flags: ``?`` the field is a pointer (a zero value is told), ``-`` a zero value is left out
of JSON, ``<`` the fields of this message stand in the place of the field itself.
"""

from __future__ import annotations

import re
import struct
import sys
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

PACKAGES = {
    "k8s.io/api/": "io.k8s.api.",
    "k8s.io/apimachinery/pkg/": "io.k8s.apimachinery.pkg.",
    "k8s.io/apiextensions-apiserver/pkg/": "io.k8s.apiextensions-apiserver.pkg.",
    "k8s.io/kube-aggregator/pkg/": "io.k8s.kube-aggregator.pkg.",
}
"""Go packages whose types are wanted, and how OpenAPI names them."""

VERSIONS = ("v1", "v2")
OLD_BETAS = (
    "k8s.io/api/autoscaling/v2beta2",
    "k8s.io/api/batch/v1beta1",
    "k8s.io/api/discovery/v1beta1",
    "k8s.io/api/networking/v1beta1",
    "k8s.io/api/policy/v1beta1",
    "k8s.io/apimachinery/pkg/apis/meta/v1beta1",
)

BOOL, INT32, INT64, UINT8, UINT32, FLOAT64, MAP, POINTER, SLICE, STRING, STRUCT = 1, 5, 6, 8, 10, 14, 21, 22, 23, 24, 25
SCALARS = {BOOL: "bool", INT32: "int32", INT64: "int64", UINT32: "uint32", FLOAT64: "double", STRING: "string"}

HAND_WRITTEN = {
    "io.k8s.apimachinery.pkg.api.resource.Quantity": "quantity",
    "io.k8s.apimachinery.pkg.apis.meta.v1.Duration": "duration",
    "io.k8s.apimachinery.pkg.apis.meta.v1.FieldsV1": "json",
    "io.k8s.apimachinery.pkg.apis.meta.v1.MicroTime": "microtime",
    "io.k8s.apimachinery.pkg.apis.meta.v1.Time": "time",
    "io.k8s.apimachinery.pkg.runtime.RawExtension": "raw",
    "io.k8s.apimachinery.pkg.util.intstr.IntOrString": "intorstring",
    "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSON": "json",
    "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrArray": "schemaorarray",
    "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrBool": "schemaorbool",
    "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrStringArray": "schemaorstrings",
}
"""Messages whose JSON is not an object of their fields; the codec knows each by this word."""


@dataclass(frozen=True)
class GoField:
    name: str
    tag: str
    embedded: bool
    type: int


class Program:
    """The memory image of a Go program, and readers of its type descriptors. Addresses are integers."""

    def __init__(self, path: Path) -> None:
        content = path.read_bytes()
        if content[:6] != b"\x7fELF\x02\x01":
            raise SystemExit(f"{path.name} is not a 64-bit little-endian ELF file")
        self.sections = _sections(content)
        loaded = [s for s in self.sections.values() if s.loaded]
        self.memory = bytearray(max(s.address + s.size for s in loaded))
        for s in loaded:
            self.memory[s.address : s.address + s.size] = content[s.offset : s.offset + s.size]
        relocations = self.sections.get(".rela.dyn")
        if relocations:
            raw = content[relocations.offset : relocations.offset + relocations.size]
            for offset, info, addend in struct.iter_unpack("<QQq", raw):
                if info & 0xFFFFFFFF == 8:  # R_X86_64_RELATIVE
                    struct.pack_into("<Q", self.memory, offset, addend)
        self.types = self.sections.get(".data.rel.ro") or self.sections[".rodata"]

    def word(self, address: int) -> int:
        return int.from_bytes(self.memory[address : address + 8], "little")

    def half(self, address: int) -> int:
        return int.from_bytes(self.memory[address : address + 4], "little")

    def kind(self, type_address: int) -> int:
        return self.memory[type_address + 23] & 31

    def is_named(self, type_address: int) -> bool:
        return bool(self.memory[type_address + 20] & 4)

    def _varint(self, at: int) -> tuple[int, int]:
        value = shift = 0
        while True:
            byte = self.memory[at]
            at += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value, at

    def read_name(self, at: int) -> tuple[str, str, bool]:
        """(name, tag, embedded) of a Go name record."""
        flags = self.memory[at]
        length, at = self._varint(at + 1)
        name = self.memory[at : at + length].decode("utf-8", "replace")
        tag, at = "", at + length
        if flags & 2:
            length, at = self._varint(at)
            tag = self.memory[at : at + length].decode("utf-8", "replace")
        return name, tag, bool(flags & 8)

    def _inside(self, address: int) -> bool:
        return self.types.address <= address < self.types.address + self.types.size

    @cached_property
    def structures(self) -> list[int]:
        """Addresses of everything that looks like the descriptor of a structure with tagged fields."""
        start, size = self.types.address, self.types.size // 8 * 8
        words = array("Q", bytes(self.memory[start : start + size]))
        found = []
        for place in range(2, len(words) - 8):
            if (words[place] >> 56) & 31 != STRUCT or words[place + 6] != words[place + 7] or not words[place + 6]:
                continue
            if words[place + 6] < 500 and self._inside(words[place + 5]):
                found.append(start + 8 * (place - 2))
        return [
            address for address in found if any("json:" in f.tag or "protobuf:" in f.tag for f in self.fields(address))
        ]

    def fields(self, structure: int) -> list[GoField]:
        first, count = self.word(structure + 56), self.word(structure + 64)
        result = []
        for number in range(count):
            at = first + 24 * number
            if not (self._inside(at) and self.word(at) < len(self.memory) and self._inside(self.word(at + 8))):
                return []
            name, tag, embedded = self.read_name(self.word(at))
            result.append(GoField(name, tag, embedded, self.word(at + 8)))
        return result

    @cached_property
    def name_base(self) -> int:
        """What name offsets count from: the candidate under which most structures have a sensible name."""
        candidates = {self.types.address}
        for section in (".go.module", ".noptrdata", ".data"):
            if section in self.sections:
                s = self.sections[section]
                content = bytes(self.memory[s.address : s.address + s.size // 8 * 8])
                candidates |= {w for w in array("Q", content) if self._inside(w)}
        sample = self.structures[:: max(1, len(self.structures) // 40)]

        def score(base: int) -> int:
            good = 0
            for one in sample:
                at = base + self.half(one + 40)
                if self._inside(at):
                    length = self.memory[at + 1]
                    good += bool(re.fullmatch(rb"\*[a-z0-9]+\.\w+", self.memory[at + 2 : at + 2 + length]))
            return good

        return max(candidates, key=score)

    def go_name(self, type_address: int) -> tuple[str, str]:
        """(package path, name) of a named type; empty strings where there is none."""
        if not self.is_named(type_address):
            return "", ""
        name = self.read_name(self.name_base + self.half(type_address + 40))[0].lstrip("*").rpartition(".")[2]
        size = {STRUCT: 80, POINTER: 56, SLICE: 56, MAP: 0}.get(self.kind(type_address), 48)
        package = self.read_name(self.name_base + self.half(type_address + size))[0] if size else ""
        return package, name


@dataclass(frozen=True)
class Section:
    address: int
    offset: int
    size: int
    loaded: bool


def _sections(content: bytes) -> dict[str, Section]:
    (table,) = struct.unpack_from("<Q", content, 0x28)
    entry, count, names = struct.unpack_from("<HHH", content, 0x3A)
    raw = [struct.unpack_from("<IIQQQQ", content, table + entry * i) for i in range(count)]
    result = {}
    for name, kind, flags, address, offset, size in raw:
        start = raw[names][4] + name
        text = content[start : content.index(b"\0", start)].decode()
        result[text] = Section(address, offset, size, bool(flags & 2) and kind != 8)
    return result


def definition(package: str, name: str) -> str:
    """The OpenAPI definition name of a Go type, empty for packages that are not wanted."""
    package = package.rpartition("/vendor/")[2]
    for path, prefix in PACKAGES.items():
        if package.startswith(path):
            versioned = package.rpartition("/")[2]
            if (
                versioned[:1] == "v"
                and versioned[1:2].isdigit()
                and versioned not in VERSIONS
                and package not in OLD_BETAS
            ):
                return ""
            return prefix + package.removeprefix(path).replace("/", ".") + "." + name
    return ""


def _tag(tag: str, key: str) -> str | None:
    found = re.search(rf'(?:^| ){key}:"([^"]*)"', tag)
    return found[1] if found else None


def type_word(program: Program, address: int, *, repeated: bool = False) -> tuple[str, bool]:
    """(type as the table writes it, whether it is a pointer).

    A slice with a name of its own (``Verbs``, ``ExtraValue``) that is not tagged as repeated is a message with the one
    repeated field ``items``.
    """
    kind = program.kind(address)
    if kind == POINTER:
        return type_word(program, program.word(address + 48))[0], True
    if kind == SLICE:
        element = program.word(address + 48)
        if program.kind(element) == UINT8:
            return "bytes", False
        word = type_word(program, element)[0]
        return (f"items[]{word}" if program.is_named(address) and not repeated else f"[]{word}"), False
    if kind == MAP:
        return f"map[{type_word(program, program.word(address + 56))[0]}]", False
    if kind == STRUCT:
        name = definition(*program.go_name(address))
        return HAND_WRITTEN.get(name, name or "unknown"), False
    return SCALARS.get(kind, f"kind{kind}"), False


def rows(program: Program, structure: int) -> Iterator[tuple[int, str]]:
    for field in program.fields(structure):
        tag = _tag(field.tag, "protobuf")
        if not tag or tag == "-":
            continue
        _, number, cardinality, *_ = tag.split(",")
        json_name, *options = (_tag(field.tag, "json") or "").split(",")
        word, pointer = type_word(program, field.type, repeated=cardinality == "rep")
        if "unknown" in word:  # a type of a version that is not served
            continue
        flags = (
            "?" * pointer
            + "-" * ("omitempty" in options or "omitzero" in options)
            + "<" * (field.embedded and not json_name)
        )
        yield int(number), f"{number} {json_name or field.name} {word} {flags}".rstrip()


def messages(program: Program) -> dict[str, str]:
    """Definition name -> block of the table."""
    result: dict[str, str] = {}
    for structure in program.structures:
        name = definition(*program.go_name(structure))
        if name and name not in HAND_WRITTEN:
            found = [row for _, row in sorted(rows(program, structure))]
            block = "\n".join([name, *found])
            if found and len(block) > len(result.get(name, "")):
                result[name] = block
    return result


def main(paths: list[str]) -> None:
    if not paths:
        raise SystemExit((__doc__ or "").strip())
    table: dict[str, str] = {}
    for path in paths:
        table = messages(Program(Path(path))) | table
    sys.stdout.write("\n\n".join(table[name] for name in sorted(table)) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
