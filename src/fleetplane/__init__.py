"""Fleetplane: one control plane for workloads that do not live in one big cluster."""

__version__ = "0.1.0"
