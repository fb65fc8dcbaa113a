"""What users write: PICCOLO's kinds in ``crd.piccolo.org/v1alpha1``, wire-compatible with the operator of 2023.

A platform integrator publishes devices (``DevRes``) and snippets of container configuration (``VehContainerConfig``)
once; an application developer only names them in a ``VehPod``. Every field of the original keeps its name and meaning;
what is new is optional and says nothing when absent.

All kinds live on the edge and on the hub: nothing here needs a hub.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fleetplane.model.kind import Builtin, Column, Kind, StatusCondition, View, field
from fleetplane.model.objects import Object

GROUP = "crd.piccolo.org"
VERSION = "v1alpha1"

PodSpec = Annotated[Object, Builtin("io.k8s.api.core.v1.PodSpec")]
Container = Annotated[Object, Builtin("io.k8s.api.core.v1.Container")]
EnvVar = Annotated[Object, Builtin("io.k8s.api.core.v1.EnvVar")]
Volume = Annotated[Object, Builtin("io.k8s.api.core.v1.Volume")]
VolumeMount = Annotated[Object, Builtin("io.k8s.api.core.v1.VolumeMount")]
Action = Literal["restart", "stop", "start", "safe-state"]
"""What a watcher may ask for."""
Level = Literal["", "QM", "A", "B", "C", "D"]
"""A criticality level: quality managed, or the automotive safety integrity levels of ISO 26262."""

_CATEGORIES = ("piccolo",)


# -- what the platform offers


class DevResSpec(View):
    dev_type: Any = field(default=None, doc="The class of device, or a list of classes, one for each path.")
    path: Any = field(default=None, doc="The device node on the host, or a list of them.")
    permissions: str = field(
        default="", doc="What the container may do with it: r(ead), w(rite), m(ake); rwm if empty.", pattern="^[rwm]*$"
    )
    allowed_app_types: list[str] = field(
        default_factory=list, doc="AppTypes that may use it although their profile does not list it."
    )
    allowed_apps: list[str] = field(default_factory=list, doc="Applications (by name) that may use it.")


class DevRes(Kind, group=GROUP, version=VERSION, plural="devres", categories=_CATEGORIES):
    """A device of the platform."""

    spec: DevResSpec = field(default_factory=lambda: DevResSpec.view({}))


class PiccoloVolume(View):
    volume: Volume
    volume_mount: VolumeMount


class VehContainerConfigSpec(View):
    piccolo_volumes: list[PiccoloVolume] = field(default_factory=list, doc="Volumes, each with where it is mounted.")
    piccolo_volume: list[PiccoloVolume] = field(
        default_factory=list, doc="More of them, under the name of the original's documents."
    )
    piccolo_env: list[EnvVar] = field(
        default_factory=list, doc="Environment; values may hold ${NAME} for names the AppType lists."
    )
    allowed_app_types: list[str] = field(
        default_factory=list, doc="AppTypes that may use its hostPath volumes although their profile forbids them."
    )


class VehContainerConfig(Kind, group=GROUP, version=VERSION, categories=_CATEGORIES):
    """A snippet of container configuration: volumes, mounts and environment."""

    spec: VehContainerConfigSpec = field(default_factory=lambda: VehContainerConfigSpec.view({}))


class AppTypeSpec(View):
    """What a class of applications may do. Lists may hold ``*``; empty lists allow nothing."""

    namespace: str = field(default="", doc="Where its pods run; <name>-application if empty.", max_length=63)
    limited: bool = field(default=True, doc="Without it nothing below is enforced.")
    devices: list[str] = field(default_factory=list, doc="Names or types of devices it may use.")
    capabilities: list[str] = field(default_factory=list, doc="Linux capabilities that may be added.")
    host_paths: list[str] = field(default_factory=list, doc="Host paths (and below) its own volumes may name.")
    nodes: list[str] = field(default_factory=list, doc="Nodes it may name; empty: it may name none.")
    images: list[str] = field(default_factory=list, doc="Prefixes its images must have; empty: any image.")
    dds_domains: list[int] = field(default_factory=list, doc="DDS domains it may join; empty: any.")
    ports: list[int] = field(default_factory=list, doc="Host ports it may take.")
    allow_privileged: bool = False
    allow_host_namespaces: bool = False
    runtime_classes: list[str] = field(default_factory=list, doc="RuntimeClasses it may choose.")
    max_level: Level = field(default="QM", doc="The highest criticality level it may claim.")
    reservations: list[str] = field(
        default_factory=list,
        doc="What it may have kept for it: cpuSet, affinity, memoryMin, memoryLow, memoryBandwidthPercent, and the "
        "realtime policies SCHED_FIFO, SCHED_RR, SCHED_DEADLINE.",
    )
    trusted_keys: list[str] = field(
        default_factory=list,
        doc="Public keys (PEM; Ed25519 or ECDSA P-256). Where there is one, only applications signed by one may run.",
        max_items=16,
    )
    placeholders: dict[str, str] = field(
        default_factory=dict, doc="Values of ${NAME} in container configurations, besides the node's facts."
    )
    limit_range: dict[str, Any] | None = field(default=None, doc="The spec of the namespace's LimitRange.")
    resource_quota: dict[str, Any] | None = field(default=None, doc="The spec of the namespace's ResourceQuota.")
    network_policy: dict[str, Any] | None = field(
        default=None, doc="The spec of the namespace's NetworkPolicy; kept where the network of the cluster keeps them."
    )


class AppType(Kind, group=GROUP, version=VERSION, namespaced=False, categories=_CATEGORIES):
    """The limits of a class of applications; replaces the built-in profile of the same name (system, 3rd-party)."""

    spec: AppTypeSpec = field(default_factory=lambda: AppTypeSpec.view({}))


# -- what applications ask for


class DevResInfo(View):
    dev_name: str = field(doc="A DevRes in the same namespace.")
    dev_dest_path: str = field(doc="Where the device node shows up in the container.")


class Reservation(View):
    """What is kept for a workload; passed on to the node as it is."""

    cpu_set: str = field(default="", doc="CPUs it runs on, as in cpuset(7): 0-1,3.", pattern=r"^[0-9,\-]*$")
    affinity: str = field(
        default="", doc="CPUs its processes are bound to by themselves, as in cpuset(7).", pattern=r"^[0-9,\-]*$"
    )
    memory_min: str = field(default="", doc="Memory that is never taken from it, such as 64Mi (cgroup v2).")
    memory_low: str = field(default="", doc="Memory that is taken from it last; a soft limit on cgroup v1.")
    memory_bandwidth_percent: int | None = field(default=None, minimum=1, maximum=100)
    scheduling_policy: Literal["", "SCHED_OTHER", "SCHED_FIFO", "SCHED_RR", "SCHED_DEADLINE"] = ""
    scheduling_priority: int | None = field(default=None, minimum=1, maximum=99)
    runtime_microseconds: int | None = field(default=None, doc="SCHED_DEADLINE: time it needs each period.", minimum=1)
    deadline_microseconds: int | None = field(default=None, doc="SCHED_DEADLINE: by when, in each period.", minimum=1)
    period_microseconds: int | None = field(default=None, doc="SCHED_DEADLINE: the deadline if absent.", minimum=1)
    realtime_percent: int | None = field(
        default=None, doc="CPU time realtime threads may take where the kernel divides it; 10.", minimum=1, maximum=95
    )


class Instance(View):
    name: str
    node: str = ""
    role: str = ""
    state: str = ""
    restarts: int = 0
    last_switch_ms: int | None = None
    verdict: str = field(default="", doc="What its watcher makes of it: ok, suspect or failed.")
    message: str = field(default="", doc="Why, in the watcher's words.")


class Monitored(View):
    name: str = field(doc="The VehMonitor, in the namespace of the pods.")
    watcher: str = field(default="", doc="Starting, Alive or Lost.")
    request: str = field(default="", doc="What the watcher asked for last.")
    outcome: str = field(default="", doc="Accepted, Done or Refused.")
    rule: str = field(default="", doc="The rule that refused it.")
    stopped: list[str] = field(default_factory=list, doc="Primaries that are stopped because the watcher asked.")


class WorkloadStatus(View):
    phase: str = field(default="", column=Column("Phase"))
    pod: str = field(default="", doc="namespace/name of its pod.")
    criticality: str = ""
    rule: str = field(default="", doc="The rule that refused it.")
    observed_generation: int = 0
    instances: list[Instance] = field(default_factory=list)
    active: str = field(default="", doc="The uid of the one pod that may be active.")
    successor: str = field(default="", doc="The uid of the pod its node thaws when the active ends.")
    switchovers: int = 0
    last_switch_ms: int | None = None
    lost_at: str = field(default="", doc="When the loss of the active was noticed.")
    votes: dict[str, Any] | None = None
    monitor: Monitored | None = None
    conditions: list[StatusCondition] = field(default_factory=list, list_map_keys=["type"])


# -- arrangements


class PassiveRedundant(View):
    active_container: Container
    passive_container: Container


class ActiveRedundant(View):
    active_redundant_containers: list[Container] = field(min_items=2)


class NModularRedundant(View):
    n_modular_containers: list[Container] = field(min_items=3)


class Monitoring(View):
    primary_container: list[Container] = field(min_items=1)
    watcher_container: Container
    allowed_actions: list[Action] = field(
        default_factory=list, doc="What the watcher may ask for; nothing if empty.", max_items=8
    )
    heartbeat_seconds: float = field(
        default=0.0, doc="How often the watcher says that it is there; 0: it need not.", minimum=0
    )
    missed_heartbeats: int = field(
        default=3, doc="How many heartbeats it may miss before it counts as lost.", minimum=1, maximum=1000
    )


class Voting(View):
    """How outputs are compared. An instance gives its output as an annotation of its own pod."""

    tolerance: float = field(default=0.0, doc="Numbers this far apart still agree.", minimum=0)
    timeout_seconds: float = field(default=1.0, doc="How long a round waits for the missing outputs.", minimum=0.01)
    disagree_limit: int = field(default=3, doc="Rounds in a row after which a dissenter is replaced.", minimum=1)


class VehPodSpec(View):
    dev_res_info: list[DevResInfo] = field(default_factory=list, doc="Devices wanted.")
    dev_container_idx: int = field(default=0, doc="Which container gets the devices, counted from 0.", minimum=0)
    veh_container_config_info: list[str] = field(
        default_factory=list, doc="VehContainerConfigs of the same namespace, in order."
    )
    veh_container_config_idx: int = field(default=0, doc="Which container gets the configurations.", minimum=0)
    app_type: str = field(default="", doc="system or 3rd-party, or the name of an AppType.", column="AppType")
    deployment_policy: str = field(
        default="", doc="PassiveRedundant, ActiveRedundant, NModularRedundant or Monitoring; case does not matter."
    )
    pod_spec: PodSpec
    criticality: Level = field(default="", doc="QM (the default) or an ASIL: A, B, C, D.")
    reservation: Reservation | None = None
    on_dependency_change: Literal["Restart", "NextStart"] = field(
        default="Restart", doc="Whether a changed dependency restarts a running pod or waits for its next start."
    )
    state: Literal["Running", "Stopped"] = "Running"
    passive_redundant: PassiveRedundant | None = None
    active_redundant: ActiveRedundant | None = None
    n_modular_redundant: NModularRedundant | None = None
    monitoring: Monitoring | None = None
    voting: Voting = field(default_factory=lambda: Voting.view({}))
    watcher_loss: Literal["Restart", "Degrade", "SafeState"] = field(
        default="Restart", doc="What the loss of the watcher means for the primaries."
    )


class VehPod(Kind, group=GROUP, version=VERSION, categories=_CATEGORIES):
    """One pod of a vehicle application, with its devices and configuration by name."""

    spec: VehPodSpec
    status: WorkloadStatus = field(default_factory=lambda: WorkloadStatus.view({}))


class VehDeploymentSpec(VehPodSpec):
    pod_spec: Annotated[Object, Builtin("io.k8s.api.core.v1.PodSpec")]
    replicas: int = field(default=0, doc="Instances of the pod where no containers are listed.", minimum=0, maximum=15)
    placement: Literal["Any", "SameNode", "Spread"] = field(
        default="Any", doc="Whether instances share a node, must not, or avoid each other where nodes permit."
    )


class VehDeployment(Kind, group=GROUP, version=VERSION, categories=_CATEGORIES):
    """Several pods of a vehicle application, arranged by a deployment policy."""

    spec: VehDeploymentSpec
    status: WorkloadStatus = field(default_factory=lambda: WorkloadStatus.view({}))


# -- monitoring


class PrimaryVerdict(View):
    primary: str = field(max_length=253)
    verdict: Literal["ok", "suspect", "failed"]
    message: str = field(default="", max_length=256)


class MonitorRequest(View):
    id: str = field(doc="A new one for every request.", max_length=64, min_length=1)
    action: Action
    primary: str = field(default="", doc="One of the primaries; all, where that makes sense.", max_length=253)
    reason: str = field(default="", max_length=256)


class VehMonitorSpec(View):
    """What the watcher says."""

    heartbeat: str = field(default="", doc="Something else with every beat, such as the time.", max_length=64)
    verdicts: list[PrimaryVerdict] = field(default_factory=list, max_items=64, list_map_keys=["primary"])
    request: MonitorRequest | None = None


class PrimaryState(View):
    name: str
    pod: str = ""
    state: str = ""
    node: str = ""
    restarts: int = 0


class MonitorOutcome(View):
    id: str
    action: str
    primary: str = ""
    state: str = field(doc="Accepted, Done or Refused.")
    rule: str = field(default="", doc="The rule that refused it.")
    message: str = ""
    target: str = field(default="", doc="What is restarted: the uid of a pod, or the id of a container.")


class VehMonitorStatus(View):
    """What the operator answers."""

    watcher: str = field(default="", doc="Starting, Alive or Lost.", column=Column("Watcher"))
    watched_by: str = field(default="", doc="The watcher that is meant: the uid of a pod, or the id of a container.")
    primaries: list[PrimaryState] = field(default_factory=list)
    allowed_actions: list[str] = field(default_factory=list)
    heartbeat_seconds: float = 0.0
    outcome: MonitorOutcome | None = None
    held: list[str] = field(default_factory=list, doc="Primaries that are stopped because the watcher asked.")
    safe: bool = field(default=False, doc="Whether all are, because it asked for the safe state.")


class VehMonitor(Kind, group=GROUP, version=VERSION, categories=_CATEGORIES):
    """The interface between a watcher and the platform. Made for every monitored workload; only its watcher writes to it."""

    spec: VehMonitorSpec = field(default_factory=lambda: VehMonitorSpec.view({}))
    status: VehMonitorStatus = field(default_factory=lambda: VehMonitorStatus.view({}))


# -- degradation


class DegradationMode(View):
    name: str = field(max_length=40)
    shed: list[Level] = field(doc="Levels that go: the lowest first, never the highest.", min_items=1, max_items=4)
    enter_above: dict[str, int] = field(default_factory=dict, doc="Percent of the node: cpu, memory.")
    leave_below: dict[str, int] = field(default_factory=dict, doc="Percent of the node, lower than in enterAbove.")
    conditions: list[str] = field(
        default_factory=list, doc="Conditions of the node that call for it, such as MemoryPressure.", max_items=8
    )


class VehDegradationSpec(View):
    nodes: list[str] = field(default_factory=list, doc="Names of nodes; all if empty.", max_items=64)
    modes: list[DegradationMode] = field(doc="From mild to severe.", min_items=1, max_items=4)
    enter_seconds: float = field(default=2.0, doc="How long a limit must be passed.", minimum=0)
    leave_seconds: float = field(default=30.0, doc="How long all limits must be undershot.", minimum=0)


class DegradedNode(View):
    node: str
    mode: str = ""
    since: str = ""
    shed: list[str] = field(default_factory=list)
    use: dict[str, int] = field(default_factory=dict, doc="Percent, rounded down to tens.")


class DegradationStatus(View):
    nodes: list[DegradedNode] = field(default_factory=list)
    observed_generation: int = 0
    conditions: list[StatusCondition] = field(default_factory=list, list_map_keys=["type"])


class VehDegradation(Kind, group=GROUP, version=VERSION, namespaced=False, categories=_CATEGORIES):
    """When a node sheds lower levels of criticality, so that higher ones do not suffer."""

    spec: VehDegradationSpec
    status: DegradationStatus = field(default_factory=lambda: DegradationStatus.view({}))


# -- rules and signals


class ConditionSpec(View):
    """One comparison: signal, comparison, value."""

    condition_name: str = field(default="", doc="What combinations call it.")
    condition_topic: str = field(doc="The signal: a VSS path such as Vehicle.Speed, or any topic.")
    condition_value: Any = field(default=None, doc="What the signal is compared with.")
    condition_comparison: str = field(
        doc="GreaterThan, GreaterThanOrEqualTo, Equal, SmallerThanOrEqualTo or SmallerThan: signal OP value."
    )
    hysteresis: float = field(default=0.0, doc="How far back the signal must go before it stops holding.", minimum=0)
    debounce_seconds: float = field(default=0.0, doc="How long a change must last to count.", minimum=0)
    hold_seconds: float = field(default=0.0, doc="How long it holds at least, once it does.", minimum=0)
    staleness_seconds: float = field(
        default=0.0, doc="A signal not heard of for so long does not hold; 0: for ever.", minimum=0
    )


class ConditionUnit(View):
    conditions_pre_operator: str = field(default="", doc="Not or None.")
    conditions_value: str = field(doc="The name of a condition.")
    conditions_post_operator: str = field(default="", doc="And or Or; empty on the last unit.")


class Conditions(View):
    condition_units: list[ConditionUnit] = field(min_items=1, max_items=64)


class LifecycleManagingRuleSpec(View):
    name: str = ""
    action: str = field(doc="start, stop, update, delete or rollback.", column="Action")
    target: list[Any] = field(doc="VehPods and VehDeployments: Kind/name, or {kind, name}.", min_items=1, max_items=64)
    life_time: str = field(default="OneTime", doc="OneTime fires once; sticky whenever the conditions begin to hold.")
    priority: int = field(default=3, doc="1 is the highest, 5 the lowest.", minimum=1, maximum=5)
    condition: ConditionSpec | None = None
    condition_definitions: list[ConditionSpec] = field(
        default_factory=list, doc="More conditions for combinations.", max_items=64
    )
    conditions: Conditions | None = None
    update: dict[str, Any] | None = field(default=None, doc="For update: a merge patch of the targets' spec.")


class RuleStatus(View):
    phase: str = field(default="", column=Column("Phase"))
    fired: int = field(default=0, column=Column("Fired"))
    last_fired: str = ""
    last_outcome: str = ""
    observed_generation: int = 0
    conditions: list[StatusCondition] = field(default_factory=list, list_map_keys=["type"])


class LifecycleManagingRule(Kind, group=GROUP, version=VERSION, categories=_CATEGORIES):
    """When these signals say so, do this to those applications."""

    spec: LifecycleManagingRuleSpec
    status: RuleStatus = field(default_factory=lambda: RuleStatus.view({}))


class RecordedDrive(View):
    config_map: str = field(doc="A ConfigMap of the namespace.")
    key: str = field(default="drive.jsonl", doc='Its key: lines of {"t": seconds, "topic": …, "value": …}.')
    speed: float = field(default=1.0, doc="How many times faster than it was recorded.", minimum=0.001)
    loop: bool = False


class MqttBroker(View):
    host: str
    port: int = field(default=1883, minimum=1, maximum=65535)
    topics: list[str] = field(default_factory=list, doc="Topic filters; everything if empty.", max_items=64)
    username: str = ""
    password_secret: str = field(
        default="", doc="A Secret of the namespace with the key password, and username where it is not given above."
    )
    tls: bool = field(default=False, doc="Speak TLS; the port is usually 8883 then.")
    tls_secret: str = field(
        default="",
        doc="A Secret with ca.crt (the system's authorities otherwise), and tls.crt and tls.key if asked for.",
    )


class KuksaDatabroker(View):
    host: str
    port: int = field(default=55555, minimum=1, maximum=65535)
    signals: list[str] = field(doc="VSS paths, such as Vehicle.Speed.", min_items=1, max_items=256)
    token_secret: str = field(default="", doc="A Secret of the namespace with the key token: a JWT.")
    tls_secret: str = field(default="", doc="A Secret with ca.crt; without it the connection is not encrypted.")


class VehSignalSourceSpec(View):
    recorded_drive: RecordedDrive | None = None
    mqtt: MqttBroker | None = None
    kuksa: KuksaDatabroker | None = field(
        default=None, doc="An Eclipse Kuksa databroker (kuksa.val.v2 or v1); needs the extra grpc."
    )


class SourceStatus(View):
    phase: str = field(default="", column=Column("Phase"))
    message: str = ""
    samples: int = 0
    observed_generation: int = 0


class VehSignalSource(
    Kind,
    group=GROUP,
    version=VERSION,
    categories=_CATEGORIES,
):
    """Where vehicle signals come from."""

    spec: VehSignalSourceSpec
    status: SourceStatus = field(default_factory=lambda: SourceStatus.view({}))


# -- applications


class Microservice(View):
    name: str = field(max_length=40, pattern="^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")
    kind: Literal["VehPod", "VehDeployment"] = "VehPod"
    depends_on: list[str] = field(default_factory=list, doc="Microservices that run before this one is started.")
    spec: dict[str, Any] = field(doc="The spec of its VehPod or VehDeployment.")


class VehApplicationSpec(View):
    microservices: list[Microservice] = field(min_items=1, max_items=64, list_map_keys=["name"])
    digest: str = field(
        default="",
        doc="sha256 of the microservices (see `fleetplane.operators.vehicles.application.digest_of`); checked if given.",
    )
    signatures: list[str] = field(
        default_factory=list,
        doc="Signatures (base64) of the digest, made by `pack --sign`; see the AppType's trustedKeys.",
        max_items=16,
    )
    state: Literal["Running", "Stopped"] = "Running"
    progress_deadline_seconds: int = field(
        default=120, doc="An updated microservice that does not run by then goes back to what it was.", minimum=1
    )


class Update(View):
    microservice: str
    digest: str
    outcome: str
    time: str


class MicroserviceStatus(View):
    name: str
    workload: str = field(default="", doc="Kind/name of what runs it.")
    state: str = ""
    digest: str = field(default="", doc="Of the form it has.")
    current: bool = field(default=False, doc="Whether that is the form the application asks for.")
    refused: bool = field(default=False, doc="Whether the form asked for did not run and was taken back.")


class ApplicationStatus(View):
    phase: str = field(default="", column=Column("Phase"))
    ready: str = field(default="", column=Column("Ready"), doc="How many microservices run, of how many.")
    updating: str = field(default="", doc="The microservice being updated.")
    since: str = ""
    microservices: list[MicroserviceStatus] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict, doc="Digests of forms that did not run, by microservice.")
    history: list[Update] = field(default_factory=list)
    observed_generation: int = 0
    conditions: list[StatusCondition] = field(default_factory=list, list_map_keys=["type"])


class VehApplication(Kind, group=GROUP, version=VERSION, categories=_CATEGORIES):
    """Microservices that are deployed, operated and updated as one application."""

    spec: VehApplicationSpec
    status: ApplicationStatus = field(default_factory=lambda: ApplicationStatus.view({}))
