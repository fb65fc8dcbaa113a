"""What an object is: pure functions on objects, no I/O, no imports from other rooms.

An object is plain JSON data (``dict[str, Any]``) of the Kubernetes Resource Model. Modules, in reading order:
``objects`` (the shape), ``errors`` (what can be wrong with one), ``resources`` (what kinds of object there are),
``environment`` (where time, randomness and ids come from), then the algebra: ``quantity``, ``selectors``, ``schema``,
``patch``, ``apply``, ``cel``, ``table``.
"""
