"""The built-in admission plug-ins, composed: which there are, what they must know, what runs behind them.

Each has the name Kubernetes gives it, by which it can be turned off.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass, field

from fleetplane.apiserver.admission.default_classes import claim_resizing, default_ingress_class, default_storage_class
from fleetplane.apiserver.admission.limits import limit_plugins
from fleetplane.apiserver.admission.namespaces import NamespaceView
from fleetplane.apiserver.admission.pod_security.plugin import pod_security_plugins
from fleetplane.apiserver.admission.policies.checking import expression_checks
from fleetplane.apiserver.admission.priorities import priority_plugins
from fleetplane.apiserver.admission.protection import protect_storage, taint_new_nodes
from fleetplane.apiserver.admission.quotas.ledger import QuotaLedger
from fleetplane.apiserver.admission.quotas.plugin import quota_plugins
from fleetplane.apiserver.admission.runtime_classes import runtime_class_plugins
from fleetplane.apiserver.admission.service_accounts import AccountView, service_account_plugins
from fleetplane.apiserver.admission.tolerations import default_tolerations
from fleetplane.apiserver.admission.views import Follow, View
from fleetplane.apiserver.clusters import Clusters
from fleetplane.apiserver.own_writes import OwnWrites
from fleetplane.model.admission import AdmissionPlugin
from fleetplane.model.builtin.types import SERVICE_ACCOUNTS
from fleetplane.model.environment import Environment
from fleetplane.store.protocol import Store


@dataclass(slots=True)
class BuiltinAdmission:
    """``follow`` asks for everything the plug-ins need to know; ``background`` runs as long as the server does."""

    plugins: Sequence[AdmissionPlugin]
    ledger: QuotaLedger
    accounts: AccountView = field(default_factory=AccountView)
    limits: View = field(default_factory=View)
    priorities: View = field(default_factory=View)
    storage_classes: View = field(default_factory=View)
    ingress_classes: View = field(default_factory=View)
    runtime_classes: View = field(default_factory=View)

    def follow(self, follow: Follow) -> None:
        follow("", "serviceaccounts", self.accounts.apply, self.accounts.reset)
        follow("", "resourcequotas", self.ledger.apply, self.ledger.reset)
        for group, plural, view in (
            ("", "limitranges", self.limits),
            ("scheduling.k8s.io", "priorityclasses", self.priorities),
            ("storage.k8s.io", "storageclasses", self.storage_classes),
            ("networking.k8s.io", "ingressclasses", self.ingress_classes),
            ("node.k8s.io", "runtimeclasses", self.runtime_classes),
        ):
            follow(group, plural, view.apply, view.reset)

    @property
    def background(self) -> Sequence[Callable[[], Awaitable[None]]]:
        return [self.ledger.run]


def builtin_admission(
    store: Store,
    environment: Environment,
    clusters: Clusters,
    own: OwnWrites,
    namespaces: NamespaceView,
    *,
    off: Collection[str] = (),
) -> BuiltinAdmission:
    """The plug-ins, save those named in ``off``."""

    def cluster_id(name: str) -> str:
        return clusters.resolve(name) or name

    async def create_default_account(cluster: str, namespace: str) -> None:
        await own.ensure(cluster, SERVICE_ACCOUNTS, {"metadata": {"name": "default", "namespace": namespace}})

    made = BuiltinAdmission([], QuotaLedger(store, environment))
    plugins = {
        "LimitRanger": limit_plugins(made.limits, cluster_id),
        "ServiceAccount": service_account_plugins(made.accounts, cluster_id, environment, create_default_account),
        "TaintNodesByCondition": [taint_new_nodes()],
        "PodSecurity": pod_security_plugins(namespaces, cluster_id),
        "Priority": priority_plugins(made.priorities, cluster_id),
        "DefaultTolerationSeconds": [default_tolerations()],
        "DefaultStorageClass": default_storage_class(made.storage_classes, cluster_id),
        "PersistentVolumeClaimResize": claim_resizing(made.storage_classes, cluster_id),
        "DefaultIngressClass": default_ingress_class(made.ingress_classes, cluster_id),
        "StorageObjectInUseProtection": [protect_storage()],
        "RuntimeClass": runtime_class_plugins(made.runtime_classes, cluster_id),
        "": expression_checks(),
        "ResourceQuota": quota_plugins(made.ledger, cluster_id, environment),
    }
    made.plugins = [one for name, several in plugins.items() if name not in off for one in several]
    return made
