"""Streams into pods: logs, exec, attach and port-forward, in every protocol that kubectl ever spoke.

``protocol`` is what a node offers; ``handlers`` are the subresources; ``websocket`` and ``spdy`` carry the channels.
"""
