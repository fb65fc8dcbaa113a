"""YAML as Kubernetes reads it, and as people like to read it.

Kubernetes turns YAML into JSON with the rules of YAML 1.1 less its surprises: ``on`` and ``yes`` are booleans and
``0777`` is octal, but ``12:30:45`` and ``2024-01-01`` stay strings; keys become strings; ``1e3`` is a number. PyYAML
has other rules, so only its (C) parser is used: ``load_all`` builds the values from parser events, in one loop without
recursion.

What hostile input can do is bounded: nesting, and how much aliases may multiply. A key that is set twice is reported,
the last value wins. All errors are ``YamlError``, with the line. Never load YAML in any other way.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
import re
from collections.abc import Callable, Iterable
from typing import Any, Final, NamedTuple

import yaml

from fleetplane.model.jsonvalue import MAX_DEPTH, copied, is_too_deep

try:
    from yaml import CSafeDumper as _BaseDumper
    from yaml import CSafeLoader as _Loader
except ImportError:  # PyYAML without libyaml: the same, slower
    from yaml import SafeDumper as _BaseDumper  # type: ignore[assignment]
    from yaml import SafeLoader as _Loader  # type: ignore[assignment]

MAX_ALIASED_NODES: Final = 100_000
"""How many nodes all aliases of a stream together may stand for."""


class YamlError(ValueError):
    """The text is not YAML, or not YAML that can be JSON."""


class Document(NamedTuple):
    """One document. ``duplicates`` says which keys were set twice: ``line 3: key "a" already set in map``."""

    value: Any
    duplicates: tuple[str, ...] = ()


def load_all(data: bytes | str) -> list[Document]:
    """All documents of a stream of YAML or JSON; those that hold nothing are left out. Raises YamlError."""
    if data.lstrip()[:1] in (b"{", "{"):
        found = _load_json(data)
        if found is not None:
            return found
    return [document for document in _load_yaml(data) if document.value is not None]


def load(data: bytes | str) -> Any:
    """The value of the one document; None when there is none. Raises YamlError."""
    documents = load_all(data)
    if len(documents) > 1:
        raise YamlError(f"yaml: expected one document, found {len(documents)}: separate them into several files")
    return documents[0].value if documents else None


def dump(obj: Any) -> str:
    """One document, keys sorted, as ``kubectl get -o yaml`` prints it."""
    text: str = yaml.dump(
        obj, Dumper=_Dumper, sort_keys=True, default_flow_style=False, allow_unicode=True, width=1_000_000
    )
    return text.removesuffix("...\n")


def dump_all(objects: Iterable[Any]) -> str:
    return "---\n".join(map(dump, objects))


# --- Scalars ------------------------------------------------------------------------------------------------------


_WORDS: Final[dict[str, Any]] = (
    dict.fromkeys(("", "~", "null", "Null", "NULL"))
    | dict.fromkeys(("y", "Y", "yes", "Yes", "YES", "true", "True", "TRUE", "on", "On", "ON"), True)
    | dict.fromkeys(("n", "N", "no", "No", "NO", "false", "False", "FALSE", "off", "Off", "OFF"), False)
    | dict.fromkeys((".nan", ".NaN", ".NAN"), math.nan)
    | dict.fromkeys((".inf", ".Inf", ".INF", "+.inf", "+.Inf", "+.INF"), math.inf)
    | dict.fromkeys(("-.inf", "-.Inf", "-.INF"), -math.inf)
)
_NUMERIC_START: Final = frozenset("+-.0123456789")
_INTEGER: Final = re.compile(r"[-+]?(?:0[bB][01]+|0[oO]?[0-7]+|0[xX][0-9a-fA-F]+|[1-9][0-9]*|0)", re.ASCII)
_FLOAT: Final = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?", re.ASCII)
_INTEGERS: Final = range(-(1 << 63), 1 << 64)
_MAX_NUMBER: Final = 400


def resolve(text: str) -> Any:
    """What a plain scalar means."""
    if text in _WORDS:
        return _WORDS[text]
    if text[0] not in _NUMERIC_START:
        return text
    digits = text.replace("_", "") if text[0] != "." else text
    if len(digits) > _MAX_NUMBER:
        return text
    if _INTEGER.fullmatch(digits):
        number = _integer(digits)
        if number in _INTEGERS:
            return number
    if _FLOAT.fullmatch(digits) and math.isfinite(real := float(digits)):
        return _json_number(real)
    return text


def _integer(digits: str) -> int:
    unsigned = digits.lstrip("+-")
    if len(unsigned) > 1 and unsigned[0] == "0" and unsigned[1].isdigit():
        return int(digits, 8)
    return int(digits, 0)


def _json_number(number: float) -> int | float:
    """A whole float is written without a fraction in JSON, and read back as an integer."""
    return int(number) if number.is_integer() and abs(number) < 1 << 63 else number


_TAGGED: Final[dict[str, tuple[type, ...]]] = {
    "int": (int,),
    "float": (int, float),
    "bool": (bool,),
    "null": (type(None),),
}


def _tagged(tag: str, text: str) -> Any:
    """The value of a scalar with an explicit tag; tags we do not know mean text. Raises ValueError."""
    kind = tag.removeprefix("tag:yaml.org,2002:")
    if kind == "binary":
        try:
            return base64.b64decode("".join(text.split()), validate=True).decode("utf-8")
        except (binascii.Error, UnicodeDecodeError):
            raise ValueError("!!binary value contains invalid base64 data") from None
    wanted = _TAGGED.get(kind)
    if wanted is None:
        return text
    value = resolve(text)
    if not isinstance(value, wanted) or (isinstance(value, bool) and kind != "bool"):
        raise ValueError(f"cannot decode !!str `{text}` as a !!{kind}")
    return value


def _key(value: Any) -> str:
    """A map key as a JSON string. Raises ValueError."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return repr(value)
    shown = "null" if value is None else "a list or a map"
    raise ValueError(f"unsupported map key: {shown} cannot be a key, write a string")


# --- Documents ----------------------------------------------------------------------------------------------------


class _Collection:
    """A list or map that is being read. ``nodes`` counts what stands in it, for the bound on aliases."""

    __slots__ = ("anchor", "duplicates", "key", "keys", "merges", "nodes", "value")

    def __init__(self, value: list[Any] | dict[str, Any], anchor: str | None) -> None:
        self.value = value
        self.anchor = anchor
        self.nodes = 1
        self.key: str | None = None
        self.keys: set[str] = set()
        self.merges: list[dict[str, Any]] = []


_MERGE: Final = "\0<<"
"""Stands for the merge key ``<<``; no YAML text can contain it."""


class _Builder:
    """Turns parser events into documents."""

    def __init__(self) -> None:
        self.documents: list[Document] = []
        self.stack: list[_Collection] = []
        self.anchors: dict[str, tuple[Any, int]] = {}
        self.duplicates: list[str] = []
        self.aliased = 0

    def feed(self, event: Any) -> None:
        kind = type(event)
        if kind is yaml.ScalarEvent:
            self.scalar(event)
        elif kind is yaml.MappingStartEvent:
            self.open({}, event)
        elif kind is yaml.SequenceStartEvent:
            self.open([], event)
        elif kind is yaml.MappingEndEvent or kind is yaml.SequenceEndEvent:
            self.close(event)
        elif kind is yaml.AliasEvent:
            self.alias(event)
        elif kind is yaml.DocumentStartEvent:
            self.anchors, self.duplicates = {}, []

    def scalar(self, event: Any) -> None:
        if event.implicit[0]:
            text = event.value
            is_key = bool(self.stack) and self.stack[-1].key is None and type(self.stack[-1].value) is dict
            value = _MERGE if text == "<<" and is_key else resolve(text)
        else:
            value = event.value if event.implicit[1] else _tagged(event.tag or "", event.value)
        if event.anchor is not None:
            self.anchors[event.anchor] = (value, 1)
        self.add(value, 1, event)

    def open(self, value: list[Any] | dict[str, Any], event: Any) -> None:
        if len(self.stack) >= MAX_DEPTH:
            raise ValueError(f"nested deeper than {MAX_DEPTH} levels")
        self.stack.append(_Collection(value, event.anchor))

    def close(self, event: Any) -> None:
        done = self.stack.pop()
        for merged in done.merges:
            for key, value in merged.items():
                done.value.setdefault(key, value)  # type: ignore[union-attr] # only maps have merges
        if done.anchor is not None:
            self.anchors[done.anchor] = (done.value, done.nodes)
        self.add(done.value, done.nodes, event)

    def alias(self, event: Any) -> None:
        if any(one.anchor == event.anchor for one in self.stack):
            raise ValueError(f"anchor '{event.anchor}' value contains itself")
        if event.anchor not in self.anchors:
            raise ValueError(f"unknown anchor '{event.anchor}' referenced")
        value, nodes = self.anchors[event.anchor]
        self.aliased += nodes  # what an alias stands for is copied: it must not change when its anchor does
        if self.aliased > MAX_ALIASED_NODES:
            raise ValueError("document contains excessive aliasing")
        self.add(copied(value), nodes, event)

    def add(self, value: Any, nodes: int, event: Any) -> None:
        """Put a finished value where it belongs."""
        if not self.stack:
            self.documents.append(Document(value, tuple(self.duplicates)))
            return
        if type(value) is float and not math.isfinite(value):
            raise ValueError("NaN and infinities have no form in JSON")
        parent = self.stack[-1]
        parent.nodes += nodes
        if type(parent.value) is list:
            parent.value.append(value)
        elif parent.key is None:
            parent.key = _key(value)
        elif parent.key == _MERGE:
            parent.merges += _merged_maps(value)
            parent.key = None
        else:
            if parent.key in parent.keys:
                line = event.start_mark.line + 1
                self.duplicates.append(f"line {line}: key {json.dumps(parent.key)} already set in map")
            parent.keys.add(parent.key)
            parent.value[parent.key] = value  # type: ignore[call-overload] # a dict, by the test above
            parent.key = None


def _merged_maps(value: Any) -> list[dict[str, Any]]:
    maps = value if type(value) is list else [value]
    if not all(type(one) is dict for one in maps):
        raise ValueError("map merge requires map or sequence of maps as the value")
    return maps


def _load_yaml(data: bytes | str) -> list[Document]:
    builder = _Builder()
    line = 0
    try:
        for event in yaml.parse(data, Loader=_Loader):
            line = event.start_mark.line if event.start_mark else line
            builder.feed(event)
    except yaml.MarkedYAMLError as error:
        mark: Any = error.problem_mark or error.context_mark
        place = f"line {mark.line + 1}: " if mark else ""
        raise YamlError(f"yaml: {place}{error.problem or error.context}") from None
    except yaml.YAMLError as error:
        raise YamlError(f"yaml: {str(error).splitlines()[0]}") from None
    except UnicodeError:
        raise YamlError("yaml: the text is not valid Unicode") from None
    except ValueError as error:
        raise YamlError(f"yaml: line {line + 1}: {error}") from None
    return builder.documents


def _load_json(data: bytes | str) -> list[Document] | None:
    """Documents of a stream of JSON objects; None when it is not JSON (``{a: b}`` is YAML)."""
    duplicates: list[str] = []

    def collect(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            seen: set[str] = set()
            duplicates.extend(
                f"key {json.dumps(key)} already set in map"
                for key, _ in pairs
                if key in seen or seen.add(key)  # type: ignore[func-returns-value]
            )
        return found

    decoder = json.JSONDecoder(object_pairs_hook=collect, parse_constant=_no_constant)
    documents: list[Document] = []
    try:
        text = data if isinstance(data, str) else data.decode("utf-8")
        at, end = 0, len(text.rstrip())
        while at < end:
            value, at = decoder.raw_decode(text, _SPACE.match(text, at).end())  # type: ignore[union-attr]
            documents.append(Document(value, tuple(duplicates)))
            duplicates.clear()
    except (ValueError, RecursionError):
        return None
    if any(is_too_deep(document.value) for document in documents):
        raise YamlError(f"json: nested deeper than {MAX_DEPTH} levels")
    return documents


_SPACE: Final = re.compile(r"\s*")


def _no_constant(text: str) -> Any:
    raise ValueError(f"{text} is not JSON")


# --- Writing ------------------------------------------------------------------------------------------------------


class _Dumper(_BaseDumper):
    """Quotes what any YAML reader might take for something other than text; never writes aliases."""

    def ignore_aliases(self, _data: Any) -> bool:
        return True

    def resolve(self, kind: Any, value: Any, implicit: Any) -> str:
        tag: str = super().resolve(kind, value, implicit)  # type: ignore[no-untyped-call]
        if kind is yaml.ScalarNode and implicit[0] and tag.endswith(":str") and not isinstance(resolve(value), str):
            return "tag:yaml.org,2002:float"
        return tag


def _text_node(dumper: Any, text: str) -> yaml.ScalarNode:
    is_block = "\n" in text and not any(line != line.rstrip() for line in text.split("\n"))
    node: yaml.ScalarNode = dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if is_block else None)
    return node


_represent: Callable[[type, Any], None] = _Dumper.add_representer
_represent(str, _text_node)
