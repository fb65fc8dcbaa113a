"""Declaring a kind once.

::

    class GreetingSpec(View):
        text: str = field(doc="What to say.", max_length=100)
        times: int = field(default=1, doc="How often.", minimum=1, maximum=10)

    class Greeting(Kind, group="example.org", version="v1", short_names=("gr",)):
        \"\"\"Says something, several times.\"\"\"

        spec: GreetingSpec

From this come the schema, defaults and rules the server enforces, index terms, printer columns, the CRD manifest, the
reference page, and typed reading: ``Greeting.view(obj).spec.times``. A typed class is a *view* on a plain object: it
copies nothing, fields it does not know survive, and it is read-only; writes are apply or patch of plain data.

Reading order: ``fields`` (what can be said of a field), ``types`` (what annotations mean), ``view`` (the classes),
``schema``, ``crd``, ``versions`` (several versions of a kind, one of them the hub), ``docs``.
"""

from fleetplane.model.kind.crd import crd_manifest
from fleetplane.model.kind.docs import FieldDoc, docs_of
from fleetplane.model.kind.fields import Builtin, Column, Rule, Scale, field
from fleetplane.model.kind.schema import schema_of
from fleetplane.model.kind.types import IntOrString
from fleetplane.model.kind.versions import Conversion, Versions
from fleetplane.model.kind.view import Kind, Metadata, StatusCondition, View

__all__ = [
    "Builtin",
    "Column",
    "Conversion",
    "FieldDoc",
    "IntOrString",
    "Kind",
    "Metadata",
    "Rule",
    "Scale",
    "StatusCondition",
    "Versions",
    "View",
    "crd_manifest",
    "docs_of",
    "field",
    "schema_of",
]
