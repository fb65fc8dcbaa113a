"""``fleetplane demo``: a tour on a plane of its own, with what was real, what was simulated, and how long it took.

Every step does what it says on a running plane, looks whether it came true, and fails the command when it did not; no
number is shown that was not measured in this run. The plane is a process of its own, because one step kills it.

Reading order: ``steps`` (what a step is), ``stage`` (what steps share), ``processes`` (the plane and its nodes),
``vehicles``, ``crash``, ``vclusters``, ``peerpods`` (the steps), ``screen`` and ``summary`` (what a person sees),
``tour`` (all of it in order), ``place`` (the folder it lives in, and how it is removed).
"""
