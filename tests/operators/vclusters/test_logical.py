"""Virtual clusters of mode logical: from a Vk8s to a kubeconfig that works, and back to nothing."""

from __future__ import annotations

import base64
import importlib.util
import sys
from pathlib import Path

import orjson

from fleetplane.model.builtin.types import SECRETS
from fleetplane.operators.vclusters.kinds import LOGICAL_CLUSTERS, Vk8s

_spec = importlib.util.spec_from_file_location("vclusters_stage", Path(__file__).with_name("stage.py"))
assert _spec is not None
assert _spec.loader is not None
_stage = sys.modules.setdefault("vclusters_stage", importlib.util.module_from_spec(_spec))
_spec.loader.exec_module(_stage)
Stage, staged = _stage.Stage, _stage.staged
