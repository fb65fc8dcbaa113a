"""What expressions about admission may refer to: policies, match conditions, mutations.

``object`` and ``oldObject`` are dynamic, as in Kubernetes, since a policy may match many kinds; ``request`` and
``namespaceObject`` have the types of the API, so that a misspelt field is found when the policy is written.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from fleetplane.model.cel.declarations import Declarations
from fleetplane.model.cel.kubernetes import variables_type
from fleetplane.model.cel.library.authorization import AUTHORIZER, RESOURCE_CHECK
from fleetplane.model.cel.types import BOOL, DYN, INT, STRING, TIMESTAMP, Type, list_of, map_of, object_of

_KIND: Final = object_of("kubernetes.GroupVersionKind", {"group": STRING, "version": STRING, "kind": STRING})
_RESOURCE: Final = object_of(
    "kubernetes.GroupVersionResource", {"group": STRING, "version": STRING, "resource": STRING}
)
_USER: Final = object_of(
    "kubernetes.UserInfo",
    {"username": STRING, "uid": STRING, "groups": list_of(STRING), "extra": map_of(STRING, list_of(STRING))},
)
REQUEST: Final = object_of(
    "kubernetes.AdmissionRequest",
    {
        "kind": _KIND,
        "resource": _RESOURCE,
        "subResource": STRING,
        "requestKind": _KIND,
        "requestResource": _RESOURCE,
        "requestSubResource": STRING,
        "name": STRING,
        "namespace": STRING,
        "operation": STRING,
        "userInfo": _USER,
        "dryRun": BOOL,
        "options": DYN,
    },
)
"""``request``: the admission request without its objects."""

_METADATA: Final = object_of(
    "kubernetes.NamespaceMetadata",
    {
        "name": STRING,
        "generateName": STRING,
        "namespace": STRING,
        "labels": map_of(STRING, STRING),
        "annotations": map_of(STRING, STRING),
        "uid": STRING,
        "creationTimestamp": TIMESTAMP,
        "deletionTimestamp": TIMESTAMP,
        "deletionGracePeriodSeconds": INT,
        "generation": INT,
        "resourceVersion": STRING,
        "finalizers": list_of(STRING),
    },
)
_CONDITION: Final = object_of(
    "kubernetes.NamespaceCondition",
    {"type": STRING, "status": STRING, "lastTransitionTime": TIMESTAMP, "reason": STRING, "message": STRING},
)
NAMESPACE: Final = object_of(
    "kubernetes.Namespace",
    {
        "metadata": _METADATA,
        "spec": object_of("kubernetes.NamespaceSpec", {"finalizers": list_of(STRING)}),
        "status": object_of("kubernetes.NamespaceStatus", {"conditions": list_of(_CONDITION), "phase": STRING}),
    },
)
"""``namespaceObject``: the namespace of the object; null for a cluster-scoped one."""

JSON_PATCH: Final = object_of("JSONPatch", {"op": STRING, "path": STRING, "from": STRING, "value": DYN})


def match_declarations() -> Declarations:
    """For match conditions, of webhooks and of policies."""
    return Declarations(_common())


def policy_declarations(variables: Mapping[str, Type] | None = None) -> Declarations:
    """For a policy's validations, messages and audit annotations.

    ``variables``: the types of the policy's own variables declared before this expression. ``params`` and
    ``namespaceObject`` are null where there are none.
    """
    return Declarations(_policy(variables))


def mutation_declarations(variables: Mapping[str, Type] | None = None) -> Declarations:
    """For a mutating policy: it may build ``Object{…}`` (an apply configuration) and ``JSONPatch{…}``."""
    return Declarations(_policy(variables), structs={"JSONPatch": JSON_PATCH}, open_structs=frozenset({"Object"}))


def _policy(variables: Mapping[str, Type] | None) -> dict[str, Type]:
    return {**_common(), "params": DYN, "namespaceObject": NAMESPACE, "variables": variables_type(variables or {})}


def _common() -> dict[str, Type]:
    return {
        "object": DYN,
        "oldObject": DYN,
        "request": REQUEST,
        "authorizer": AUTHORIZER,
        "authorizer.requestResource": RESOURCE_CHECK,
    }
