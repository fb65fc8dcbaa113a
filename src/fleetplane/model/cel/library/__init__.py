"""The functions an expression may call, one module per library.

``KUBERNETES`` is all of them: what Kubernetes 1.37 offers, plus the math and encoding libraries of cel-go.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from fleetplane.model.cel.library import (
    authorization,
    conversions,
    encoders,
    formats,
    lists,
    network,
    numbers,
    operators,
    optionals,
    quantities,
    regex,
    semver,
    sets,
    strings,
    times,
    urls,
)
from fleetplane.model.cel.library.declarations import Functions, Overload, merged

LIBRARIES: Final[Mapping[str, Functions]] = {
    "standard": merged(operators.FUNCTIONS, conversions.FUNCTIONS, times.FUNCTIONS),
    "optional": optionals.FUNCTIONS,
    "strings": strings.FUNCTIONS,
    "lists": lists.FUNCTIONS,
    "sets": sets.FUNCTIONS,
    "regex": regex.FUNCTIONS,
    "urls": urls.FUNCTIONS,
    "network": network.FUNCTIONS,
    "quantity": quantities.FUNCTIONS,
    "semver": semver.FUNCTIONS,
    "format": formats.FUNCTIONS,
    "authorizer": authorization.FUNCTIONS,
    "math": numbers.FUNCTIONS,
    "encoders": encoders.FUNCTIONS,
}

KUBERNETES: Final[Functions] = merged(*LIBRARIES.values())


def functions_of(*libraries: str) -> Functions:
    """The functions of some libraries only; raises KeyError for an unknown one."""
    return merged(*(LIBRARIES[name] for name in libraries))


__all__ = ["KUBERNETES", "LIBRARIES", "Functions", "Overload", "functions_of", "merged"]
