"""Volumes of pods on this node.

Reading order: ``payload`` (files that change all at once), ``projected`` (what ConfigMaps, Secrets, the downward API
and tokens put into them), ``host_path`` (the types of hostPath), ``system`` (mount and unmount), ``subpath`` (a part of
a volume, safely), ``manager`` (all volumes of a pod).
"""

from fleetplane.node.volumes.manager import VolumeManager

__all__ = ["VolumeManager"]
