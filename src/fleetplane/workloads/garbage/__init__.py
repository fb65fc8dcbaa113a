"""Garbage collection: what nobody owns any more goes, for every resource there is, custom ones included.

``graph`` knows who owns whom, ``plan`` decides about one object, ``follow`` feeds the graph from the server, and
``reconcile`` runs all of it.
"""
