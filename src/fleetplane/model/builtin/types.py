"""Constants for the built-in resources, in their storage versions.

Declared by hand so that naming a resource costs nothing: the data file is not read. A test compares every one of them
with the data.
"""

from __future__ import annotations

from typing import Final

from fleetplane.model.resources import ResourceType


def _declared(
    group: str,
    version: str,
    kind: str,
    plural: str,
    *,
    namespaced: bool = True,
    short: str = "",
    categories: str = "",
) -> ResourceType:
    return ResourceType(
        group, version, kind, plural, namespaced, kind.lower(), tuple(short.split()), tuple(categories.split())
    )


BINDINGS: Final = _declared("", "v1", "Binding", "bindings")
COMPONENT_STATUSES: Final = _declared("", "v1", "ComponentStatus", "componentstatuses", namespaced=False, short="cs")
CONFIG_MAPS: Final = _declared("", "v1", "ConfigMap", "configmaps", short="cm")
ENDPOINTS: Final = _declared("", "v1", "Endpoints", "endpoints", short="ep")
EVENTS: Final = _declared("", "v1", "Event", "events", short="ev")
LIMIT_RANGES: Final = _declared("", "v1", "LimitRange", "limitranges", short="limits")
NAMESPACES: Final = _declared("", "v1", "Namespace", "namespaces", namespaced=False, short="ns")
NODES: Final = _declared("", "v1", "Node", "nodes", namespaced=False, short="no")
PERSISTENT_VOLUME_CLAIMS: Final = _declared("", "v1", "PersistentVolumeClaim", "persistentvolumeclaims", short="pvc")
PERSISTENT_VOLUMES: Final = _declared("", "v1", "PersistentVolume", "persistentvolumes", namespaced=False, short="pv")
PODS: Final = _declared("", "v1", "Pod", "pods", short="po", categories="all")
POD_TEMPLATES: Final = _declared("", "v1", "PodTemplate", "podtemplates")
REPLICATION_CONTROLLERS: Final = _declared(
    "", "v1", "ReplicationController", "replicationcontrollers", short="rc", categories="all"
)
RESOURCE_QUOTAS: Final = _declared("", "v1", "ResourceQuota", "resourcequotas", short="quota")
SECRETS: Final = _declared("", "v1", "Secret", "secrets")
SERVICE_ACCOUNTS: Final = _declared("", "v1", "ServiceAccount", "serviceaccounts", short="sa")
SERVICES: Final = _declared("", "v1", "Service", "services", short="svc", categories="all")

API_SERVICES: Final = _declared(
    "apiregistration.k8s.io", "v1", "APIService", "apiservices", namespaced=False, categories="api-extensions"
)

CONTROLLER_REVISIONS: Final = _declared("apps", "v1", "ControllerRevision", "controllerrevisions")
DAEMON_SETS: Final = _declared("apps", "v1", "DaemonSet", "daemonsets", short="ds", categories="all")
DEPLOYMENTS: Final = _declared("apps", "v1", "Deployment", "deployments", short="deploy", categories="all")
REPLICA_SETS: Final = _declared("apps", "v1", "ReplicaSet", "replicasets", short="rs", categories="all")
STATEFUL_SETS: Final = _declared("apps", "v1", "StatefulSet", "statefulsets", short="sts", categories="all")

SELF_SUBJECT_REVIEWS: Final = _declared(
    "authentication.k8s.io", "v1", "SelfSubjectReview", "selfsubjectreviews", namespaced=False
)
TOKEN_REVIEWS: Final = _declared("authentication.k8s.io", "v1", "TokenReview", "tokenreviews", namespaced=False)

LOCAL_SUBJECT_ACCESS_REVIEWS: Final = _declared(
    "authorization.k8s.io", "v1", "LocalSubjectAccessReview", "localsubjectaccessreviews"
)
SELF_SUBJECT_ACCESS_REVIEWS: Final = _declared(
    "authorization.k8s.io", "v1", "SelfSubjectAccessReview", "selfsubjectaccessreviews", namespaced=False
)
SELF_SUBJECT_RULES_REVIEWS: Final = _declared(
    "authorization.k8s.io", "v1", "SelfSubjectRulesReview", "selfsubjectrulesreviews", namespaced=False
)
SUBJECT_ACCESS_REVIEWS: Final = _declared(
    "authorization.k8s.io", "v1", "SubjectAccessReview", "subjectaccessreviews", namespaced=False
)

HORIZONTAL_POD_AUTOSCALERS: Final = _declared(
    "autoscaling", "v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers", short="hpa", categories="all"
)

CRON_JOBS: Final = _declared("batch", "v1", "CronJob", "cronjobs", short="cj", categories="all")
JOBS: Final = _declared("batch", "v1", "Job", "jobs", categories="all")

CERTIFICATE_SIGNING_REQUESTS: Final = _declared(
    "certificates.k8s.io",
    "v1",
    "CertificateSigningRequest",
    "certificatesigningrequests",
    namespaced=False,
    short="csr",
)
CLUSTER_TRUST_BUNDLES: Final = _declared(
    "certificates.k8s.io", "v1", "ClusterTrustBundle", "clustertrustbundles", namespaced=False
)
POD_CERTIFICATE_REQUESTS: Final = _declared(
    "certificates.k8s.io", "v1", "PodCertificateRequest", "podcertificaterequests"
)

INGRESS_CLASSES: Final = _declared("networking.k8s.io", "v1", "IngressClass", "ingressclasses", namespaced=False)
INGRESSES: Final = _declared("networking.k8s.io", "v1", "Ingress", "ingresses", short="ing")
IP_ADDRESSES: Final = _declared("networking.k8s.io", "v1", "IPAddress", "ipaddresses", namespaced=False, short="ip")
NETWORK_POLICIES: Final = _declared("networking.k8s.io", "v1", "NetworkPolicy", "networkpolicies", short="netpol")
SERVICE_CIDRS: Final = _declared("networking.k8s.io", "v1", "ServiceCIDR", "servicecidrs", namespaced=False)

POD_DISRUPTION_BUDGETS: Final = _declared("policy", "v1", "PodDisruptionBudget", "poddisruptionbudgets", short="pdb")

CLUSTER_ROLE_BINDINGS: Final = _declared(
    "rbac.authorization.k8s.io", "v1", "ClusterRoleBinding", "clusterrolebindings", namespaced=False
)
CLUSTER_ROLES: Final = _declared("rbac.authorization.k8s.io", "v1", "ClusterRole", "clusterroles", namespaced=False)
ROLE_BINDINGS: Final = _declared("rbac.authorization.k8s.io", "v1", "RoleBinding", "rolebindings")
ROLES: Final = _declared("rbac.authorization.k8s.io", "v1", "Role", "roles")

CSI_DRIVERS: Final = _declared("storage.k8s.io", "v1", "CSIDriver", "csidrivers", namespaced=False)
CSI_NODES: Final = _declared("storage.k8s.io", "v1", "CSINode", "csinodes", namespaced=False)
CSI_STORAGE_CAPACITIES: Final = _declared("storage.k8s.io", "v1", "CSIStorageCapacity", "csistoragecapacities")
STORAGE_CLASSES: Final = _declared(
    "storage.k8s.io", "v1", "StorageClass", "storageclasses", namespaced=False, short="sc"
)
VOLUME_ATTACHMENTS: Final = _declared("storage.k8s.io", "v1", "VolumeAttachment", "volumeattachments", namespaced=False)
VOLUME_ATTRIBUTES_CLASSES: Final = _declared(
    "storage.k8s.io", "v1", "VolumeAttributesClass", "volumeattributesclasses", namespaced=False, short="vac"
)

MUTATING_ADMISSION_POLICIES: Final = _declared(
    "admissionregistration.k8s.io",
    "v1",
    "MutatingAdmissionPolicy",
    "mutatingadmissionpolicies",
    namespaced=False,
    categories="api-extensions",
)
MUTATING_ADMISSION_POLICY_BINDINGS: Final = _declared(
    "admissionregistration.k8s.io",
    "v1",
    "MutatingAdmissionPolicyBinding",
    "mutatingadmissionpolicybindings",
    namespaced=False,
    categories="api-extensions",
)
MUTATING_WEBHOOK_CONFIGURATIONS: Final = _declared(
    "admissionregistration.k8s.io",
    "v1",
    "MutatingWebhookConfiguration",
    "mutatingwebhookconfigurations",
    namespaced=False,
    categories="api-extensions",
)
VALIDATING_ADMISSION_POLICIES: Final = _declared(
    "admissionregistration.k8s.io",
    "v1",
    "ValidatingAdmissionPolicy",
    "validatingadmissionpolicies",
    namespaced=False,
    categories="api-extensions",
)
VALIDATING_ADMISSION_POLICY_BINDINGS: Final = _declared(
    "admissionregistration.k8s.io",
    "v1",
    "ValidatingAdmissionPolicyBinding",
    "validatingadmissionpolicybindings",
    namespaced=False,
    categories="api-extensions",
)
VALIDATING_WEBHOOK_CONFIGURATIONS: Final = _declared(
    "admissionregistration.k8s.io",
    "v1",
    "ValidatingWebhookConfiguration",
    "validatingwebhookconfigurations",
    namespaced=False,
    categories="api-extensions",
)

CUSTOM_RESOURCE_DEFINITIONS: Final = _declared(
    "apiextensions.k8s.io",
    "v1",
    "CustomResourceDefinition",
    "customresourcedefinitions",
    namespaced=False,
    short="crd crds",
    categories="api-extensions",
)

PRIORITY_CLASSES: Final = _declared(
    "scheduling.k8s.io", "v1", "PriorityClass", "priorityclasses", namespaced=False, short="pc"
)

LEASES: Final = _declared("coordination.k8s.io", "v1", "Lease", "leases")

RUNTIME_CLASSES: Final = _declared("node.k8s.io", "v1", "RuntimeClass", "runtimeclasses", namespaced=False)

ENDPOINT_SLICES: Final = _declared("discovery.k8s.io", "v1", "EndpointSlice", "endpointslices")

FLOW_SCHEMAS: Final = _declared("flowcontrol.apiserver.k8s.io", "v1", "FlowSchema", "flowschemas", namespaced=False)
PRIORITY_LEVEL_CONFIGURATIONS: Final = _declared(
    "flowcontrol.apiserver.k8s.io", "v1", "PriorityLevelConfiguration", "prioritylevelconfigurations", namespaced=False
)

DEVICE_CLASSES: Final = _declared("resource.k8s.io", "v1", "DeviceClass", "deviceclasses", namespaced=False)
DEVICE_TAINT_RULES: Final = _declared("resource.k8s.io", "v1", "DeviceTaintRule", "devicetaintrules", namespaced=False)
RESOURCE_CLAIMS: Final = _declared("resource.k8s.io", "v1", "ResourceClaim", "resourceclaims")
RESOURCE_CLAIM_TEMPLATES: Final = _declared("resource.k8s.io", "v1", "ResourceClaimTemplate", "resourceclaimtemplates")
RESOURCE_SLICES: Final = _declared("resource.k8s.io", "v1", "ResourceSlice", "resourceslices", namespaced=False)

STORAGE_VERSION_MIGRATIONS: Final = _declared(
    "storagemigration.k8s.io", "v1", "StorageVersionMigration", "storageversionmigrations", namespaced=False
)
