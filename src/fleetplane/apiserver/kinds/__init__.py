"""What is particular about each built-in kind; a module per group, the large ones by kind.

``BEHAVIOURS`` is all of it. Behaviours work on the storage version; other versions are converted first.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from fleetplane.apiserver.kinds.behaviour import GENERIC, KindBehaviour

BEHAVIOURS: Final[Mapping[tuple[str, str], KindBehaviour]] = {}
"""(group, kind) -> behaviour; kinds that are absent are served as ``GENERIC`` says."""

__all__ = ["BEHAVIOURS", "GENERIC", "KindBehaviour"]
