"""ConfigMaps and Secrets: keys with values, immutable on request."""

from __future__ import annotations

import binascii
import json
from base64 import b64decode, b64encode
from collections.abc import Mapping
from typing import Any, Final

from fleetplane.apiserver.kinds.access import fill, section, text
from fleetplane.apiserver.kinds.behaviour import KindBehaviour
from fleetplane.apiserver.kinds.checks import Errors, collected
from fleetplane.apiserver.kinds.columns import at, text_column
from fleetplane.model import names
from fleetplane.model.errors import FieldError
from fleetplane.model.objects import Object
from fleetplane.model.table import AGE, NAME

MAX_SIZE: Final = 1024 * 1024
_IMMUTABLE: Final = "field is immutable when `immutable` is set"
_ACCOUNT: Final = "kubernetes.io/service-account.name"
_REQUIRED_KEYS: Final[Mapping[str, tuple[str, ...]]] = {
    "kubernetes.io/dockercfg": (".dockercfg",),
    "kubernetes.io/dockerconfigjson": (".dockerconfigjson",),
    "kubernetes.io/ssh-auth": ("ssh-privatekey",),
    "kubernetes.io/tls": ("tls.crt", "tls.key"),
}
_BASIC_AUTH: Final = ("username", "password")


def _count(obj: Mapping[str, Any]) -> int:
    return len(section(obj, "data")) + len(section(obj, "binaryData"))


def _unchanged_when_immutable(new: Object, old: Object, keys: tuple[str, ...]) -> Errors:
    if old.get("immutable") is not True:
        return
    if new.get("immutable") is not True:
        yield FieldError.forbidden("immutable", _IMMUTABLE)
    for key in keys:
        if (new.get(key) or {}) != (old.get(key) or {}):
            yield FieldError.forbidden(key, _IMMUTABLE)


def _decoded(value: str) -> bytes | None:
    try:
        return b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        return None


def _keys(found: Mapping[str, Any], path: str) -> Errors:
    for key in found:
        for problem in names.config_key(key):
            yield FieldError.invalid(f"{path}[{key}]", key, problem)


def _validate_config_map(new: Object, old: Object | None) -> Errors:
    data, binary = new.get("data") or {}, new.get("binaryData") or {}
    yield from _keys(data, "data")
    yield from _keys(binary, "binaryData")
    size = sum(len(value.encode("utf-8", "surrogatepass")) for value in data.values())
    for key, value in binary.items():
        if key in data:
            yield FieldError.invalid(f"data[{key}]", key, "duplicate of key present in binaryData")
        raw = _decoded(value)
        if raw is None:
            yield FieldError.invalid(f"binaryData[{key}]", value[:64], "must be base64")
        else:
            size += len(raw)
    if size > MAX_SIZE:
        yield FieldError.too_long("", MAX_SIZE)
    if old is not None:
        yield from _unchanged_when_immutable(new, old, ("data", "binaryData"))


CONFIG_MAPS: Final = KindBehaviour(
    validate=collected(_validate_config_map),
    columns=(NAME, text_column("Data", "Number of keys.", _count), AGE),
    has_generation=False,
)


def _default_secret(secret: Object) -> None:
    fill(secret, type="Opaque")
    plain = secret.get("stringData")
    if not isinstance(plain, dict) or not all(isinstance(value, str) for value in plain.values()):
        return
    # plain text is only ever written, never kept or answered
    del secret["stringData"]
    if plain:
        data = secret.setdefault("data", {})
        if isinstance(data, dict):
            for key, value in plain.items():
                data[key] = b64encode(value.encode("utf-8", "surrogatepass")).decode()


def _prepare_secret_update(new: Object, old: Object) -> None:
    if not text(new, "type"):
        new["type"] = old.get("type", "Opaque")


def _validate_secret(new: Object, old: Object | None) -> Errors:
    data = new.get("data") or {}
    yield from _keys(data, "data")
    size = 0
    for key, value in data.items():
        raw = _decoded(value)
        if raw is None:
            yield FieldError.invalid(f"data[{key}]", "<secret contents redacted>", "must be base64")
        else:
            size += len(raw)
    if size > MAX_SIZE:
        yield FieldError.too_long("data", MAX_SIZE)
    yield from _secret_type(new, data)
    if old is not None:
        if new.get("type") != old.get("type"):
            yield FieldError.invalid("type", new.get("type"), "field is immutable")
        yield from _unchanged_when_immutable(new, old, ("data",))


def _secret_type(secret: Object, data: Mapping[str, str]) -> Errors:
    kind = text(secret, "type")
    if kind == "kubernetes.io/service-account-token":
        if not (secret["metadata"].get("annotations") or {}).get(_ACCOUNT):
            yield FieldError.required(f"metadata.annotations[{_ACCOUNT}]")
    elif kind == "kubernetes.io/basic-auth" and not any(key in data for key in _BASIC_AUTH):
        for key in _BASIC_AUTH:
            yield FieldError.required(f"data[{key}]")
    for key in _REQUIRED_KEYS.get(kind, ()):
        if key not in data or (kind == "kubernetes.io/ssh-auth" and not data[key]):
            yield FieldError.required(f"data[{key}]")
        elif "docker" in kind:
            yield from _json(data[key], f"data[{key}]")


def _json(value: str, path: str) -> Errors:
    try:
        json.loads(_decoded(value) or b"")
    except (ValueError, RecursionError):
        yield FieldError.invalid(path, "<secret contents redacted>", "must be JSON")


SECRETS: Final = KindBehaviour(
    default=_default_secret,
    prepare_update=_prepare_secret_update,
    validate=collected(_validate_secret),
    columns=(
        NAME,
        text_column("Type", "What the secret is for.", at("type")),
        text_column("Data", "Number of keys.", _count),
        AGE,
    ),
    terms=lambda secret: [("type", text(secret, "type"))],
    indexed_fields=frozenset({"type"}),
    has_generation=False,
)
