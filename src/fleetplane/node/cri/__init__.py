"""Containers on any runtime that speaks the Container Runtime Interface, version 1: containerd first of all.

Reading order: ``messages`` (the part of the CRI we use), ``api`` (calls over its socket), ``spec`` (our words into the
CRI's), ``states`` (the CRI's into ours), ``images``, ``spdy`` and ``session`` (exec and attach), ``runtime``.
"""

from fleetplane.node.cri.runtime import CriRuntime, find_socket

__all__ = ["CriRuntime", "find_socket"]
