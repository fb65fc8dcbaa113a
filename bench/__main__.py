"""``make bench``: the comparison with a real kube-apiserver. The other benchmarks are run one at a time."""

from __future__ import annotations

import runpy
from pathlib import Path

runpy.run_path(str(Path(__file__).parent / "kube_side_by_side.py"), run_name="__main__")
