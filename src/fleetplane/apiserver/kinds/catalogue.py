"""Every built-in kind and its behaviour, in the order of discovery."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from fleetplane.apiserver.kinds.accounts import ENDPOINTS, SERVICE_ACCOUNTS
from fleetplane.apiserver.kinds.behaviour import KindBehaviour
from fleetplane.apiserver.kinds.configuration import CONFIG_MAPS, SECRETS
from fleetplane.apiserver.kinds.events import EVENTS
from fleetplane.apiserver.kinds.namespaces import NAMESPACES
from fleetplane.apiserver.kinds.nodes import NODES
from fleetplane.apiserver.kinds.persistent_volumes import PERSISTENT_VOLUME_CLAIMS, PERSISTENT_VOLUMES
from fleetplane.apiserver.kinds.pods import PODS
from fleetplane.apiserver.kinds.quotas import LIMIT_RANGES, RESOURCE_QUOTAS
from fleetplane.apiserver.kinds.replication import COMPONENT_STATUSES, POD_TEMPLATES, REPLICATION_CONTROLLERS
from fleetplane.apiserver.kinds.services import SERVICES

KINDS: Final[Mapping[tuple[str, str], KindBehaviour]] = {
    ("", "ComponentStatus"): COMPONENT_STATUSES,
    ("", "ConfigMap"): CONFIG_MAPS,
    ("", "Endpoints"): ENDPOINTS,
    ("", "Event"): EVENTS,
    ("", "LimitRange"): LIMIT_RANGES,
    ("", "Namespace"): NAMESPACES,
    ("", "Node"): NODES,
    ("", "PersistentVolume"): PERSISTENT_VOLUMES,
    ("", "PersistentVolumeClaim"): PERSISTENT_VOLUME_CLAIMS,
    ("", "Pod"): PODS,
    ("", "PodTemplate"): POD_TEMPLATES,
    ("", "ReplicationController"): REPLICATION_CONTROLLERS,
    ("", "ResourceQuota"): RESOURCE_QUOTAS,
    ("", "Secret"): SECRETS,
    ("", "Service"): SERVICES,
    ("", "ServiceAccount"): SERVICE_ACCOUNTS,
}
