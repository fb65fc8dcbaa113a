"""Server-side apply: who owns which field, and what follows from it.

Reading order: ``fieldset`` (sets of fields), ``typed`` (sets and differences of typed values), ``entries``
(managedFields), ``managed`` (apply and the tracking of updates), ``lastapplied`` (coming from client-side apply).
"""

from fleetplane.model.apply.entries import FieldFilter
from fleetplane.model.apply.fieldset import FieldSet
from fleetplane.model.apply.lastapplied import upgraded
from fleetplane.model.apply.managed import Convert, SchemaOf, apply, track_update

__all__ = ["Convert", "FieldFilter", "FieldSet", "SchemaOf", "apply", "track_update", "upgraded"]
