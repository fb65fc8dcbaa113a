"""Pods that nobody would ever remove: on nodes that are gone, never bound, or ended long ago."""
