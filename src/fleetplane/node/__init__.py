"""How pods run: the pod lifecycle, and the container runtimes below it.

Reading order: ``runtime`` (the protocol every container runtime meets), ``simulated`` and ``podman`` (two that do),
``plan`` and ``status`` (pure decisions about one pod), ``worker`` (does what was decided), ``engine`` (all pods of a
node), ``agent`` (the node as the control plane sees it), ``streams`` (logs, exec, attach, port-forward).
"""
