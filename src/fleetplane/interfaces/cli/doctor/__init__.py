"""``fleetplane doctor``: what of this machine, this installation and the plane here works, in plain words.

Looking changes nothing. Every check is a function that returns findings and never raises for what it finds; ``examine``
runs them all. Reading order: ``installation``, ``machine``, ``files`` (what a plane keeps), ``server`` (who answers).
"""
