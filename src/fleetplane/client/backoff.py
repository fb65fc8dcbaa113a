"""How long to wait before trying again: exponential, capped, and spread by jitter so that many do not return at once."""

from __future__ import annotations

from dataclasses import dataclass

from fleetplane.model.environment import Environment


@dataclass(frozen=True, slots=True)
class Backoff:
    """Delays ``base * factor**n`` up to ``cap`` (seconds), each shortened by a random share of up to ``jitter``."""

    base: float
    cap: float
    factor: float = 2.0
    jitter: float = 0.5

    def delay(self, failures: int, environment: Environment) -> float:
        """The wait after the ``failures``-th failure in a row, counted from 1."""
        # The exponent is bounded before it is used: an object that fails for a year must not overflow a float.
        exponent = min(max(failures, 1) - 1, 64)
        full = min(self.base * self.factor**exponent, self.cap)
        return full * (1.0 - self.jitter * environment.random.random())
