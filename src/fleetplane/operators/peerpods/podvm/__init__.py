"""Pods inside VMs: what runs in there, and how it is spoken to.

Reading order: ``guest`` (the agent, which runs in the VM), ``image`` (kernel and first file system), ``connection`` (calls to
an agent), ``files`` and ``network`` (what goes into a VM), ``runtime`` (the node's container runtime for peer pods).
"""
