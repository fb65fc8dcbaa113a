"""For tests of operators, ours and yours: a control plane in milliseconds, and a simulator.

``running_server`` is the real server in memory. ``simulated`` runs a story on a virtual clock against it, with crashes and
a faulty network that replay from a seed. ``MemoryServer`` is a toy for unit tests of clients. Nothing here waits for real
time.
"""

from fleetplane.testing.clock import Stuck, VirtualClockLoop, run_virtually, virtually
from fleetplane.testing.environment import SimulatedEnvironment
from fleetplane.testing.faults import NO_FAULTS, Faults, FaultyTransport
from fleetplane.testing.memory import MemoryServer
from fleetplane.testing.plane import TestServer, running_server
from fleetplane.testing.simulation import Process, Simulation, simulate, simulated, simulation

__all__ = [
    "NO_FAULTS",
    "Faults",
    "FaultyTransport",
    "MemoryServer",
    "Process",
    "SimulatedEnvironment",
    "Simulation",
    "Stuck",
    "TestServer",
    "VirtualClockLoop",
    "run_virtually",
    "running_server",
    "simulate",
    "simulated",
    "simulation",
    "virtually",
]
