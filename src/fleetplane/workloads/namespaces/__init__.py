"""Namespaces: what every new one gets, and how one ends."""
