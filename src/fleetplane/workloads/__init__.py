"""The built-in controllers and the scheduler: what makes a Deployment become pods that run somewhere.

Each kind has a folder. ``plan.py`` (and files beside it) decides: pure functions from what is wanted and what is seen
to what is to be done, without I/O, clocks or randomness of their own. ``reconcile.py`` reads, asks, and acts. What
several kinds need is in ``shared``. All of them run once, over all logical clusters.

They must never import the server or the store, write when nothing changed, or decide from an event instead of from
the state.
"""

from fleetplane.workloads.assembly import controllers

__all__ = ["controllers"]
