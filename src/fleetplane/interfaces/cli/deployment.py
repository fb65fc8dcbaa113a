"""What has to be in a Kubernetes before operators can run there: their kinds, an account, rights, webhooks, a Deployment.

Everything is read off what the operators declare and comes in parts, as the bases of kustomize and the chart have them.
Names are fixed, as the kinds are: a cluster has these operators once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from fleetplane.client.protocol import Client
from fleetplane.controller.leader import LeaderElection
from fleetplane.controller.metrics import Metrics
from fleetplane.controller.registration import Operator
from fleetplane.controller.rights import election_rules, merged, rules_for
from fleetplane.controller.webhooks import webhook_configurations
from fleetplane.interfaces.cli.operators import Ways, lease_of, manager_of
from fleetplane.interfaces.cli.webhooks import NAME, SECRET
from fleetplane.model.environment import SystemEnvironment
from fleetplane.model.objects import Object
from fleetplane.operating import NAMESPACE

IMAGE: Final = "fleetplane:latest"
HEALTH_PORT: Final = 8080
WEBHOOK_PORT: Final = 9443
USER: Final = 65532
"""Of the container; nobody in particular."""

LABELS: Final[Mapping[str, str]] = {"app.kubernetes.io/name": NAME, "app.kubernetes.io/part-of": "fleetplane"}
_RBAC: Final = "rbac.authorization.k8s.io"


@dataclass(frozen=True, slots=True)
class Parts:
    """Objects to apply, in this order."""

    namespace: list[Object]
    crd: list[Object]
    rbac: list[Object]
    manager: list[Object]
    webhook: list[Object]

    def __iter__(self) -> Iterator[Object]:
        for part in (self.namespace, self.crd, self.rbac, self.manager, self.webhook):
            yield from part


def parts_of(operators: Sequence[Operator], client: Client, *, image: str = IMAGE, namespace: str = NAMESPACE) -> Parts:
    """Everything to apply so that the operators run in a cluster, with the least rights that work.

    ``client`` is never called: a manager needs one to declare its controllers.
    """
    rules = merged(rule for operator in operators for rule in rules_of(operator, client))
    return Parts(
        namespace=[_object("v1", "Namespace", namespace)],
        crd=sorted((one for operator in operators for one in operator.manifests()), key=_name),
        rbac=_rbac(operators, rules, namespace),
        manager=[_service(namespace), _deployment([one.name for one in operators], image, namespace)],
        webhook=webhooks_of(operators, namespace),
    )


def rules_of(operator: Operator, client: Client) -> list[Object]:
    """The rules of a ClusterRole for one operator."""
    manager = manager_of(client, operator, SystemEnvironment(), Metrics(), Ways())
    return merged(rules_for(manager.controllers, operator.rules))


def webhook_rules() -> list[Object]:
    """What it takes to write the certificate's authorities into the webhook configurations."""
    resources = ["mutatingwebhookconfigurations", "validatingwebhookconfigurations"]
    return [
        {
            "apiGroups": ["admissionregistration.k8s.io"],
            "resources": resources,
            "resourceNames": [NAME],
            "verbs": ["get", "patch"],
        }
    ]


def local_rules(operators: Sequence[Operator]) -> list[Object]:
    """The rules of a Role in the operators' own namespace: leases, and the Secret with the webhooks' certificate."""
    leases = [rule for one in operators for rule in election_rules(LeaderElection(lease_of(one)))]
    secret = {"apiGroups": [""], "resources": ["secrets"]}
    return merged(
        [
            *leases,
            secret | {"verbs": ["create"]},
            secret | {"resourceNames": [SECRET], "verbs": ["get", "update"]},
        ]
    )


def webhooks_of(operators: Sequence[Operator], namespace: str) -> list[Object]:
    """Without authorities: whoever serves the webhooks writes them."""
    plugins = [plugin for operator in operators for plugin in operator.admission]
    where = {"service": {"name": NAME, "namespace": namespace, "port": 443}}
    made = webhook_configurations(NAME, plugins, where, exempt=("kube-system", namespace))
    return [{**one, "metadata": {**one["metadata"], "labels": dict(LABELS)}} for one in made]


def _rbac(operators: Sequence[Operator], rules: list[Object], namespace: str) -> list[Object]:
    version = f"{_RBAC}/v1"
    subjects = [{"kind": "ServiceAccount", "name": NAME, "namespace": namespace}]

    def reference(kind: str) -> Object:
        return {"apiGroup": _RBAC, "kind": kind, "name": NAME}

    return [
        _object("v1", "ServiceAccount", NAME, namespace),
        _object(version, "ClusterRole", NAME) | {"rules": merged([*rules, *webhook_rules()])},
        _object(version, "ClusterRoleBinding", NAME) | {"roleRef": reference("ClusterRole"), "subjects": subjects},
        _object(version, "Role", NAME, namespace) | {"rules": local_rules(operators)},
        _object(version, "RoleBinding", NAME, namespace) | {"roleRef": reference("Role"), "subjects": subjects},
    ]


def _service(namespace: str) -> Object:
    ports = [
        {"name": "webhooks", "port": 443, "targetPort": "webhooks"},
        {"name": "metrics", "port": HEALTH_PORT, "targetPort": "health"},
    ]
    return _object("v1", "Service", NAME, namespace) | {"spec": {"selector": _selector(), "ports": ports}}


def _deployment(names: Sequence[str], image: str, namespace: str) -> Object:
    container: Object = {
        "name": "operators",
        "image": image,
        "args": [
            "operators",
            f"--only={','.join(names)}",
            "--leader-elect",
            f"--health-port={HEALTH_PORT}",
            f"--webhook-port={WEBHOOK_PORT}",
        ],
        "ports": [
            {"name": "health", "containerPort": HEALTH_PORT},
            {"name": "webhooks", "containerPort": WEBHOOK_PORT},
        ],
        "readinessProbe": {"httpGet": {"path": "/readyz", "port": "health"}},
        "livenessProbe": {"httpGet": {"path": "/healthz", "port": "health"}, "initialDelaySeconds": 10},
        "resources": {"requests": {"cpu": "50m", "memory": "128Mi"}, "limits": {"memory": "512Mi"}},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
    }
    pod: Object = {
        "serviceAccountName": NAME,
        "terminationGracePeriodSeconds": 40,
        "securityContext": {"runAsNonRoot": True, "runAsUser": USER, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [container],
    }
    return _object("apps/v1", "Deployment", NAME, namespace) | {
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": _selector()},
            "template": {"metadata": {"labels": dict(LABELS)}, "spec": pod},
        }
    }


def _selector() -> dict[str, str]:
    return {"app.kubernetes.io/name": NAME}


def _object(api_version: str, kind: str, name: str, namespace: str = "") -> Object:
    metadata: Object = {"name": name} | ({"namespace": namespace} if namespace else {}) | {"labels": dict(LABELS)}
    return {"apiVersion": api_version, "kind": kind, "metadata": metadata}


def _name(obj: Object) -> str:
    return str(obj["metadata"]["name"])
