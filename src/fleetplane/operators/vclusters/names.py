"""How a guest's names and labels look on the host. Pure, and one-to-one.

All objects of a virtual cluster live in the namespace of its Vk8s, so names carry where they come from:
``<name>-x-<namespace>-x-<cluster>``, cut and hashed where that would be too long or could be read in two ways. Label keys
are hashed under a prefix of ours: a guest that labels its pods ``app=web`` must not slip into a Service, a disruption
budget or a network policy of the host that selects just that.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, Final

from fleetplane.model.objects import Object
from fleetplane.operators.vclusters.kinds import GROUP, OWNER_UID

MAX_NAME: Final = 63
LABEL_PREFIX: Final = f"guest.{GROUP}/"
NAMESPACE_LABEL: Final = f"{GROUP}/namespace"
GUEST: Final = f"{GROUP}/guest"
"""Annotation on a host's object: cluster/namespace/name of the guest's."""
GUEST_UID: Final = f"{GROUP}/guest-uid"
_SEPARATOR: Final = "-x-"


def host_name(name: str, namespace: str, cluster: str) -> str:
    """The name on the host of a guest's object. Valid wherever ``name`` was, at most 63 characters."""
    whole = f"{name}{_SEPARATOR}{namespace}{_SEPARATOR}{cluster}"
    if len(whole) <= MAX_NAME and whole.count(_SEPARATOR) == 2 and "." not in whole:
        return whole
    digest = hashlib.sha256(f"{cluster}/{namespace}/{name}".encode()).hexdigest()[:12]
    kept = whole.replace(".", "-")[: MAX_NAME - 15].rstrip("-")
    return f"{kept}-x-{digest}"


def label_key(key: str) -> str:
    return LABEL_PREFIX + hashlib.sha256(key.encode()).hexdigest()[:20]


def host_labels(labels: Mapping[str, str], namespace: str, owner_uid: str) -> dict[str, str]:
    """What a host's object carries for a guest's labels."""
    return {label_key(key): value for key, value in labels.items()} | ours(namespace, owner_uid)


def ours(namespace: str, owner_uid: str) -> dict[str, str]:
    """The labels that confine a selector to one namespace of one virtual cluster."""
    return {OWNER_UID: owner_uid, NAMESPACE_LABEL: namespace}


def host_selector(selector: Mapping[str, Any], namespace: str, owner_uid: str) -> Object:
    """A LabelSelector that selects on the host what the guest's selects in one of its namespaces."""
    wanted = {label_key(key): value for key, value in (selector.get("matchLabels") or {}).items()}
    result: Object = {"matchLabels": wanted | ours(namespace, owner_uid)}
    expressions = [{**one, "key": label_key(str(one.get("key")))} for one in selector.get("matchExpressions") or ()]
    if expressions:
        result["matchExpressions"] = expressions
    return result
