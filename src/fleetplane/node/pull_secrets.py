"""Which credentials to show an image's registry: from a pod's ``imagePullSecrets``. Pure functions."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Any

from fleetplane.node.configuration import secret_value
from fleetplane.node.runtime import RegistryAuth

DEFAULT_REGISTRY = "docker.io"
_ALIASES = {"index.docker.io": "docker.io", "registry-1.docker.io": "docker.io"}


def registry_of(image: str) -> str:
    """``example.org:5000/app:1`` -> ``example.org:5000``; short names live at Docker Hub."""
    first, slash, _ = image.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost"):
        return first
    return DEFAULT_REGISTRY


def credentials_for(image: str, secrets: Iterable[Mapping[str, Any]]) -> list[RegistryAuth]:
    """Every matching entry, the longest match of each secret first."""
    found: list[RegistryAuth] = []
    for secret in secrets:
        matching = [(len(place), auth) for place, auth in _entries(secret).items() if _matches(place, image)]
        found += [auth for _, auth in sorted(matching, key=lambda one: one[0], reverse=True)]
    return list(dict.fromkeys(found))


def _entries(secret: Mapping[str, Any]) -> dict[str, RegistryAuth]:
    data = secret.get("data") or {}
    try:
        if ".dockerconfigjson" in data:
            auths = json.loads(secret_value(secret, ".dockerconfigjson")).get("auths") or {}
        elif ".dockercfg" in data:
            auths = json.loads(secret_value(secret, ".dockercfg"))
        else:
            return {}
        return {_place(str(key)): _auth(value) for key, value in auths.items() if isinstance(value, dict)}
    except (ValueError, AttributeError):
        return {}


def _place(text: str) -> str:
    """A registry as configuration files write it, without scheme or API version."""
    place = text.removeprefix("https://").removeprefix("http://").rstrip("/")
    for suffix in ("/v1", "/v2"):
        place = place.removesuffix(suffix)
    host, slash, path = place.partition("/")
    return _ALIASES.get(host, host) + slash + path


def _auth(entry: Mapping[str, Any]) -> RegistryAuth:
    username, password = str(entry.get("username") or ""), str(entry.get("password") or "")
    if not username and entry.get("auth"):
        try:
            username, _, password = base64.b64decode(str(entry["auth"])).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError, ValueError):
            username = password = ""
    return RegistryAuth(username, password, str(entry.get("identitytoken") or ""))


def _matches(place: str, image: str) -> bool:
    """Hosts may be globs, part by part (``*.example.org``); paths match as prefixes."""
    host, _, path = place.partition("/")
    registry = registry_of(image)
    wanted, has = host.split("."), registry.split(".")
    if len(wanted) != len(has) or not all(fnmatchcase(b, a) for a, b in zip(wanted, has, strict=True)):
        return False
    rest = image.removeprefix(registry + "/")
    return not path or rest == path or rest.startswith(path + "/")
