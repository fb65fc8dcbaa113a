"""The built-in Kubernetes kinds: which there are, how they are named, what their schemas are.

turns an object of one served version into another. Common resource types stand in ``types`` as constants, so that code
that only names a resource never loads the data.
"""

from fleetplane.model.builtin.catalog import BuiltinResource, Subresource, builtin_resource, catalog
from fleetplane.model.builtin.conversion import convert, hub_of
from fleetplane.model.builtin.data import Definitions, definition_name, definitions, kubernetes_version

__all__ = [
    "BuiltinResource",
    "Definitions",
    "Subresource",
    "builtin_resource",
    "catalog",
    "convert",
    "definition_name",
    "definitions",
    "hub_of",
    "kubernetes_version",
]
