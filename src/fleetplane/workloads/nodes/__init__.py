"""Nodes that fall silent: conditions, taints, and what happens to the pods on them."""
