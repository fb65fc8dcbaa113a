"""The pods a node should run, on its disk: what lets it start alone.

One file a pod, replaced as a whole, holding the specification as last received and the node's notes. Files are private:
a specification may hold what environment variables say. A damaged file is set aside and reported, never fatal.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from fleetplane.model.objects import Object
from fleetplane.node.files import read_json, remove_file, write_private
from fleetplane.node.observed import PodNotes, notes_from_json, notes_to_json

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Kept:
    """A pod as it was on disk. ``cluster`` is its logical cluster."""

    object: Object
    notes: PodNotes
    cluster: str


class DesiredPods:
    """See the module. All calls block shortly: run them in a thread, one at a time for each pod."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._written: dict[str, bytes] = {}

    def load(self) -> Iterator[Kept]:
        """Every pod that was kept."""
        if not self._directory.is_dir():
            return
        for path in sorted(self._directory.glob("*.json")):
            found = read_json(path)
            if found is None or not isinstance(found.get("pod"), dict):
                _log.error("%s is damaged and set aside; its pod comes back when the control plane answers", path)
                path.replace(path.with_suffix(".damaged"))
                continue
            try:
                notes = notes_from_json(found.get("notes") or {})
            except (ValueError, KeyError, TypeError, AttributeError):
                notes = PodNotes()
            yield Kept(found["pod"], notes, str(found.get("cluster") or "root"))

    def keep(self, uid: str, obj: Object, notes: PodNotes, cluster: str) -> None:
        """Write the pod if it changed. Raises OSError."""
        data: dict[str, Any] = {"pod": _lasting(obj), "notes": notes_to_json(notes), "cluster": cluster}
        encoded = orjson.dumps(data)
        if self._written.get(uid) != encoded:
            write_private(self._directory / f"{uid}.json", encoded)
            self._written[uid] = encoded

    def forget(self, uid: str) -> None:
        self._written.pop(uid, None)
        remove_file(self._directory / f"{uid}.json")


def _lasting(obj: Object) -> Object:
    """Without what changes with every write and says nothing to a node."""
    metadata = {k: v for k, v in (obj.get("metadata") or {}).items() if k not in {"managedFields", "resourceVersion"}}
    return {**obj, "metadata": metadata}
