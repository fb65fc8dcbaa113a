"""The second line of self-fencing: a small process that keeps a node's promise when its agent cannot.

The agent (see ``guard``) tells it over a socket which processes must be dead when, and moves that moment with each lease
it renews. When the moment passes (the agent was killed, hangs, or does not reach the control plane and failed to stop
the pod itself), the processes are killed, what was killed is written down for the next agent, and when nothing is
left to hold, the watchdog ends.

- A process is held by a descriptor (``pidfd_open``), and only if it began when the agent said: a process id that was given
  to somebody else in between is never hit. With it goes its cgroup, and all whose cgroup bears the container's id.
- Moments are of CLOCK_BOOTTIME, which goes on while the machine is suspended: the rest of the world goes on counting too.
- A container that is being started is named before it has a process; it is then found by its cgroup. One that should
  be frozen and is not yet is killed as soon as the agent is lost, since nobody will freeze it.

It has a session of its own, so that what ends the agent does not end it; one lock lets each node directory have one.
It imports nothing but a few modules of the standard library, so that it stays small (some 11 MB).
It must never kill by a bare process id, never wait for the agent, and never outlive what it holds.

Reading order: ``watch`` (what is held and due, values only), ``grip`` (processes and cgroups), ``process`` (the loop).
"""
