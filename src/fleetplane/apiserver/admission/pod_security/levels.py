"""Which standard holds in a namespace, in which of the three modes: read from its labels. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final, NamedTuple

from fleetplane.model.errors import FieldError

PREFIX: Final = "pod-security.kubernetes.io/"
LEVELS: Final = ("privileged", "baseline", "restricted")
MODES: Final = ("enforce", "audit", "warn")
_VERSION: Final = re.compile(r"latest|v1\.(0|[1-9][0-9]{0,3})")


class Level(NamedTuple):
    """A standard. Its rules are those of the newest version, whichever is named; the name is only told."""

    name: str = "privileged"
    version: str = "latest"

    def __str__(self) -> str:
        return f"{self.name}:{self.version}"

    @property
    def demands_nothing(self) -> bool:
        return self.name == "privileged"


class Policy(NamedTuple):
    enforce: Level = Level()
    audit: Level = Level()
    warn: Level = Level()

    @property
    def demands_nothing(self) -> bool:
        return self.enforce.demands_nothing and self.audit.demands_nothing and self.warn.demands_nothing


_NOTHING: Final = Policy()


def read_policy(labels: Mapping[str, str]) -> tuple[Policy, list[FieldError]]:
    """(the policy, what is wrong with the labels). An unreadable level is enforced as the strictest."""
    if not any(label.startswith(PREFIX) for label in labels):
        return _NOTHING, []
    problems: list[FieldError] = []
    levels = []
    for mode in MODES:
        name, version = labels.get(PREFIX + mode), labels.get(f"{PREFIX}{mode}-version")
        level = Level()
        if name is not None:
            if name in LEVELS:
                level = level._replace(name=name)
            else:
                detail = f"must be one of {', '.join(LEVELS)}"
                problems.append(FieldError.invalid(f"metadata.labels[{PREFIX}{mode}]", name, detail))
                level = level._replace(name="restricted" if mode == "enforce" else "privileged")
        if version is not None:
            if _VERSION.fullmatch(version):
                level = level._replace(version=version)
            else:
                where = f"metadata.labels[{PREFIX}{mode}-version]"
                problems.append(FieldError.invalid(where, version, 'must be "latest" or "v1.x"'))
        levels.append(level)
    policy = Policy(*levels)
    if PREFIX + "warn" not in labels and not policy.enforce.demands_nothing:
        policy = policy._replace(warn=policy.enforce)
    return policy, problems
