"""Who gets how much: capacity over nodes, and nodes over configs. Pure.

``spread`` gives every node the whole part of its share and the remainder, one each, to as many nodes as it takes. Which
nodes those are is chosen so that as few as possible change: a node that has the larger share keeps it, one that has the
smaller keeps that, and only among the rest does the name decide.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from fleetplane.model.objects import Object, is_deleting, labels, metadata
from fleetplane.operators.peerpods.kinds import MAX_LIMIT, VM_RESOURCE, WORKER_LABEL

DEFAULT_PER_NODE: Final = 1
"""What a node gets from a config that has no limit, as the original's second generation had it."""


class BadLimit(ValueError):
    """The message is for the person who wrote the limit."""


def parse_limit(text: str | None) -> int | None:
    """The number a limit stands for, ``None`` where there is none. Raises BadLimit."""
    if not text:
        return None
    if not (text.isascii() and text.isdigit()) or len(text) > 10 or int(text) > MAX_LIMIT:
        raise BadLimit(f"{text[:20]!r} is not a whole number from 0 to {MAX_LIMIT}, written in decimal digits")
    return int(text)


def spread(limit: int, existing: Mapping[str, int | None]) -> dict[str, int]:
    """Shares of ``limit`` by node: they sum to it, differ by at most one, and the fewest nodes change.

    ``existing`` names the nodes, with what each has now (``None``: nothing).
    """
    if not existing:
        return {}
    whole, rest = divmod(limit, len(existing))

    def preference(name: str) -> tuple[int, str]:
        has = existing[name]
        return (0 if has == whole + 1 else 2 if has == whole else 1), name

    larger = set(sorted(existing, key=preference)[:rest])
    return {name: whole + (name in larger) for name in existing}


def shares(limit: int | None, mode: str | None, existing: Mapping[str, int | None]) -> dict[str, int]:
    """What each node shall have."""
    if limit is None:
        return dict.fromkeys(existing, DEFAULT_PER_NODE)
    if mode == "PerNode":
        return dict.fromkeys(existing, limit)
    return spread(limit, existing)


@dataclass(frozen=True, slots=True)
class Node:
    """What the plan knows of a node. ``capacity`` is ``None`` where it has none of the resource."""

    name: str
    labels: Mapping[str, str] = field(default_factory=dict)
    capacity: int | None = None
    mirrored: bool = False
    """Allocatable has the resource."""

    @property
    def has_any(self) -> bool:
        return self.capacity is not None or self.mirrored

    @classmethod
    def of(cls, obj: Mapping[str, Any]) -> Node:
        status = obj.get("status") or {}
        text = (status.get("capacity") or {}).get(VM_RESOURCE)
        return cls(
            str(metadata(obj)["name"]),
            labels(obj),
            None if text is None else int(text) if str(text).isdigit() else -1,
            VM_RESOURCE in (status.get("allocatable") or {}),
        )


def selector_of(config: Mapping[str, Any]) -> Mapping[str, str]:
    """The labels a config asks for. An empty mapping means every node, an absent one the workers."""
    found = (config.get("spec") or {}).get("nodeSelector")
    return {WORKER_LABEL: ""} if found is None else found


def matches(selector: Mapping[str, str], node: Node) -> bool:
    return all(node.labels.get(key) == value for key, value in selector.items())


def seniority(config: Mapping[str, Any]) -> tuple[str, str]:
    """The order in which configs choose nodes: the older first, and the same always."""
    meta = metadata(config)
    return str(meta.get("creationTimestamp") or ""), str(meta.get("uid") or "")


def claims(configs: Sequence[Mapping[str, Any]], nodes: Sequence[Node]) -> dict[str, Mapping[str, Any]]:
    """The config each node belongs to: the oldest that selects it. Configs being deleted select nothing."""
    owners: dict[str, Mapping[str, Any]] = {}
    for config in sorted((one for one in configs if not is_deleting(one)), key=seniority):
        selector = selector_of(config)
        for node in nodes:
            if node.name not in owners and matches(selector, node):
                owners[node.name] = config
    return owners


@dataclass(frozen=True, slots=True)
class Plan:
    """What one config does.

    Attributes:
        shares: What its nodes shall have, in the order of their names.
        changes: What is to be written: a number, or ``None`` where the resource is taken off.
        lost: Nodes it selects that an older config has, with that config's key.
    """

    shares: Mapping[str, int]
    changes: Mapping[str, int | None]
    lost: Mapping[str, str]

    @property
    def total(self) -> int:
        return sum(self.shares.values())


def key_of(config: Mapping[str, Any]) -> str:
    meta = metadata(config)
    return f"{meta.get('namespace')}/{meta.get('name')}"


def ledger(config: Mapping[str, Any]) -> dict[str, int]:
    """Where the config has, or may have, put capacity."""
    nodes = (config.get("status") or {}).get("nodes") or ()
    return {str(one["name"]): int(one.get("capacity") or 0) for one in nodes}


def plan(config: Mapping[str, Any], configs: Sequence[Mapping[str, Any]], nodes: Sequence[Node]) -> Plan:
    """What ``config``, which is one of ``configs``, does about these nodes. Raises BadLimit."""
    spec = config.get("spec") or {}
    limit = parse_limit(spec.get("limit"))
    owners = claims(configs, nodes)
    own = str(metadata(config).get("uid"))
    selector = selector_of(config)
    known = ledger(config)
    mine = {node.name: node for node in nodes if node.name in owners and metadata(owners[node.name])["uid"] == own}
    wanted = shares(limit, spec.get("limitMode"), {name: node.capacity for name, node in mine.items()})
    changes: dict[str, int | None] = {name: share for name, share in wanted.items() if mine[name].capacity != share}
    for node in nodes:
        if node.name in known and node.name not in owners and node.has_any:
            changes[node.name] = None
    lost = {
        node.name: key_of(owners[node.name])
        for node in nodes
        if node.name in owners and node.name not in mine and matches(selector, node)
    }
    return Plan(dict(sorted(wanted.items())), changes, lost)


def left_behind(config: Mapping[str, Any], configs: Sequence[Mapping[str, Any]], nodes: Sequence[Node]) -> list[str]:
    """The nodes from which a config that is being deleted has yet to take its capacity.

    Nodes that another config now has are that one's affair. Nodes the config selects count even where its ledger was lost.
    """
    owners = claims(configs, nodes)
    known, selector = ledger(config), selector_of(config)
    mine = [one for one in nodes if one.name not in owners and (one.name in known or matches(selector, one))]
    return [one.name for one in mine if one.has_any]


def capacity_patch(share: int | None, resource_version: str) -> Object:
    """The merge patch of a node's status. The version keeps a patch that arrives late from undoing a newer one."""
    status: Object = {"capacity": {VM_RESOURCE: None if share is None else str(share)}}
    if share is None:  # the scheduler goes by what the node mirrors, and the node may take its time, or never come back
        status["allocatable"] = {VM_RESOURCE: None}
    return {"metadata": {"resourceVersion": resource_version}, "status": status}
