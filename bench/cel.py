"""What one evaluation of a CEL rule takes, ours and Google's C++ implementation in turn.

    python bench/cel.py [rounds]

Prints microseconds: to compile, to evaluate a rule on a dict (for the C++ one: with the data converted each time, as a
server must, and with a prepared activation). The better of the rounds counts; without cel-expr-python only ours runs.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

from fleetplane.model.cel import DYN, Declarations, Type, compile, type_from_schema

try:
    from cel_expr_python import cel  # type: ignore[import-untyped]
    from cel_expr_python.ext import ext_optional, ext_strings  # type: ignore[import-untyped]
except ImportError:
    cel = None

NUMBER = {"type": "integer"}
TEXT = {"type": "string"}
SCHEMA = {
    "type": "object",
    "properties": {
        "minReplicas": NUMBER,
        "replicas": NUMBER,
        "maxReplicas": NUMBER,
        "names": {"type": "array", "items": TEXT},
        "labels": {"type": "object", "additionalProperties": TEXT},
        "ports": {"type": "array", "items": {"type": "object", "properties": {"name": TEXT, "port": NUMBER}}},
        "health": TEXT,
    },
}
DATA = {
    "minReplicas": 1,
    "replicas": 3,
    "maxReplicas": 5,
    "names": [f"name-{number}" for number in range(20)],
    "labels": {"app": "web", "tier": "front"},
    "ports": [{"name": f"p{number}", "port": 8000 + number} for number in range(20)],
    "health": "ok: everything is fine",
}
RULES = [
    "self.minReplicas <= self.replicas && self.replicas <= self.maxReplicas",
    "has(self.health) && self.health.startsWith('ok')",
    "self.health.matches('^ok: [a-z ]+$')",
    "'app' in self.labels && self.labels['app'] == 'web'",
    "self.names.all(n, n.size() < 63)",
    "self.ports.exists(p, p.name == 'p19' && p.port > 8000)",
    "self.ports.map(p, p.port).filter(p, p % 2 == 0).size() == 10",
    "self.?missing.orValue(self.replicas) == 3",
]


def microseconds(action: Callable[[], Any], rounds: int) -> float:
    """The best of some rounds, each about 20 ms long."""
    start = time.perf_counter()
    action()
    once = max(time.perf_counter() - start, 1e-7)
    repeat = max(1, int(0.02 / once))
    best = float("inf")
    for _ in range(rounds):
        start = time.perf_counter()
        for _ in range(repeat):
            action()
        best = min(best, (time.perf_counter() - start) / repeat)
    return best * 1e6


def main(rounds: int) -> None:
    kind = type_from_schema(SCHEMA)
    assert kind is not None
    print(f"{'ours: compile':>14} {'typed':>8} {'dyn':>8}   {'C++: compile':>13} {'dict':>8} {'prepared':>9}   rule")
    for rule in RULES:
        print(f"{_ours(rule, kind, rounds)}   {_theirs(rule, rounds)}   {rule}")


def _ours(rule: str, kind: Type, rounds: int) -> str:
    declarations = Declarations({"self": DYN if "missing" in rule else kind})
    program = compile(rule, declarations)
    loose = compile(rule, Declarations({"self": DYN}))
    inputs = {"self": DATA}
    assert program.evaluate(inputs) is True and loose.evaluate(inputs) is True
    compiled = microseconds(lambda: compile(rule, declarations), rounds)
    typed = microseconds(lambda: program.evaluate(inputs), rounds)
    dynamic = microseconds(lambda: loose.evaluate(inputs), rounds)
    return f"{compiled:14.1f} {typed:8.2f} {dynamic:8.2f}"


def _theirs(rule: str, rounds: int) -> str:
    if cel is None:
        return f"{'-':>13} {'-':>8} {'-':>9}"
    extensions = [ext_strings.ExtStrings(), ext_optional.ExtOptional()]
    env = cel.NewEnv(variables={"self": cel.Type.DYN}, extensions=extensions)
    program = env.compile(rule)
    prepared = env.Activation({"self": DATA})
    assert program.eval(prepared).value() is True
    compiled = microseconds(lambda: env.compile(rule), rounds)
    converted = microseconds(lambda: program.eval(data={"self": DATA}).value(), rounds)
    ready = microseconds(lambda: program.eval(prepared).value(), rounds)
    return f"{compiled:13.1f} {converted:8.2f} {ready:9.2f}"


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
