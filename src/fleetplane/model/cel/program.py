"""An expression ready to run, as often as wanted, from any thread."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from fleetplane.model.cel.adapt import adapter
from fleetplane.model.cel.checked import Checked
from fleetplane.model.cel.checker import check
from fleetplane.model.cel.cost import PER_CALL_LIMIT, Range
from fleetplane.model.cel.declarations import Declarations
from fleetplane.model.cel.errors import CelCompileError, CelCostExceeded, CelError, Issue
from fleetplane.model.cel.estimator import estimate
from fleetplane.model.cel.frame import COST, charge, new_frame
from fleetplane.model.cel.interpreter import Layout, compile_checked
from fleetplane.model.cel.literals import literal_issues
from fleetplane.model.cel.parser import parse
from fleetplane.model.cel.types import BOOL, Kind, Type, shown
from fleetplane.model.cel.unify import Unifier


class Outcome(NamedTuple):
    """A result and what it cost, in cost units."""

    value: Any
    cost: int


class Program:
    """``source``: the expression. ``result``: the type of its answer. ``cost``: least and most one run may cost."""

    __slots__ = ("_adapters", "_free", "_layout", "cost", "result", "source")

    def __init__(
        self, source: str, checked: Checked, layout: Layout, cost: Range, variables: Mapping[str, Type]
    ) -> None:
        self.source = source
        self.result = checked.types[checked.root]
        self.cost = cost
        self._layout = layout
        self._free = checked.free
        self._adapters = tuple((name, adapter(variables[name])) for name in layout.inputs)

    def uses(self, variable: str) -> bool:
        """Whether the expression refers to this variable; a rule that uses ``oldSelf`` is a transition rule."""
        return variable in self._free

    @property
    def variables(self) -> frozenset[str]:
        """The declared variables the expression refers to."""
        return self._free

    def evaluate(
        self,
        variables: Mapping[str, Any],
        *,
        cost_limit: int | None = None,
        interrupted: Callable[[], bool] | None = None,
    ) -> Any:
        """The value, as CEL has it (see ``values``).

        ``cost_limit`` defaults to Kubernetes' limit per evaluation. ``interrupted`` is asked every few thousand cost
        units whether to give up (a deadline, a client that went away).
        Raises CelError when the expression fails and CelCostExceeded when it was stopped; never anything else.
        """
        return self.run(variables, cost_limit=cost_limit, interrupted=interrupted).value

    def run(
        self,
        variables: Mapping[str, Any],
        *,
        cost_limit: int | None = None,
        interrupted: Callable[[], bool] | None = None,
    ) -> Outcome:
        """Like ``evaluate``, and tells the cost."""
        frame = new_frame(PER_CALL_LIMIT if cost_limit is None else cost_limit, interrupted)
        try:
            for name, convert in self._adapters:
                try:
                    value = variables[name]
                except KeyError:
                    raise CelError(f"no such attribute(s): {name}") from None
                frame.append(value if convert is None or value is None else convert(value))
            frame.extend([None] * self._layout.locals)
            charge(frame, self._layout.cost)
            return Outcome(self._layout.step(frame), frame[COST])
        except (CelError, CelCostExceeded):
            raise
        except RecursionError:
            raise CelError("the data is nested too deeply") from None
        except (MemoryError, OverflowError):
            raise CelCostExceeded("operation cancelled: the expression takes too much time or memory") from None
        except (TypeError, AttributeError, KeyError, IndexError, ValueError) as error:
            raise CelError("no such overload: a value does not have its declared type") from error


def compile_expression(expression: str, declarations: Declarations, *, result: Type | None = BOOL) -> Program:
    """Parse, check and compile. ``result``: the type it must answer, None for any. Raises CelCompileError."""
    try:
        root = parse(expression)
        checked = check(expression, root, declarations)
        found = checked.types[root]
        if result is not None and not _fits(result, found):
            raise CelCompileError(expression, [Issue(root.offset, _wrong_result(result, found))])
        if issues := literal_issues(checked):
            raise CelCompileError(expression, issues)
        layout = compile_checked(checked)
        return Program(expression, checked, layout, estimate(checked), declarations.variables)
    except RecursionError:
        raise CelCompileError(expression[:80], [Issue(0, "expression is nested too deeply; split it up")]) from None


def _fits(wanted: Type, found: Type) -> bool:
    if found.kind is Kind.DYN:
        return wanted.kind is Kind.DYN
    return Unifier().assignable([wanted], [found])


def _wrong_result(wanted: Type, found: Type) -> str:
    return f"must evaluate to {shown(wanted)}, but evaluates to {shown(found)}"
