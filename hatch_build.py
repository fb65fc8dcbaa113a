"""Build hook: puts the data of the built-in kinds into the wheel, and into the source tree of an editable install."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class BuiltinKinds(BuildHookInterface):  # type: ignore[type-arg]
    PLUGIN_NAME = "builtin-kinds"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if self.target_name != "wheel":
            return
        root = Path(self.root)
        made = runpy.run_path(str(root / "tools" / "extract_builtin_kinds.py"))["write"](root)
        build_data["artifacts"].append(str(made.relative_to(root)))
