"""What users write: ``IPPool`` and ``IPClaim`` of ``network.otterscale.io/v1alpha1``.

A claim is the lease: it names the pool and whom the address is for, and holds its addresses in its own spec, as a Service
holds its cluster IP. So there is no ledger beside the objects that could say something else; what is given out is found
again by reading the claims. An address belongs to one claim of its network at most, and a pair of cluster and node has one
claim of a pool at most: the store refuses a second.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

from fleetplane.model.kind import Builtin, Column, Kind, StatusCondition, View, field
from fleetplane.model.objects import Object

GROUP: Final = "network.otterscale.io"
VERSION: Final = "v1alpha1"

FINALIZER: Final = f"{GROUP}/quarantine"
"""Keeps a claim that was deleted, and so its addresses, until nobody can still be sending to them."""
MAX_RANGES: Final = 64
DEFAULT_QUARANTINE: Final = 60

LabelSelector = Annotated[Object, Builtin("io.k8s.apimachinery.pkg.apis.meta.v1.LabelSelector")]


class Reserved(View):
    """An address that is kept for somebody."""

    ip: str = field(doc="The address.", max_length=64)
    owner: str = field(default="", doc="<cluster>/<node> that gets it; nobody if empty.", max_length=512)


class IPPoolSpec(View):
    cidr: str = field(
        default="", doc="A network. Its own address, the broadcast address and the gateway are never given out."
    )
    ranges: list[str] = field(
        default_factory=list,
        doc="Networks, or first-last (10.0.0.10-10.0.0.20), every address of which is given out; both families may be mixed.",
        max_items=MAX_RANGES,
    )
    exclude: list[str] = field(
        default_factory=list, doc="Addresses, networks or first-last that are never given out.", max_items=MAX_RANGES
    )
    gateway: str = field(default="", doc="Address of the gateway, which is never given out.")
    reserved: list[Reserved] = field(default_factory=list, max_items=1024)
    vpc_ref: str = field(
        default="", doc="Network the addresses live in: the same address may be claimed once in each.", max_length=253
    )
    purpose: Literal["Pod", "VM", "LoadBalancer", "External"] = field(default="Pod", column=Column("Purpose"))
    allocation: Literal["Sequential", "Random", "Sticky"] = field(
        default="Sequential",
        doc="Sequential: the next one upwards. Random: any. Sticky: the same for the same cluster and node, if it is free.",
    )
    namespaces: LabelSelector | None = field(
        default=None, doc="Namespaces whose claims it serves; all of them if absent."
    )
    quarantine_seconds: int = field(
        default=DEFAULT_QUARANTINE,
        doc="How long an address that was used rests before somebody else gets it.",
        minimum=0,
        maximum=86400,
    )


class IPPoolStatus(View):
    capacity: int = field(
        default=0,
        doc="How many claims it can serve at a time: the addresses of its smaller family, at most 2147483647.",
        column=Column("Capacity", type="integer"),
    )
    used: int = field(default=0, doc="Claims that have addresses.", column=Column("Used", type="integer"))
    free: int = field(default=0, column=Column("Free", type="integer"))
    reserved: int = 0
    allocated: int = 0
    held: int = 0
    quarantined: int = 0
    conflicts: list[str] = field(default_factory=list, doc="Pools of the same network with the same addresses.")
    observed_generation: int = 0
    conditions: list[StatusCondition] = field(default_factory=list, list_map_keys=["type"])


class IPPool(Kind, group=GROUP, version=VERSION, plural="ippools", namespaced=False):
    """Addresses to be given out."""

    spec: IPPoolSpec = field(default_factory=lambda: IPPoolSpec.view({}))
    status: IPPoolStatus = field(default_factory=lambda: IPPoolStatus.view({}))


class IPClaimSpec(View):
    pool: str = field(doc="The IPPool.", column=Column("Pool"), max_length=253)
    cluster: str = field(default="", doc="Whom it is for: a virtual cluster, a VM …", max_length=253)
    cluster_uid: str = field(default="", doc="Tells it from one that had its name before.", max_length=64)
    node: str = field(default="", doc="And which node or interface of it.", max_length=253, column=Column("Node"))
    families: list[Literal["IPv4", "IPv6"]] = field(
        default_factory=list, doc="One address of each; of each the pool has if empty."
    )
    addresses: list[str] = field(
        default_factory=list,
        doc="Filled in; a free one may be asked for. Fixed from then on.",
        column=Column("Addresses", ".spec.addresses[*]"),
        max_items=2,
    )
    vpc_ref: str = field(default="", doc="Of the pool; filled in.", max_length=253)
    ttl_seconds: int | None = field(
        default=None, doc="A reservation: the claim is deleted unless its address is used within so long.", minimum=1
    )
    hold_seconds: int | None = field(
        default=None,
        doc="The claim is deleted when its address has not been used for so long; never if absent.",
        minimum=1,
    )
    use: Literal["Allocated", "Held"] | None = field(
        default=None, doc="What its owner does with the address; pods with the label vnode are seen without it."
    )


class IPClaimStatus(View):
    phase: str = field(
        default="", doc="Pending, Reserved, Allocated, Held, Quarantined or Conflict.", column=Column("Phase")
    )
    since: str = field(default="", doc="When the phase began.")
    until: str = field(default="", doc="When the claim, or the quarantine, ends by itself.")
    observed_generation: int = 0
    conditions: list[StatusCondition] = field(default_factory=list, list_map_keys=["type"])


class IPClaim(
    Kind,
    group=GROUP,
    version=VERSION,
    plural="ipclaims",
    unique={
        "spec.addresses": [".spec.vpcRef", ".spec.addresses[*]"],
        "spec.node": [".metadata.namespace", ".spec.pool", ".spec.cluster", ".spec.clusterUid", ".spec.node"],
    },
):
    """A lease of one address of a pool, or of one of each family."""

    spec: IPClaimSpec
    status: IPClaimStatus = field(default_factory=lambda: IPClaimStatus.view({}))
