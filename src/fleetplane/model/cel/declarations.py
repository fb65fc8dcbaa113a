"""What an expression may refer to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from fleetplane.model.cel.library import KUBERNETES
from fleetplane.model.cel.library.declarations import Functions
from fleetplane.model.cel.types import Type


@dataclass(frozen=True, slots=True)
class Declarations:
    """Variables with their types, and the functions that exist.

    ``variables``: a name may be qualified (``authorizer.requestResource``).
    ``functions``: everything Kubernetes 1.37 offers by default; ``library.functions_of("standard", "strings")`` picks.
    ``structs``: object types an expression may build (``JSONPatch{op: …}``), by name.
    ``open_structs``: first names of types that may be built with any field (``Object.spec{anything: …}``).
    ``homogeneous_literals``: whether all elements of a list or map literal must have one type, as Kubernetes demands.
    """

    variables: Mapping[str, Type] = field(default_factory=dict)
    functions: Functions = field(default_factory=lambda: KUBERNETES)
    structs: Mapping[str, Type] = field(default_factory=dict)
    open_structs: frozenset[str] = frozenset()
    homogeneous_literals: bool = True
