"""Every setting of a plane, in one typed object.

A setting comes from, in order: the command line, the environment (``FLEETPLANE_DATA_DIR``), a TOML file
(``fleetplane.toml`` or what ``--config`` names), its default here. Nothing else in the product reads the environment.
"""

from __future__ import annotations

import ipaddress
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

RuntimeName = Literal["auto", "podman", "cri", "simulated", "none"]
_PREFIX = "FLEETPLANE_"


class SettingsError(Exception):
    """A setting cannot be used; the message says which and what it may be."""


@dataclass(frozen=True, slots=True)
class Settings:
    """``port`` 0 picks a free one. ``operators`` is ``all``, ``none`` or a comma-separated list of names.

    ``tenant_calls`` are the CIDRs the server may call for virtual clusters (their webhooks and aggregated servers).
    """

    data_dir: Path = Path(".fleetplane")
    host: str = "127.0.0.1"
    port: int = 6443
    runtime: RuntimeName = "auto"
    cri_socket: str = ""
    nodes: int = 1
    store: str = "sqlite"
    operators: str = "all"
    node_name: str = ""
    service_cidrs: str = "10.96.0.0/16,fd00:10:96::/112"
    pod_cidrs: str = "10.88.0.0/16,fd00:10:88::/64"
    node_ports: str = "30000-32767"
    log_level: str = "warning"
    audit_policy: str = ""
    audit_log: str = ""
    oidc_config: str = ""
    encryption_key_file: str = ""
    tenant_calls: str = ""
    debug: bool = False


def load_settings(given: Mapping[str, Any], environment: Mapping[str, str], config: Path | None = None) -> Settings:
    """Settings from what the command line gave (None values count as not given), the environment and a file.

    Raises:
        SettingsError: an unknown name or a value of the wrong type or range.
    """
    values: dict[str, Any] = {}
    values |= _from_file(config)
    for one in fields(Settings):
        text = environment.get(_PREFIX + one.name.upper())
        if text is not None:
            values[one.name] = text
    values |= {name: value for name, value in given.items() if value is not None}
    return _checked(values)


def _from_file(config: Path | None) -> dict[str, Any]:
    path = config or Path("fleetplane.toml")
    if config is None and not os.access(path, os.R_OK):
        return {}
    try:
        data = tomllib.loads(path.read_text())
    except OSError as error:
        raise SettingsError(f"cannot read the settings file {path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"the settings file {path} is not valid TOML: {error}") from None
    known = {one.name for one in fields(Settings)}
    made = {name.replace("-", "_"): value for name, value in data.items()}
    for name in made:
        if name not in known:
            raise SettingsError(f"the settings file {path} names an unknown setting: {name}")
    return made


def _checked(values: dict[str, Any]) -> Settings:
    made: dict[str, Any] = {}
    for one in fields(Settings):
        if one.name not in values:
            continue
        made[one.name] = _typed(one.name, values[one.name])
    settings = Settings(**made)
    if settings.runtime not in ("auto", "podman", "cri", "simulated", "none"):
        raise SettingsError(f"runtime must be auto, podman, cri, simulated or none, not {settings.runtime!r}")
    if not 0 <= settings.port <= 65535:
        raise SettingsError(f"port must be between 0 and 65535, not {settings.port}")
    if not 0 <= settings.nodes <= 100_000:
        raise SettingsError(f"nodes must be between 0 and 100000, not {settings.nodes}")
    if settings.store != "sqlite" and not settings.store.startswith(("postgresql://", "postgres://")):
        raise SettingsError(f"store must be sqlite or a postgresql:// address, not {settings.store!r}")
    try:
        for network in filter(None, map(str.strip, settings.tenant_calls.split(","))):
            ipaddress.ip_network(network)
    except ValueError as error:
        raise SettingsError(f"tenant_calls must be CIDRs with commas between them: {error}") from None
    return settings


def _typed(name: str, value: Any) -> Any:
    default = getattr(Settings(), name)
    if isinstance(default, bool):
        if isinstance(value, bool):
            return value
        if str(value).lower() in ("1", "true", "yes", "on"):
            return True
        if str(value).lower() in ("0", "false", "no", "off", ""):
            return False
        raise SettingsError(f"{name} must be true or false, not {value!r}")
    if isinstance(default, int):
        try:
            return int(value)
        except (TypeError, ValueError):
            raise SettingsError(f"{name} must be a whole number, not {value!r}") from None
    if isinstance(default, Path):
        return Path(str(value)).expanduser()
    return str(value)
