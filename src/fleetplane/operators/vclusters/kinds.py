"""What users write: ``Vk8s`` of ``vk8s.sktelecom.com/v1alpha1``, wire-compatible with the operator of 2023.

Every field, annotation, phase and message of the original keeps its name and meaning. What is new is optional: ``mode``
(a virtual cluster made of pods, or a logical one in the host's own store), and what the original did by hand or not at
all: address pools, what becomes of volumes, how long credentials last, sleeping and dying in time.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Final, Literal

from fleetplane.model.kind import Builtin, Column, IntOrString, Kind, StatusCondition, View, field
from fleetplane.model.objects import Object
from fleetplane.model.resources import ResourceType

GROUP: Final = "vk8s.sktelecom.com"
VERSION: Final = "v1alpha1"

LOGICAL_CLUSTERS: Final = ResourceType("fleetplane.io", "v1alpha1", "LogicalCluster", "logicalclusters", False)

ResourceRequirements = Annotated[Object, Builtin("io.k8s.api.core.v1.ResourceRequirements")]
Toleration = Annotated[Object, Builtin("io.k8s.api.core.v1.Toleration")]
ServicePort = Annotated[Object, Builtin("io.k8s.api.core.v1.ServicePort")]

# -- annotations: the original's control surface, and ours

NETWORK: Final = "cluster-network-connection-status"
"""Set by an outside network agent; absent or "false" keeps a cluster of pods from being installed."""
STOPPED: Final = "vk8s-resource-stopped"
"""Its presence pauses the cluster."""
RESTARTED_AT: Final = f"{GROUP}/restarted-at"
"""A new value restarts the nodes: workers one by one, the master last."""
ROTATE: Final = f"{GROUP}/rotate-credentials"
"""A new value replaces the credentials."""
USED_AT: Final = f"{GROUP}/used-at"
"""When somebody used the cluster (RFC 3339), as a gateway, an agent or the command line saw it. A time after it fell
asleep wakes it. Of logical clusters the host's API server knows this by itself."""
FINALIZER: Final = f"{GROUP}/cleanup"
OWNER_UID: Final = f"{GROUP}/uid"
"""Label on what lies outside the namespace: the uid of the Vk8s it belongs to."""
OWNER: Final = f"{GROUP}/owner"
"""Annotation beside it: namespace/name."""

DEFAULT_POD_CIDR: Final = "10.244.0.0/16"
DEFAULT_SERVICE_CIDR: Final = "10.96.0.0/12"
"""Private ranges (RFC 1918). The original's defaults, 90.244.0.0/16 and 90.96.0.0/12, belong to somebody."""


class NodePod(View):
    """One virtual node: a pod that runs a whole machine's worth of Kubernetes."""

    name: str = field(doc="Name of its StatefulSet; the pod is <name>-0.", max_length=52)
    image: str = field(
        default="", doc="The node image; see docs/vclusters-nodes.md for what it must contain.", max_length=1024
    )
    role: str = field(doc="master or worker.")
    resources: ResourceRequirements = field(
        default_factory=dict, doc="Limits are what the node offers inside; requests are what the host keeps for it."
    )
    tolerations: list[Toleration] = field(default_factory=list)


class Kubeflow(View):
    version: str = field(default="", doc="As in v1.4.0.")
    email: str = field(default="", doc="The first user; admin@<cluster>.local if empty.")
    password: str = field(default="", doc="Plain text, as the original had it. Better: passwordSecret.")
    password_secret: str = field(
        default="", doc="A Secret of the namespace with the key password; <cluster>-kubeflow, generated, if empty."
    )


class Kubernetes(View):
    pod_network_cidr: str = field(default="", doc=f"Addresses of pods inside; {DEFAULT_POD_CIDR} if empty.")
    service_cidr: str = field(default="", doc=f"Addresses of Services inside; {DEFAULT_SERVICE_CIDR} if empty.")


class Credentials(View):
    expiration_seconds: int = field(
        default=90 * 86400, doc="How long a certificate lasts; renewed after two thirds.", minimum=600
    )


class Lifetime(View):
    ttl_seconds: int | None = field(default=None, doc="The cluster is deleted this long after it was made.", minimum=1)
    sleep_after_seconds: int | None = field(
        default=None,
        doc="Its pods are stopped when nobody has used the API for so long; the next request starts them again.",
        minimum=10,
    )


class Vk8sSpec(View):
    mode: Literal["pods", "logical"] | None = field(
        default=None,
        doc="pods: nodes are pods; logical: rows in the host's store. By default pods if a node names an image.",
    )
    nodes: list[NodePod] = field(default_factory=list, doc="Virtual nodes, the master first.")
    ports: list[ServicePort] = field(
        default_factory=list, doc="Published by one NodePort Service; one named kubeflow is its UI."
    )
    access_pod_image: str = field(default="", doc="Image of the pod for ssh and kubectl.")
    access_pod_port: int = field(default=0, doc="NodePort of its ssh; 0: no access pod.")
    kubeflow: Kubeflow | None = None
    kubernetes: Kubernetes = field(default_factory=lambda: Kubernetes.view({}))
    ip_pool: str = field(default="", doc="IPPool that gives nodes their addresses; without one the runtime does.")
    volume_policy: Literal["retain", "delete"] = field(
        default="delete", doc="What becomes of the nodes' volumes when they go."
    )
    credentials: Credentials = field(default_factory=lambda: Credentials.view({}))
    lifetime: Lifetime = field(default_factory=lambda: Lifetime.view({}))
    restore_from: str = field(
        default="", doc="A Vk8sSnapshot of the namespace whose content the new cluster begins with.", max_length=253
    )


class StepRecord(View):
    """How far a step is: written before it begins and after it ends, so that a crash in between is seen."""

    state: str = field(default="", doc="Running, Done, Retrying or Failed.")
    attempt: int = 0
    started_at: str = ""
    pod: str = field(default="", doc="uid of the pod in which it was done.")
    generation: int = field(default=0, doc="Of the Vk8s when it was last tried.")
    error: str = field(default="", max_length=1024)
    request: str = field(default="", doc="The restart request it answered.", max_length=256)
    inputs: str = field(default="", doc="What it was done with: an image, a reservation.", max_length=1024)


class VnodeStatus(View):
    """``isKubernetesSetup``: empty, Success or Failed, as the original had it."""

    status: str = ""
    message: str = ""
    is_kubernetes_setup: str = ""
    steps: dict[str, StepRecord] = field(default_factory=dict)


class Condition(StatusCondition):
    """Standard conditions; ``phase`` and ``lastProbeTime`` are the original's, read where somebody still writes them."""

    phase: str = ""
    last_probe_time: datetime | None = None


class Vk8sStatus(View):
    phase: str = field(default="", column=Column("Phase"))
    message: str = field(default="", column=Column("Message", priority=1))
    mode: str = field(default="", column=Column("Mode"))
    vnode_kubernetes_setup_statuses: dict[str, VnodeStatus] = field(default_factory=dict)
    cluster: str = field(default="", doc="Its logical cluster.", column=Column("Cluster"))
    endpoint: str = field(default="", doc="Where its API answers.", column=Column("Endpoint", priority=1))
    credentials_expire: str = field(default="", doc="When the certificate in the Secret ends.")
    steps: dict[str, StepRecord] = field(default_factory=dict, doc="Steps that concern the whole cluster.")
    restarted_at: str = ""
    last_used: str = field(default="", doc="When somebody last used it, as far as known; where it sleeps when idle.")
    asleep_since: str = field(default="", doc="Set while it sleeps because nobody used it.")
    restored_from: str = field(default="", doc="The snapshot its content came from, once it is all there.")
    observed_generation: int = 0
    conditions: list[Condition] = field(default_factory=list, list_map_keys=["type"])


class Vk8s(Kind, group=GROUP, version=VERSION, plural="vk8s", singular="vk8s", short_names=("vc", "vcluster")):
    """A virtual Kubernetes cluster."""

    spec: Vk8sSpec = field(default_factory=lambda: Vk8sSpec.view({}))
    status: Vk8sStatus = field(default_factory=lambda: Vk8sStatus.view({}))


class Vk8sPolicySpec(View):
    """``hard`` knows clusters, nodes, cpu, memory, gpu and ports; what it does not name is not limited."""

    hard: dict[str, IntOrString] = field(
        default_factory=dict,
        doc="At most so much in the namespace: clusters, nodes, cpu, memory, gpu (quantities of the nodes' limits), ports.",
    )
    modes: list[Literal["pods", "logical"]] = field(default_factory=list, doc="Modes allowed; all if empty.")
    max_ttl_seconds: int | None = field(
        default=None, doc="No cluster lives longer; one that does not say how long it lives, lives so long.", minimum=1
    )
    sleep_after_seconds: int | None = field(
        default=None, doc="For clusters that do not say themselves when they sleep.", minimum=10
    )


class Vk8sPolicyStatus(View):
    used: dict[str, str] = field(default_factory=dict, doc="What the clusters of the namespace have of each.")
    observed_generation: int = 0
    conditions: list[StatusCondition] = field(default_factory=list, list_map_keys=["type"])


class Vk8sPolicy(Kind, group=GROUP, version=VERSION, plural="vk8spolicies", singular="vk8spolicy"):
    """What a tenant, who is a namespace, may have. Several policies of a namespace all hold."""

    spec: Vk8sPolicySpec = field(default_factory=lambda: Vk8sPolicySpec.view({}))
    status: Vk8sPolicyStatus = field(default_factory=lambda: Vk8sPolicyStatus.view({}))


class Vk8sSnapshotSpec(View):
    cluster: str = field(doc="The Vk8s of the namespace to take.", min_length=1, max_length=253)


class Vk8sSnapshotStatus(View):
    phase: str = field(default="", doc="Taking, Done or Failed.", column=Column("Phase"))
    message: str = field(default="", column=Column("Message", priority=1))
    mode: str = field(default="", column=Column("Mode"))
    taken_at: str = field(default="", column=Column("Taken"))
    objects: int = field(default=0, doc="How many objects are in it (logical clusters).", column=Column("Objects"))
    bytes: int = field(default=0, doc="Its size, compressed.", column=Column("Bytes"))
    parts: int = field(default=0, doc="It lies in so many Secrets <name>-part-<number>, key data.")
    digest: str = field(default="", doc="SHA-256 of all parts together.")
    image: str = field(default="", doc="The master's image (clusters of pods): only that one can read it.")
    observed_generation: int = 0
    conditions: list[StatusCondition] = field(default_factory=list, list_map_keys=["type"])


class Vk8sSnapshot(Kind, group=GROUP, version=VERSION, plural="vk8ssnapshots", singular="vk8ssnapshot"):
    """The content of a virtual cluster at one moment, kept in Secrets beside it; taken once, when it is made."""

    spec: Vk8sSnapshotSpec
    status: Vk8sSnapshotStatus = field(default_factory=lambda: Vk8sSnapshotStatus.view({}))


def mode_of(spec: Vk8sSpec) -> str:
    """``pods`` or ``logical``."""
    return spec.mode or ("pods" if any(node.image for node in spec.nodes) else "logical")
