"""From a pod's specification to what a runtime is told: the contract of whoever does that.

``FullBuilder`` (in ``builder``) does all of it: volumes, environment, security. ``PlainBuilder`` is for simulated
containers, which read no files and no environment: it hands the specification through and touches no disk.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from fleetplane.node.pod import ContainerView, PodView
from fleetplane.node.resources import container_resources
from fleetplane.node.runtime import (
    ContainerSpec,
    ContainerState,
    Image,
    Label,
    NamespaceMode,
    NetworkMode,
    RegistryAuth,
    Resources,
    Sandbox,
    SandboxSpec,
)


class ConfigFailure(Exception):
    """The pod asks for something that is not there. ``reason`` is what its status or event says."""

    def __init__(self, message: str, reason: str = "CreateContainerConfigError", *, volume: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason
        self.volume = volume


class PodBuilder(Protocol):
    """Calls may be repeated; each makes what is missing and leaves what is there."""

    async def prepare(self, pod: PodView) -> None:
        """Make the pod's volumes. Raises ConfigFailure."""

    async def sandbox(self, pod: PodView, attempt: int) -> SandboxSpec:
        """Raises ConfigFailure."""

    async def container(
        self, pod: PodView, container: ContainerView, attempt: int, sandbox: Sandbox, image: Image
    ) -> ContainerSpec:
        """Raises ConfigFailure."""

    async def credentials(self, pod: PodView, image: str) -> Sequence[RegistryAuth]:
        """What to show the image's registry, best first; empty for nothing."""

    def resources(self, pod: PodView, container: ContainerView) -> Resources: ...

    async def termination_message(self, pod: PodView, container: ContainerView, state: ContainerState) -> str: ...

    async def release(self, pod: PodView) -> None:
        """Remove what ``prepare`` made."""


def sandbox_labels(pod: PodView, node: str) -> dict[str, str]:
    return {
        Label.CLUSTER: pod.cluster,
        Label.NODE: node,
        Label.NAMESPACE: pod.namespace,
        Label.NAME: pod.name,
        Label.UID: pod.uid,
    }


def container_labels(pod: PodView, container: ContainerView, attempt: int, node: str) -> dict[str, str]:
    return {
        **sandbox_labels(pod, node),
        Label.CONTAINER: container.name,
        Label.ATTEMPT: str(attempt),
        Label.HASH: container.hash,
    }


class PlainBuilder:
    """See the module. Serves the pods of any number of nodes."""

    def __init__(self, memory_bytes: int = 0) -> None:
        self._memory = memory_bytes

    async def prepare(self, pod: PodView) -> None:
        return

    async def sandbox(self, pod: PodView, attempt: int) -> SandboxSpec:
        spec, node = pod.spec, str(pod.spec.get("nodeName") or "")
        network: NetworkMode = "host" if pod.host_network else "pod"
        pid: NamespaceMode = "host" if spec.get("hostPID") else "container"
        return SandboxSpec(
            pod.namespace,
            pod.name,
            pod.uid,
            attempt,
            node,
            pod.name,
            sandbox_labels(pod, node),
            network,
            pid,
        )

    async def container(
        self, pod: PodView, container: ContainerView, attempt: int, sandbox: Sandbox, image: Image
    ) -> ContainerSpec:
        policy = container.policy
        return ContainerSpec(
            name=container.name,
            image=container.image,
            attempt=attempt,
            hash=container.hash,
            command=_words(container.spec, "command"),
            args=_words(container.spec, "args"),
            annotations=_rules_of(pod.annotations),
            restarts="Always" if policy == "Always" else "OnFailure" if policy == "OnFailure" else "Never",
        )

    async def credentials(self, pod: PodView, image: str) -> Sequence[RegistryAuth]:
        return ()

    def resources(self, pod: PodView, container: ContainerView) -> Resources:
        return container_resources(container.spec, pod.spec, self._memory)

    async def termination_message(self, pod: PodView, container: ContainerView, state: ContainerState) -> str:
        return ""

    async def release(self, pod: PodView) -> None:
        return


def _words(spec: Mapping[str, object], key: str) -> tuple[str, ...]:
    found = spec.get(key)
    return tuple(str(word) for word in found) if isinstance(found, list) else ()


def _rules_of(annotations: Mapping[str, str]) -> dict[str, str]:
    """Only what directs the simulation; most pods have none, and an empty mapping costs nothing."""
    return {key: value for key, value in annotations.items() if key.startswith("simulated.")}
