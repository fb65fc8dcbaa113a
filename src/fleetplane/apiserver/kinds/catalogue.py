"""Every built-in kind and its behaviour, in the order of discovery."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from fleetplane.apiserver.kinds import (
    apps,
    batch,
    certificates,
    configuration,
    devices,
    flowcontrol,
    networking,
    persistent_volumes,
    policy,
    quotas,
    rbac,
    registration,
    replication,
    storage,
)
from fleetplane.apiserver.kinds.accounts import ENDPOINTS, SERVICE_ACCOUNTS
from fleetplane.apiserver.kinds.autoscaling import HORIZONTAL_POD_AUTOSCALERS
from fleetplane.apiserver.kinds.behaviour import KindBehaviour
from fleetplane.apiserver.kinds.events import EVENTS
from fleetplane.apiserver.kinds.namespaces import NAMESPACES
from fleetplane.apiserver.kinds.nodes import NODES
from fleetplane.apiserver.kinds.pods import PODS
from fleetplane.apiserver.kinds.services import SERVICES

_REVIEW: Final = KindBehaviour(has_generation=False)
"""Kinds that are answered, never stored."""

KINDS: Final[Mapping[tuple[str, str], KindBehaviour]] = {
    ("", "Binding"): _REVIEW,
    ("", "ComponentStatus"): replication.COMPONENT_STATUSES,
    ("", "ConfigMap"): configuration.CONFIG_MAPS,
    ("", "Endpoints"): ENDPOINTS,
    ("", "Event"): EVENTS,
    ("", "LimitRange"): quotas.LIMIT_RANGES,
    ("", "Namespace"): NAMESPACES,
    ("", "Node"): NODES,
    ("", "PersistentVolume"): persistent_volumes.PERSISTENT_VOLUMES,
    ("", "PersistentVolumeClaim"): persistent_volumes.PERSISTENT_VOLUME_CLAIMS,
    ("", "Pod"): PODS,
    ("", "PodTemplate"): replication.POD_TEMPLATES,
    ("", "ReplicationController"): replication.REPLICATION_CONTROLLERS,
    ("", "ResourceQuota"): quotas.RESOURCE_QUOTAS,
    ("", "Secret"): configuration.SECRETS,
    ("", "Service"): SERVICES,
    ("", "ServiceAccount"): SERVICE_ACCOUNTS,
    ("apiregistration.k8s.io", "APIService"): registration.API_SERVICES,
    ("apps", "ControllerRevision"): apps.CONTROLLER_REVISIONS,
    ("apps", "DaemonSet"): apps.DAEMON_SETS,
    ("apps", "Deployment"): apps.DEPLOYMENTS,
    ("apps", "ReplicaSet"): apps.REPLICA_SETS,
    ("apps", "StatefulSet"): apps.STATEFUL_SETS,
    ("authentication.k8s.io", "SelfSubjectReview"): _REVIEW,
    ("authentication.k8s.io", "TokenReview"): _REVIEW,
    ("authorization.k8s.io", "LocalSubjectAccessReview"): _REVIEW,
    ("authorization.k8s.io", "SelfSubjectAccessReview"): _REVIEW,
    ("authorization.k8s.io", "SelfSubjectRulesReview"): _REVIEW,
    ("authorization.k8s.io", "SubjectAccessReview"): _REVIEW,
    ("autoscaling", "HorizontalPodAutoscaler"): HORIZONTAL_POD_AUTOSCALERS,
    ("batch", "CronJob"): batch.CRON_JOBS,
    ("batch", "Job"): batch.JOBS,
    ("certificates.k8s.io", "CertificateSigningRequest"): certificates.CERTIFICATE_SIGNING_REQUESTS,
    ("certificates.k8s.io", "ClusterTrustBundle"): certificates.CLUSTER_TRUST_BUNDLES,
    ("certificates.k8s.io", "PodCertificateRequest"): certificates.POD_CERTIFICATE_REQUESTS,
    ("networking.k8s.io", "IPAddress"): networking.IP_ADDRESSES,
    ("networking.k8s.io", "Ingress"): networking.INGRESSES,
    ("networking.k8s.io", "IngressClass"): networking.INGRESS_CLASSES,
    ("networking.k8s.io", "NetworkPolicy"): networking.NETWORK_POLICIES,
    ("networking.k8s.io", "ServiceCIDR"): networking.SERVICE_CIDRS,
    ("policy", "PodDisruptionBudget"): policy.POD_DISRUPTION_BUDGETS,
    ("rbac.authorization.k8s.io", "ClusterRole"): rbac.CLUSTER_ROLES,
    ("rbac.authorization.k8s.io", "ClusterRoleBinding"): rbac.CLUSTER_ROLE_BINDINGS,
    ("rbac.authorization.k8s.io", "Role"): rbac.ROLES,
    ("rbac.authorization.k8s.io", "RoleBinding"): rbac.ROLE_BINDINGS,
    ("storage.k8s.io", "CSIDriver"): storage.CSI_DRIVERS,
    ("storage.k8s.io", "CSINode"): storage.CSI_NODES,
    ("storage.k8s.io", "CSIStorageCapacity"): storage.CSI_STORAGE_CAPACITIES,
    ("storage.k8s.io", "StorageClass"): storage.STORAGE_CLASSES,
    ("storage.k8s.io", "VolumeAttachment"): storage.VOLUME_ATTACHMENTS,
    ("storage.k8s.io", "VolumeAttributesClass"): storage.VOLUME_ATTRIBUTES_CLASSES,
    ("admissionregistration.k8s.io", "MutatingAdmissionPolicy"): registration.MUTATING_POLICIES,
    ("admissionregistration.k8s.io", "MutatingAdmissionPolicyBinding"): registration.POLICY_BINDINGS,
    ("admissionregistration.k8s.io", "MutatingWebhookConfiguration"): registration.WEBHOOK_CONFIGURATIONS,
    ("admissionregistration.k8s.io", "ValidatingAdmissionPolicy"): registration.VALIDATING_POLICIES,
    ("admissionregistration.k8s.io", "ValidatingAdmissionPolicyBinding"): registration.POLICY_BINDINGS,
    ("admissionregistration.k8s.io", "ValidatingWebhookConfiguration"): registration.WEBHOOK_CONFIGURATIONS,
    ("apiextensions.k8s.io", "CustomResourceDefinition"): registration.CUSTOM_RESOURCE_DEFINITIONS,
    ("scheduling.k8s.io", "PriorityClass"): policy.PRIORITY_CLASSES,
    ("coordination.k8s.io", "Lease"): policy.LEASES,
    ("node.k8s.io", "RuntimeClass"): policy.RUNTIME_CLASSES,
    ("discovery.k8s.io", "EndpointSlice"): networking.ENDPOINT_SLICES,
    ("flowcontrol.apiserver.k8s.io", "FlowSchema"): flowcontrol.FLOW_SCHEMAS,
    ("flowcontrol.apiserver.k8s.io", "PriorityLevelConfiguration"): flowcontrol.PRIORITY_LEVELS,
    ("resource.k8s.io", "DeviceClass"): devices.NAME_AND_AGE,
    ("resource.k8s.io", "DeviceTaintRule"): devices.NAME_AND_AGE,
    ("resource.k8s.io", "ResourceClaim"): devices.RESOURCE_CLAIMS,
    ("resource.k8s.io", "ResourceClaimTemplate"): devices.RESOURCE_CLAIM_TEMPLATES,
    ("resource.k8s.io", "ResourceSlice"): devices.RESOURCE_SLICES,
    ("storagemigration.k8s.io", "StorageVersionMigration"): devices.NAME_AND_AGE,
}
