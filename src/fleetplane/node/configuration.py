"""The contents of ConfigMaps and Secrets, as bytes."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any

from fleetplane.node.building import ConfigFailure


def config_value(config_map: Mapping[str, Any], key: str) -> bytes:
    """One entry of a ConfigMap. Raises KeyError, ConfigFailure."""
    data = config_map.get("data") or {}
    if key in data:
        return str(data[key]).encode()
    return _decoded((config_map.get("binaryData") or {})[key], "configmap", key)


def secret_value(secret: Mapping[str, Any], key: str) -> bytes:
    """One entry of a Secret. Raises KeyError, ConfigFailure."""
    return _decoded((secret.get("data") or {})[key], "secret", key)


def _decoded(text: Any, kind: str, key: str) -> bytes:
    try:
        return base64.b64decode(str(text), validate=False)
    except (binascii.Error, ValueError):
        raise ConfigFailure(f"the value of key {key} in the {kind} is not base64") from None


def config_entries(config_map: Mapping[str, Any]) -> dict[str, bytes]:
    keys = [*(config_map.get("data") or {}), *(config_map.get("binaryData") or {})]
    return {key: config_value(config_map, key) for key in keys}


def secret_entries(secret: Mapping[str, Any]) -> dict[str, bytes]:
    return {key: secret_value(secret, key) for key in secret.get("data") or {}}
