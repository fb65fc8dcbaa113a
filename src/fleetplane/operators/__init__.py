"""The five systems, each an operator with the same rooms: ``kinds``, ``plan``, ``reconcile``, ``admission``.

Operators know a client and the controller framework, nothing else, so they run in a plane and on any Kubernetes alike. They
register through the entry-point group ``fleetplane.operators``.
"""
