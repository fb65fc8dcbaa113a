"""The Node authorizer: a node may touch itself, and read what the pods bound to it need (KEP-279, KEP-4601).

It keeps, per logical cluster, which pods are bound to which node and what they name, and answers from that. A node that
is taken over gives away its own pods' secrets and nothing else. Everything not listed here falls through to RBAC, where
nobody grants nodes anything by default.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from fleetplane.apiserver.authorization.attributes import NO_OPINION, Attributes, Decision, Verdict
from fleetplane.apiserver.authorization.pod_references import (
    ACCOUNTS,
    CLAIMS,
    CONFIG_MAPS,
    RESOURCE_CLAIMS,
    SECRETS,
    Reference,
    references,
    volume_secrets,
)
from fleetplane.apiserver.authorization.rules import Rule, allows_resource
from fleetplane.model import objects
from fleetplane.model.objects import Object
from fleetplane.model.user import NODE_PREFIX, UserInfo

NODES_GROUP: Final = "system:nodes"
LEASE_NAMESPACE: Final = "kube-node-lease"
MIRROR_ANNOTATION: Final = "kubernetes.io/config.mirror"
KINDS: Final = ("Pod", "PersistentVolume", "VolumeAttachment")
"""What ``NodeIndex`` must be told about."""

_ALLOWED: Final = Decision(Verdict.ALLOW, "Node: allowed")
_INTERNED: Final = 4096


def node_of(user: UserInfo) -> str | None:
    """The name of the node a user is; empty for one that claims to be a node without a name, None for all others."""
    if NODES_GROUP not in user.groups:
        return None
    return user.name.removeprefix(NODE_PREFIX) if user.name.startswith(NODE_PREFIX) else ""


class _Cluster:
    def __init__(self) -> None:
        self.pods: dict[str, dict[tuple[str, str], frozenset[Reference]]] = {}
        self.claim_of_volume: dict[str, tuple[str, str]] = {}
        self.volumes_of_secret: dict[tuple[str, str], set[str]] = {}
        self.secrets_of_volume: dict[str, frozenset[tuple[str, str]]] = {}
        self.attachments: dict[str, str] = {}


class NodeIndex:
    """Who runs where and needs what. Fed with every Pod, PersistentVolume and VolumeAttachment; asked without I/O."""

    def __init__(self) -> None:
        self._clusters: dict[str, _Cluster] = {}
        self._interned: dict[frozenset[Reference], frozenset[Reference]] = {}

    def apply_event(self, cluster: str, obj: Object, deleted: bool) -> None:
        """One change, in watch order."""
        known = self._clusters.setdefault(cluster, _Cluster())
        match obj.get("kind"):
            case "Pod":
                self._pod(known, obj, deleted)
            case "PersistentVolume":
                _volume(known, obj, deleted)
            case "VolumeAttachment":
                node = str((obj.get("spec") or {}).get("nodeName") or "")
                if deleted:
                    known.attachments.pop(objects.name(obj), None)
                elif node:
                    known.attachments[objects.name(obj)] = node

    def reset(self, kind: str) -> None:
        """Forget all of one kind, in all clusters: its follower starts over."""
        for known in self._clusters.values():
            if kind == "Pod":
                known.pods.clear()
            elif kind == "VolumeAttachment":
                known.attachments.clear()
            elif kind == "PersistentVolume":
                known.claim_of_volume.clear()
                known.volumes_of_secret.clear()
                known.secrets_of_volume.clear()

    def drop_cluster(self, cluster: str) -> None:
        self._clusters.pop(cluster, None)

    def _pod(self, known: _Cluster, pod: Object, deleted: bool) -> None:
        node = str((pod.get("spec") or {}).get("nodeName") or "")
        if not node:
            return
        key = (objects.namespace(pod), objects.name(pod))
        if deleted:
            bound = known.pods.get(node, {})
            bound.pop(key, None)
            if not bound:
                known.pods.pop(node, None)
            return
        mirror = MIRROR_ANNOTATION in objects.annotations(pod)  # written by the node itself: it vouches for nothing
        needed = frozenset[Reference]() if mirror else references(pod)
        if len(self._interned) > _INTERNED:
            self._interned.clear()
        known.pods.setdefault(node, {})[key] = self._interned.setdefault(needed, needed)

    # --- what it answers --------------------------------------------------------------------------------------------

    def runs(self, cluster: str, node: str, namespace: str, pod: str) -> bool:
        known = self._clusters.get(cluster)
        return known is not None and (namespace, pod) in known.pods.get(node, {})

    def needs(self, cluster: str, node: str, resource: str, namespace: str, name: str) -> bool:
        """Whether a pod on the node needs the object, directly or through its volume."""
        known = self._clusters.get(cluster)
        if known is None:
            return False
        if resource == "volumeattachments":
            return known.attachments.get(name) == node
        bound = known.pods.get(node, {})
        if resource == "persistentvolumes":
            return _needs_volume(known, bound, name)
        wanted = (resource, name)
        if any(wanted in needed for (home, _), needed in bound.items() if home == namespace):
            return True
        if resource == SECRETS:
            return any(_needs_volume(known, bound, one) for one in known.volumes_of_secret.get((namespace, name), ()))
        return False


def _needs_volume(known: _Cluster, bound: dict[tuple[str, str], frozenset[Reference]], volume: str) -> bool:
    claim = known.claim_of_volume.get(volume)
    if claim is None:
        return False
    wanted = (CLAIMS, claim[1])
    return any(wanted in needed for (home, _), needed in bound.items() if home == claim[0])


def _volume(known: _Cluster, volume: Object, deleted: bool) -> None:
    name = objects.name(volume)
    for secret in known.secrets_of_volume.pop(name, ()):
        held = known.volumes_of_secret.get(secret, set())
        held.discard(name)
        if not held:
            known.volumes_of_secret.pop(secret, None)
    known.claim_of_volume.pop(name, None)
    claim = (volume.get("spec") or {}).get("claimRef")
    if deleted or not isinstance(claim, dict):
        return
    known.claim_of_volume[name] = (str(claim.get("namespace") or ""), str(claim.get("name") or ""))
    known.secrets_of_volume[name] = secrets = volume_secrets(volume)
    for secret in secrets:
        known.volumes_of_secret.setdefault(secret, set()).add(name)


# --- the authorizer -------------------------------------------------------------------------------------------------


class NodeAuthorizer:
    """``rules`` are those of the ``system:node`` role: what any node may do that is not decided here."""

    def __init__(self, index: NodeIndex, rules: tuple[Rule, ...]) -> None:
        self._index = index
        self._rules = rules
        self._special: dict[tuple[str, str], Callable[[str, Attributes], str | None]] = {
            ("", SECRETS): self._read_needed,
            ("", CONFIG_MAPS): self._read_needed,
            ("", CLAIMS): self._claim,
            ("", "persistentvolumes"): self._get_needed,
            ("", ACCOUNTS): self._token,
            ("", "nodes"): self._node,
            ("", "pods"): self._pods,
            ("storage.k8s.io", "volumeattachments"): self._get_needed,
            ("resource.k8s.io", RESOURCE_CLAIMS): self._get_needed,
            ("coordination.k8s.io", "leases"): self._lease,
            ("storage.k8s.io", "csinodes"): self._csi_node,
            ("fleetplane.io", "nodetunnels"): self._tunnel,
        }

    def authorize(self, attributes: Attributes) -> Decision:
        node = node_of(attributes.user)
        if node is None:
            return NO_OPINION
        if not node:
            return Decision(Verdict.NO_OPINION, f'unknown node for user "{attributes.user.name}"')
        a = attributes
        if not a.resource:
            return NO_OPINION
        special = self._special.get((a.group, a.resource))
        if special is not None:
            objection = special(node, a)
            return _ALLOWED if objection is None else Decision(Verdict.NO_OPINION, objection)
        if any(allows_resource(rule, a.verb, a.group, a.resource, a.subresource, a.name) for rule in self._rules):
            return _ALLOWED
        return NO_OPINION

    # Each of these answers None to allow, or says why not.

    def _needed(self, node: str, a: Attributes) -> str | None:
        if not a.name:
            return "No Object name found"
        if self._index.needs(a.cluster, node, a.resource, a.namespace, a.name):
            return None
        return f"no relationship found between node '{node}' and this object"

    def _read_needed(self, node: str, a: Attributes) -> str | None:
        if a.verb not in {"get", "list", "watch"}:
            return "can only read resources of this type"
        if a.subresource:
            return "cannot read subresource"
        if not a.namespace:
            return "can only read namespaced object of this type"
        return self._needed(node, a)

    def _get_needed(self, node: str, a: Attributes) -> str | None:
        if a.verb != "get":
            return "can only get individual resources of this type"
        if a.subresource:
            return "cannot get subresource"
        return self._needed(node, a)

    def _claim(self, node: str, a: Attributes) -> str | None:
        if a.subresource != "status":
            return self._get_needed(node, a)
        if a.verb not in {"update", "patch"}:
            return "can only get/update/patch this type"
        return self._needed(node, a)

    def _token(self, node: str, a: Attributes) -> str | None:
        if a.verb == "get" and not a.subresource:
            return self._needed(node, a)
        if a.verb != "create" or not a.name:
            return "can only create tokens for individual service accounts"
        if a.subresource != "token":
            return "can only create token subresource of serviceaccount"
        return self._needed(node, a)

    def _lease(self, node: str, a: Attributes) -> str | None:
        if a.verb not in {"get", "create", "update", "patch", "delete"}:
            return "can only get, create, update, patch, or delete a node lease"
        if a.namespace != LEASE_NAMESPACE:
            return f'can only access leases in the "{LEASE_NAMESPACE}" system namespace'
        if a.verb != "create" and a.name != node:
            return "can only access node lease with the same name as the requesting node"
        return None

    def _tunnel(self, node: str, a: Attributes) -> str | None:
        if a.verb == "get" and a.name == node and not a.subresource:
            return None
        return f"node '{node}' can only open its own tunnel"

    def _csi_node(self, node: str, a: Attributes) -> str | None:
        if a.verb not in {"get", "create", "update", "patch", "delete"}:
            return "can only get, create, update, patch, or delete a CSINode"
        if a.subresource:
            return "cannot authorize CSINode subresources"
        if a.verb != "create" and a.name != node:
            return "can only access CSINode with the same name as the requesting node"
        return None

    def _node(self, node: str, a: Attributes) -> str | None:
        if a.subresource not in {"", "status"}:
            return "cannot authorize this subresource of a node"
        if a.verb == "create" and not a.subresource:
            return None  # admission holds it to its own name
        if a.verb in {"list", "watch"}:
            if a.name == node or _selects(a, "metadata.name", node):
                return None
            return f"can only {a.verb} nodes with a field selector of metadata.name={node}"
        if a.verb not in {"get", "update", "patch"} or (a.subresource and a.verb == "get"):
            return "can only create, get, update, or patch a node"
        return None if a.name == node else f"node '{node}' cannot {a.verb} node '{a.name}', only its own Node object"

    def _pods(self, node: str, a: Attributes) -> str | None:
        if a.subresource == "status":
            return None if a.verb in {"update", "patch"} else "can only update or patch the status of pods"
        if a.subresource == "eviction":
            return None if a.verb == "create" else "can only create evictions of pods"
        if a.subresource:
            return f"cannot access pods/{a.subresource}"
        if a.verb in {"list", "watch"}:
            if _selects(a, "spec.nodeName", node):
                return None
            if a.name and a.namespace and self._index.runs(a.cluster, node, a.namespace, a.name):
                return None
            return f"can only {a.verb} pods with a field selector of spec.nodeName={node}"
        if a.verb == "get":
            if self._index.runs(a.cluster, node, a.namespace, a.name):
                return None
            return f"no relationship found between node '{node}' and this object"
        return None if a.verb in {"create", "delete"} else "can only read, create, or delete pods"


def _selects(a: Attributes, field: str, value: str) -> bool:
    return any(one.field == field and one.value == value and not one.negated for one in a.field_selector)
