"""The program itself: is Python new enough, and is everything it needs installed?"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Final

from fleetplane.node.check import Finding

OLDEST: Final = (3, 11)


def check_installation(version: tuple[int, ...] = sys.version_info[:3]) -> Iterator[Finding]:
    shown = ".".join(map(str, version))
    if version < OLDEST:
        yield Finding(
            "Python",
            "missing",
            f"Python {shown} runs this program, which needs {'.'.join(map(str, OLDEST))} or newer.",
            "Install python3.11 or newer, make a virtual environment with it, and install Fleetplane there.",
        )
    else:
        yield Finding("Python", "works", f"Python {shown} ({sys.executable}).")
    yield check_packages()


def check_packages() -> Finding:
    try:
        wanted = [
            re.split(r"[^\w.-]", one)[0] for one in metadata.requires("fleetplane") or () if "extra ==" not in one
        ]
        version = metadata.version("fleetplane")
    except metadata.PackageNotFoundError:
        return Finding("Installation", "limited", "Fleetplane runs from its source, not from an installation.")
    absent = [name for name in wanted if not _is_installed(name)]
    if absent:
        words = f"Packages it needs are not installed: {', '.join(absent)}."
        return Finding(
            "Installation", "missing", words, "Install Fleetplane again: pip install --force-reinstall fleetplane"
        )
    if _kinds_missing():
        words = "The file with the built-in kinds is missing from this installation."
        return Finding("Installation", "missing", words, "Install Fleetplane again, from a wheel or with pip install .")
    return Finding("Installation", "works", f"Fleetplane {version} with {len(wanted)} packages.")


def _is_installed(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True


def _kinds_missing() -> bool:
    import fleetplane.model.builtin

    return not (Path(fleetplane.model.builtin.__file__).parent / "kinds.bin").is_file()
