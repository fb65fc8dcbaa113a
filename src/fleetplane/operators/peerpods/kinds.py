"""What users write: ``PeerPodConfig`` and ``PeerPod`` of ``confidentialcontainers.org/v1alpha1``, wire-compatible.

Every field of the original keeps its name, type and default, misspelt ``cleand`` included. What is new is optional:
``limitMode``, the description of a VM that this operator shall make (``spec.vm``), and a status that says what is.
"""

from __future__ import annotations

from typing import Final, Literal

from fleetplane.model.kind import Column, Kind, StatusCondition, View, field

GROUP: Final = "confidentialcontainers.org"
VERSION: Final = "v1alpha1"

VM_RESOURCE: Final = "kata.peerpods.io/vm"
"""The extended resource: one peer pod takes one of it."""
RUNTIME_CLASS: Final = "kata-remote"
FINALIZER: Final = "peer.pod/finalizer"
"""On every PeerPod, as the original's: the VM goes before the record does."""
CAPACITY_FINALIZER: Final = f"{GROUP}/capacity"
"""On every PeerPodConfig: what it put on nodes is taken off before it is gone."""
DEFAULT_CONFIG_MAP: Final = "peer-pods-cm"
DEFAULT_SECRET: Final = "peer-pods-secret"  # noqa: S105 - the name of an object
WORKER_LABEL: Final = "node.kubernetes.io/worker"
"""Nodes that carry it (with an empty value) are meant where a config has no ``nodeSelector``."""
MAX_LIMIT: Final = 10**9


class NodeCapacity(View):
    name: str = field(doc="The node.")
    capacity: int = field(doc="Pod VMs it may have.")


class AdaptorStatus(View):
    name: str = field(default="", doc="The DaemonSet, in the config's namespace.")
    desired: int = 0
    ready: int = 0


class PeerPodConfigSpec(View):
    instance_type: str | None = field(
        default=None, doc="Type of cloud instance where a pod does not say; the provider's if empty."
    )
    limit: str | None = field(
        default=None,
        doc="How many pod VMs there may be, as a decimal number in a string; one per node if empty.",
        column=Column("Limit"),
        max_length=64,
    )
    limit_mode: Literal["Cluster", "PerNode"] | None = field(
        default=None, doc="Cluster (the default): limit is spread over the nodes. PerNode: every node gets limit."
    )
    cloud_secret_name: str = field(default=DEFAULT_SECRET, doc="Secret with the provider's credentials.")
    config_map_name: str = field(default=DEFAULT_CONFIG_MAP, doc="ConfigMap with the provider's settings.")
    node_selector: dict[str, str] | None = field(
        default=None, doc=f"Labels of the nodes; those with {WORKER_LABEL} (and an empty value) if absent."
    )


class PeerPodConfigStatus(View):
    setup_completed: bool = field(default=False, doc="Capacity is on the nodes and the adaptor runs on them.")
    capacity: int = field(default=0, doc="Sum over the nodes.", column=Column("Capacity", type="integer"))
    nodes: list[NodeCapacity] = field(
        default_factory=list, list_map_keys=["name"], doc="Written before the nodes are: where capacity is or may be."
    )
    adaptor: AdaptorStatus = field(default_factory=lambda: AdaptorStatus.view({}))
    observed_generation: int = 0
    conditions: list[StatusCondition] = field(default_factory=list, list_map_keys=["type"])


class PeerPodConfig(Kind, group=GROUP, version=VERSION, plural="peerpodconfigs"):
    """How many pod VMs a cluster may have, on which nodes, and with which provider."""

    spec: PeerPodConfigSpec = field(default_factory=lambda: PeerPodConfigSpec.view({}))
    status: PeerPodConfigStatus = field(default_factory=lambda: PeerPodConfigStatus.view({}))


class VmRequest(View):
    """A VM this operator makes. Without it a PeerPod only records one that somebody else made."""

    instance_type: str = field(default="", doc="The type, where it is fixed; otherwise the smallest that fits.")
    vcpus: int = field(default=0, minimum=0)
    memory_mib: int = field(default=0, minimum=0, name="memoryMiB")
    gpus: int = field(default=0, minimum=0)
    image: str = field(default="", doc="The image it boots; the provider's default if empty.")


class PeerPodSpec(View):
    cloud_provider: str = field(default="", column=Column("Provider"))
    instance_id: str = field(default="", name="instanceID", doc="The VM, once it is there.", column=Column("Instance"))
    vm: VmRequest | None = field(default=None, doc="The VM that shall be made, fixed except for its size.")


class PeerPodStatus(View):
    cleand: bool = field(default=False, doc="The original's spelling; never written there nor here.")
    phase: str = field(default="", doc="Creating, Running, Failed, Deleting or Recorded.", column=Column("Phase"))
    addresses: list[str] = field(default_factory=list)
    instance_type: str = ""
    vcpus: int = 0
    memory_mib: int = field(default=0, name="memoryMiB")
    observed_generation: int = 0
    conditions: list[StatusCondition] = field(default_factory=list, list_map_keys=["type"])


class PeerPod(Kind, group=GROUP, version=VERSION, plural="peerpods"):
    """One pod VM, recorded so that it cannot be forgotten."""

    spec: PeerPodSpec = field(default_factory=lambda: PeerPodSpec.view({}))
    status: PeerPodStatus = field(default_factory=lambda: PeerPodStatus.view({}))
