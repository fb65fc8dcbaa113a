"""What the tag of a node image tells: which Kubernetes is inside, and which may follow which. Pure."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

_TAG: Final = re.compile(r"[:\-]v1\.(\d{2})(?!\d)")


@lru_cache(1024)
def minor_of(image: str) -> int | None:
    """The Kubernetes minor version that a node image's tag tells; None when it tells none."""
    found = _TAG.search(image.rpartition("/")[2])
    return int(found[1]) if found else None


def upgrade_problem(old: str, new: str) -> str:
    """Why a node made by one image must not be given to another; empty where it may. One minor at a time, never back."""
    was, now = minor_of(old), minor_of(new)
    if was is None or now is None or now in {was, was + 1}:
        return ""
    if now < was:
        return f"is older than v1.{was}, which made the node; Kubernetes cannot be taken back"
    return f"must be at most v1.{was + 1}: upgrades go one minor version at a time"


def skew_problem(master: str, worker: str) -> str:
    """Why a worker does not go with its master; empty where it does. (Kubernetes' version skew policy.)"""
    above, below = minor_of(master), minor_of(worker)
    if above is None or below is None:
        return ""
    behind = 3 if above >= 28 else 2
    if below > above:
        return f"must be at most the master's v1.{above}; upgrade the master first"
    if above - below > behind:
        return f"must be at least v1.{above - behind}, for a master of v1.{above}"
    return ""
