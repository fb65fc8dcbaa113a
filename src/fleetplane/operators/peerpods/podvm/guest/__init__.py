"""What runs inside a pod VM: the agent that starts the pod's containers and tells how they are.

These modules are put into the VM's first file system as they are and run there on Debian's Python, so they use nothing
but the standard library and each other. ``wire`` is what the outside uses too.
"""
