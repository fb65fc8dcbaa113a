"""CEL, the expression language of Kubernetes' policies and validation rules.

From text to answer: ``lexer`` → ``parser`` → ``checker`` (types, from a schema where there is one) → ``interpreter``
(closures) → ``Program``. ``library`` holds the functions, ``cost`` and ``estimator`` price them, ``kubernetes`` derives
types from schemas. Expressions come from users: length, nesting, run time and memory are bounded, and nothing but the
three errors of ``errors`` ever leaves this package.

    rule = compile("self.minReplicas <= self.replicas", Declarations({"self": type_from_schema(schema)}))
    rule.evaluate({"self": spec})
"""

from __future__ import annotations

from fleetplane.model.cel.declarations import Declarations
from fleetplane.model.cel.errors import CelCompileError, CelCostExceeded, CelError, Issue
from fleetplane.model.cel.kubernetes import LazyVariables, type_from_schema, variables_type
from fleetplane.model.cel.names import escape, unescape
from fleetplane.model.cel.program import Outcome, Program
from fleetplane.model.cel.program import compile_expression as compile
from fleetplane.model.cel.types import BOOL, DYN, INT, STRING, Type, optional_of

__all__ = [
    "BOOL",
    "DYN",
    "INT",
    "STRING",
    "CelCompileError",
    "CelCostExceeded",
    "CelError",
    "Declarations",
    "Issue",
    "LazyVariables",
    "Outcome",
    "Program",
    "Type",
    "compile",
    "escape",
    "optional_of",
    "type_from_schema",
    "unescape",
    "variables_type",
]
