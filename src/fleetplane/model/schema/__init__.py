"""What an object may be: schemas, and what they do to objects.

Reading order: ``schema`` (the compiled tree), then what runs on every write, in this order: ``prune``, ``defaults``,
``validate`` (with ``accept``, ``listtypes``, ``formats``, ``patterns``); ``rules`` finds where CEL applies;
``structural`` checks the schemas of CRDs themselves.
"""

from fleetplane.model.schema.defaults import apply_defaults
from fleetplane.model.schema.listtypes import ABSENT
from fleetplane.model.schema.prune import prune
from fleetplane.model.schema.rules import RuleSite, walk_rules
from fleetplane.model.schema.schema import Schema, SchemaSet
from fleetplane.model.schema.structural import check_structural
from fleetplane.model.schema.validate import validate

__all__ = [
    "ABSENT",
    "RuleSite",
    "Schema",
    "SchemaSet",
    "apply_defaults",
    "check_structural",
    "prune",
    "validate",
    "walk_rules",
]
