"""Containers on Podman, through the API of its service.

Reading order: ``host`` (what this machine can do), ``service`` (Podman's API process), ``api`` (requests over its
socket), ``spec`` (our words into Podman's), ``states`` (Podman's into ours), ``session``, ``runtime``.
"""

from fleetplane.node.podman.host import HostFacts, look_at_host
from fleetplane.node.podman.runtime import PodmanRuntime

__all__ = ["HostFacts", "PodmanRuntime", "look_at_host"]
