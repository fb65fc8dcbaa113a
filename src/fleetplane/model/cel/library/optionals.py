"""Optional values: ``optional.of(x)``, ``.orValue(y)``, ``.hasValue()`` …"""

from __future__ import annotations

from typing import Any, Final

from fleetplane.model.cel.cost import constant
from fleetplane.model.cel.errors import CelError
from fleetplane.model.cel.library.declarations import Functions, Overload
from fleetplane.model.cel.types import BOOL, list_of, optional_of, parameter
from fleetplane.model.cel.values import NONE, Optional, is_zero, some

_V: Final = parameter("V")
_OPTIONAL: Final = optional_of(_V)
_FREE: Final = constant(0)
"""cel-go evaluates ``or`` and ``orValue`` as control flow, at no cost of their own."""


def _value(optional: Optional) -> Any:
    if not optional.present:
        raise CelError("optional.none() dereference")
    return optional.value


FUNCTIONS: Final[Functions] = {
    "optional.of": (Overload("optional_of", (_V,), _OPTIONAL, some),),
    "optional.ofNonZeroValue": (
        Overload("optional_ofNonZeroValue", (_V,), _OPTIONAL, lambda value: NONE if is_zero(value) else some(value)),
    ),
    "optional.none": (Overload("optional_none", (), _OPTIONAL, lambda: NONE),),
    "value": (Overload("optional_value", (_OPTIONAL,), _V, _value, member=True),),
    "hasValue": (Overload("optional_hasValue", (_OPTIONAL,), BOOL, lambda optional: optional.present, member=True),),
    "or": (
        Overload(
            "optional_or_optional",
            (_OPTIONAL, _OPTIONAL),
            _OPTIONAL,
            lambda optional, other: optional if optional.present else other,
            member=True,
            price=_FREE,
        ),
    ),
    "orValue": (
        Overload(
            "optional_orValue_value",
            (_OPTIONAL, _V),
            _V,
            lambda optional, other: optional.value if optional.present else other,
            member=True,
            price=_FREE,
        ),
    ),
    "optional.unwrap": (
        Overload(
            "optional_unwrap",
            (list_of(_OPTIONAL),),
            list_of(_V),
            lambda optionals: [optional.value for optional in optionals if optional.present],
        ),
    ),
    "unwrapOpt": (
        Overload(
            "optional_unwrapOpt",
            (list_of(_OPTIONAL),),
            list_of(_V),
            lambda optionals: [optional.value for optional in optionals if optional.present],
            member=True,
        ),
    ),
}
