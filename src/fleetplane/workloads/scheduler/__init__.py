"""The scheduler: chooses a node for every pod that names this scheduler and has none.

Read in this order: ``shape`` (what a pod asks for, once for all pods that ask the same), ``parsing``, ``node`` (what a node
has and has given away), ``cluster`` (the nodes and pods of one logical cluster), ``terms`` and ``filters`` (may it run
there), ``scores`` (how good is it there), ``choice`` (the best node, incrementally), ``preemption``, ``queue`` (who is
next, who waits for what), ``core`` (all of it without I/O), ``reconcile`` (informers in, bindings out).

Why it is fast in Python: pods of one ReplicaSet ask for the same, so the answer "which nodes, how good" is kept per
shape and only re-computed for nodes that changed since. Binding one pod changes one node.
"""
