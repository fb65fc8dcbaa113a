"""Comparing and naming pod templates.

Two templates are the same when they mean the same: absent, null and empty are one thing, and the hash label that a
controller adds does not count. The hash only has to be stable and to fit a label and a name; Kubernetes' own algorithm
(FNV over a Go dump) is not part of its contract, so ours is SHA-256 over canonical JSON.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, Final

from fleetplane.model.environment import SAFE_ALPHABET
from fleetplane.model.objects import Object

TEMPLATE_HASH: Final = "pod-template-hash"
_EMPTY: Final[tuple[Any, ...]] = (None, {}, [], "")


def is_empty(value: Any) -> bool:
    """Absent, null, an empty list, map or text; false and zero are values."""
    return value is None or (isinstance(value, dict | list | str) and not value)


def canonical(value: Any) -> Any:
    """The same value without parts that mean nothing; an all-empty map is itself empty."""
    if isinstance(value, Mapping):
        kept = {key: one for key, item in value.items() if (one := canonical(item)) is not None}
        return kept or None
    if isinstance(value, list):
        return [canonical(one) for one in value] or None
    return None if value == "" else value


def same_meaning(left: Any, right: Any) -> bool:
    """Equal, but for parts that are absent here and empty there."""
    return bool(left == right) or canonical(left) == canonical(right)


def without_hash(template: Mapping[str, Any]) -> Object:
    meta = template.get("metadata") or {}
    if TEMPLATE_HASH not in (meta.get("labels") or {}):
        return dict(template)
    labels = {key: value for key, value in meta["labels"].items() if key != TEMPLATE_HASH}
    return {**template, "metadata": {**meta, "labels": labels}}


def same_template(left: Mapping[str, Any], right: Mapping[str, Any]) -> bool:
    """Whether pods of one are as good as pods of the other; the hash label does not count."""
    return same_meaning(without_hash(left), without_hash(right))


def safe_digest(data: Any, collisions: int = 0, length: int = 10) -> str:
    """A short name for ``data``: letters and digits that never form words."""
    text = json.dumps(canonical(data), sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    number = int.from_bytes(hashlib.sha256(f"{collisions}\n{text}".encode()).digest(), "big")
    letters = []
    for _ in range(length):
        number, index = divmod(number, len(SAFE_ALPHABET))
        letters.append(SAFE_ALPHABET[index])
    return "".join(letters)


def template_hash(template: Mapping[str, Any], collisions: int = 0) -> str:
    """The value of the ``pod-template-hash`` label."""
    return safe_digest(without_hash(template), collisions)
