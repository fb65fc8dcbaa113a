"""How objects are reconciled: everything an operator is made of.

Start with ``Operator``, ``controller_for`` and ``Context``; underneath lie ``Controller`` and ``Manager``. The modules, in
reading order: ``controller`` (what one is, as data), ``queue``, ``runner``, ``manager``; ``context`` (the short way),
``children``, ``status``, ``conditions``, ``finalizers``, ``events`` (what controllers write); ``leader``, ``sharding``
(several of them); ``registration``, ``rights``, ``webhooks``, ``serving``, ``dryrun`` (how they are shipped).
"""

from fleetplane.controller.children import Children, ChildrenResult, Owner
from fleetplane.controller.conditions import Condition
from fleetplane.controller.context import Context, controller_for
from fleetplane.controller.controller import Controller, Request, Result, Watch
from fleetplane.controller.errors import Permanent
from fleetplane.controller.leader import LeaderElection
from fleetplane.controller.manager import Manager
from fleetplane.controller.metrics import Metrics
from fleetplane.controller.registration import Operator, load_operators
from fleetplane.controller.sharding import Shard

__all__ = [
    "Children",
    "ChildrenResult",
    "Condition",
    "Context",
    "Controller",
    "LeaderElection",
    "Manager",
    "Metrics",
    "Operator",
    "Owner",
    "Permanent",
    "Request",
    "Result",
    "Shard",
    "Watch",
    "controller_for",
    "load_operators",
]
