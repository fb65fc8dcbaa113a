"""How objects are reached: one ``Client`` protocol over in-process and HTTP transports, and informers on top.

Reading order: ``protocol`` (the contract), ``rest`` (its one implementation, over any transport), ``wire`` and ``lines``
(how requests, lists and watches are written), ``informer`` with ``snapshot`` and ``index`` (a live local copy),
``discovery`` (what there is). The network: ``kubeconfig`` (where and who), ``credentials``, ``http`` with ``http1`` and
``proxied``; those are imported where they are used, so that an in-process client does not pay for them.
"""

from fleetplane.client.discovery import Discovery
from fleetplane.client.informer import Change, Informer
from fleetplane.client.protocol import (
    CLUSTER_ANNOTATION,
    ROOT,
    Capabilities,
    Client,
    ClientChange,
    ObjectList,
    Transport,
    Unreachable,
    WatchEvent,
    cluster_of,
)
from fleetplane.client.rest import RestClient, connect
from fleetplane.client.snapshot import ObjectKey, Snapshot

__all__ = [
    "CLUSTER_ANNOTATION",
    "ROOT",
    "Capabilities",
    "Change",
    "Client",
    "ClientChange",
    "Discovery",
    "Informer",
    "ObjectKey",
    "ObjectList",
    "RestClient",
    "Snapshot",
    "Transport",
    "Unreachable",
    "WatchEvent",
    "cluster_of",
    "connect",
]
