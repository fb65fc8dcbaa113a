"""What runtimes note on sandboxes and containers, to find them again after a restart of the agent. Pure functions."""

from __future__ import annotations

from collections.abc import Mapping

from fleetplane.node.runtime import ContainerSpec, Label, SandboxSpec


def sandbox_labels(shared: SandboxSpec, instance: Mapping[str, str]) -> dict[str, str]:
    """``instance`` are the agent's own."""
    return {**shared.labels, **instance, **_of_pod(shared)}


def container_labels(spec: ContainerSpec, shared: SandboxSpec, instance: Mapping[str, str]) -> dict[str, str]:
    return {
        **spec.labels,
        **instance,
        **_of_pod(shared),
        Label.CONTAINER: spec.name,
        Label.ATTEMPT: str(spec.attempt),
        Label.HASH: spec.hash,
    }


def _of_pod(shared: SandboxSpec) -> dict[str, str]:
    return {
        Label.UID: shared.uid,
        Label.NAMESPACE: shared.namespace,
        Label.NAME: shared.name,
        Label.SANDBOX_ATTEMPT: str(shared.attempt),
    }
