"""Kubernetes' quantity library, on the exact quantities of the model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final

from fleetplane.model.cel.cost import traversal
from fleetplane.model.cel.errors import CelError
from fleetplane.model.cel.library.declarations import Functions, Overload
from fleetplane.model.cel.types import BOOL, DOUBLE, INT, STRING, opaque
from fleetplane.model.cel.values import INT_MAX, INT_MIN
from fleetplane.model.quantity import Quantity

_NANO: Final = 10**9


@dataclass(frozen=True, slots=True)
class CelQuantity:
    cel_type_name: ClassVar[str] = "kubernetes.Quantity"
    amount: Quantity

    @property
    def cel_string(self) -> str:
        return str(self.amount)


def parse(text: str) -> CelQuantity:
    """Raises CelError."""
    try:
        return CelQuantity(Quantity.parse(text))
    except ValueError as error:
        raise CelError(str(error)[:300]) from None


def is_quantity(text: str) -> bool:
    try:
        Quantity.parse(text)
    except ValueError:
        return False
    return True


def is_integer(quantity: CelQuantity) -> bool:
    """Whether it is a whole number of 64 bits."""
    return quantity.amount.nanos % _NANO == 0 and INT_MIN <= quantity.amount.nanos // _NANO <= INT_MAX


def as_integer(quantity: CelQuantity) -> int:
    if not is_integer(quantity):
        raise CelError("cannot convert value to integer")
    return quantity.amount.nanos // _NANO


def as_float(quantity: CelQuantity) -> float:
    return quantity.amount.nanos / _NANO


def sign(quantity: CelQuantity) -> int:
    return (quantity.amount.nanos > 0) - (quantity.amount.nanos < 0)


def compare(quantity: CelQuantity, other: CelQuantity) -> int:
    return (quantity.amount > other.amount) - (quantity.amount < other.amount)


def _amount(value: CelQuantity | int) -> Quantity:
    return value.amount if isinstance(value, CelQuantity) else Quantity.of(value)


def add(quantity: CelQuantity, other: CelQuantity | int) -> CelQuantity:
    return CelQuantity(quantity.amount + _amount(other))


def subtract(quantity: CelQuantity, other: CelQuantity | int) -> CelQuantity:
    return CelQuantity(quantity.amount - _amount(other))


QUANTITY: Final = opaque("kubernetes.Quantity")

FUNCTIONS: Final[Functions] = {
    "quantity": (Overload("string_to_quantity", (STRING,), QUANTITY, parse, price=traversal()),),
    "isQuantity": (Overload("is_quantity_string", (STRING,), BOOL, is_quantity, price=traversal()),),
    "sign": (
        Overload("quantity_sign", (QUANTITY,), INT, sign),
        Overload("quantity_sign_member", (QUANTITY,), INT, sign, member=True),
    ),
    "isInteger": (Overload("quantity_is_integer", (QUANTITY,), BOOL, is_integer, member=True),),
    "asInteger": (Overload("quantity_get_int", (QUANTITY,), INT, as_integer, member=True),),
    "asApproximateFloat": (Overload("quantity_get_float", (QUANTITY,), DOUBLE, as_float, member=True),),
    "isGreaterThan": (
        Overload(
            "quantity_is_greater_than",
            (QUANTITY, QUANTITY),
            BOOL,
            lambda one, other: compare(one, other) > 0,
            member=True,
        ),
    ),
    "isLessThan": (
        Overload(
            "quantity_is_less_than", (QUANTITY, QUANTITY), BOOL, lambda one, other: compare(one, other) < 0, member=True
        ),
    ),
    "compareTo": (Overload("quantity_compare_to", (QUANTITY, QUANTITY), INT, compare, member=True),),
    "add": (
        Overload("quantity_add", (QUANTITY, QUANTITY), QUANTITY, add, member=True),
        Overload("quantity_add_int", (QUANTITY, INT), QUANTITY, add, member=True),
    ),
    "sub": (
        Overload("quantity_sub", (QUANTITY, QUANTITY), QUANTITY, subtract, member=True),
        Overload("quantity_sub_int", (QUANTITY, INT), QUANTITY, subtract, member=True),
    ),
}
