"""An operator from a file, for those that are being written: ``fleetplane operators --file greetings.py``.

The file is a program of whoever names it and runs with their rights; an installed package names its operator in the
entry-point group ``fleetplane.operators`` instead.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

from fleetplane.controller.registration import Operator
from fleetplane.interfaces.cli.errors import CommandError


def operators_of_file(path: Path) -> list[Operator]:
    """Every ``Operator`` the file defines. Raises CommandError when it cannot be loaded or defines none."""
    spec = importlib.util.spec_from_file_location(f"operator_file_{path.stem}", path)
    if spec is None or spec.loader is None or not path.is_file():
        raise CommandError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[module.__name__] = module  # typed kinds look up the names of their annotations in their module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise CommandError(f"{path} cannot be loaded: {type(error).__name__}: {error}") from error
    found = [one for one in vars(module).values() if isinstance(one, Operator)]
    if not found:
        raise CommandError(f"{path} defines no operator; it should hold one, as in OPERATOR = Operator(…)")
    return found
