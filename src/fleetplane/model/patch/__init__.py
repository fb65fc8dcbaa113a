"""How an object becomes another by a patch: JSON Patch, JSON Merge Patch, strategic merge patch.

Each takes an object and a decoded patch and returns a new object that shares nothing with either; both stay as they
were. A patch that is not well formed is refused with 400, one that does not apply with 422.
"""

from fleetplane.model.patch.json_patch import json_patch
from fleetplane.model.patch.merge_patch import merge_patch
from fleetplane.model.patch.strategic_merge import strategic_merge_patch

__all__ = ["json_patch", "merge_patch", "strategic_merge_patch"]
